//! Making, starting, stopping and deleting.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::guest::{Ask, Record, guarded};
use serde_json::json;

use super::api::{Api, doing};
use super::guard::closes_first;
use super::row::{Found, Row};
use super::{Inner, Ways};
use crate::sandbox::{
    Cancel, Capability, Error, GcReport, Info, Kind, Limits, Policy, Result, Spec, State,
    StopOptions,
};
use crate::transport::jsonrpc::RpcError;

/// How long a guest's network may take to come up, or to go.
const NETWORK: Duration = Duration::from_secs(60);
/// How often something is tried that another's work on the same sandbox is in the way of.
pub(super) const TRIES: u32 = 6;

/// The error number of a dataset that has snapshots.
const NOT_EMPTY: i64 = 39;

/// The pause before the next try.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(20 << (2 * tries).min(6))
}

impl Inner {
    pub(super) fn check_limits(&self, limits: &Limits) -> Result<()> {
        let whole = limits.cpu.is_some_and(|cpu| cpu.fract() != 0.0) || self.api == Api::Container;
        let asked = [
            (limits.cpu.is_some() && whole, Capability::LimitCpu),
            (limits.disk.is_some(), Capability::LimitDisk),
            (limits.inodes.is_some(), Capability::LimitInodes),
            (limits.memory.is_some(), Capability::LimitMemory),
            (limits.pids.is_some(), Capability::LimitPids),
        ];
        for (_, capability) in asked.into_iter().filter(|(asked, _)| *asked) {
            self.capabilities.require(capability)?;
        }
        limits.check()?;
        match limits.memory {
            Some(memory) if memory < 32 << 20 => Err(Error::invalid_hint(
                "memory",
                format!("{memory} bytes are too few for a NAS"),
                "use \"32MiB\" or more",
            )),
            _ => Ok(()),
        }
    }

