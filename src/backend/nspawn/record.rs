//! What is kept of a machine beside its tree: one file for what it is, and one for the run that is under way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::guest::Record;
use super::super::local::boot;
use crate::sandbox::Snapshot;

/// The first of the ids that machines' users get: those that systemd keeps for containers.
const FIRST: u32 = 0x6000_0000;
/// How many ids each has.
pub(super) const RANGE: u32 = 0x1_0000;
const COUNT: u32 = 0x0ff0;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    #[serde(flatten)]
    pub record: Record,
    /// The host's id of its root.
    pub base: u32,
    /// What its `/etc/machine-id` is to be: 32 hexadecimal digits.
    pub machine_id: String,
    /// How many bytes its tree had before it wrote to it, which its limit does not count; none where nothing is
    /// limited.
    pub disk_base: Option<u64>,
    /// Whether it is whole: its first start made it a machine of its own.
    #[serde(default = "whole")]
    pub ready: bool,
    /// Whether it is a machine of a file, which says all else about it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub authored: bool,
    /// Whether its file gives it no interfaces, so that all it sends goes through the gate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// Where its files are, when that is not the store: those of a jail that was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<PathBuf>,
    /// How many ids it has, where that is another number than [`RANGE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Whether its files were given to its ids, because its mounts could not map them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub chown: bool,
}

fn whole() -> bool {
    true
}

/// A run of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    /// Which boot of the host it is of.
    pub boot: String,
    /// The id of its process 1.
    pub leader: i32,
    /// When that started, in clock ticks since the boot.
    pub started: u64,
    /// Its cgroups, inner before outer.
    pub groups: Vec<PathBuf>,
    /// The one of them, of version 2, that all of it is in.
    pub whole: Option<PathBuf>,
    /// What systemd calls the machine.
    pub machine: String,
    /// The service of the host's systemd that it is, where it is one.
    pub unit: Option<String>,
    /// Whether it came up: whoever started it may have been killed before.
    #[serde(default = "whole")]
    pub up: bool,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub label: String,
    pub created: SystemTime,
    pub frozen: Duration,
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub expires: Option<SystemTime>,
}

impl Machine {
    /// A new one, whose ids nobody in `taken` has.
    pub fn new(record: Record, taken: &[u32]) -> Machine {
        let seed: [u8; 4] =
            blake3::hash(record.token.as_bytes()).as_bytes()[..4].try_into().unwrap_or_default();
        let start = u32::from_le_bytes(seed) % COUNT;
        let all = (0..COUNT).map(|step| FIRST + (start + step) % COUNT * RANGE);
        // With more machines than ranges, some share one: they still are in namespaces of their own.
        let base = all.clone().find(|base| !taken.contains(base)).unwrap_or(FIRST + start * RANGE);
        let hash = blake3::hash(format!("machine {}", record.token).as_bytes()).to_hex();
        Machine { record, base, machine_id: hash[..32].to_owned(), ..Machine::default() }
    }

    /// The first of all ids that it has, in steps of [`RANGE`].
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        let count = self.size.unwrap_or(RANGE).div_ceil(RANGE);
        (0..count).map(|at| self.base.saturating_add(at * RANGE))
    }
}

impl Run {
    /// Whether it is of this boot of the host, and its process 1 is there.
    pub fn is_alive(&self) -> bool {
        self.leader > 0 && self.boot == boot() && started(self.leader) == Some(self.started)
    }
}

/// When a process started, unless it has ended.
pub(super) fn started(pid: i32) -> Option<u64> {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name may hold anything, brackets and blanks too.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    match rest.next()? {
        "Z" | "X" => None,
        _ => rest.nth(18)?.parse().ok(),
    }
}

impl Saved {
    /// As the contract reports it.
    pub fn snapshot(&self, size: u64) -> Snapshot {
        Snapshot {
            label: self.label.clone(),
            created: self.created,
            size,
            frozen: self.frozen,
            labels: self.labels.clone(),
            expires: self.expires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Spec;

    #[test]
    fn machines_have_ids_of_their_own_as_long_as_there_are_some() {
        let new = |taken: &[u32]| {
            Machine::new(Record::new(&Spec::new("a"), "i".into(), "f".into()), taken)
        };
        let mut taken = Vec::new();
        for _ in 0..COUNT {
            let machine = new(&taken);
            assert!(!taken.contains(&machine.base) && machine.base % RANGE == 0);
            assert!((0x8_0000..=0x6fff_ffff).contains(&machine.base));
            assert_eq!(machine.machine_id.len(), 32);
            taken.push(machine.base);
        }
        assert!(taken.contains(&new(&taken).base));
    }

    #[test]
    fn a_run_is_alive_as_long_as_its_first_process() {
        let own = std::process::id() as i32;
        let run =
            Run { boot: boot(), leader: own, started: started(own).unwrap(), ..Run::default() };
        assert!(run.is_alive());
        assert!(!Run { started: run.started + 1, ..run.clone() }.is_alive());
        assert!(!Run { boot: "another".into(), ..run }.is_alive());
        assert!(!Run::default().is_alive());
    }
}
