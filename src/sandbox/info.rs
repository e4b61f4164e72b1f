//! What is known about a sandbox.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{CacheMount, Device, Hardware, Limits, Mount, Network, Owner, Policy, Published};

/// The state a sandbox is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Commands can run.
    Running,
    /// Nothing runs; its files are kept.
    Stopped,
    /// Its processes stand still.
    Frozen,
    /// Between two states: being created, started, stopped or deleted, and by whom.
    Transitional(String),
    /// Unusable, and why. It can be deleted.
    Error(String),
}

impl State {
    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Stopped => "stopped",
            State::Frozen => "frozen",
            State::Transitional(_) => "transitional",
            State::Error(_) => "error",
        }
    }
}

/// A sandbox as a backend reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Its name, unique on the backend.
    pub name: String,
    /// Its state.
    pub state: State,
    /// The image as it was asked for.
    pub image: String,
    /// What the image was when the sandbox was made: a digest that changes with its content.
    pub fingerprint: String,
    /// The guest's hostname.
    pub hostname: String,
    /// When it was created.
    pub created: SystemTime,
    /// When it was last started, cloned from or had a command run in it, as far as the backend knows
    /// and to the minute; else when it was created.
    pub used: SystemTime,
    /// What it was cloned from: `NAME`, or `NAME/LABEL` of a snapshot.
    pub source: Option<String>,
    /// The limits as set.
    pub limits: Limits,
    /// What its machine is like, as far as that was asked for.
    #[serde(default, skip_serializing_if = "Hardware::is_plain")]
    pub hardware: Hardware,
    /// Host folders in it.
    pub mounts: Vec<Mount>,
    /// Folders of the backend's in it that outlive it.
    pub caches: Vec<CacheMount>,
    /// Devices of the machine's in it.
    pub devices: Vec<Device>,
    /// Containers may run in it.
    pub nesting: bool,
    /// The egress policy as set.
    pub egress: Policy,
    /// Networks that it is in.
    pub networks: Vec<Network>,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// User of every command that names none.
    pub user: Option<String>,
    /// Working directory of every command that names none.
    pub cwd: Option<String>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub owner: Option<Owner>,
    /// When `gc` may take it.
    pub expires: Option<SystemTime>,
    /// Addresses of its network interfaces.
    pub addresses: Vec<String>,
    /// Its ports that are open on the host.
    pub ports: Vec<Published>,
    /// The member of a cluster that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Where its files are on the machine that holds it, as that calls it: a ZFS dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// How commands come to it, where the backend has more than one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
}
