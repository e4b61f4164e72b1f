//! Making, starting, stopping and deleting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{Fail, escape};
use super::cluster::{Verdict, at};
use super::devices::devices;
use super::guard::GUARD;
use super::host::{Lock, SERVER, is_gated};
use super::record::{self, Record};
use super::restoring::is_half;
use super::seccomp::{self, DENY};
use super::{Inner, caches, ports};
use crate::backend::guest::{Ask, guarded, is_ruled};
use crate::sandbox::{
    Cancel, Capability, Error, GcReport, Info, Kind, Limits, Placement, Policy, Result, Spec,
    State, StopOptions,
};

/// How long a guest's network may take to come up.
pub(super) const NETWORK: Duration = Duration::from_secs(30);
/// A storage pool with less room than this is full.
const FULL: u64 = 256 << 20;
/// How long a sandbox may take to be made whose making nobody tells us about any more.
const LOST: Duration = Duration::from_secs(60);
/// How often something is tried that another's work on the same sandbox is in the way of.
const TRIES: u32 = 20;

/// How often the cluster is asked for a place when members that it counts on are gone.
const PLACES: u32 = 3;

/// The key that says what the first process is.
pub(super) const LOWLEVEL: &str = "raw.lxc";

/// Whether it may have interfaces that have addresses.
fn has_addresses(record: &Record) -> bool {
    record.egress != Policy::None && !record.gate
}

/// What is written into a guest before it starts for the first time.
pub(super) struct Before {
    /// Path and content.
    pub files: Vec<(&'static str, String)>,
}

impl Before {
    /// What the guest's first process does instead, and then becomes its init. Its words are parted by
    /// spaces and nothing else, so there are none in it.
    /// With `guard`, one that is in the guest goes before its init.
    fn by_init(&self, guard: bool) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/.-".contains(c);
        let mut script = String::new();
        for (path, content) in &self.files {
            let line = content.strip_suffix('\n')?;
            if !line.chars().all(plain) || !path.chars().all(plain) {
                return None;
            }
            script += &format!("echo${{IFS}}{line}>{path};");
        }
        if guard {
            script += &format!(
                "test${{IFS}}-e${{IFS}}{GUARD}&&exec${{IFS}}perl${{IFS}}{GUARD}${{IFS}}boot${{IFS}}/sbin/init;"
            );
        }
        (!script.is_empty())
            .then(|| format!("lxc.init.cmd = /bin/sh -c {script}exec${{IFS}}/sbin/init"))
    }

    /// What makes a clone a machine of its own before it starts.
    pub fn of(record: &Record) -> Before {
        let machine = format!("{}{}\n", record::token(), record::token());
        let hostname = format!("{}\n", record.hostname);
        Before { files: vec![("/etc/machine-id", machine), ("/etc/hostname", hostname)] }
    }
}

/// A sandbox that is to be made.
pub(super) struct Plan {
    pub name: String,
    pub record: Record,
    /// Where its disk comes from.
    pub source: Value,
    /// Further keys and devices, over those of the record.
    pub config: Map<String, Value>,
    pub devices: Map<String, Value>,
    pub before: Before,
    /// The user that must be there.
    pub user: Option<String>,
    /// The running sandbox that stands still while it is copied.
    pub still: Option<String>,
    pub bare: bool,
    /// Where in a cluster.
    pub target: Option<Placement>,
    /// Of a copy that goes to another member of a cluster, what must be told.
    pub architecture: Option<String>,
}

impl Inner {
    pub(super) fn check_limits(&self, limits: &Limits) -> Result<()> {
        let asked = [
            (limits.cpu.is_some(), Capability::LimitCpu),
            (limits.disk.is_some(), Capability::LimitDisk),
            (limits.inodes.is_some(), Capability::LimitInodes),
            (limits.memory.is_some(), Capability::LimitMemory),
            (limits.pids.is_some(), Capability::LimitPids),
        ];
        for (_, capability) in asked.into_iter().filter(|(asked, _)| *asked) {
            self.capabilities.require(capability)?;
        }
        limits.check()
    }

