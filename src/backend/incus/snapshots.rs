//! Snapshots, restoring and cloning.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedRwLockWriteGuard;

use super::client::Fail;
use super::cluster::Ready;
use super::lifecycle::{Before, Plan};
use super::record::{self, EXPIRING, Record, snapshot_key, token, without_snapshots};
use super::{BACKEND, Inner, ports};
use crate::backend::guest::{Ask, Guests, Session, frame, guarded};
use crate::sandbox::{
    Cancel, Capability, CloneSpec, Error, Info, Kind, Limits, Placement, Policy, Restore, Result,
    Snapshot, SnapshotSpec, State,
};

/// How often something is tried that another's work on the same instance may be in the way of.
const PATIENT: u32 = 20;
/// How long what only a copy is made of stays, should its maker be killed.
const PASSING: Duration = Duration::from_secs(3600);

/// How processes were made to stand still.
pub(super) enum Standing {
    /// By the server.
    Frozen,
    /// By a signal, from inside; the session lets them go on.
    Stopped(Session),
}

/// A snapshot of an instance.
fn at(name: &str, label: &str) -> String {
    format!("/1.0/instances/{name}/snapshots/{label}")
}

impl Inner {
    pub(super) async fn snapshot_of(&self, name: &str, label: &str) -> Result<Value> {
        match self.client.get(&at(name, label)).await {
            Ok(found) => Ok(found),
            Err(fail) if fail.is_missing() => match self.instance(name).await {
                Ok(_) => Err(Error::not_found(Kind::Snapshot, label)),
                Err(error) => Err(error),
            },
            Err(fail) => Err(self.explain(name, fail, "looking at a snapshot").await),
        }
    }

    pub(super) async fn snapshot(
        self: &Arc<Self>,
        name: &str,
        spec: &SnapshotSpec,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        let (inner, name, spec) = (Arc::clone(self), name.to_owned(), spec.clone());
        guarded(cancel, move |_| async move { inner.take(&name, &spec).await }).await
    }

    async fn take(self: &Arc<Self>, name: &str, spec: &SnapshotSpec) -> Result<Snapshot> {
        let mut body = json!({"name": spec.label, "stateful": false});
        if let Some(expires) = spec.expires {
            let stamp = jiff::Timestamp::try_from(expires).map_err(|error| {
                Error::invalid("expires", format!("the server can't keep that time: {error}"))
            })?;
            body["expires_at"] = stamp.to_string().into();
        }
        let plain = spec.labels.is_empty() && spec.expires.is_none();
        let turn = self.turns.of(name);
        // Where a session is kept, it is ours and runs as far as we know: it is looked at while it comes to
        // a stand.
        if plain && self.sessions.has(name) && !self.capabilities.has(Capability::Freeze) {
            let still = Arc::clone(&turn).write_owned().await;
            let started = Instant::now();
            let (found, standing) = tokio::join!(self.instance(name), self.stand_still(name));
            let fits = |instance: &Value| {
                record::state(instance) == State::Running
                    && !instance["config"][snapshot_key(&spec.label)].is_string()
            };
            match (found, standing) {
                (Ok((instance, _)), Ok(standing)) if fits(&instance) => {
                    let taken = self.copy(name, spec, &body).await;
                    return self.taken(name, spec, taken, Some(standing), started, still).await;
                }
                (found, Ok(standing)) => {
                    self.go_on(name, standing).await;
                    found?;
                }
                (found, Err(_)) => drop(found?),
            }
        }
        let (instance, _) = self.instance(name).await?;
        // A snapshot has the configuration of its moment, and with it these labels.
        let key = snapshot_key(&spec.label);
        let mut config = Map::new();
        if !spec.labels.is_empty() || instance["config"][&key].is_string() {
            let labels = match spec.labels.is_empty() {
                true => String::new(),
                false => json!(spec.labels).to_string(),
            };
            config.insert(key, labels.into());
        }
        if spec.expires.is_some() {
            config.insert(EXPIRING.into(), "true".into());
        }
        if !config.is_empty() {
            self.set(name, json!({"config": config})).await?;
        }
        let still = Arc::clone(&turn).write_owned().await;
        let started = Instant::now();
        // Without this it is not of one moment, on btrfs either: what is not on disk yet comes late.
        let standing = match record::state(&instance) == State::Running {
            true => Some(self.stand_still(name).await?),
            false => None,
        };
        let taken = self.copy(name, spec, &body).await;
        self.taken(name, spec, taken, standing, started, still).await
    }

