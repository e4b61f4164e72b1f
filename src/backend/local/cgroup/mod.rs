//! The sandboxes' cgroups: limits, freeze and kill, on version 2, version 1 and hybrid systems.
//!
//! A sandbox has a group of its own in each hierarchy that it needs, below
//! `<the caller's cgroup>/sandscript-<scope>/`. Without limits that is version 2 alone, since each
//! further hierarchy costs time at every start of a command.

mod hierarchy;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::hierarchy::{Found, find, words};
use crate::sandbox::{Error, Limits, Result};

/// What a cgroup can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Share of the processors.
    Cpu,
    /// Memory, swap included.
    Memory,
    /// Processes and threads.
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: &[Controller] = &[Controller::Cpu, Controller::Memory, Controller::Pids];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

/// Where cgroups can be made, and what they can limit. The folder of its scope goes with it when nothing
/// is in there.
#[derive(Debug)]
pub struct Cgroups {
    scope: String,
    found: Found,
    missing: BTreeMap<Controller, String>,
    aside: PathBuf,
}

/// One sandbox's groups, as descriptors for its start.
#[derive(Debug, Default)]
pub struct Group {
    /// `cgroup.procs` that init joins (by writing "0").
    pub init: Vec<OwnedFd>,
    /// `cgroup.procs` that commands join; version 2's is the last.
    pub payload: Vec<OwnedFd>,
    /// The version 2 folders of init and of the commands: a process can be born in them, which costs
    /// far less than joining.
    pub birth: Option<(OwnedFd, OwnedFd)>,
    /// `cgroup.freeze` and `cgroup.events` of the commands' group; none without version 2.
    pub freeze: Option<(OwnedFd, OwnedFd)>,
    /// The folders that were made, inner before outer: what [`remove`] takes. They depend on the
    /// caller's cgroup, so whoever made them has to remember them.
    pub folders: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds out what can be done from this process's cgroup. `scope` (a short word) keeps the
    /// groups of different stores apart.
    pub fn probe(scope: &str) -> Cgroups {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let pid = std::process::id();
        Self::from(scope, find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), pid))
    }

    fn from(scope: &str, found: Found) -> Cgroups {
        let mut missing = BTreeMap::new();
        for controller in Controller::ALL {
            if found.place(*controller).is_none() {
                missing.insert(*controller, found.why_not(*controller));
            }
        }
        let aside = found.unified.as_ref().map(|base| base.path.join("sandscript-caller"));
        Cgroups { scope: scope.into(), found, missing, aside: aside.unwrap_or_default() }
    }

    /// Why a controller can't be used here, and what to do; none when it can.
    pub fn missing(&self, controller: Controller) -> Option<&str> {
        self.missing.get(&controller).map(String::as_str)
    }

    /// Makes the groups of a sandbox and sets its limits. `name` is unique in the scope.
    ///
    /// # Errors
    /// `Unsupported` for a limit that can't be set here. Nothing is left behind on an error.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group> {
        let mut group = Group::default();
        let made = self.make(name, limits, &mut group);
        if made.is_err() {
            remove(&group.folders);
        }
        made.map(|()| group)
    }

    fn make(&self, name: &str, limits: &Limits, group: &mut Group) -> Result<()> {
        let wanted = wanted(limits);
        for controller in &wanted {
            if let Some(why) = self.missing(*controller) {
                return Err(Error::unsupported(
                    format!("limit-{}", controller.name()),
                    "local",
                    why,
                ));
            }
        }
        for (controller, base) in &self.found.legacy {
            if wanted.contains(controller) && !self.unified_has(*controller) {
                let folder = base.join(self.folder()).join(name);
                mkdirs(base, &folder, group)?;
                set_legacy(*controller, &folder, limits)?;
                group.payload.push(open(&folder.join("cgroup.procs"), true)?);
            }
        }
        let Some(base) = &self.found.unified else { return Ok(()) };
        let unified: Vec<Controller> =
            wanted.into_iter().filter(|controller| self.unified_has(*controller)).collect();
        let outer = base.path.join(self.folder());
        let own = outer.join(name);
        let payload = own.join("payload");
        mkdirs(&base.path, &payload, group)?;
        let mut init = own.clone();
        if !unified.is_empty() {
            // A group that hands controllers down may hold no process itself.
            init = own.join("init");
            mkdirs(&base.path, &init, group)?;
            self.hand_down(&base.path, &unified)?;
            hand_down(&outer, &unified)?;
            hand_down(&own, &unified)?;
            set_unified(&payload, limits)?;
        }
        group.init.push(open(&init.join("cgroup.procs"), true)?);
        group.payload.push(open(&payload.join("cgroup.procs"), true)?);
        group.birth = Some((open(&init, false)?, open(&payload, false)?));
        let (freeze, events) = (payload.join("cgroup.freeze"), payload.join("cgroup.events"));
        if freeze.exists() {
            group.freeze = Some((open(&freeze, true)?, open(&events, false)?));
        }
        Ok(())
    }

    fn folder(&self) -> String {
        format!("sandscript-{}", self.scope)
    }

    fn unified_has(&self, controller: Controller) -> bool {
        self.found.unified.as_ref().is_some_and(|base| base.controllers.contains(&controller))
    }

    /// Enables controllers below the base; steps aside when this process is the only one in it.
    fn hand_down(&self, base: &Path, controllers: &[Controller]) -> Result<()> {
        if hand_down(base, controllers).is_ok() {
            return Ok(());
        }
        match fs::create_dir(&self.aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&self.aside, &error));
            }
            _ => {}
        }
        put(&self.aside.join("cgroup.procs"), "0")?;
        hand_down(base, controllers)
    }

    /// Groups of this scope, found from this process's cgroup, whose sandboxes are not in `known`:
    /// folders, inner before outer. Take a lock that keeps others from creating meanwhile.
    pub fn stale(&self, known: &HashSet<String>) -> Vec<PathBuf> {
        let unified = self.found.unified.iter().map(|base| &base.path);
        let legacy = self.found.legacy.iter().map(|(_, path)| path);
        let mut all = Vec::new();
        for base in unified.chain(legacy) {
            let Ok(entries) = fs::read_dir(base.join(self.folder())) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let sandbox = name.split('.').next().unwrap_or_default();
                if entry.path().is_dir() && !known.contains(sandbox) && !held(&entry.path()) {
                    all.extend(["payload", "init"].map(|inner| entry.path().join(inner)));
                    all.push(entry.path());
                }
            }
        }
        all.retain(|path| path.is_dir());
        all
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let unified = self.found.unified.iter().map(|base| &base.path);
        for base in unified.chain(self.found.legacy.iter().map(|(_, path)| path)) {
            let _ = fs::remove_dir(base.join(self.folder()));
        }
    }
}