    pub(super) async fn create(self: &Arc<Self>, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.check_limits_on(&spec.limits, &spec.hardware)?;
        self.capabilities.require_machine(spec)?;
        self.capabilities.require_egress(&spec.egress)?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.check_target(spec.target.as_ref()).await?;
        if !spec.caches.is_empty() {
            self.capabilities.require(Capability::Caches)?;
        }
        for mount in &spec.mounts {
            self.capabilities.require(Capability::Mounts)?;
            if self.here && tokio::fs::metadata(&mount.source).await.is_err() {
                return Err(Error::not_found(Kind::File, mount.source.to_string_lossy()));
            }
        }
        let image = spec.image.as_ref().unwrap_or(&self.capabilities.default_image);
        let fingerprint = self.fingerprint(image).await?;
        let mut record = Record::new(spec, image.clone(), fingerprint.clone());
        record.gate = self.takes_gate(&record);
        super::devices::check(&record, &self.capabilities, self.here).await?;
        self.check_hardware(&record).await?;
        let mut before = Before { files: Vec::new() };
        if record.hostname != spec.name {
            before.files.push(("/etc/hostname", format!("{}\n", record.hostname)));
        }
        let plan = Plan {
            name: spec.name.clone(),
            record,
            source: json!({"type": "image", "fingerprint": fingerprint}),
            config: Map::new(),
            devices: Map::new(),
            before,
            user: spec.user.clone(),
            still: None,
            bare: spec.bare,
            target: spec.target.clone(),
            architecture: None,
        };
        self.make(plan, cancel).await
    }

    /// Makes a sandbox, and leaves nothing of it when that fails or is cancelled.
    pub(super) async fn make(self: &Arc<Self>, plan: Plan, cancel: &Cancel) -> Result<Info> {
        let inner = Arc::clone(self);
        guarded(cancel, move |cancel| async move { inner.build(plan, &cancel).await }).await
    }

