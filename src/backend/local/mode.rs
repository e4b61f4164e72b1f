//! With what rights sandboxes are made here: as root, as a user with a subordinate id range, or as
//! a user with a single id.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::protocol::{Doing, Failure};

/// How many ids a sandbox has where it has more than one.
pub const RANGE: u32 = 65536;

/// The rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Root of this machine: each sandbox gets a private id range.
    Root,
    /// A user with subordinate ids and `newuidmap`.
    Range(Ranges),
    /// A user (or a container's root) with its own id only.
    Single {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Why not more.
        reason: String,
    },
}

/// The caller's ids and where its subordinate ranges start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// First subordinate user id.
    pub subuid: u32,
    /// First subordinate group id.
    pub subgid: u32,
}

impl Mode {
    /// Finds out. `subordinate: false` does without subordinate ids.
    pub fn detect(subordinate: bool) -> Mode {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let single = |reason: &str| Mode::Single { uid, gid, reason: reason.into() };
        if uid == 0 {
            let admin = capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
            return match (admin, owns_all_ids()) {
                (true, true) => Mode::Root,
                (false, _) => single(
                    "this root has no CAP_SYS_ADMIN: run on the host, or give the container that capability",
                ),
                (_, false) => {
                    single("this root is a container's: run on the host for private id ranges")
                }
            };
        }
        if !subordinate {
            return single("subordinate ids are switched off in the configuration");
        }
        let (Some(subuid), Some(subgid)) =
            (subordinate_range("/etc/subuid", uid), subordinate_range("/etc/subgid", uid))
        else {
            return single(
                "no range of 65535 ids for this user in /etc/subuid and /etc/subgid: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` adds one",
            );
        };
        if mapper("newuidmap").is_none() || mapper("newgidmap").is_none() {
            return single("newuidmap is missing: install the package uidmap");
        }
        Mode::Range(Ranges { uid, gid, subuid, subgid })
    }
}

fn owns_all_ids() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn subordinate_range(file: &str, uid: u32) -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    });
    let (name, uid) = (name.unwrap_or_default(), uid.to_string());
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [owner, start, count] = fields[..] else { return None };
        let count: u32 = count.trim().parse().ok()?;
        ((owner == name || owner == uid) && count >= RANGE - 1).then(|| start.parse().ok())?
    })
}

fn mapper(name: &str) -> Option<String> {
    ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| Path::new(path).exists())
}

/// Writes the maps of a keeper's new namespace: guest root is the user, the rest its range.
pub fn map_ranges(pid: u32, ranges: &Ranges) -> Result<(), Failure> {
    for (program, own, first) in
        [("newuidmap", ranges.uid, ranges.subuid), ("newgidmap", ranges.gid, ranges.subgid)]
    {
        let path = mapper(program).unwrap_or_else(|| program.into());
        let numbers = [0, own, 1, 1, first, RANGE - 1].map(|number| number.to_string());
        let output = Command::new(path)
            .arg(pid.to_string())
            .args(numbers)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .doing(&format!("running {program}"))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("{program}: {}", message.trim())));
        }
    }
    Ok(())
}