    pub(super) async fn create(self: &Arc<Self>, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.check_limits(&spec.limits)?;
        self.check_hardware(spec)?;
        self.capabilities.require_egress(&spec.egress)?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        if !spec.caches.is_empty() {
            self.capabilities.require(Capability::Caches)?;
        }
        self.check_mounts(&spec.mounts)?;
        let image = spec.image.as_ref().unwrap_or(&self.capabilities.default_image);
        let (fingerprint, nic) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            found = async {
                let (found, nic, (), ()) = tokio::try_join!(
                    self.fingerprint(image),
                    self.nic(),
                    self.look_at_mounts(&spec.mounts),
                    async {
                        self.client.expect_jobs().await;
                        Ok(())
                    }
                )?;
                self.check_address(&spec.hardware, nic.as_ref()).await?;
                Ok::<_, Error>((found, nic))
            } => found?,
        };
        let mut record = Record::new(spec, image.clone(), fingerprint);
        record.created = Some(crate::sandbox::wall_clock());
        let (inner, name) = (Arc::clone(self), spec.name.clone());
        let spec = spec.clone();
        guarded(cancel, move |cancel| async move {
            if closes_first(&record, spec.bare) {
                inner.open_host();
            }
            let made = match inner.api_create(&name, &record, nic.as_ref()).await {
                // The server did somebody else's call of the same name in place of this one.
                Ok(Some(row)) if row.record.token != record.token => {
                    return Err(Error::exists(Kind::Sandbox, &name));
                }
                Ok(made) => made,
                Err(error) => return Err(inner.not_made(&name, &record, error).await),
            };
            let done = async {
                let row = match made {
                    Some(row) => row,
                    None => inner.row(&name).await?,
                };
                inner.fit(&row).await?;
                inner.first_start(row, &spec, &cancel).await
            };
            let done = done.await;
            if done.is_err() {
                inner.discard(&name, &record.token).await?;
            }
            done
        })
        .await
    }

    async fn first_start(self: &Arc<Self>, row: Row, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        let (name, bare) = (row.name.as_str(), spec.bare);
        let over = || if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) };
        over()?;
        self.close_first(&row, bare).await?;
        over()?;
        if !bare {
            let settling = self.lines.settle(name);
            self.boot(&row, &format!("starting sandbox '{name}'")).await?;
            over()?;
            match self.settle(name, &row.record).await {
                Err(Error::NotRunning { .. }) => {
                    return Err(Error::internal(format!(
                        "sandbox '{name}' stopped while it booted for the first time; many at once may take all inotify \
                         instances of the NAS (sysctl fs.inotify.max_user_instances)"
                    )));
                }
                done => done?,
            }
            self.set_up(name, &spec.setup, cancel).await?;
            if let Some(user) = &spec.user {
                self.ask_once(name, &["user", user]).await?;
            }
            over()?;
            drop(settling);
            if self.ways == Ways::Ssh {
                self.record(name).await?;
            }
        }
        self.as_made(row, bare).await
    }

    /// One that was just made, and was started unless it is bare.
    pub(super) async fn as_made(&self, mut row: Row, bare: bool) -> Result<Info> {
        row.addresses.clear();
        if bare {
            row.state = State::Stopped;
        } else {
            row.state = State::Running;
            if row.record.egress != Policy::None {
                match self.api {
                    Api::Virt => return self.info(&row.name).await,
                    Api::Container => row.addresses = self.addresses(&row.name).await?,
                }
            }
        }
        Ok(row.info())
    }

    /// The addresses that a guest says it has.
    async fn addresses(&self, name: &str) -> Result<Vec<String>> {
        let fields = self.ask_once(name, &["addresses"]).await?;
        Ok(fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect())
    }

    /// A sandbox, with its addresses: 26 does not know them, and the guest is asked.
    pub(super) async fn info(&self, name: &str) -> Result<Info> {
        let mut row = self.row(name).await?;
        let networked = row.record.egress != Policy::None && row.state == State::Running;
        if self.api == Api::Container && networked && self.unknown.is_none() {
            row.addresses = self.addresses(name).await?;
        }
        let exec = self.way(name, &row.state, &row.record).await;
        let mut info = row.info();
        info.exec = exec;
        Ok(info)
    }

    /// Waits until a command has run, and makes the guest the machine that it is.
    pub(super) async fn settle(&self, name: &str, record: &Record) -> Result<()> {
        let _settling = self.lines.settle(name);
        let pairs = record.env.iter().flat_map(|(name, value)| [name.as_str(), value]);
        let request: Vec<&str> =
            ["identity", &record.hostname, ""].into_iter().chain(pairs).collect();
        self.insist(name, &request, None).await?;
        self.address(name, &record.hardware).await?;
        self.enforce(name, record).await
    }

    /// Opens or closes a running guest's network, now and for each time that it starts.
    pub(super) async fn enforce(&self, name: &str, record: &Record) -> Result<()> {
        // Its network may go, and SSH with it.
        let _settling = self.lines.settle(name);
        self.sessions.end(name);
        let seconds = NETWORK.as_secs().to_string();
        if record.egress != Policy::None {
            self.guard(name, record).await?;
        }
        let (verb, wanted) = match record.egress {
            Policy::None => ("offline", "down"),
            _ => ("online", "up"),
        };
        let fields = self.insist(name, &[verb, &seconds], None).await?;
        match fields.first().is_some_and(|is| is == wanted.as_bytes()) {
            true => Ok(()),
            false => Err(Error::Timeout {
                what: format!("the network of sandbox '{name}'"),
                after: NETWORK,
            }),
        }
    }

    /// Why a sandbox was not made. What there is of it goes.
    async fn not_made(self: &Arc<Self>, name: &str, record: &Record, error: RpcError) -> Error {
        let about = |argument: &str| {
            error.refusal().is_some_and(|refusal| {
                ["virt_instance_create", "container_create"]
                    .iter()
                    .any(|of| refusal.about(&format!("{of}.{argument}")).is_some())
            })
        };
        if about("image.name") || about("image.version") {
            return Error::not_found(Kind::Image, &record.image);
        }
        if let Some(error) = self.no_pool().await {
            return error;
        }
        let found = self.find(name).await;
        match found {
            Ok(Found::Ours(row)) if row.record.token == record.token => {
                match self.discard(name, &record.token).await {
                    Ok(()) => doing(error, &format!("making sandbox '{name}'")),
                    Err(error) => error,
                }
            }
            Ok(Found::Ours(_) | Found::Foreign) => Error::exists(Kind::Sandbox, name),
            // Its name is taken, but it is not there any more, or not yet.
            _ if about("name") => {
                Error::Busy { name: name.to_owned(), what: "somebody else is making it".into() }
            }
            _ => doing(error, &format!("making sandbox '{name}'")),
        }
    }

    /// What is said where the NAS has no pool for containers, or that is not ready.
    async fn no_pool(&self) -> Option<Error> {
        let (method, place) = match self.api {
            Api::Virt => ("virt.global.config", "Instances > Configuration > Global Settings"),
            Api::Container => ("lxc.config", "Containers > Settings"),
        };
        let config = self.client.read(method, json!([])).await.ok()?;
        let ready = match self.api {
            Api::Virt => config["state"] == "INITIALIZED",
            Api::Container => self.pool.is_some() || config["preferred_pool"].is_string(),
        };
        let hint = format!("choose one there: {place}; 'sandscript doctor' says more");
        (!ready).then(|| {
            Error::unsupported("a NAS without a pool for containers", super::BACKEND, hint)
        })
    }

    /// Deletes a half made sandbox, unless somebody else's has its name.
    async fn discard(self: &Arc<Self>, name: &str, token: &str) -> Result<()> {
        match self.find(name).await? {
            Found::Ours(row) if row.record.token == token => match self.delete(name).await {
                Err(Error::NotFound { .. }) => Ok(()),
                done => done,
            },
            _ => Ok(()),
        }
    }

    pub(super) async fn start(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<()> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |_| async move {
            let name = name.as_str();
            for tries in 0..TRIES {
                let row = inner.row(name).await?;
                match row.state {
                    State::Running => return Ok(()),
                    State::Error(why) => return Err(Error::internal(why)),
                    State::Frozen => {
                        return Err(Error::Busy {
                            name: name.to_owned(),
                            what: "its processes are frozen".into(),
                        });
                    }
                    State::Stopped | State::Transitional(_) => {}
                }
                match inner.api_start(&row).await {
                    Ok(()) => {
                        inner.forget(name);
                        return inner.settle(name, &row.record).await;
                    }
                    Err(error) => inner.again(name, error, "starting", tries).await?,
                }
            }
            Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
        })
        .await
    }

    /// Ok when what failed may be tried again, a moment later.
    async fn again(&self, name: &str, error: RpcError, verb: &str, tries: u32) -> Result<()> {
        self.row(name).await?;
        let may = match &error {
            RpcError::Refused(refusal) => !refusal.is_denied() && !refusal.is_no_method(),
            error => error.is_unsure(),
        };
        if !may || tries + 1 == TRIES {
            return Err(doing(error, &format!("{verb} sandbox '{name}'")));
        }
        tokio::time::sleep(pause(tries)).await;
        Ok(())
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
        let row = self.row(name).await?;
        if row.state == State::Stopped {
            return Ok(());
        }
        if !options.force && row.state == State::Running {
            let seconds = options.grace.as_secs_f64().ceil().max(1.0) as u64;
            let stopping = async {
                if self.api == Api::Container {
                    let _alone = self.alone(&row).await;
                    let now = self.row(name).await?;
                    let said = self.api_grace(&now, seconds).await;
                    said.map_err(|error| doing(error, &format!("stopping sandbox '{name}'")))?;
                }
                let _ = self.api_stop(&row, Some(seconds)).await;
                Ok::<_, Error>(())
            };
            tokio::select! {
                done = stopping => done?,
                () = cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |_| async move { inner.halt(&name).await }).await
    }

    /// Stops a sandbox at once, whatever it does.
    pub(super) async fn halt(&self, name: &str) -> Result<()> {
        for tries in 0..TRIES {
            let row = self.row(name).await?;
            if row.state == State::Stopped {
                self.forget(name);
                return Ok(());
            }
            match self.api_stop(&row, None).await {
                Ok(()) => {
                    self.forget(name);
                    return Ok(());
                }
                Err(error) => self.again(name, error, "stopping", tries).await?,
            }
        }
        Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
    }

    /// Whether it is one of 26's betas.
    async fn is_early(&self) -> Result<bool> {
        if self.api == Api::Virt {
            return Ok(false);
        }
        let early = self.early.get_or_try_init(async || {
            let version = self.client.read("system.version_short", json!([])).await;
            let version = version.map_err(|error| doing(error, "asking for the NAS's release"))?;
            Ok::<_, Error>(version.as_str().is_some_and(|version| version.contains("BETA")))
        });
        early.await.copied()
    }

    pub(super) async fn delete(self: &Arc<Self>, name: &str) -> Result<()> {
        for tries in 0..TRIES {
            let row = self.row(name).await?;
            self.forget(name);
            // A beta would leave the files behind.
            if self.is_early().await? && self.has_snapshots(&row).await? {
                self.zfs_free(&row).await?;
            }
            #[cfg(feature = "ssh")]
            self.forget_keys(name, &row.record.token);
            match self.api_delete(&row).await {
                Ok(()) => return Ok(()),
                Err(RpcError::Refused(refusal)) if refusal.is(NOT_EMPTY) => {
                    self.zfs_free(&row).await?;
                }
                Err(error) => match self.again(name, error, "deleting", tries).await {
                    // It went after all.
                    Err(Error::NotFound { .. }) => return Ok(()),
                    done => done?,
                },
            }
        }
        Err(Error::Busy { name: name.to_owned(), what: "somebody else works on it".into() })
    }

    async fn has_snapshots(&self, row: &Row) -> Result<bool> {
        let params = json!([[["dataset", "=", row.dataset]], {"select": ["name"]}]);
        let all = self.client.read("pool.snapshot.query", params).await;
        let all = all.map_err(|error| doing(error, "looking for snapshots"))?;
        Ok(all.as_array().is_some_and(|all| !all.is_empty()))
    }

    /// Changes what is known of a sandbox.
    pub(super) async fn change(&self, name: &str, change: impl FnOnce(&mut Record)) -> Result<Row> {
        let mut row = self.row(name).await?;
        change(&mut row.record);
        self.api_record(&row, &row.record).await?;
        Ok(row)
    }

    /// Changes a policy: first what is in force, then what is written down; all of it or nothing.
    pub(super) async fn change_policy(
        self: &Arc<Self>,
        name: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
    ) -> Result<()> {
        let turn = self.changes.of(name);
        let _turn = turn.write().await;
        let alone = self.alone(&self.row(name).await?).await;
        let mut row = self.row(name).await?;
        let before = row.record.clone();
        let mut policy = before.egress.clone();
        change(&mut policy)?;
        self.capabilities.require_egress(&policy)?;
        if before.egress == policy {
            return Ok(());
        }
        if row.state != State::Running && policy == Policy::None {
            // It would be open for a moment when it starts.
            return Err(Error::unsupported(
                "closing a sandbox that is not running",
                super::BACKEND,
                format!("start it first: sandscript start {name}"),
            ));
        }
        row.record.egress = policy.clone();
        let running = row.state == State::Running;
        let mut done = match running {
            true => self.enforce(name, &row.record).await,
            // With what it has now it would be open as before until it is told.
            false => self.close(&row).await,
        };
        if done.is_ok() {
            done = match self.change(name, |record| record.egress = policy.clone()).await {
                Ok(now) => {
                    row = now;
                    Ok(())
                }
                // The answer may be all that was lost.
                Err(error) => match self.row(name).await {
                    Ok(now) if now.record.egress == policy => {
                        row = now;
                        Ok(())
                    }
                    _ => Err(error),
                },
            };
        }
        if done.is_err() {
            row.record = before;
            if running {
                self.enforce(name, &row.record).await?;
            }
        }
        drop(alone);
        self.lines.know(name, &row.record).await;
        done
    }

    /// Lets a sandbox be nobody's.
    pub(super) async fn keep(self: &Arc<Self>, name: &str) -> Result<()> {
        let turn = self.changes.of(name);
        let _turn = turn.write().await;
        let _alone = self.alone(&self.row(name).await?).await;
        self.change(name, |record| record.owner = None).await.map(drop)
    }

    pub(super) async fn gc(self: &Arc<Self>, dry_run: bool) -> Result<GcReport> {
        let now = crate::sandbox::wall_clock();
        let over = |end: Option<SystemTime>| end.is_some_and(|end| end <= now);
        let dead = |row: &Row| {
            over(row.record.expires)
                || row.record.owner.as_ref().is_some_and(|owner| over(owner.until))
        };
        let mut report = GcReport::default();
        let all = self.rows().await?;
        let mut failed = None;
        for row in all.iter().filter(|row| dead(row)) {
            if !dry_run {
                match self.delete(&row.name).await {
                    Ok(()) => {}
                    // Somebody else was first.
                    Err(Error::NotFound { .. }) => continue,
                    Err(error) => {
                        failed = failed.or(Some(error));
                        continue;
                    }
                }
            }
            report.sandboxes.push(row.name.clone());
        }
        if self.api == Api::Container
            && !dry_run
            && let Err(error) = self.zfs_sweep(&all).await
            && report.sandboxes.is_empty()
        {
            // Otherwise what was deleted is told now, and this the next time.
            failed = failed.or(Some(error));
        }
        failed.map_or(Ok(report), Err)
    }
}
