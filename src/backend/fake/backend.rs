//! The contract, kept in memory.

use std::io::Cursor;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::FakeBackend;
use super::archive;
use super::fault::{Call, Effect, Verb};
use super::machine::{HalfMade, Machine, Shot};
use super::process;
use super::tree::{Data, Errno, Node};
use super::users;
use crate::sandbox::{
    Adoption, Backend, CacheInfo, Cancel, Capabilities, Capability, CloneSpec, Command, Condition,
    Device, EgressLog, Error, FileEntry, GcReport, Info, Kind, Limits, Member, Placement, Policy,
    Process, Published, ReadOptions, Reader, Restore, Result, Rule, Snapshot, SnapshotSpec, Spec,
    State, Stock, StopOptions, WriteOptions, check_devices, check_label, check_name, check_path,
    check_port,
};

impl FakeBackend {
    /// Logs a call and does to it what was injected.
    async fn call(
        &self,
        verb: Verb,
        sandbox: &str,
        detail: impl Into<String>,
        cancel: &Cancel,
    ) -> Result<()> {
        let call = Call { verb, sandbox: sandbox.to_owned(), detail: detail.into() };
        let effects = self.shared.world().faults.record(call);
        for effect in effects {
            match effect {
                Effect::Error(error) => return Err(error),
                Effect::Delay(time) => until(cancel, tokio::time::sleep(time)).await?,
                Effect::Hang => until(cancel, std::future::pending()).await?,
            }
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.answers(sandbox, verb.as_str())
    }

    /// Fails when the member of the cluster that holds it is away.
    fn answers(&self, sandbox: &str, what: &str) -> Result<()> {
        match self.shared.world().away(sandbox) {
            Some(member) => Err(Error::MemberAway { member, what: format!("{what} '{sandbox}'") }),
            None => Ok(()),
        }
    }

    fn check_limits(&self, limits: &Limits) -> Result<()> {
        let asked = [
            (limits.cpu.is_some(), Capability::LimitCpu),
            (limits.disk.is_some(), Capability::LimitDisk),
            (limits.inodes.is_some(), Capability::LimitInodes),
            (limits.memory.is_some(), Capability::LimitMemory),
            (limits.pids.is_some(), Capability::LimitPids),
        ];
        for (_, capability) in asked.into_iter().filter(|(asked, _)| *asked) {
            self.shared.capabilities.require(capability)?;
        }
        limits.check()
    }

    fn check_egress(&self, policy: &Policy) -> Result<()> {
        self.shared.capabilities.require_egress(policy)
    }

    /// Changes a policy in one step.
    fn change_policy(
        &self,
        name: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
    ) -> Result<()> {
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        let mut policy = machine.info.egress.clone();
        change(&mut policy)?;
        self.check_egress(&policy)?;
        machine.info.egress = policy;
        Ok(())
    }

    /// Puts a machine in its place, between two states until it is finished.
    fn begin(&self, mut machine: Machine, what: &str) -> Result<HalfMade> {
        let mut world = self.shared.world();
        let name = machine.info.name.clone();
        if world.machines.contains_key(&name) {
            return Err(Error::exists(Kind::Sandbox, name));
        }
        machine.serial = world.next_serial();
        machine.info.state = State::Transitional(what.to_owned());
        machine.identify(self.shared.clock.now());
        let serial = machine.serial;
        world.machines.insert(name.clone(), machine);
        Ok(HalfMade { shared: self.shared.clone(), name, serial, done: false })
    }

    fn finish(&self, mut half: HalfMade, bare: bool) -> Result<Info> {
        if !bare {
            let now = self.shared.clock.now();
            self.shared.world().mount(&half.name, now)?;
        }
        let info = self.shared.machine(&half.name, half.serial, |machine| {
            machine.info.state = if bare { State::Stopped } else { State::Running };
            machine.info.clone()
        });
        half.done = true;
        info.ok_or_else(|| Error::internal("the sandbox went away while it was made"))
    }
}

async fn until<T>(cancel: &Cancel, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        done = work => Ok(done),
    }
}

