//! Making, starting, stopping and deleting.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::ahead::{Ahead, Shape};
use super::caches::Caches;
use super::egress::is_gated;
use super::launch::Started;
use super::protocol::{Request, Task};
use super::record::{self, Record, VERSION};
use super::store::random_id;
use super::{Inner, Own, cgroup, protocol, sys};
use crate::sandbox::{
    Cancel, Capability, Command, Condition, Error, Info, Kind, Limits, Mount, Policy, Result, Spec,
    State, StopOptions,
};

impl Inner {
    pub(super) async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.store.check_file_system()?;
        self.check_supported(&spec.limits, &spec.egress, &spec.mounts)?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_machine(spec)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        let name = spec.image.clone().unwrap_or_else(|| self.capabilities.default_image.clone());
        let image = self.image(&name, spec.sha256.as_deref(), cancel).await?;
        let caches = self.caches_to_start(spec).await?;
        let _referring = self.store.referring().await?;
        let ahead = self.take_ahead(Shape::of(spec, &image.trees, &image.layers)).await;
        let upper = match &ahead {
            Some(ahead) => ahead.upper.clone(),
            None => self.store.new_layer(image.trees.iter().map(|tree| &tree.name))?,
        };
        self.limit_disk(&upper, &spec.limits).await?;
        let record = Record {
            version: VERSION,
            spec: Spec { image: Some(name), ..spec.clone() },
            fingerprint: image.fingerprint,
            trees: image.trees,
            image_layers: image.layers.len(),
            layers: image.layers,
            upper,
            created: crate::sandbox::wall_clock(),
            machine_id: machine_id(),
            fresh: true,
            new: true,
            sealed: false,
            source: None,
            groups: Vec::new(),
            gated: false,
            published: Vec::new(),
            maker: None,
        };
        self.make(record, ahead, caches).await
    }

    /// Takes a sandbox's caches before anything of it is made.
    pub(super) async fn caches_to_start(&self, spec: &Spec) -> Result<Caches> {
        if spec.bare || spec.caches.is_empty() {
            return Ok(Caches::default());
        }
        if self.store.folder(&spec.name).exists() {
            return Err(Error::exists(Kind::Sandbox, &spec.name));
        }
        self.take_caches(&spec.name, &spec.caches).await
    }

    /// Publishes a record whose layers are in place, starts it unless it is bare, and undoes all on failure.
    pub(super) async fn make(
        &self,
        mut record: Record,
        ahead: Option<Ahead>,
        caches: Caches,
    ) -> Result<Info> {
        let name = record.spec.name.clone();
        let upper = Some(record.upper.clone());
        let groups = ahead.as_ref().map(|ahead| ahead.folders.clone()).unwrap_or_default();
        let mut pending = Pending { inner: self, upper, name: None, groups };
        // An owner that dies takes a half made sandbox along; without one, this process stands for it.
        let owned = record.spec.owner.as_ref().map(|owner| owner.run.clone());
        record.maker = owned.is_none().then(|| self.maker.clone());
        self.enter_run(owned.as_ref().unwrap_or(&self.maker))?;
        let starts = !record.spec.bare;
        record.gated = starts && is_gated(&record.spec);
        let mut group = cgroup::Group::default();
        if let Some(ahead) = &ahead {
            record.groups.clone_from(&ahead.folders);
        } else if starts {
            group = self.groups.create(&cgroup::name_of_start(&name), &record.spec.limits)?;
            record.groups.clone_from(&group.folders);
            pending.groups.clone_from(&group.folders);
        }
        let scratch = self.store.scratch()?;
        let _lock = self.store.lock_new(&scratch)?;
        // What is written now holds to the end, unless something is to be added.
        let identity = (record.fresh && !starts, record.new && !starts);
        record::save_new(&scratch.join("record.json"), &record.identified(identity))?;
        self.store.publish(&scratch, &name)?;
        pending.name = Some(name.clone());
        let mut state = State::Stopped;
        if starts {
            let started = match &ahead {
                Some(ahead) => self.wake(&record, ahead).await?,
                None => self.launch(&record, group, caches).await?,
            };
            self.adopt(&mut record, started)?;
            (record.fresh, record.new) = (false, false);
            state = State::Running;
            self.try_defaults(&record).await?;
        }
        if record.maker.take().is_some() {
            self.store.mark_made(&name)?;
        }
        pending.done();
        if let Some(ahead) = ahead {
            self.taken(ahead).await?;
        }
        Ok(info(&record, state))
    }

    /// A user or working directory that every command would fail with is found now.
    async fn try_defaults(&self, record: &Record) -> Result<()> {
        let spec = &record.spec;
        if record.source.is_some() || (spec.user.is_none() && spec.cwd.is_none()) {
            return Ok(());
        }
        self.spawn(&spec.name, &Command::shell(":")).await?.control.wait().await.map(drop)
    }

    /// Ties a started sandbox to its run, or lets it go.
    fn adopt(&self, record: &mut Record, started: Started) -> Result<()> {
        if record.spec.owner.is_some() {
            let limited = record.spec.limits.memory.is_some();
            let measured = if limited { record.groups.clone() } else { Vec::new() };
            let own = Own { lifeline: started.lifeline, measured, taken: None };
            self.held().own.insert(record.spec.name.clone(), own);
            return Ok(());
        }
        let told = rustix::io::write(&started.lifeline, protocol::LET_GO);
        told.map(drop)
            .map_err(|error| Error::io("letting a sandbox go", std::io::Error::from(error)))
    }

    fn enter_run(&self, run: &str) -> Result<()> {
        let mut held = self.held();
        if !held.runs.contains_key(run) {
            let lock = self.store.enter_run(run)?;
            held.runs.insert(run.to_owned(), lock);
        }
        Ok(())
    }

    pub(super) fn check_supported(
        &self,
        limits: &Limits,
        egress: &Policy,
        mounts: &[Mount],
    ) -> Result<()> {
        self.capabilities.require_egress(egress)?;
        let wanted = [
            (limits.cpu.is_some(), Capability::LimitCpu),
            (limits.memory.is_some(), Capability::LimitMemory),
            (limits.pids.is_some(), Capability::LimitPids),
            (limits.disk.is_some(), Capability::LimitDisk),
            (limits.inodes.is_some(), Capability::LimitInodes),
        ];
        for (wanted, capability) in wanted {
            if wanted {
                self.capabilities.require(capability)?;
            }
        }
        for mount in mounts {
            if let Err(error) = std::fs::metadata(&mount.source) {
                return Err(Error::invalid(
                    "mounts",
                    format!("source '{}': {error}", mount.source.display()),
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn start(&self, name: &str) -> Result<()> {
        crate::sandbox::check_name(name)?;
        let _lock = self.store.changing(name).await?;
        match self.state(name).await? {
            State::Running => return Ok(()),
            State::Frozen => return self.request(name, &Request::Thaw).await.map(drop),
            _ => {}
        }
        let mut record = self.store.record(name)?;
        self.start_stopped(&mut record).await
    }

    /// Starts a sandbox that is known to be stopped and locked.
    pub(super) async fn start_stopped(&self, record: &mut Record) -> Result<()> {
        if let Some(owner) = &record.spec.owner {
            self.enter_run(&owner.run)?;
        }
        let caches = self.take_caches(&record.spec.name, &record.spec.caches).await?;
        record.gated = is_gated(&record.spec);
        record.published.clear();
        let name = cgroup::name_of_start(&record.spec.name);
        let group = self.groups.create(&name, &record.spec.limits)?;
        let groups = group.folders.clone();
        let started = self.launch(record, group, caches).await;
        let Ok(started) = started else {
            self.throw_away(Vec::new(), groups).await?;
            return started.map(drop);
        };
        record.groups = groups;
        self.adopt(record, started)?;
        (record.fresh, record.new) = (false, false);
        self.store.save(record)
    }

    pub(super) async fn stop(&self, name: &str, options: StopOptions) -> Result<()> {
        crate::sandbox::check_name(name)?;
        let _lock = self.store.changing(name).await?;
        self.stop_locked(name, if options.force { Duration::ZERO } else { options.grace }).await
    }

    pub(super) async fn stop_locked(&self, name: &str, grace: Duration) -> Result<()> {
        if self.end(name, grace).await? {
            self.held().own.remove(name);
        }
        let mut record = self.store.record(name)?;
        if record.groups.is_empty() {
            return Ok(());
        }
        let groups = std::mem::take(&mut record.groups);
        // Without space it stops all the same; the next start writes the record anew.
        let _ = self.store.save(&record);
        self.throw_away(Vec::new(), groups).await
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        crate::sandbox::check_name(name)?;
        let _lock = self.store.changing(name).await?;
        self.delete_locked(name).await
    }

    pub(super) async fn delete_if(&self, name: &str, wanted: &Condition<'_>) -> Result<bool> {
        crate::sandbox::check_name(name)?;
        let lock = self.store.changing(name).await;
        let info = match lock.as_ref() {
            Ok(_) => self.get(name).await,
            Err(error) => Err(error.clone()),
        };
        match info {
            Ok(info) if wanted(&info) => self.delete_locked(name).await.map(|()| true),
            Ok(_) | Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes, whatever state it is in; a damaged record is no obstacle.
    pub(super) async fn delete_locked(&self, name: &str) -> Result<()> {
        self.end_for_good(name).await?;
        self.held().own.remove(name);
        let record = self.store.record(name);
        let mut trash = Vec::new();
        trash.extend(self.store.discard(&self.store.folder(name))?);
        let (mut sealed, mut groups) = (true, Vec::new());
        if let Ok(record) = record {
            trash.extend(self.store.discard(&self.store.layer(&record.upper))?);
            (sealed, groups) = (record.sealed, record.groups);
        }
        if !(trash.is_empty() && groups.is_empty()) {
            let spares = Some(self.store.spare_folder());
            self.keeper().await?.remove(&Task::Remove { paths: trash, groups, spares })?;
        }
        if sealed {
            self.sweep_if_idle().await;
        }
        Ok(())
    }

    /// Has the keeper delete what is in the trash; nobody waits for it.
    pub(super) async fn throw_away(&self, paths: Vec<PathBuf>, groups: Vec<PathBuf>) -> Result<()> {
        if paths.is_empty() && groups.is_empty() {
            return Ok(());
        }
        self.keeper().await?.remove(&Task::Remove { paths, groups, spares: None })
    }

    pub(super) async fn keep(&self, name: &str) -> Result<()> {
        crate::sandbox::check_name(name)?;
        let _lock = self.store.changing(name).await?;
        let mut record = self.store.record(name)?;
        record.spec.owner = None;
        record.maker = None;
        self.store.save(&record)?;
        match self.request(name, &Request::Keep).await {
            Ok(_) | Err(Error::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
        self.held().own.remove(name);
        self.write_down(name).await
    }

    pub(super) async fn get(&self, name: &str) -> Result<Info> {
        crate::sandbox::check_name(name)?;
        let state = self.state(name).await?;
        match self.store.record(name) {
            Ok(record) => {
                let mut info = info(&record, state);
                info.used = self.store.used(name).map_or(info.used, |used| used.max(info.used));
                Ok(info)
            }
            Err(Error::Internal { message }) => Ok(damaged(name, message)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<Info>> {
        let mut all = Vec::new();
        for name in self.store.names()? {
            match self.get(&name).await {
                Ok(info) => all.push(info),
                Err(Error::NotFound { .. } | Error::InvalidInput { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// A sandbox as the contract reports it.
pub(super) fn info(record: &Record, state: State) -> Info {
    let spec = record.spec.clone();
    let ports = match state {
        State::Running | State::Frozen => record.published.clone(),
        _ => Vec::new(),
    };
    Info {
        hostname: spec.hostname.unwrap_or_else(|| spec.name.clone()),
        name: spec.name,
        state,
        image: spec.image.unwrap_or_default(),
        fingerprint: record.fingerprint.clone(),
        created: record.created,
        used: record.created,
        source: record.source.clone(),
        limits: spec.limits,
        mounts: spec.mounts,
        caches: spec.caches,
        devices: spec.devices,
        nesting: spec.nesting,
        egress: spec.egress,
        networks: spec.networks,
        env: spec.env,
        user: spec.user,
        cwd: spec.cwd,
        labels: spec.labels,
        owner: spec.owner,
        expires: spec.expires,
        addresses: Vec::new(),
        ports,
        member: None,
        dataset: None,
        exec: None,
        hardware: Default::default(),
    }
}

fn damaged(name: &str, message: String) -> Info {
    let record = Record {
        version: VERSION,
        spec: Spec::new(name),
        fingerprint: String::new(),
        trees: Vec::new(),
        layers: Vec::new(),
        image_layers: 0,
        upper: String::new(),
        created: SystemTime::UNIX_EPOCH,
        machine_id: String::new(),
        fresh: false,
        new: false,
        sealed: false,
        source: None,
        groups: Vec::new(),
        gated: false,
        published: Vec::new(),
        maker: None,
    };
    info(&record, State::Error(message))
}

/// A random machine id, as systemd makes them.
pub(super) fn machine_id() -> String {
    format!("{}{}", random_id(), random_id())
}

/// What has been made so far of a sandbox; dropped before the end, all of it goes again.
struct Pending<'a> {
    inner: &'a Inner,
    upper: Option<String>,
    name: Option<String>,
    groups: Vec<PathBuf>,
}

impl Pending<'_> {
    fn done(mut self) {
        (self.upper, self.name) = (None, None);
        self.groups.clear();
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let store = &self.inner.store;
        let mut trash = Vec::new();
        let groups = std::mem::take(&mut self.groups);
        if let Some(name) = &self.name {
            // Its lifeline is closed with this; one that had been let go already is told to end.
            self.inner.held().own.remove(name);
            if let Ok(socket) = UnixStream::connect(store.socket(name)) {
                let _ = sys::send(&socket, &Request::Stop { grace_ms: 0 }, &[]);
            }
            trash.extend(store.discard(&store.folder(name)).ok().flatten());
        }
        if let Some(upper) = &self.upper {
            trash.extend(store.discard(&store.layer(upper)).ok().flatten());
        }
        if let Some(keeper) = self.inner.keeper.get()
            && !(trash.is_empty() && groups.is_empty())
        {
            let _ = keeper.remove(&Task::Remove { paths: trash, groups, spares: None });
        }
    }
}