    /// Lets a guest go on, and says what was taken of it. The server is not asked for it again: it would count what
    /// the snapshot holds alone, which is nothing as yet.
    async fn taken(
        self: &Arc<Self>,
        name: &str,
        spec: &SnapshotSpec,
        taken: Result<Value>,
        standing: Option<Standing>,
        started: Instant,
        still: OwnedRwLockWriteGuard<()>,
    ) -> Result<Snapshot> {
        let frozen = match standing {
            Some(Standing::Stopped(mut session)) => {
                let told = session.send(&frame(["go"])).await.is_ok();
                let frozen = started.elapsed();
                // Who wants something of it meanwhile waits for its answer; the snapshot's taker need not.
                let (inner, name) = (Arc::clone(self), name.to_owned());
                tokio::spawn(async move {
                    if told {
                        inner.has_gone_on(&name, session).await;
                    }
                    drop(still);
                });
                frozen
            }
            Some(frozen) => {
                self.go_on(name, frozen).await;
                started.elapsed()
            }
            None => Duration::ZERO,
        };
        Ok(Snapshot {
            label: spec.label.clone(),
            created: record::time(&taken?["created_at"]).unwrap_or_else(crate::sandbox::wall_clock),
            size: 0,
            frozen,
            labels: spec.labels.clone(),
            expires: spec.expires,
        })
    }

    /// Lets a running guest's processes stand still for a moment.
    pub(super) async fn stand_still(&self, name: &str) -> Result<Standing> {
        // The freezer of cgroups v1 never comes to its end with a process that waits in vfork.
        if self.capabilities.has(Capability::Freeze) {
            return match self.act(name, "freeze", 0, false).await {
                Ok(()) => Ok(Standing::Frozen),
                Err(fail) => Err(self.explain(name, fail, "copying").await),
            };
        }
        let session = self.session(name, false).await?;
        match self.ask_in(name, session, &["still"]).await {
            // A kept session's guest may have been restarted.
            Err(Error::Transport { .. }) => {
                let session = self.session(name, true).await?;
                Ok(Standing::Stopped(self.ask_in(name, session, &["still"]).await?))
            }
            done => done.map(Standing::Stopped),
        }
    }

    /// Lets them go on.
    pub(super) async fn go_on(&self, name: &str, standing: Standing) {
        match standing {
            Standing::Frozen => self.thaw_again(name).await,
            Standing::Stopped(mut session) => {
                // They go on when the session ends, too.
                if session.send(&frame(["go"])).await.is_ok() {
                    self.has_gone_on(name, session).await;
                }
            }
        }
    }

    /// Keeps a session whose guest has gone on.
    async fn has_gone_on(&self, name: &str, mut session: Session) {
        if session.answer().await.is_ok() {
            self.sessions.keep(name, session);
        }
    }