async fn drain(mut from: Reader, cancel: &Cancel) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    until(cancel, from.read_to_end(&mut bytes))
        .await?
        .map_err(|error| Error::Transport { message: format!("reading the content: {error}") })?;
    Ok(bytes)
}

fn machine(info: Info, image: &super::image::Image) -> Machine {
    Machine {
        serial: 0,
        info,
        base: image.tree.usage(),
        tree: image.tree.clone(),
        shots: Vec::new(),
        boot: Cancel::new(),
        frozen: watch::Sender::new(false),
        processes: Default::default(),
        next_pid: 2,
        log: EgressLog::default(),
        mounted: false,
    }
}

fn owner(machine: &Machine, options: &WriteOptions) -> Result<Option<(u32, u32)>> {
    let Some(owner) = &options.owner else { return Ok(None) };
    let user = users::find(&machine.tree, owner)?;
    Ok(Some((user.uid, user.gid)))
}

fn shot<'a>(machine: &'a mut Machine, label: &str) -> Result<&'a mut Shot> {
    let found = machine.shots.iter_mut().find(|shot| shot.snapshot.label == label);
    found.ok_or_else(|| Error::not_found(Kind::Snapshot, label))
}

#[async_trait]
impl Backend for FakeBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn fingerprint(
        &self,
        image: &str,
        _sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        self.call(Verb::Fingerprint, "", image, cancel).await?;
        let world = self.shared.world();
        let found = world.images.get(image).ok_or_else(|| Error::not_found(Kind::Image, image))?;
        Ok(found.fingerprint.clone())
    }

    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.check_limits(&spec.limits)?;
        self.check_egress(&spec.egress)?;
        self.shared.capabilities.require_networks(&spec.networks)?;
        self.shared.capabilities.require_machine(spec)?;
        self.shared.capabilities.require_devices(&spec.devices, spec.nesting)?;
        check_devices(&spec.devices, &spec.egress)?;
        self.shared.capabilities.require_target(spec.target.as_ref())?;
        if !spec.mounts.is_empty() {
            self.shared.capabilities.require(Capability::Mounts)?;
        }
        if !spec.caches.is_empty() {
            self.shared.capabilities.require(Capability::Caches)?;
        }
        let image = spec.image.clone().unwrap_or(self.shared.capabilities.default_image.clone());
        if image == "host" && !self.shared.world().images.contains_key("host") {
            self.shared.capabilities.require(Capability::HostImage)?;
        }
        let found = self.shared.world().images.get(&image).cloned();
        let found = found.ok_or_else(|| Error::not_found(Kind::Image, &image))?;
        if let Some(user) = &spec.user {
            users::find(&found.tree, user)?;
        }
        let created = self.shared.clock.now();
        let info = Info {
            name: spec.name.clone(),
            state: State::Stopped,
            image: image.clone(),
            fingerprint: found.fingerprint.clone(),
            hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            created,
            used: created,
            source: None,
            limits: spec.limits.clone(),
            mounts: spec.mounts.clone(),
            caches: spec.caches.clone(),
            devices: spec.devices.clone(),
            nesting: spec.nesting,
            egress: spec.egress.clone(),
            networks: spec.networks.clone(),
            env: spec.env.clone(),
            user: spec.user.clone(),
            cwd: spec.cwd.clone(),
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            addresses: Vec::new(),
            ports: Vec::new(),
            member: self.shared.world().place(spec.target.as_ref())?,
            dataset: None,
            exec: None,
            hardware: Default::default(),
        };
        let half = self.begin(machine(info, &found), "creating")?;
        self.call(Verb::Create, &spec.name, image, cancel).await?;
        self.finish(half, spec.bare)
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        self.call(Verb::List, "", "", cancel).await?;
        let world = self.shared.world();
        let mut all: Vec<Info> =
            world.machines.values().map(|machine| machine.info.clone()).collect();
        for info in &mut all {
            if let Some(member) = world.away(&info.name) {
                info.state = State::Error(format!("member '{member}' does not answer"));
            }
        }
        Ok(all)
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        self.call(Verb::Get, name, "", cancel).await?;
        Ok(self.shared.world().get(name)?.info.clone())
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Start, name, "", cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        if let State::Error(why) = &machine.info.state {
            return Err(Error::internal(why.clone()));
        }
        world.mount(name, self.shared.clock.now())?;
        let machine = world.settled(name)?;
        machine.frozen.send_replace(false);
        machine.info.state = State::Running;
        machine.info.used = self.shared.clock.last();
        Ok(())
    }

    async fn stop(&self, name: &str, _options: StopOptions, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Stop, name, "", cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        machine.halt();
        machine.info.state = State::Stopped;
        world.unmount(name);
        Ok(())
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Delete, name, "", cancel).await?;
        let mut world = self.shared.world();
        world.settled(name)?.halt();
        world.take(name);
        Ok(())
    }

    async fn delete_if(&self, name: &str, wanted: &Condition<'_>, cancel: &Cancel) -> Result<bool> {
        check_name(name)?;
        self.call(Verb::Delete, name, "", cancel).await?;
        let mut world = self.shared.world();
        match world.settled(name) {
            Ok(machine) if wanted(&machine.info) => machine.halt(),
            Ok(_) | Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        world.machines.remove(name);
        Ok(true)
    }

    async fn ready(&self, name: &str, _timeout: Duration, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Ready, name, "", cancel).await?;
        self.shared.world().running(name).map(drop)
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.shared.capabilities.require(Capability::Freeze)?;
        self.call(Verb::Freeze, name, "", cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        match machine.info.state {
            State::Running | State::Frozen => {
                machine.frozen.send_replace(true);
                machine.info.state = State::Frozen;
                Ok(())
            }
            _ => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.shared.capabilities.require(Capability::Freeze)?;
        self.call(Verb::Thaw, name, "", cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        match machine.info.state {
            State::Running | State::Frozen => {
                machine.frozen.send_replace(false);
                machine.info.state = State::Running;
                Ok(())
            }
            _ => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        check_name(name)?;
        command.check()?;
        self.call(Verb::Spawn, name, command.program.to_string(), cancel).await?;
        if let Ok(machine) = self.shared.world().running(name) {
            machine.info.used = self.shared.clock.last();
        }
        process::spawn(&self.shared, name, command)
    }

    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Read, name, path, cancel).await?;
        let mut world = self.shared.world();
        let tree = &world.running(name)?.tree;
        let (_, node) = tree.find("/", path, true).map_err(|why| why.at(path))?;
        let bytes = match &node.data {
            Data::File(bytes) => bytes.clone(),
            Data::Null => Default::default(),
            _ => return Err(Errno::IsDir.at(path)),
        };
        let size = bytes.len() as u64;
        let from = options.offset.min(size);
        let to = options.length.map_or(size, |length| size.min(from.saturating_add(length)));
        Ok(Box::new(Cursor::new(bytes.slice(from as usize..to as usize))))
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Write, name, path, cancel).await?;
        self.shared.world().running(name)?;
        let bytes = drain(content, cancel).await?;
        let now = self.shared.clock.now();
        let mut world = self.shared.world();
        let machine = world.running(name)?;
        let owner = owner(machine, options)?;
        let done = machine.change(|tree| {
            if options.parents
                && let Some((parent, _)) = path.rsplit_once('/')
            {
                tree.mkdirs("/", parent, &Node::dir(0o755, now))?;
            }
            let parts = tree.resolve("/", path, true)?;
            let mut node = Node::file(bytes, 0o644, now);
            if let Some(old) = tree.get(&parts) {
                (node.mode, node.uid, node.gid) = (old.mode, old.uid, old.gid);
            }
            node.mode = options.mode.map_or(node.mode, |mode| mode & 0o7777);
            (node.uid, node.gid) = owner.unwrap_or((node.uid, node.gid));
            tree.put(&parts, node)
        });
        done.map_err(|why| why.at(path))
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::ReadDir, name, path, cancel).await?;
        let mut world = self.shared.world();
        let tree = &world.running(name)?.tree;
        let (_, node) = tree.find("/", path, true).map_err(|why| why.at(path))?;
        match &node.data {
            Data::Dir(children) => {
                Ok(children.iter().map(|(name, child)| child.entry(name)).collect())
            }
            _ => Err(Errno::NotDir.at(path)),
        }
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Stat, name, path, cancel).await?;
        let mut world = self.shared.world();
        let tree = &world.running(name)?.tree;
        let (parts, node) = tree.find("/", path, false).map_err(|why| why.at(path))?;
        Ok(node.entry(parts.last().map_or("/", String::as_str)))
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Remove, name, path, cancel).await?;
        let mut world = self.shared.world();
        let machine = world.running(name)?;
        let done = machine.change(|tree| {
            let (parts, node) = tree.find("/", path.trim_end_matches('/'), false)?;
            match &node.data {
                Data::Dir(children) if !children.is_empty() && !recursive => Err(Errno::NotEmpty),
                _ => tree.remove(&parts).map(drop),
            }
        });
        done.map_err(|why| why.at(path))
    }

    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Mkdir, name, path, cancel).await?;
        let now = self.shared.clock.now();
        let mut world = self.shared.world();
        let machine = world.running(name)?;
        let owner = owner(machine, options)?;
        let done = machine.change(|tree| {
            let made = tree.mkdirs("/", path, &Node::dir(0o755, now))?;
            if let Some(node) = made.last().and_then(|parts| tree.get_mut(parts)) {
                node.mode = options.mode.map_or(node.mode, |mode| mode & 0o7777);
                (node.uid, node.gid) = owner.unwrap_or((node.uid, node.gid));
            }
            Ok(())
        });
        done.map_err(|why| why.at(path))
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Unpack, name, path, cancel).await?;
        self.shared.world().running(name)?;
        let bytes = drain(tar, cancel).await?;
        let now = self.shared.clock.now();
        let mut world = self.shared.world();
        let machine = world.running(name)?;
        let owner = owner(machine, options)?.unwrap_or((0, 0));
        let mut failed = None;
        let done = machine.change(|tree| {
            tree.mkdirs("/", path, &Node::dir(0o755, now))?;
            let parts = tree.resolve("/", path, true)?;
            if let Err(error) = archive::unpack(tree, &parts, &bytes, owner) {
                failed = Some(error);
                return Err(Errno::Access);
            }
            Ok(())
        });
        match failed {
            Some(error) => Err(error),
            None => done.map_err(|why| why.at(path)),
        }
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        check_name(name)?;
        check_path(path)?;
        self.call(Verb::Pack, name, path, cancel).await?;
        let tree = self.shared.world().running(name)?.tree.clone();
        Ok(Box::new(Cursor::new(archive::pack(&tree, path)?)))
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        check_name(name)?;
        check_label(&spec.label)?;
        self.call(Verb::Snapshot, name, &spec.label, cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        if shot(machine, &spec.label).is_ok() {
            return Err(Error::exists(Kind::Snapshot, &spec.label));
        }
        let snapshot = Snapshot {
            label: spec.label.clone(),
            created: self.shared.clock.now(),
            size: 0,
            frozen: Duration::ZERO,
            labels: spec.labels.clone(),
            expires: spec.expires,
        };
        let tree = machine.own_tree();
        machine.shots.push(Shot { snapshot: snapshot.clone(), tree });
        Ok(snapshot)
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        check_name(name)?;
        self.call(Verb::Snapshots, name, "", cancel).await?;
        let mut world = self.shared.world();
        let machine = world.get(name)?;
        let size = |index: usize| {
            let others = machine.shots.iter().enumerate().filter(|(at, _)| *at != index);
            let mut trees: Vec<_> = others.map(|(_, shot)| &shot.tree).collect();
            trees.push(&machine.tree);
            machine.shots[index].tree.unique(&trees)
        };
        Ok((0..machine.shots.len())
            .map(|index| Snapshot { size: size(index), ..machine.shots[index].snapshot.clone() })
            .collect())
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        self.call(Verb::DeleteSnapshot, name, label, cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        shot(machine, label)?;
        machine.shots.retain(|shot| shot.snapshot.label != label);
        Ok(())
    }

    async fn restore(
        &self,
        name: &str,
        label: &str,
        _options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        self.call(Verb::Restore, name, label, cancel).await?;
        let mut world = self.shared.world();
        let machine = world.settled(name)?;
        let tree = shot(machine, label)?.tree.clone();
        machine.halt();
        let runs = machine.info.state != State::Stopped;
        world.unmount(name);
        world.get(name)?.tree = tree;
        if runs {
            world.mount(name, self.shared.clock.now())?;
            world.get(name)?.info.state = State::Running;
        }
        Ok(())
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        spec.check()?;
        self.check_limits(spec.limits.as_ref().unwrap_or(&Limits::default()))?;
        self.check_egress(spec.egress.as_ref().unwrap_or(&Policy::None))?;
        self.shared.capabilities.require_networks(&spec.networks)?;
        self.shared.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.shared.capabilities.require_target(spec.target.as_ref())?;
        if !spec.caches.is_empty() {
            self.shared.capabilities.require(Capability::Caches)?;
        }
        let copy = {
            let mut world = self.shared.world();
            let ready = spec.label.as_ref().is_some_and(|label| {
                let ready = world.cluster.prepared.iter();
                spec.spread && ready.into_iter().any(|(one, of)| one == name && of == label)
            });
            if !ready && let Some(member) = world.away(name) {
                return Err(Error::MemberAway { member, what: format!("clone '{name}'") });
            }
            let placed = match ready || spec.target.is_some() {
                true => world.place(spec.target.as_ref())?,
                false => world.get(name)?.info.member.clone(),
            };
            let source = world.settled(name)?;
            let tree = match &spec.label {
                Some(label) => shot(source, label)?.tree.clone(),
                None => source.own_tree(),
            };
            let mut info = source.info.clone();
            info.name = spec.name.clone();
            info.hostname = spec.hostname.clone().unwrap_or_else(|| spec.name.clone());
            info.created = self.shared.clock.now();
            info.used = info.created;
            source.info.used = info.created;
            info.source = Some(match &spec.label {
                Some(label) => format!("{name}/{label}"),
                None => name.to_owned(),
            });
            info.limits = spec.limits.clone().unwrap_or(info.limits);
            info.egress = spec.egress.clone().unwrap_or(info.egress);
            info.caches = spec.caches.clone();
            info.devices = Device::all_of_clone(&info.devices, &spec.devices);
            info.nesting |= spec.nesting;
            check_devices(&info.devices, &info.egress)?;
            info.networks = spec.networks.clone();
            info.env.extend(spec.env.clone());
            info.labels = spec.labels.clone();
            info.owner = spec.owner.clone();
            info.expires = spec.expires;
            info.ports.clear();
            info.member = placed;
            Machine {
                serial: 0,
                info,
                base: source.base,
                tree,
                shots: Vec::new(),
                boot: Cancel::new(),
                frozen: watch::Sender::new(false),
                processes: Default::default(),
                next_pid: 2,
                log: EgressLog::default(),
                mounted: false,
            }
        };
        let half = self.begin(copy, "cloning")?;
        let detail = match &spec.label {
            Some(label) => format!("{} from {label}", spec.name),
            None => spec.name.clone(),
        };
        match self.call(Verb::Clone, name, detail, cancel).await {
            // The source's member is not needed any more.
            Ok(()) | Err(Error::MemberAway { .. }) => {}
            Err(error) => return Err(error),
        }
        self.answers(&spec.name, "clone")?;
        self.finish(half, spec.bare)
    }

    async fn members(&self, cancel: &Cancel) -> Result<Vec<Member>> {
        self.call(Verb::Members, "", "", cancel).await?;
        Ok(self.shared.world().cluster.members.clone())
    }

    async fn away(&self, name: &str, _cancel: &Cancel) -> Result<Option<String>> {
        Ok(self.shared.world().away(name))
    }

    async fn prepare(
        &self,
        stock: &Stock,
        target: Option<&Placement>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (sandbox, detail) = match stock {
            Stock::Image(image) => ("", image.as_deref().unwrap_or_default()),
            Stock::Snapshot { sandbox, label } => (sandbox.as_str(), label.as_str()),
        };
        let place = target.map(|target| format!(" on {target}")).unwrap_or_default();
        self.call(Verb::Prepare, sandbox, format!("{detail}{place}"), cancel).await?;
        if let Stock::Snapshot { sandbox, label } = stock {
            let mut world = self.shared.world();
            shot(world.settled(sandbox)?, label)?;
            world.cluster.prepared.push((sandbox.clone(), label.clone()));
        }
        Ok(())
    }

    async fn policy(&self, name: &str, cancel: &Cancel) -> Result<Policy> {
        check_name(name)?;
        self.call(Verb::Policy, name, "", cancel).await?;
        Ok(self.shared.world().get(name)?.info.egress.clone())
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::SetPolicy, name, policy.to_string(), cancel).await?;
        self.change_policy(name, |now| {
            now.clone_from(policy);
            Ok(())
        })
    }

    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Allow, name, rule.to_string(), cancel).await?;
        self.change_policy(name, |policy| policy.allow(rule))
    }

    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Deny, name, rule.to_string(), cancel).await?;
        self.change_policy(name, |policy| policy.deny(rule))
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<std::net::SocketAddr>,
        cancel: &Cancel,
    ) -> Result<std::net::SocketAddr> {
        check_name(name)?;
        check_port(port)?;
        self.shared.capabilities.require(Capability::Publish)?;
        self.call(Verb::Publish, name, port.to_string(), cancel).await?;
        self.shared.world().publish(name, port, at)
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<std::net::SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        check_name(name)?;
        check_port(port)?;
        self.shared.capabilities.require(Capability::Publish)?;
        self.call(Verb::Unpublish, name, port.to_string(), cancel).await?;
        self.shared.world().unpublish(name, port, at)
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        check_name(name)?;
        self.call(Verb::EgressLog, name, "", cancel).await?;
        Ok(self.shared.world().get(name)?.log.clone())
    }

    async fn caches(&self, cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        self.shared.capabilities.require(Capability::Caches)?;
        self.call(Verb::Caches, "", "", cancel).await?;
        Ok(self.shared.world().caches())
    }

    async fn delete_cache(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.shared.capabilities.require(Capability::Caches)?;
        self.call(Verb::DeleteCache, "", name, cancel).await?;
        self.shared.world().delete_cache(name)
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.call(Verb::Keep, name, "", cancel).await?;
        self.shared.world().settled(name)?.info.owner = None;
        Ok(())
    }

    async fn adopt(&self, name: &str, adoption: &Adoption, cancel: &Cancel) -> Result<bool> {
        check_name(name)?;
        self.call(Verb::Adopt, name, &adoption.pool, cancel).await?;
        self.shared.world().adopt(name, adoption)
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        self.call(Verb::Gc, "", if dry_run { "dry run" } else { "" }, cancel).await?;
        let now = self.shared.clock.now();
        Ok(self.shared.world().collect(now, dry_run))
    }
}
