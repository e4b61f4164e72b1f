//! Making, starting, stopping and deleting.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::guest::{Ask, Record, guarded};
use super::super::local::{save, send_signal, store_error};
use super::agents;
use super::authored::Authored;
use super::command;
use super::egress::server;
use super::groups::{self, is_frozen};
use super::identity;
use super::launch::{Launched, claim};
use super::record::{Machine, Run};
use super::store::settle;
use super::{BACKEND, Inner};
use crate::sandbox::{
    Cancel, Capability, Error, GcReport, Info, Kind, Limits, Result, Spec, State, StopOptions,
    Usage, wall_clock,
};

/// Tells a machine's first process to end all of it, in order.
const POWER_OFF: i32 = 34 + 4;

/// What a new machine is made from.
pub(super) struct Plan {
    pub name: String,
    pub machine: Machine,
    /// The user that must be there.
    pub user: Option<String>,
    pub bare: bool,
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
        limits.check()?;
        match limits.memory {
            Some(memory) if memory < 32 << 20 => Err(Error::invalid_hint(
                "memory",
                format!("{memory} bytes are too few for a machine with an init"),
                "use \"32MiB\" or more",
            )),
            _ => Ok(()),
        }
    }

    pub(super) async fn create(self: &Arc<Self>, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        if !spec.machine.is_empty() {
            self.only_file(spec)?;
            return self.create_authored(spec, cancel).await;
        }
        self.check_limits(&spec.limits)?;
        self.capabilities.require_machine(spec)?;
        self.capabilities.require_egress(&spec.egress)?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        if !spec.caches.is_empty() {
            self.capabilities.require(Capability::Caches)?;
        }
        if !spec.mounts.is_empty() {
            self.capabilities.require(Capability::Mounts)?;
        }
        self.is_free(&spec.name)?;
        let (inner, spec) = (Arc::clone(self), spec.clone());
        guarded(cancel, move |cancel| async move {
            let image = spec.image.as_ref().unwrap_or(&inner.capabilities.default_image);
            let (tree, fingerprint) = inner.image(image, spec.sha256.as_deref(), &cancel).await?;
            let mut record = Record::new(&spec, image.clone(), fingerprint);
            record.created = Some(wall_clock());
            let machine = Machine::new(record, &inner.taken()?);
            let plan =
                Plan { name: spec.name.clone(), machine, user: spec.user.clone(), bare: spec.bare };
            inner.make(plan, &tree, &cancel).await
        })
        .await
    }

    /// Refuses a name that is taken.
    pub(super) fn is_free(&self, name: &str) -> Result<()> {
        match self.store.folder(name).exists() {
            true => Err(Error::exists(Kind::Sandbox, name)),
            false => Ok(()),
        }
    }

    /// The ids that machines have.
    pub(super) fn taken(&self) -> Result<Vec<u32>> {
        let names = self.store.names()?;
        let known = names.iter().filter_map(|name| self.store.machine(name).ok());
        Ok(known.flat_map(|machine| machine.blocks().collect::<Vec<_>>()).collect())
    }

    /// Makes a machine with a copy of a tree, and leaves nothing of it when that fails or is cancelled.
    pub(super) async fn make(&self, mut plan: Plan, tree: &Path, cancel: &Cancel) -> Result<Info> {
        let (making, lock) = self.store.new_folder()?;
        let done = async {
            let own = making.join("tree");
            self.storage.copy(tree, &own, false).await?;
            self.measure_disk(&mut plan.machine, &own).await?;
            self.place(&plan, &making, cancel).await
        };
        let done = done.await;
        drop(lock);
        if making.exists() {
            self.clear(&making).await?;
        }
        done
    }

    /// Notes how many bytes a new machine's tree has, where what it writes is limited, and limits it.
    pub(super) async fn measure_disk(&self, machine: &mut Machine, tree: &Path) -> Result<()> {
        if machine.record.limits.disk.is_some() && machine.disk_base.is_none() {
            machine.disk_base = Some(self.storage.referenced(tree).await?);
        }
        self.limit_disk(machine, tree).await
    }

    /// Limits what a machine may write to a tree.
    pub(super) async fn limit_disk(&self, machine: &Machine, tree: &Path) -> Result<()> {
        match (machine.record.limits.disk, machine.disk_base) {
            (Some(bytes), Some(base)) => self.storage.limit(tree, base.saturating_add(bytes)).await,
            _ => Ok(()),
        }
    }

    /// Makes what was prepared in a folder a machine.
    pub(super) async fn place(&self, plan: &Plan, making: &Path, cancel: &Cancel) -> Result<Info> {
        let name = plan.name.as_str();
        // One that is not started is whole: its first start makes it its own.
        let machine = Machine { ready: plan.bare, ..plan.machine.clone() };
        save(&making.join("machine.json"), &machine)?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let _lock = self.store.changing(name).await?;
        let folder = self.store.folder(name);
        match settle(making, &folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::exists(Kind::Sandbox, name));
            }
            Err(error) => return Err(store_error("making", &folder, error)),
        }
        let done = async {
            if !plan.bare {
                self.boot(name, &plan.machine, cancel).await?;
                if let Some(user) = &plan.user {
                    self.ask_once(name, &["user", user]).await?;
                }
            }
            match cancel.is_cancelled() {
                true => Err(Error::Cancelled),
                false => self.info(name).await,
            }
        };
        let done = done.await;
        if done.is_err() {
            self.take_away(name).await?;
        }
        done
    }

    /// Starts a machine that does not run and waits until a command has run. Somebody holds its lock.
    pub(super) async fn boot(&self, name: &str, machine: &Machine, cancel: &Cancel) -> Result<()> {
        let machine = &self.refresh(name, machine).await?;
        let last = self.store.last_run(name)?;
        // Before anything is ended: it may be somebody else's.
        claim(name, &self.store.machine_name(name), last.as_ref())?;
        if let Some(last) = last {
            self.end(name, &last).await?;
        }
        self.forget(name);
        let lasting = machine.record.owner.is_none();
        self.storage.ready(&self.store.tree(name), machine.base, lasting).await?;
        // Each time: it may have laid out something else since, and systemd-nspawn follows it on the host.
        let root = self.root(name, machine);
        let keeps = machine.elsewhere.is_some();
        identity::identify(&root, &machine.machine_id, &machine.record.hostname, keeps)
            .map_err(|error| Error::io(format!("the identity of sandbox '{name}'"), error))?;
        let Launched { run, services } = match self.launch(name, machine).await {
            Err(error) if !matches!(error, Error::Cancelled) && self.may_own(name, machine) => {
                return self.boot_owned(name, machine, cancel).await;
            }
            launched => launched?,
        };
        let authored = self.authored(name, machine)?;
        let longer = authored.as_ref().map_or(Duration::ZERO, |one| one.plan.starting);
        let up = async {
            let identified = async {
                // What starts commands need not wait for the last of its services.
                let agent = async {
                    agents::bus(&run).await;
                    let _ = self.agents.of(self, name).await;
                };
                let (up, ()) = tokio::join!(services.up(longer), agent);
                if !up {
                    return Err(self.unready(name));
                }
                self.identify(name, machine).await
            };
            tokio::try_join!(self.admit(name, machine, &run), identified)?;
            match &authored {
                // A service runs them itself.
                Some(authored) if run.unit.is_none() => {
                    self.hooks(name, authored, "ExecStartPost").await
                }
                _ => Ok(()),
            }
        };
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            done = up => done,
        };
        match done {
            Ok(()) if !machine.ready && !self.owns(name, machine).await => {
                self.end(name, &run).await?;
                self.boot_owned(name, machine, cancel).await
            }
            Ok(()) => {
                self.store.set_run(name, Some(&Run { up: true, ..run }))?;
                match machine.ready {
                    true => Ok(()),
                    false => self.store.save(name, &Machine { ready: true, ..machine.clone() }),
                }
            }
            Err(error) => {
                self.end(name, &run).await?;
                Err(error)
            }
        }
    }

    /// Starts a machine whose files can't be mapped to its ids, and are given to them from now on.
    fn boot_owned<'a>(
        &'a self,
        name: &'a str,
        machine: &Machine,
        cancel: &'a Cancel,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        let owned = Machine { chown: true, ..machine.clone() };
        Box::pin(async move {
            self.store.save(name, &owned)?;
            self.boot(name, &owned, cancel).await
        })
    }

    /// Makes a machine the one that it is, once a command can run.
    pub(super) async fn identify(&self, name: &str, machine: &Machine) -> Result<()> {
        let (record, server) = (&machine.record, server(machine));
        let pairs = record.env.iter().flat_map(|(name, value)| [name.as_str(), value]);
        let request: Vec<&str> =
            ["identity", &record.hostname, &server].into_iter().chain(pairs).collect();
        self.ask_once(name, &request).await.map(drop)
    }

    /// The state that a machine is in.
    pub(super) fn state(&self, name: &str) -> Result<State> {
        self.store.machine(name)?;
        Ok(match self.store.run(name)? {
            None => State::Stopped,
            Some(_) if self.store.is_copied(name) => State::Running,
            Some(run) if run.whole.as_ref().is_some_and(|whole| is_frozen(whole)) => State::Frozen,
            Some(_) => State::Running,
        })
    }

    pub(super) async fn info(&self, name: &str) -> Result<Info> {
        let machine = self.store.machine(name)?;
        let state = self.state(name)?;
        let created = machine.record.created.unwrap_or(SystemTime::UNIX_EPOCH);
        let info = machine.record.into_info(name.to_owned(), state, created);
        Ok(self.with_ports(info).await)
    }

    pub(super) async fn list(&self) -> Result<Vec<Info>> {
        let mut all = Vec::new();
        for name in self.store.names()? {
            match self.info(&name).await {
                Ok(info) => all.push(info),
                // Deleted meanwhile.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    pub(super) async fn start(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<()> {
        self.store.machine(name)?;
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |cancel| async move {
            let lock = inner.store.changing(&name).await?;
            let machine = inner.store.machine(&name)?;
            match inner.store.run(&name)? {
                Some(run) if machine.ready && run.up => inner.thaw_run(&run).await,
                // None runs, or one that nobody has made its own, and that may end with who began to.
                _ => inner.boot(&name, &machine, &cancel).await,
            }?;
            drop(lock);
            inner.set_up(&name, &cancel).await
        })
        .await
    }

    async fn thaw_run(&self, run: &Run) -> Result<()> {
        match &run.whole {
            Some(whole) if is_frozen(whole) => groups::freeze(whole, false).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn freeze(&self, name: &str, still: bool) -> Result<()> {
        self.capabilities.require(Capability::Freeze)?;
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        let run = match self.store.run(name)? {
            Some(run) => run,
            None => return Err(Error::NotRunning { name: name.to_owned() }),
        };
        match &run.whole {
            Some(whole) => groups::freeze(whole, still).await,
            None => Err(Error::unsupported("freeze", BACKEND, "it has no cgroup of version 2")),
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
        self.store.machine(name)?;
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(cancel, move |cancel| async move {
            // Whoever copies it has this, too: it goes on when that is done.
            let _lock = inner.store.changing(&name).await?;
            inner.store.machine(&name)?;
            if let Some(run) = inner.store.run(&name)?.filter(|_| !options.force) {
                // One that stands still can't end.
                inner.thaw_run(&run).await?;
                inner.forget(&name);
                match inner.authored(&name, &inner.store.machine(&name)?) {
                    Ok(Some(authored)) => inner.power_off(&name, &authored, &run).await?,
                    // A file that can't be read any more is no reason to let it run.
                    _ => drop(send_signal(run.leader, POWER_OFF)),
                }
                tokio::select! {
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    () = over(&run) => {}
                    () = tokio::time::sleep(options.grace) => {}
                }
            }
            inner.halt(&name).await
        })
        .await
    }

    /// Tells a machine of a file to end, with what its hooks do before.
    async fn power_off(&self, name: &str, authored: &Authored, run: &Run) -> Result<()> {
        match &run.unit {
            Some(unit) => {
                let doing = format!("stopping '{name}'");
                command::run("systemctl", ["stop", "--no-block", unit], &doing).await.map(drop)
            }
            None => {
                // What can't be saved by then is lost: it was told to end.
                let _ = self.hooks(name, authored, "ExecStop").await;
                let _ = send_signal(run.leader, POWER_OFF);
                Ok(())
            }
        }
    }

    /// Stops a machine at once, whatever it does. Somebody holds its lock.
    pub(super) async fn halt(&self, name: &str) -> Result<()> {
        match self.store.last_run(name)? {
            Some(run) => self.end(name, &run).await,
            None => Ok(()),
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        self.store.machine(name)?;
        self.take_away(name).await
    }

    /// Deletes a machine. Somebody holds its lock.
    pub(super) async fn take_away(&self, name: &str) -> Result<()> {
        self.halt(name).await?;
        if let Ok(machine) = self.store.machine(name) {
            self.unrender(name, &machine).await;
        }
        self.forget_network(name).await?;
        if let Some((trash, _lock)) = self.store.discard(&self.store.folder(name))? {
            self.clear(&trash).await?;
        }
        Ok(())
    }

    /// Deletes a folder with the trees in it.
    pub(super) async fn clear(&self, folder: &Path) -> Result<()> {
        self.storage.remove(folder).await
    }

    pub(super) async fn keep(&self, name: &str) -> Result<()> {
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        let mut machine = self.store.machine(name)?;
        machine.record.owner = None;
        self.store.save(name, &machine)
    }

    pub(super) fn usage(&self, name: &str) -> Result<Usage> {
        self.store.machine(name)?;
        let Some(run) = self.store.run(name)? else {
            return Err(Error::NotRunning { name: name.to_owned() });
        };
        let read = |path: &Path| fs::read_to_string(path).ok();
        let mut usage = Usage::default();
        for folder in &run.groups {
            let stat = read(&folder.join("cpu.stat")).unwrap_or_default();
            let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
            let micros = micros.and_then(|micros| micros.parse().ok()).map(Duration::from_micros);
            usage.cpu = usage.cpu.max(micros);
            for file in ["memory.peak", "memory.max_usage_in_bytes"] {
                let peak = read(&folder.join(file)).and_then(|text| text.trim().parse().ok());
                usage.memory = usage.memory.max(peak);
            }
        }
        Ok(usage)
    }

    pub(super) async fn gc(&self, dry_run: bool) -> Result<GcReport> {
        let now = wall_clock();
        let over = |end: Option<SystemTime>| end.is_some_and(|end| end <= now);
        let mut report = GcReport::default();
        // What can't be deleted is no reason to leave the rest.
        let mut failed = None;
        for name in self.store.names()? {
            // Who holds its lock works on it.
            let Some(lock) = self.store.try_changing(&name) else { continue };
            let Ok(machine) = self.store.machine(&name) else { continue };
            let record = &machine.record;
            if machine.ready
                && !(over(record.expires)
                    || record.owner.as_ref().is_some_and(|owner| over(owner.until)))
            {
                drop(lock);
                match self.collect_snapshots(&name, dry_run).await {
                    Ok(count) => report.leftovers += count,
                    Err(error) => failed = failed.or(Some(error)),
                }
                continue;
            }
            let done = if dry_run { Ok(()) } else { self.take_away(&name).await };
            match done {
                Ok(()) => report.sandboxes.push(name),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for (folder, _lock) in self.store.leftovers()? {
            let done = if dry_run { Ok(()) } else { self.clear(&folder).await };
            match done {
                Ok(()) => report.leftovers += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if !dry_run {
            super::launch::sweep();
            failed = failed.or(self.storage.sweep().await.err());
            for name in self.gatehouse.names()? {
                let Some(_lock) = self.store.try_changing(&name) else { continue };
                if !self.store.folder(&name).exists() {
                    self.forget_network(&name).await?;
                }
            }
        }
        failed.map_or(Ok(report), Err)
    }

    /// Waits while somebody copies a machine, which stands still for it. Where whoever did is gone, it goes on.
    pub(super) async fn settle(&self, name: &str) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        while self.store.is_copied(name) {
            if let Some(_lock) = self.store.try_changing(name) {
                if let Some(run) = self.store.run(name)? {
                    self.thaw_run(&run).await?;
                }
                self.store.set_copied(name, false)?;
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Until a run is over.
async fn over(run: &Run) {
    let mut pause = Duration::from_millis(1);
    while run.is_alive() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
