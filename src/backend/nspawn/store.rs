//! The store: a folder of root's that every process of the host shares.
//!
//! ```text
//! machines/NAME/           machine.json; run.json while it runs; tree/; console.log;
//!                          snapshots/LABEL/{snapshot.json,tree}
//! images/                  archives and what is known of them; KEY/tree, unpacked
//! locks/NAME               held by who changes a machine
//! making/ID/               a machine that is not made yet; its maker holds the folder's lock
//! trash/ID                 on its way out
//! gates/                   what the gate keeps
//! layers/, mounts/         where trees are stacks of layers: `tree` is a link
//! trees/                   where trees are datasets of ZFS: `tree` is a link
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::super::guest::token;
use super::super::local::{load, save, store_error};
use super::groups;
use super::record::{Machine, Run, Saved};
use super::systemd::Systemd;
use crate::sandbox::{Error, Kind, Result};

/// The folder.
pub(super) struct Store {
    root: PathBuf,
    scope: String,
    /// Who knows of machines that run without our word for it.
    systemd: Option<Systemd>,
}

/// A lock that its holder's death releases.
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Store {
    /// Opens it, making what is missing. It holds real setuid programs, so nobody else may enter.
    pub fn open(root: &Path) -> Result<Store> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                store_error("opening the store", root, error)
            }
            _ => Error::invalid_hint(
                "store",
                format!("{} can't be used: {error}", root.display()),
                "name another folder with --store",
            ),
        };
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        if root.to_str().is_none_or(|root| root.contains([':', '\n'])) {
            return Err(failed(io::Error::other(
                "its name has a character that systemd-nspawn does not take",
            )));
        }
        for name in ["machines", "images", "locks", "making", "trash"] {
            folder.create(root.join(name)).map_err(failed)?;
        }
        let metadata = fs::metadata(&root).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::Permission {
                what: format!("the store {} belongs to another user", root.display()),
            });
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let scope = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..8].to_owned();
        Ok(Store { root, scope, systemd: None })
    }

    /// With a host's systemd that knows of machines, too.
    pub fn with(self, systemd: Option<Systemd>) -> Store {
        Store { systemd, ..self }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A short word for it: two stores may hold machines of one name.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// What systemd calls a machine: as it is called here, unless it is in another store than the usual one.
    pub fn machine_name(&self, name: &str) -> String {
        if self.root == Path::new(super::STORE) {
            return name.to_owned();
        }
        let own = format!("{name}.{}", self.scope);
        match own.len() {
            // The longest name that a host may have.
            ..=64 => own,
            _ => format!("m{}.{}", &blake3::hash(name.as_bytes()).to_hex()[..32], self.scope),
        }
    }

    /// What the gate keeps.
    pub fn gates(&self) -> PathBuf {
        self.root.join("gates")
    }

    /// Archives, and what they hold.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// A machine's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join("machines").join(name)
    }

    /// A machine's files.
    pub fn tree(&self, name: &str) -> PathBuf {
        self.folder(name).join("tree")
    }

    /// Where a machine's files are.
    pub fn root_of(&self, name: &str, machine: &Machine) -> PathBuf {
        machine.elsewhere.clone().unwrap_or_else(|| self.tree(name))
    }

    /// A snapshot's folder.
    pub fn snapshot(&self, name: &str, label: &str) -> PathBuf {
        self.folder(name).join("snapshots").join(label)
    }

    /// Names of all machines, sorted. A store that was moved away is an error, not an empty one.
    pub fn names(&self) -> Result<Vec<String>> {
        let machines = self.root.join("machines");
        let mut names = list(&machines)?;
        names.sort();
        Ok(names)
    }

    /// A machine.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        load(&self.folder(name).join("machine.json"))?
            .ok_or_else(|| Error::not_found(Kind::Sandbox, name))
    }

    /// Replaces what is known of a machine.
    pub fn save(&self, name: &str, machine: &Machine) -> Result<()> {
        save(&self.folder(name).join("machine.json"), machine)
    }

    /// The run of a machine that is under way: as it was noted, or, where whoever started it was killed before
    /// it could note that, or was not us, as the host knows it.
    pub fn run(&self, name: &str) -> Result<Option<Run>> {
        Ok(self.last_run(name)?.filter(Run::is_alive))
    }

    /// The last run that is known of, whether it is over or not.
    pub fn last_run(&self, name: &str) -> Result<Option<Run>> {
        let noted = load::<Run>(&self.folder(name).join("run.json"))?;
        if noted.as_ref().is_some_and(Run::is_alive) {
            return Ok(noted);
        }
        let found = match &self.systemd {
            Some(systemd) => self.machine(name).ok().and_then(|machine| {
                let rendered = machine.authored.then(|| self.root_of(name, &machine));
                systemd.found(&self.machine_name(name), rendered.as_deref())
            }),
            None => noted.as_ref().and_then(groups::found),
        };
        Ok(found.or(noted))
    }

    /// Notes a run, or that there is none.
    pub fn set_run(&self, name: &str, run: Option<&Run>) -> Result<()> {
        let path = self.folder(name).join("run.json");
        match run {
            Some(run) => save(&path, run),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(store_error("deleting", &path, error))
                }
                _ => Ok(()),
            },
        }
    }

    /// A machine's snapshots, oldest first.
    pub fn snapshots(&self, name: &str) -> Result<Vec<Saved>> {
        let folder = self.folder(name).join("snapshots");
        let labels = match list(&folder) {
            Ok(labels) => labels,
            Err(_) if !folder.exists() => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for label in labels {
            all.extend(load::<Saved>(&folder.join(label).join("snapshot.json"))?);
        }
        all.sort_by_key(|saved| saved.created);
        Ok(all)
    }

    /// One snapshot.
    pub fn saved(&self, name: &str, label: &str) -> Result<Saved> {
        load(&self.snapshot(name, label).join("snapshot.json"))?
            .ok_or_else(|| Error::not_found(Kind::Snapshot, label))
    }

    /// One at a time may change a machine, or take its name.
    pub async fn changing(&self, name: &str) -> Result<Lock> {
        hold(&self.root.join("locks").join(name)).await
    }

    /// The lock if nobody has it.
    pub fn try_changing(&self, name: &str) -> Option<Lock> {
        let path = self.root.join("locks").join(name);
        let file = File::options().create(true).append(true).open(path).ok()?;
        file.try_lock().is_ok().then_some(Lock(file))
    }

    /// A folder for something new, which goes with its maker.
    pub fn new_folder(&self) -> Result<(PathBuf, Lock)> {
        loop {
            let folder = self.root.join("making").join(token());
            let failed = |error| store_error("making", &folder, error);
            let file = fs::create_dir(&folder).and_then(|()| File::open(&folder));
            let file = match file {
                // Who collects leftovers was between the two.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && folder.parent().is_some_and(Path::exists) =>
                {
                    continue;
                }
                file => file.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) => return Ok((folder, Lock(file))),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// What nobody makes any more, and what is on its way out and whose remover is gone; locked.
    pub fn leftovers(&self) -> Result<Vec<(PathBuf, Lock)>> {
        let mut all = Vec::new();
        for place in ["making", "trash"] {
            let place = self.root.join(place);
            let free = |path: PathBuf| {
                let folder = File::open(&path).ok()?;
                folder.try_lock().is_ok().then_some((path, Lock(folder)))
            };
            all.extend(list(&place)?.into_iter().map(|name| place.join(name)).filter_map(free));
        }
        Ok(all)
    }

    /// Whether a machine is copied at the moment, or was when whoever copied it died.
    pub fn is_copied(&self, name: &str) -> bool {
        self.folder(name).join("copied").exists()
    }

    /// Notes that a machine is copied, or that it is not any more. Who holds its lock does.
    pub fn set_copied(&self, name: &str, copied: bool) -> Result<()> {
        let path = self.folder(name).join("copied");
        let done = match copied {
            true => File::create(&path).map(drop),
            false => fs::remove_file(&path),
        };
        match done {
            Err(error) if copied || error.kind() != io::ErrorKind::NotFound => {
                Err(store_error("noting a copy in", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Moves something out of the way, to be deleted; the lock keeps others from doing that. Missing is fine.
    pub fn discard(&self, path: &Path) -> Result<Option<(PathBuf, Lock)>> {
        let place = self.root.join("trash").join(token());
        let failed = |error| store_error("deleting", path, error);
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        // Of a folder whose maker has the lock, that one is enough.
        let _ = file.try_lock();
        match fs::rename(path, &place) {
            Ok(()) => Ok(Some((place, Lock(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// One at a time may unpack an image.
    pub async fn image_lock(&self, key: &str) -> Result<Lock> {
        hold(&self.images().join(format!("{key}.lock"))).await
    }
}

/// Gives what was prepared its place, where nothing is. Who holds the lock of its name does.
pub(super) fn settle(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // ZFS has had no such thing before 2.2.
        Err(Errno::INVAL) if to.symlink_metadata().is_err() => fs::rename(from, to),
        Err(Errno::INVAL) => Err(io::ErrorKind::AlreadyExists.into()),
        done => Ok(done?),
    }
}

/// Gives a new tree an old one's place, in one step. The old one is where the new one was then, but for links
/// where the file system can't exchange them: those are gone.
pub(super) fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL) if new.is_symlink() => fs::rename(new, old),
        done => Ok(done?),
    }
}

/// Waits for a lock of this name.
pub(super) async fn hold(path: &Path) -> Result<Lock> {
    let file = File::options().create(true).append(true).open(path);
    wait(path, file.map_err(|error| store_error("opening", path, error))?).await
}

async fn wait(path: &Path, file: File) -> Result<Lock> {
    let mut pause = Duration::from_millis(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::Error(error)) => return Err(store_error("locking", path, error)),
            Err(TryLockError::WouldBlock) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn list(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| store_error("reading", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}