    async fn thaw_again(&self, name: &str) {
        for _ in 0..PATIENT {
            match self.act(name, "unfreeze", 0, false).await {
                Ok(()) => return,
                // It may be gone, or somebody else has thawed it.
                Err(_) => match self.instance(name).await {
                    Ok((instance, _)) if record::state(&instance) == State::Frozen => {}
                    _ => return,
                },
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn copy(&self, name: &str, spec: &SnapshotSpec, body: &Value) -> Result<Value> {
        let path = format!("/1.0/instances/{name}/snapshots");
        let mut tries = 0;
        loop {
            let fail = match self.client.run(Method::POST, &path, body).await {
                Ok(operation) => return Ok(operation),
                Err(Fail::Lost(why)) => {
                    let fail = Fail::Lost(format!("{why}; it may have been taken"));
                    let doing = format!("taking snapshot '{}' of sandbox '{name}'", spec.label);
                    return Err(self.blame(name, fail, &doing).await);
                }
                Err(fail) => fail,
            };
            if self.client.get(&at(name, &spec.label)).await.is_ok() {
                return Err(Error::exists(Kind::Snapshot, &spec.label));
            }
            tries += 1;
            // The server does one thing at a time with an instance, and does not wait for its turn.
            if tries == PATIENT || !matches!(fail, Fail::Failed(..)) {
                return Err(self.explain(name, fail, "taking a snapshot").await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Changes some of an instance's settings.
    async fn set(&self, name: &str, change: Value) -> Result<()> {
        let path = format!("/1.0/instances/{name}");
        match self.client.run(Method::PATCH, &path, &change).await {
            Ok(_) => Ok(()),
            Err(fail) => Err(self.explain(name, fail, "changing settings").await),
        }
    }

    pub(super) async fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        self.instance(name).await?;
        let path = format!("/1.0/instances/{name}/snapshots?recursion=1");
        match self.client.get(&path).await {
            Ok(all) => Ok(sorted(&all)),
            Err(fail) => Err(self.explain(name, fail, "listing snapshots").await),
        }
    }

    pub(super) async fn find_snapshots(&self, prefix: &str) -> Result<Vec<(String, Snapshot)>> {
        let all = self.client.get("/1.0/instances?recursion=2").await;
        let all = all.map_err(|fail| fail.plain("looking for snapshots"))?;
        let mut found = Vec::new();
        for instance in all.as_array().into_iter().flatten() {
            let Some(name) = instance["name"].as_str().filter(|_| Record::read(instance).is_some())
            else {
                continue;
            };
            let fits = |snapshot: &Snapshot| snapshot.label.starts_with(prefix);
            let snapshots = sorted(&instance["snapshots"]).into_iter().filter(fits);
            found.extend(snapshots.map(|snapshot| (name.to_owned(), snapshot)));
        }
        Ok(found)
    }

    /// Deletes snapshots whose time is over, which the server itself does every minute; how many.
    pub(super) async fn collect_snapshots(&self, dry_run: bool) -> Result<usize> {
        let all = self.client.get("/1.0/instances?recursion=1").await;
        let all = all.map_err(|fail| fail.plain("listing sandboxes"))?;
        let mut count = 0;
        for instance in all.as_array().into_iter().flatten() {
            let Some(name) = instance["name"].as_str() else { continue };
            if instance["config"][EXPIRING] != "true" || Record::read(instance).is_none() {
                continue;
            }
            let snapshots = match self.snapshots(name).await {
                Ok(snapshots) => snapshots,
                Err(Error::NotFound { .. } | Error::MemberAway { .. }) => continue,
                Err(error) => return Err(error),
            };
            let now = crate::sandbox::wall_clock();
            let over = |one: &&Snapshot| one.expires.is_some_and(|end| end <= now);
            for snapshot in snapshots.iter().filter(over) {
                if dry_run {
                    count += 1;
                    continue;
                }
                match self.delete_snapshot(name, &snapshot.label).await {
                    Ok(()) => count += 1,
                    // The server was first.
                    Err(Error::NotFound { .. } | Error::MemberAway { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }

    pub(super) async fn delete_snapshot(&self, name: &str, label: &str) -> Result<()> {
        self.snapshot_of(name, label).await?;
        match self.client.run(Method::DELETE, &at(name, label), &Value::Null).await {
            Ok(_) => Ok(()),
            Err(fail) => {
                self.snapshot_of(name, label).await?;
                Err(self.explain(name, fail, "deleting a snapshot").await)
            }
        }
    }

    pub(super) async fn restore(
        self: &Arc<Self>,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        self.instance(name).await?;
        let wanted = self.snapshot_of(name, label).await?;
        // What it may reach stays what it is now, whoever wants to change it meanwhile.
        let lock = self.changing(name).await?;
        let (mut instance, record) = self.instance(name).await?;
        // Its ports end with it.
        ports::take(&mut instance);
        self.gate_of(&record)?;
        let driver = self.driver(&record.hardware).await?;
        if super::capabilities::goes_back_to_newest(&driver) {
            self.make_newest(name, &wanted, options).await?;
        }
        let (inner, name) = (Arc::clone(self), name.to_owned());
        let label = label.to_owned();
        guarded(cancel, move |_| async move {
            let state = record::state(&instance);
            // Restored while it runs, it would be started with the devices that it had in the snapshot.
            if state == State::Frozen {
                let _ = inner.act(&name, "unfreeze", 0, false).await;
            }
            if state != State::Stopped {
                inner.halt(&name).await?;
            }
            inner.forget(&name);
            let back = inner.go_back(&name, &label, &instance).await;
            if back.is_ok() && record.limits.disk.is_some() && driver == "btrfs" {
                inner.renew_disk(&name, &instance["devices"]["root"]).await?;
            }
            // Its guard may hold what the snapshot's did.
            inner.unplug(&name, &record).await?;
            if state != State::Stopped {
                // As it was, when there was no way back.
                inner.take_caches(&name, &record).await?;
                let started = inner.act(&name, "start", 0, false).await;
                let settled = match started {
                    Ok(()) => inner.settle_by(&name, &record, lock.as_ref()).await,
                    Err(fail) => Err(fail.plain(&format!("starting sandbox '{name}'"))),
                };
                return back.and(settled);
            }
            back
        })
        .await
    }

    /// ZFS goes back to the newest snapshot only.
    async fn make_newest(&self, name: &str, wanted: &Value, options: Restore) -> Result<()> {
        let label = record::snapshot(wanted).label;
        let all = self.snapshots(name).await?;
        let newer = all.iter().rev().take_while(|snapshot| snapshot.label != label);
        let newer: Vec<&str> = newer.map(|snapshot| snapshot.label.as_str()).collect();
        if !newer.is_empty() && !options.discard_newer {
            return Err(Error::unsupported(
                format!("restoring '{label}' without losing {}", newer.join(", ")),
                BACKEND,
                "clone the snapshot instead, or allow that newer ones go: discard_newer",
            ));
        }
        for label in newer {
            self.delete_snapshot(name, label).await?;
        }
        Ok(())
    }

    /// The disk of a stopped sandbox, and nothing else.
    async fn go_back(&self, name: &str, label: &str, before: &Value) -> Result<()> {
        let path = format!("/1.0/instances/{name}");
        self.keep_settings(name, before).await?;
        let mut tries = 0;
        while let Err(fail) = self.client.run(Method::PUT, &path, &json!({"restore": label})).await
        {
            self.snapshot_of(name, label).await?;
            tries += 1;
            // What was killed may hold the old files for a moment.
            if tries == PATIENT || !matches!(fail, Fail::Failed(..)) {
                if !matches!(fail, Fail::Lost(_)) {
                    self.forget_settings(name).await;
                }
                return Err(self.exhausted(fail, &format!("restoring sandbox '{name}'")).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The snapshot's settings came back with its files; those of the sandbox hold.
        self.take_settings_back(name, before).await
    }

    pub(super) async fn clone_box(
        self: &Arc<Self>,
        name: &str,
        spec: &CloneSpec,
        cancel: &Cancel,
    ) -> Result<Info> {
        spec.check()?;
        let limits = spec.limits.clone().unwrap_or_default();
        self.check_limits(&Limits { disk: None, ..limits.clone() })?;
        self.capabilities.require_egress(spec.egress.as_ref().unwrap_or(&Policy::None))?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.check_target(spec.target.as_ref()).await?;
        if !spec.caches.is_empty() {
            self.capabilities.require(Capability::Caches)?;
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if spec.name == name {
            return Err(Error::exists(Kind::Sandbox, name));
        }
        if let Some(ready) = self.ready(name, spec) {
            let mut record = ready.record.of_clone(name, spec);
            record.gate = self.takes_gate(&record);
            super::devices::check(&record, &self.capabilities, self.here).await?;
            self.check_limits_on(&limits, &record.hardware)?;
            self.check_hardware(&record).await?;
            let plan = Plan {
                name: spec.name.clone(),
                before: Before::of(&record),
                record,
                source: json!({"type": "image", "fingerprint": ready.fingerprint}),
                config: Map::new(),
                devices: Map::new(),
                user: None,
                still: None,
                bare: spec.bare,
                target: spec.target.clone(),
                architecture: None,
            };
            return self.make(plan, cancel).await;
        }
        let snapshot = async {
            match &spec.label {
                Some(label) => self.snapshot_of(name, label).await,
                None => Ok(Value::Null),
            }
        };
        let (found, snapshot) = tokio::join!(self.instance(name), snapshot);
        let (instance, source) = found?;
        let snapshot = snapshot?;
        let target = self.beside(&instance, spec.target.as_ref()).await?;
        // Where it goes to another member a running one can't be copied: a snapshot can.
        let moves = target.as_ref().is_some_and(|target| !is_at(&instance, target));
        let running = record::state(&instance) == State::Running;
        let passing = (moves && running && spec.label.is_none()).then(|| format!("p-{}", token()));
        let from = match spec.label.as_ref().or(passing.as_ref()) {
            None => name.to_owned(),
            Some(label) => format!("{name}/{label}"),
        };
        let mut record = source.of_clone(name, spec);
        record.gate = self.takes_gate(&record);
        super::devices::check(&record, &self.capabilities, self.here).await?;
        self.check_limits_on(&limits, &record.hardware)?;
        self.check_hardware(&record).await?;
        self.capabilities.require_egress(&record.egress)?;
        if let Some(label) = &passing {
            // Should this program be killed, it goes by itself.
            let expires = crate::sandbox::wall_clock().checked_add(PASSING);
            let spec = SnapshotSpec { expires, ..SnapshotSpec::new(label) };
            self.snapshot(name, &spec, cancel).await?;
        }
        // Devices that the clone does not have are masked: those of the source are taken over.
        let mut devices = Map::new();
        let ours = super::devices::devices(&record, &self.pool);
        if record.limits.disk.is_some() && record.limits.disk == source.limits.disk {
            // Its size is what the source has, and what it may write over that.
            devices.insert("root".into(), instance["devices"]["root"].clone());
        }
        // A snapshot has those of its moment, such as an interface that the policy no longer allows.
        let named = |of: &Value| -> Vec<String> {
            of["devices"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        for device in named(&instance).iter().chain(&named(&snapshot)) {
            if ours.get(device).is_none() {
                devices.insert(device.clone(), json!({"type": "none"}));
            }
        }
        let plan = Plan {
            name: spec.name.clone(),
            before: Before::of(&record),
            record,
            source: json!({"type": "copy", "source": from, "instance_only": true}),
            config: without_snapshots(&instance),
            devices,
            user: None,
            still: (spec.label.is_none() && passing.is_none() && running).then(|| name.to_owned()),
            bare: spec.bare,
            architecture: instance["architecture"].as_str().filter(|_| moves).map(str::to_owned),
            target,
        };
        let made = self.make(plan, cancel).await;
        if let Some(label) = &passing {
            let (inner, name, label) = (Arc::clone(self), name.to_owned(), label.clone());
            let gone = tokio::spawn(async move { inner.delete_snapshot(&name, &label).await });
            let _ = gone.await;
        }
        match made {
            Err(error @ Error::Internal { .. }) => {
                // The source may have gone meanwhile.
                match &spec.label {
                    Some(label) => self.snapshot_of(name, label).await.map(drop)?,
                    None => self.instance(name).await.map(drop)?,
                }
                Err(error)
            }
            done => done,
        }
    }
}

impl Inner {
    /// What a snapshot was made ready as, for a clone that may be anywhere.
    fn ready(&self, name: &str, spec: &CloneSpec) -> Option<Ready> {
        let (cluster, label) = (self.cluster.as_ref()?, spec.label.as_ref()?);
        let ready = cluster.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ready.get(&(name.to_owned(), label.clone()))?;
        spec.spread.then(|| found.clone())
    }

    /// Where a clone goes: to its source, whose disk it shares, unless it may not be there.
    async fn beside(
        &self,
        instance: &Value,
        target: Option<&Placement>,
    ) -> Result<Option<Placement>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let place = instance["location"].as_str().unwrap_or_default();
        let roster = match target {
            Some(target) => cluster.check(target).await?,
            None => cluster.roster().await?,
        };
        let here = roster.iter().find(|member| member.name == place);
        Ok(match here.is_some_and(|member| member.fits(target)) {
            true => Some(Placement::Member(place.to_owned())),
            // Its member gets no new ones, or another one is wanted: the server copies all of it.
            false => target.cloned(),
        })
    }
}

/// Whether an instance is where a target says.
fn is_at(instance: &Value, target: &Placement) -> bool {
    matches!(target, Placement::Member(name) if instance["location"] == name.as_str())
}

fn sorted(all: &Value) -> Vec<Snapshot> {
    let mut all: Vec<Snapshot> =
        all.as_array().into_iter().flatten().map(record::snapshot).collect();
    all.sort_by_key(|snapshot| snapshot.created);
    for snapshot in &mut all {
        snapshot.frozen = Duration::ZERO;
    }
    all
}