    async fn build(&self, plan: Plan, cancel: &Cancel) -> Result<Info> {
        let mut config = plan.record.keys()?;
        for (key, value) in [
            ("security.guestapi", "false"),
            ("security.nesting", if plan.record.nesting { "true" } else { "false" }),
            ("security.privileged", "false"),
        ] {
            config.insert(key.into(), value.into());
        }
        if self.filters.load(Ordering::Relaxed) {
            config.insert(DENY.into(), seccomp::rules().into());
        }
        config.extend(self.pool.ids.clone());
        config.extend(plan.config.clone());
        if plan.source["type"] == "image" {
            // There is nothing that they would take away.
            config.retain(|_, value| value != "");
        }
        // Written through the server, these files would hold up the start by half of its time.
        let by_init =
            plan.before.by_init(self.by_guests()).filter(|_| self.lowlevel.load(Ordering::Relaxed));
        if let Some(by_init) = &by_init {
            config.insert(LOWLEVEL.into(), by_init.as_str().into());
        }
        let mut all = devices(&plan.record, &self.pool);
        if let Some(all) = all.as_object_mut() {
            all.extend(plan.devices.clone());
        }
        // Where caches go is looked at before.
        let mut at_once = !plan.bare
            && plan.record.caches.is_empty()
            && (plan.before.files.is_empty() || by_init.is_some());
        let mut body = json!({
            "name": plan.name, "type": "container", "profiles": [], "source": plan.source,
            "config": config, "devices": all, "start": at_once,
        });
        if let Some(architecture) = &plan.architecture {
            body["architecture"] = architecture.as_str().into();
        }
        let (name, token) = (plan.name.as_str(), plan.record.token.as_str());
        if !plan.bare {
            self.take_caches(name, &plan.record).await?;
        }
        let turn = plan.still.as_ref().map(|source| self.turns.of(source));
        let still = match &turn {
            Some(turn) => Some(turn.write().await),
            None => None,
        };
        let standing = match &plan.still {
            Some(source) => Some((source, self.stand_still(source).await?)),
            None => None,
        };
        let mut made = self.post(name, &body, plan.target.as_ref()).await;
        if let Err(Fail::Refused(_, text) | Fail::Failed(text, _)) = &made
            && text.contains(DENY)
            && body["config"].get(DENY).is_some()
        {
            // The project does not allow it: then without, from now on.
            self.filters.store(false, Ordering::Relaxed);
            // Not even without a value.
            body["config"].as_object_mut().map(|config| config.remove(DENY));
            made = self.post(name, &body, plan.target.as_ref()).await;
        }
        let mut files = by_init.is_none();
        if let Err(Fail::Refused(_, text) | Fail::Failed(text, _)) = &made
            && by_init.is_some()
            && text.contains(LOWLEVEL)
        {
            // The project does not allow it: then by the server, from now on.
            self.lowlevel.store(false, Ordering::Relaxed);
            body["config"].as_object_mut().map(|config| config.remove(LOWLEVEL));
            body["start"] = false.into();
            (at_once, files) = (false, true);
            made = self.post(name, &body, plan.target.as_ref()).await;
        }
        if let Err(Fail::Refused(_, text) | Fail::Failed(text, _)) = &made
            && text.contains("is forbidden")
            && let Some(config) = body["config"].as_object_mut()
        {
            // Then the source does not have them either.
            config.retain(|_, value| value != "");
            made = self.post(name, &body, plan.target.as_ref()).await;
        }
        if let Some((source, standing)) = standing {
            self.go_on(source, standing).await;
        }
        drop(still);
        if let Err(fail) = made {
            let error = match fail {
                Fail::Away(_) => fail.plain(&format!("making sandbox '{name}'")),
                fail => self.not_made(name, &plan.record, fail).await,
            };
            self.leave_caches(&plan.record).await;
            return Err(error);
        }
        let done = match cancel.is_cancelled() {
            true => Err(Error::Cancelled),
            false => {
                let files = if files { plan.before.files.as_slice() } else { &[] };
                self.first_start(&plan, files, at_once, cancel).await
            }
        };
        if done.is_err() {
            match self.discard(name, token).await {
                // It goes with the next gc, when its member is there again.
                Ok(()) | Err(Error::MemberAway { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        done
    }

    pub(super) async fn check_target(&self, target: Option<&Placement>) -> Result<()> {
        self.capabilities.require_target(target)?;
        match (&self.cluster, target) {
            (Some(cluster), Some(target)) => cluster.check(target).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Asks for an instance. Where the cluster wanted it on a member that is gone, and said so, it is asked
    /// again when the cluster has seen that: nothing was made then.
    async fn post(
        &self,
        name: &str,
        body: &Value,
        target: Option<&Placement>,
    ) -> std::result::Result<Value, Fail> {
        let path = at("/1.0/instances", target);
        let mut left = PLACES;
        loop {
            let fail = match self.client.run(Method::POST, &path, body).await {
                Ok(made) => return Ok(made),
                Err(fail) => fail,
            };
            let Some(cluster) = &self.cluster else { return Err(fail) };
            left -= 1;
            match cluster.verdict(name, &fail, target).await {
                Verdict::Away(member) => return Err(Fail::Away(member)),
                Verdict::Again if left > 0 => {}
                Verdict::Again | Verdict::Other => return Err(fail),
            }
        }
    }

    async fn first_start(
        &self,
        plan: &Plan,
        files: &[(&'static str, String)],
        started: bool,
        cancel: &Cancel,
    ) -> Result<Info> {
        let name = plan.name.as_str();
        for (path, content) in files {
            let place = format!("/1.0/instances/{name}/files?path={}", escape(path));
            let content = content.clone().into_bytes().into();
            if let Err(fail) = self.client.put_file(&place, "0644", content).await {
                let doing = format!("writing {path} of sandbox '{name}'");
                return Err(self.blame(name, fail, &doing).await);
            }
        }
        if !plan.bare {
            if !started {
                self.check_cache_targets(name, &plan.record).await?;
                // Until now it was being made, which may have taken long.
                self.take_caches(name, &plan.record).await?;
            }
            if !started && let Err(fail) = self.act(name, "start", 0, false).await {
                if let Some(why) = super::devices::blame(&plan.record, &self.pool, &fail) {
                    return Err(why);
                }
                return Err(self.blame(name, fail, &format!("starting sandbox '{name}'")).await);
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.settle(name, &plan.record).await?;
            self.set_disk(plan).await?;
            if let Some(user) = &plan.user {
                let user = user.as_str();
                self.ask_once(name, &["user", user]).await?;
            }
        }
        if plan.bare {
            self.set_disk(plan).await?;
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.info(name).await
    }

    /// Waits until a command has run, and makes the guest the machine that it is.
    pub(super) async fn settle(&self, name: &str, record: &Record) -> Result<()> {
        self.settle_by(name, record, None).await
    }

    /// The same, with the lock of whoever changes the sandbox's network.
    pub(super) async fn settle_by(
        &self,
        name: &str,
        record: &Record,
        lock: Option<&Lock>,
    ) -> Result<()> {
        self.agents.expect(name);
        tokio::try_join!(self.admit(name, record, lock), self.identify(name, record))?;
        self.plug_caches(name, record).await?;
        self.let_in(name, record).await?;
        match record.egress != Policy::None && !record.gate {
            true => self.await_network(name).await,
            false => Ok(()),
        }
    }

    /// Makes a guest the machine that it is, once a command can run.
    pub(super) async fn identify(&self, name: &str, record: &Record) -> Result<()> {
        let server = match record.gate && is_gated(record) {
            true => SERVER.to_string(),
            false => String::new(),
        };
        self.ask_once(name, &["identity", &record.hostname, &server]).await.map(drop)
    }

    /// Why a sandbox was not made. What there is of it goes.
    async fn not_made(&self, name: &str, record: &Record, fail: Fail) -> Error {
        let (doing, token) = (format!("making sandbox '{name}'"), record.token.as_str());
        let why = super::devices::blame(record, &self.pool, &fail);
        let explained = async |fail| match why {
            Some(why) => why,
            None => self.exhausted_in(self.pool_of(record), fail, &doing).await,
        };
        // Another client may be at it, and its instance not be there yet.
        let busy = matches!(fail, Fail::Failed(..)) && self.is_worked_on(name).await;
        if matches!(fail, Fail::Lost(_)) {
            // It may still be at it: what there is of it is there when it is done.
            let until = tokio::time::Instant::now() + LOST;
            while self.is_worked_on(name).await && tokio::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        match self.client.get(&format!("/1.0/instances/{name}")).await {
            Ok(instance) => match Record::read(&instance) {
                Some(record) if record.token == token => match self.discard(name, token).await {
                    Ok(()) => explained(fail).await,
                    Err(error) => error,
                },
                _ => Error::exists(Kind::Sandbox, name),
            },
            Err(_) if busy => {
                Error::Busy { name: name.to_owned(), what: "somebody else is making it".into() }
            }
            Err(_) => explained(fail).await,
        }
    }

    /// Whether an operation on an instance is under way.
    async fn is_worked_on(&self, name: &str) -> bool {
        self.has_operation(name, |_| true).await
    }

    /// Whether an instance is being made.
    pub(super) async fn is_being_made(&self, name: &str) -> bool {
        self.has_operation(name, |what| what == "Creating instance").await
    }

    async fn has_operation(&self, name: &str, wanted: fn(&str) -> bool) -> bool {
        let all = self.client.get("/1.0/operations?recursion=1").await.unwrap_or_default();
        let own = format!("/1.0/instances/{name}");
        let mut running = all["running"].as_array().into_iter().flatten();
        running.any(|operation| {
            let instances = operation["resources"]["instances"].as_array();
            let mut instances = instances.into_iter().flatten().filter_map(Value::as_str);
            wanted(operation["description"].as_str().unwrap_or_default())
                && instances.any(|path| path.split('?').next() == Some(own.as_str()))
        })
    }

    /// A failure of the server, or that its storage pool is full.
    pub(super) async fn exhausted(&self, fail: Fail, doing: &str) -> Error {
        self.exhausted_in(&self.pool.name, fail, doing).await
    }

    /// The pool that a sandbox's disk is on.
    pub(super) fn pool_of<'a>(&'a self, record: &'a Record) -> &'a str {
        record.hardware.pool.as_ref().unwrap_or(&self.pool.name)
    }

    /// The same of another pool.
    pub(super) async fn exhausted_in(&self, pool: &str, fail: Fail, doing: &str) -> Error {
        if matches!(fail, Fail::Failed(..) | Fail::Refused(500, _)) {
            let path = format!("/1.0/storage-pools/{}/resources", escape(pool));
            let space = self.client.get(&path).await.unwrap_or_default();
            let number = |value: &Value| value.as_u64();
            if let (Some(used), Some(total)) =
                (number(&space["space"]["used"]), number(&space["space"]["total"]))
                && total.saturating_sub(used) <= (total / 50).max(FULL)
            {
                return Error::Exhausted {
                    what: format!("{doing}: the storage pool '{pool}' is full"),
                    hint: "delete sandboxes that nobody needs (sandscript gc), or enlarge the pool"
                        .into(),
                };
            }
        }
        fail.plain(doing)
    }

    /// Deletes a half made sandbox, unless somebody else's has its name.
    async fn discard(&self, name: &str, token: &str) -> Result<()> {
        match self.instance(name).await {
            Ok((_, record)) if record.token == token => match self.delete(name).await {
                Err(Error::NotFound { .. }) => Ok(()),
                done => done,
            },
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes what an instance does.
    pub(super) async fn act(
        &self,
        name: &str,
        action: &str,
        timeout: i64,
        force: bool,
    ) -> std::result::Result<(), Fail> {
        let body = json!({"action": action, "timeout": timeout, "force": force, "stateful": false});
        self.client.run(Method::PUT, &format!("/1.0/instances/{name}/state"), &body).await.map(drop)
    }

    /// A sandbox with the addresses that it has.
    pub(super) async fn info(&self, name: &str) -> Result<Info> {
        let (mut instance, record) = self.instance(name).await?;
        if has_addresses(&record) && record::state(&instance) == State::Running {
            let path = format!("/1.0/instances/{name}/state");
            instance["state"] = self.client.get(&path).await.unwrap_or_default();
        }
        Ok(self.with_ports(record.info(&instance)).await)
    }

    pub(super) async fn list(&self) -> Result<Vec<Info>> {
        let read = async |recursion: u8| {
            let path = format!("/1.0/instances?recursion={recursion}");
            self.client.get(&path).await.map_err(|fail| fail.plain("listing sandboxes"))
        };
        let mut all = read(1).await?;
        let networked = |instance: &Value| {
            record::state(instance) == State::Running
                && Record::read(instance).is_some_and(|record| has_addresses(&record))
        };
        // Only the whole state has addresses, and it costs a look into each guest.
        if all.as_array().into_iter().flatten().any(networked) {
            all = read(2).await?;
        }
        let mut infos = Vec::new();
        for instance in all.as_array().into_iter().flatten() {
            let Some(record) = Record::read(instance) else { continue };
            let name = instance["name"].as_str().unwrap_or_default();
            match is_half(instance) {
                false => infos.push(self.with_ports(record.info(instance)).await),
                true => match self.info(name).await {
                    Err(Error::NotFound { .. }) => {}
                    info => infos.push(info?),
                },
            }
        }
        infos.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(infos)
    }

    pub(super) async fn start(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<()> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |_| async move {
            let name = name.as_str();
            for _ in 0..TRIES {
                let (instance, record) = inner.instance(name).await?;
                let action = match record::state(&instance) {
                    State::Running => return Ok(()),
                    State::Frozen => "unfreeze",
                    State::Error(why) => return Err(Error::internal(why)),
                    State::Stopped | State::Transitional(_) => "start",
                };
                // Nobody here could let it have what it is to have.
                inner.gate_of(&record)?;
                if action == "start" && !record.caches.is_empty() {
                    inner.take_caches(name, &record).await?;
                    inner.attach_caches(name, &instance, &record).await?;
                }
                if action == "start" && !ports::of(&instance).is_empty() {
                    inner.close_ports(name).await?;
                }
                match inner.act(name, action, 0, false).await {
                    Ok(()) if action == "start" => {
                        inner.forget(name);
                        return inner.settle(name, &record).await;
                    }
                    Ok(()) => return Ok(()),
                    Err(fail) => inner.again(name, fail, "starting").await?,
                }
            }
            Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
        })
        .await
    }

    /// Ok when what failed may be tried again, because something else was under way.
    async fn again(&self, name: &str, fail: Fail, doing: &str) -> Result<()> {
        let (instance, _) = self.instance(name).await?;
        match (record::state(&instance), &fail) {
            (State::Transitional(_), _)
            | (
                State::Running | State::Frozen | State::Stopped,
                Fail::Refused(400 | 409 | 423, _),
            ) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            }
            _ => Err(self.exhausted(fail, &format!("{doing} sandbox '{name}'")).await),
        }
    }

    pub(super) async fn stop(
        self: &Arc<Self>,
        name: &str,
        options: StopOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (instance, record) = self.instance(name).await?;
        let state = record::state(&instance);
        if state == State::Stopped {
            return Ok(());
        }
        let open = !ports::of(&instance).is_empty();
        let began = caches::now();
        if !options.force {
            if state == State::Frozen {
                // One that stands still can't end.
                let _ = self.act(name, "unfreeze", 0, false).await;
            }
            let seconds = options.grace.as_secs_f64().ceil().max(1.0) as i64;
            let ended = tokio::select! {
                ended = self.act(name, "stop", seconds, false) => ended.is_ok(),
                () = cancel.cancelled() => return Err(Error::Cancelled),
            };
            if ended {
                self.forget(name);
                self.leave_caches_stopped(name, &record, began).await;
                return if open { self.close_ports(name).await } else { Ok(()) };
            }
        }
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |_| async move {
            inner.halt(&name).await?;
            inner.leave_caches_stopped(&name, &record, began).await;
            if open { inner.close_ports(&name).await } else { Ok(()) }
        })
        .await
    }

    /// Stops a sandbox at once, whatever it does.
    pub(super) async fn halt(&self, name: &str) -> Result<Record> {
        self.forget(name);
        for _ in 0..TRIES {
            let (instance, record) = self.instance(name).await?;
            if record::state(&instance) == State::Stopped {
                return Ok(record);
            }
            match self.act(name, "stop", -1, true).await {
                Ok(()) => return Ok(record),
                Err(fail) => {
                    let (instance, _) = self.instance(name).await?;
                    if record::state(&instance) != State::Stopped {
                        self.again(name, fail, "stopping").await?;
                    }
                }
            }
        }
        Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        // While an agent is there, so is the sandbox that it was started in, and it runs.
        let known = self.agents.running(name).await;
        let mut record = known.and_then(|known| known.record.get().cloned());
        let known = record.is_some();
        self.forget(name);
        let mut stopped = known && self.act(name, "stop", -1, true).await.is_ok();
        for _ in 0..TRIES {
            if !std::mem::take(&mut stopped) {
                record = Some(self.halt(name).await?);
            }
            if let Ok(host) = &self.host {
                host.forget(name).await?;
            }
            let path = format!("/1.0/instances/{name}");
            match self.client.run(Method::DELETE, &path, &Value::Null).await {
                Ok(_) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.forget(name);
                    }
                    if let Some(record) = &record {
                        self.leave_caches(record).await;
                    }
                    // Another process may have enclosed it since its record was read.
                    let enclosed = record.filter(|record| {
                        record.fence
                            || self.fences.has(name)
                            || self.by_guests() && is_ruled(record)
                    });
                    if let Some(record) = enclosed {
                        self.open_up(name, &record).await;
                    }
                    return Ok(());
                }
                Err(fail) => match self.instance(name).await {
                    Err(error) => return Err(error),
                    Ok(_) if matches!(fail, Fail::Refused(401 | 403, _)) => {
                        return Err(fail.plain(&format!("deleting sandbox '{name}'")));
                    }
                    Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
        Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
    }

    pub(super) async fn gc(self: &Arc<Self>, dry_run: bool) -> Result<GcReport> {
        let now = crate::sandbox::wall_clock();
        let over = |end: Option<SystemTime>| end.is_some_and(|end| end <= now);
        let dead = |info: &Info| {
            over(info.expires) || info.owner.as_ref().is_some_and(|owner| over(owner.until))
        };
        let mut report = GcReport::default();
        for info in self.list().await?.into_iter().filter(dead) {
            if dry_run {
                report.sandboxes.push(info.name);
                continue;
            }
            match self.delete(&info.name).await {
                Ok(()) => report.sandboxes.push(info.name),
                // Somebody else was first, or it can't be reached now.
                Err(Error::NotFound { .. } | Error::MemberAway { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        report.leftovers += self.collect_snapshots(dry_run).await?;
        report.leftovers += self.collect_fences(dry_run).await?;
        if let Ok(host) = &self.host
            && !dry_run
        {
            let living = self.client.get("/1.0/instances").await;
            let living = living.map_err(|fail| fail.plain("listing sandboxes"))?;
            let paths = living.as_array().into_iter().flatten().filter_map(Value::as_str);
            let names: Vec<&str> =
                paths.filter_map(|path| path.split('?').next()?.rsplit('/').next()).collect();
            host.forget_others(&names).await?;
        }
        if self.cluster.is_some() {
            let (count, bytes) = self.collect_images(dry_run).await?;
            report.leftovers += count;
            report.bytes += bytes;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_writes_what_is_plain() {
        let before = |line: &str| Before { files: vec![("/etc/hostname", format!("{line}\n"))] };
        insta::assert_snapshot!(before("a-1.b").by_init(false).unwrap(), @"lxc.init.cmd = /bin/sh -c echo${IFS}a-1.b>/etc/hostname;exec${IFS}/sbin/init");
        for line in ["a b", "$(id)", "a;b", "ä", "a\nlxc.x = y", "a\"", "a'"] {
            assert_eq!(before(line).by_init(false), None, "{line}");
        }
        assert_eq!(Before { files: Vec::new() }.by_init(false), None);
        insta::assert_snapshot!(before("a").by_init(true).unwrap(), @"lxc.init.cmd = /bin/sh -c echo${IFS}a>/etc/hostname;test${IFS}-e${IFS}/etc/sandscript/guard&&exec${IFS}perl${IFS}/etc/sandscript/guard${IFS}boot${IFS}/sbin/init;exec${IFS}/sbin/init");
    }
}