impl Group {
    /// Lets `owner`, the guest's root, start processes in the commands' group. It has no way to the
    /// files: they are in none of its mounts.
    pub fn give(&self, owner: u32) {
        let owner = Some(rustix::fs::Uid::from_raw(owner));
        // Where it fails, commands join as they would without version 2.
        for procs in self.init.iter().chain(self.payload.last()) {
            let _ = rustix::fs::fchown(procs, owner, None);
        }
    }
}

impl Found {
    fn place(&self, controller: Controller) -> Option<&Path> {
        let unified = self.unified.as_ref().filter(|base| base.controllers.contains(&controller));
        let legacy = self.legacy.iter().find(|(other, _)| *other == controller);
        unified.map(|base| base.path.as_path()).or(legacy.map(|(_, path)| path.as_path()))
    }

    fn why_not(&self, controller: Controller) -> String {
        let name = controller.name();
        let root = rustix::process::geteuid().is_root();
        match self.refused.iter().find(|(other, _)| *other == controller) {
            Some((_, path)) if root => format!(
                "cgroup {} can't hand the {name} controller down: run it in a cgroup of its own, \
                 e.g. under `systemd-run --scope -p Delegate=yes`",
                path.display()
            ),
            Some((_, path)) => format!(
                "no cgroup delegation: {} is not yours; run it under \
                 `systemd-run --user --scope -p Delegate=yes`",
                path.display()
            ),
            None => format!(
                "no cgroup hierarchy with the {name} controller is mounted, or this process is \
                 outside it: mount cgroup2 at /sys/fs/cgroup"
            ),
        }
    }
}

