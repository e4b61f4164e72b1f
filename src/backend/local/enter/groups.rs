//! The cgroups of a machine, for a process that is to be in them.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::backend::local::cgroup::places;

/// Below the group that a machine has as its root, beside those that its init makes.
const OWN: &str = "sandscript";
/// Where an init keeps itself.
const INIT: &str = "init.scope";

/// `cgroup.procs` of the groups to go into: those of its process 1, but where its init puts processes into groups, one
/// of their own.
pub fn of(leader: i32) -> io::Result<Vec<OwnedFd>> {
    let own = fs::read_to_string(format!("/proc/{leader}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut files = Vec::new();
    for (names, folder) in places(&own, &mounts) {
        let managed = names.is_empty() || names == "name=systemd";
        let folder = if managed { below(folder)? } else { folder };
        files.push(File::options().write(true).open(folder.join("cgroup.procs"))?.into());
    }
    Ok(files)
}

/// Where controllers are handed down, processes are at the ends only: so not in the root, which is the machine's.
fn below(mut folder: PathBuf) -> io::Result<PathBuf> {
    if folder.file_name().is_some_and(|name| name == INIT) {
        folder.pop();
    }
    folder.push(OWN);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(folder),
    }
}
