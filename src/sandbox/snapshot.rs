//! Snapshots and clones.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    CacheMount, Device, Limits, Network, Owner, Placement, Policy, Result, Spec, check_label,
};

/// What a snapshot is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// Unique among the sandbox's snapshots.
    pub label: String,
    /// Free-form labels, kept with it.
    pub labels: BTreeMap<String, String>,
    /// When `gc` or the machine itself may delete it.
    pub expires: Option<SystemTime>,
}

impl SnapshotSpec {
    /// A snapshot with this label.
    pub fn new(label: impl Into<String>) -> Self {
        SnapshotSpec { label: label.into(), ..SnapshotSpec::default() }
    }
}

/// A snapshot as a backend reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Unique among the sandbox's snapshots.
    pub label: String,
    /// When it was taken. Right after taking it a server's own note of it may be some milliseconds later.
    pub created: SystemTime,
    /// Bytes that only this snapshot holds: nothing right after taking it, where it shares what it has.
    pub size: u64,
    /// How long the guest's processes stood still for it; zero when nothing had to.
    pub frozen: Duration,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// When it may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<SystemTime>,
}

/// How to restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Allow a backend that can't do otherwise to delete snapshots newer than the restored one.
    pub discard_newer: bool,
}

/// What a clone is to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CloneSpec {
    /// The new sandbox's name.
    pub name: String,
    /// Which snapshot of the source; its current state when not given.
    pub label: Option<String>,
    /// The clone's hostname; its name when not given.
    pub hostname: Option<String>,
    /// Replaces the source's limits.
    pub limits: Option<Limits>,
    /// Replaces the source's egress policy.
    pub egress: Option<Policy>,
    /// The networks that the clone is in. The source's are not taken over: it may be another run's.
    pub networks: Vec<Network>,
    /// The clone's caches. The source's are not taken over.
    pub caches: Vec<CacheMount>,
    /// Beside the source's, of which it has those that two may have; one of the same name replaces it.
    pub devices: Vec<Device>,
    /// Containers may run in it; as in its source when not said.
    pub nesting: bool,
    /// Added to the source's environment.
    pub env: BTreeMap<String, String>,
    /// The clone's labels. The source's are not taken over.
    pub labels: BTreeMap<String, String>,
    /// Who makes it; as in [`super::Spec::owner`].
    pub owner: Option<Owner>,
    /// When `gc` may take it.
    pub expires: Option<SystemTime>,
    /// Leave it stopped.
    pub bare: bool,
    /// Where in a cluster. When not given it is beside its source, where it shares the disk with it.
    pub target: Option<Placement>,
    /// It need not be beside its source: where [`super::Backend::prepare`] was called for its
    /// snapshot, the cluster puts it wherever there is room.
    pub spread: bool,
}

impl CloneSpec {
    /// A clone of the current state.
    pub fn new(name: impl Into<String>) -> Self {
        CloneSpec { name: name.into(), ..CloneSpec::default() }
    }

    /// A clone of a snapshot.
    pub fn of(label: impl Into<String>, name: impl Into<String>) -> Self {
        CloneSpec { label: Some(label.into()), ..CloneSpec::new(name) }
    }

    /// Refuses what no backend can make, before any I/O.
    pub fn check(&self) -> Result<()> {
        if let Some(label) = &self.label {
            check_label(label)?;
        }
        let mut made = Spec::new(&self.name);
        made.hostname = self.hostname.clone();
        made.limits = self.limits.clone().unwrap_or_default();
        made.env = self.env.clone();
        made.caches = self.caches.clone();
        made.networks = self.networks.clone();
        made.devices = self.devices.clone();
        made.check()
    }
}