/// Removes groups, inner before outer; kills what is still in them. Waits for their last
/// processes for a second at most; whether all are gone.
pub fn remove(folders: &[PathBuf]) -> bool {
    let gone = |path: &Path| {
        let error = fs::remove_dir(path).err();
        error.is_none_or(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let mut all = true;
    for folder in folders {
        if gone(folder) {
            continue;
        }
        let _ = put(&folder.join("cgroup.kill"), "1");
        let wait = std::time::Duration::from_millis(2);
        all &= (0..500).any(|_| {
            std::thread::sleep(wait);
            gone(folder)
        });
    }
    all
}

/// Whether a process 1 that was made ahead, for a sandbox of any name, lives in there.
fn held(group: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let payload = File::open(group.join("payload"));
    payload.is_ok_and(|payload| flock(&payload, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// A name for the groups of one start of a sandbox: those of an earlier start may still be on their
/// way out.
pub fn name_of_start(sandbox: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{sandbox}.{:x}-{:x}", std::process::id(), now.as_nanos() as u64)
}

fn wanted(limits: &Limits) -> Vec<Controller> {
    let has = |controller: &&Controller| match controller {
        Controller::Cpu => limits.cpu.is_some(),
        Controller::Memory => limits.memory.is_some(),
        Controller::Pids => limits.pids.is_some(),
    };
    Controller::ALL.iter().filter(has).copied().collect()
}

fn quota(cpus: f64) -> u64 {
    // The kernel takes no less than a millisecond of each period.
    ((cpus * PERIOD as f64) as u64).max(1000)
}

const PERIOD: u64 = 100_000;

fn set_legacy(controller: Controller, folder: &Path, limits: &Limits) -> Result<()> {
    let set = |file: &str, value: u64| put(&folder.join(file), &value.to_string());
    match controller {
        Controller::Cpu => {
            set("cpu.cfs_period_us", PERIOD)?;
            set("cpu.cfs_quota_us", quota(limits.cpu.unwrap_or_default()))
        }
        Controller::Memory => {
            let bytes = limits.memory.unwrap_or_default();
            set("memory.limit_in_bytes", bytes)?;
            let swap = "memory.memsw.limit_in_bytes";
            if folder.join(swap).exists() { set(swap, bytes) } else { Ok(()) }
        }
        Controller::Pids => set("pids.max", limits.pids.unwrap_or_default()),
    }
}

fn set_unified(folder: &Path, limits: &Limits) -> Result<()> {
    if let Some(cpus) = limits.cpu
        && folder.join("cpu.max").exists()
    {
        put(&folder.join("cpu.max"), &format!("{} {PERIOD}", quota(cpus)))?;
    }
    if let Some(bytes) = limits.memory
        && folder.join("memory.max").exists()
    {
        put(&folder.join("memory.max"), &bytes.to_string())?;
        let swap = folder.join("memory.swap.max");
        if swap.exists() {
            put(&swap, "0")?;
        }
    }
    if let Some(pids) = limits.pids
        && folder.join("pids.max").exists()
    {
        put(&folder.join("pids.max"), &pids.to_string())?;
    }
    Ok(())
}

fn hand_down(folder: &Path, controllers: &[Controller]) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let there = words(&file);
    let lacking: Vec<String> = controllers
        .iter()
        .filter(|controller| !there.iter().any(|word| word == controller.name()))
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    if lacking.is_empty() { Ok(()) } else { put(&file, &lacking.join(" ")) }
}

/// Makes `folder` and what is missing between it and `base`; those that are the sandbox's own are noted.
fn mkdirs(base: &Path, folder: &Path, group: &mut Group) -> Result<()> {
    let below = folder.strip_prefix(base).unwrap_or(Path::new(""));
    let mut path = base.to_path_buf();
    for (depth, part) in below.iter().enumerate() {
        path.push(part);
        let made = fs::create_dir(&path).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            // Another backend of this scope has just gone, and the scope's folder with it.
            io::ErrorKind::NotFound if depth > 0 => fs::create_dir_all(&path),
            _ => Err(error),
        });
        made.map_err(|error| failed(&path, &error))?;
        if depth > 0 && !group.folders.contains(&path) {
            group.folders.insert(0, path.clone());
        }
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed(path, &error))
}

fn open(path: &Path, write: bool) -> Result<OwnedFd> {
    let file = if write { OpenOptions::new().write(true).open(path) } else { File::open(path) };
    file.map(OwnedFd::from).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::io(format!("the sandbox's cgroup {} can't be set up", path.display()), error)
}

#[cfg(test)]
mod tests;
