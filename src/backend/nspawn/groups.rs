//! A machine's cgroups: its own in each hierarchy. Two that were started without would share one, and what is
//! to hit one of them would hit the other.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::super::local::boot;
use super::super::local::cgroup::{Cgroups, Controller, name_of_start};
use super::record::{Run, started};
use crate::sandbox::{Error, Limits, Result};

/// How long the processes in a group may take to be gone after they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where cgroups can be made.
pub(super) struct Groups {
    cgroups: Cgroups,
    /// Where version 2 is mounted, and where systemd's own hierarchy of version 1 is.
    mounts: (Option<PathBuf>, Option<PathBuf>),
}

/// One machine's.
pub(super) struct Made {
    /// Files that whoever starts it writes its id to.
    pub procs: Vec<PathBuf>,
    /// All of its folders, inner before outer.
    pub folders: Vec<PathBuf>,
    /// The folder of version 2 that all of it is in.
    pub whole: Option<PathBuf>,
}

impl Groups {
    /// Finds out what can be done from this process's cgroup. `scope` keeps stores apart.
    pub fn probe(scope: &str) -> Groups {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let point = |wanted: fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let mut right = right.split(' ');
                let (kind, options) = (right.next()?, right.nth(1)?);
                wanted(kind, options).then(|| left.split(' ').nth(4).map(PathBuf::from))?
            })
        };
        let unified = point(|kind, _| kind == "cgroup2");
        let named = point(|kind, options| {
            kind == "cgroup" && options.split(',').any(|option| option == "name=systemd")
        });
        Groups { cgroups: Cgroups::probe(&format!("n{scope}")), mounts: (unified, named) }
    }

    /// Why something can't be limited here; none when it can.
    pub fn missing(&self, controller: Controller) -> Option<&str> {
        self.cgroups.missing(controller)
    }

    /// Why nothing can be made to stand still; none when it can.
    pub fn cannot_freeze(&self) -> Option<&'static str> {
        match &self.mounts.0 {
            Some(_) => None,
            None => Some(
                "no cgroup hierarchy of version 2 is mounted: mount cgroup2 at /sys/fs/cgroup/unified",
            ),
        }
    }

    /// Makes those of a machine and sets its limits.
    pub fn make(&self, name: &str, limits: &Limits) -> Result<Made> {
        let group = self.cgroups.create(&name_of_start(name), limits)?;
        let mut folders = group.folders.clone();
        let is = |folder: &Path, name: &str| folder.file_name().is_some_and(|own| own == name);
        let joined = |folder: &&PathBuf| !is(folder, "init") && !folder.join("payload").exists();
        let procs =
            folders.iter().filter(joined).map(|folder| folder.join("cgroup.procs")).collect();
        let whole = folders.iter().find(|folder| is(folder, "payload")).cloned();
        // systemd-nspawn itself makes the same there.
        if let ((Some(unified), Some(named)), Some(own)) =
            ((&self.mounts.0, &self.mounts.1), whole.as_ref().and_then(|whole| whole.parent()))
            && let Ok(below) = own.strip_prefix(unified)
        {
            folders.push(named.join(below));
        }
        Ok(Made { procs, folders, whole })
    }
}

/// Kills all that is in a machine's group of version 2.
pub(super) fn kill(whole: &Path) -> bool {
    fs::write(whole.join("cgroup.kill"), "1").is_ok()
}

/// A run that was begun, whose first process nobody noted: it is looked for in its group.
pub(super) fn found(noted: &Run) -> Option<Run> {
    let whole = noted.whole.as_ref().filter(|_| noted.leader == 0 && noted.boot == boot())?;
    let leader = ["payload/init.scope", "init.scope", "payload", "."].iter().find_map(|below| {
        let text = fs::read_to_string(whole.join(below).join("cgroup.procs")).ok()?;
        text.lines().filter_map(|line| line.parse().ok()).find(|pid| is_first(*pid))
    })?;
    Some(Run { leader, started: started(leader)?, ..noted.clone() })
}

/// Whether a process is the first of a namespace of its own, and boots.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}

/// Removes groups with all below them, when the last processes in them are gone.
///
/// # Errors
/// `Internal` where something still runs in one of them.
pub(super) async fn remove(folders: &[PathBuf]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for folder in folders {
        while let Err(error) = remove_tree(folder) {
            if Instant::now() > until {
                return Err(Error::io(format!("removing the cgroup {}", folder.display()), error));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    // The folder of the store's groups goes with the last of them.
    for scope in folders.iter().filter_map(|folder| folder.parent()) {
        if scope.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sandscript-")) {
            let _ = fs::remove_dir(scope);
        }
    }
    Ok(())
}

/// However deep it is: a machine makes groups below its own, with names of its choice.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &CStr| openat(at, name, flags, Mode::empty());
    let mut here = match rustix::fs::open(folder, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        here => here?,
    };
    let mut names: Vec<CString> = Vec::new();
    loop {
        if let Some(below) = first_folder(&here)? {
            here = open(here.as_fd(), &below)?;
            names.push(below);
        } else if let Some(name) = names.pop() {
            here = open(here.as_fd(), c"..")?;
            unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
        } else {
            break;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn first_folder(of: &OwnedFd) -> std::io::Result<Option<CString>> {
    for entry in Dir::read_from(of)? {
        let entry = entry?;
        let own = [c".", c".."].contains(&entry.file_name());
        if entry.file_type() == FileType::Directory && !own {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

/// Lets all that is in a group go on, as far as it is there.
pub(super) fn thaw(whole: &Path) {
    let _ = fs::write(whole.join("cgroup.freeze"), "0");
}

/// Lets all that is in a group stand still, or go on.
pub(super) async fn freeze(whole: &Path, still: bool) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("letting a sandbox stand still", error);
    let word = if still { "1" } else { "0" };
    fs::write(whole.join("cgroup.freeze"), word).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    while is_frozen(whole) != still {
        if Instant::now() > until {
            thaw(whole);
            return Err(Error::Timeout {
                what: "letting a sandbox stand still".into(),
                after: PATIENCE,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether all that is in a group stands still.
pub(super) fn is_frozen(whole: &Path) -> bool {
    let events = fs::read_to_string(whole.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}
