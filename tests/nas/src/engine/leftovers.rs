//! What a simulator that was killed leaves behind, and who is alive.
//!
//! Its processes, mounts and loop devices die with process 1 of its namespaces. A bridge, cgroups
//! and its folder do not: each simulator holds a lock on a file that names them, and whoever starts
//! next removes what belongs to files that nobody locks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

const REGISTRY: &str = "/var/tmp/nas-sim";

/// The entry of a simulator that is alive.
pub struct Entry {
    /// A number that no other has.
    pub number: u8,
    path: PathBuf,
    _lock: File,
}

impl Entry {
    /// What its bridge and cgroups are called.
    pub fn name(&self) -> String {
        format!("nassim{}", self.number)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        remove(&self.name(), &self.path);
    }
}

/// Removes what the dead left, and takes a number.
pub fn enter(state: &Path) -> Result<Entry, String> {
    std::fs::create_dir_all(REGISTRY).map_err(|e| format!("{REGISTRY}: {e}"))?;
    let mut entry = None;
    for number in 1..=200 {
        let path = Path::new(REGISTRY).join(format!("nassim{number}"));
        if entry.is_some() && !path.exists() {
            continue;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        remove(&format!("nassim{number}"), &path);
        if !old.is_empty() && Path::new(&old) != state {
            let _ = std::fs::remove_file(Path::new(&old).join("disk.img"));
        }
        if entry.is_none() {
            // The file was removed while we held its lock: make it anew and hold that.
            let file = File::create(&path).map_err(|e| e.to_string())?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| e.to_string())?;
            std::fs::write(&path, state.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
            entry = Some(Entry { number, path, _lock: file });
        }
    }
    entry.ok_or_else(|| "200 simulators run already".to_owned())
}

fn remove(name: &str, path: &Path) {
    if Path::new("/sys/class/net").join(name).exists() {
        let _ = Command::new("ip").args(["link", "delete", name]).status();
    }
    // The daemon would have removed its rules with the bridge.
    for chain in chains(name) {
        let _ = Command::new("nft").args(["delete", "chain", "inet", "incus", &chain]).output();
    }
    // The last one takes the daemon's table along.
    let table = Command::new("nft").args(["list", "table", "inet", "incus"]).output();
    if table
        .is_ok_and(|o| o.status.success() && !String::from_utf8_lossy(&o.stdout).contains("chain"))
    {
        let _ = Command::new("nft").args(["delete", "table", "inet", "incus"]).output();
    }
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for tree in trees.map(|t| t.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
        fold(&tree.join(name));
    }
    let _ = std::fs::remove_file(path);
}

/// The daemon's chains for this bridge.
fn chains(name: &str) -> Vec<String> {
    let listed = Command::new("nft").args(["list", "chains", "inet"]).output();
    let text = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let suffix = format!(".{name}");
    text.split_whitespace().filter(|w| w.ends_with(&suffix)).map(str::to_owned).collect()
}

/// Removes a cgroup and those in it.
fn fold(folder: &Path) {
    let inner = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        fold(&entry.path());
    }
    let _ = std::fs::remove_dir(folder);
}
