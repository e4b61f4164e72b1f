//! What a sandbox is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    CacheMount, Device, Error, Hardware, Network, Placement, Policy, Result, Setup, check_name,
};

/// Upper bounds. What a backend can't limit here is `Unsupported`, never ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// CPUs, e.g. `0.5` or `2`.
    pub cpu: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What the guest may write, in bytes.
    pub disk: Option<u64>,
    /// How many files and directories the guest may create.
    pub inodes: Option<u64>,
}

/// A host folder or file inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the guest.
    pub target: String,
    /// The guest can't write to it.
    pub readonly: bool,
}

/// Who made a sandbox. When the run is dead, `gc` may take what it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Id of the run.
    pub run: String,
    /// Machine (its machine-id, shortened) the run was started on.
    pub host: String,
    /// When the run is over at the latest. A backend that can't ask whether it lives goes by this, so
    /// that what a lost machine left goes, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<SystemTime>,
}

impl Owner {
    /// A run of which nobody knows when it will be over.
    pub fn new(run: impl Into<String>, host: impl Into<String>) -> Self {
        Owner { run: run.into(), host: host.into(), until: None }
    }
}

/// What a sandbox is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Unique on the backend; see [`check_name`].
    pub name: String,
    /// The image; the backend's default when not given.
    pub image: Option<String>,
    /// Only for an image given by URL: the sha256 its bytes must have, in hex.
    pub sha256: Option<String>,
    /// The guest's hostname; the name when not given.
    pub hostname: Option<String>,
    /// Upper bounds.
    pub limits: Limits,
    /// What its machine is to be like, where another one holds it.
    #[serde(default, skip_serializing_if = "Hardware::is_plain")]
    pub hardware: Hardware,
    /// Host folders in the guest.
    pub mounts: Vec<Mount>,
    /// Folders of the backend's that outlive it. Clones and snapshots have none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheMount>,
    /// Devices of the machine's in it. Clones have those that two may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Containers may run in it, which weakens what keeps it in. Clones may, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
    /// What it may reach.
    pub egress: Policy,
    /// Networks that it is in, whatever it may reach besides. Clones and snapshots are in none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// User of every command that names none.
    pub user: Option<String>,
    /// Working directory of every command that names none.
    pub cwd: Option<String>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// Who makes it: it dies with that run, and `gc` takes what is left. Without one it is kept.
    pub owner: Option<Owner>,
    /// When `gc` may take it, whoever owns it.
    pub expires: Option<SystemTime>,
    /// What is put into it when it is made.
    #[serde(default, skip_serializing_if = "Setup::is_empty")]
    pub setup: Setup,
    /// The machine file that says all else about it, and the files that that one extends, by their names:
    /// the machine's own is `machine.toml`. None when it is no machine of a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machine: BTreeMap<String, String>,
    /// Create it stopped, without provisioning.
    pub bare: bool,
    /// Where in a cluster; where the cluster puts it when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Placement>,
}

impl Spec {
    /// A spec with a name, everything else at its default.
    pub fn new(name: impl Into<String>) -> Self {
        Spec { name: name.into(), ..Spec::default() }
    }

    /// Refuses what no backend can make, before any I/O.
    pub fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        if let Some(hostname) = &self.hostname {
            check_name(hostname).map_err(|_| {
                Error::invalid("hostname", format!("'{hostname}' is not a host name"))
            })?;
        }
        self.limits.check()?;
        self.hardware.check()?;
        self.setup.check()?;
        if self.bare && !self.setup.is_empty() {
            return Err(Error::invalid_hint(
                "bare",
                "nothing is put into a sandbox that is left stopped",
                "leave bare out, or users, keys, dns and tools",
            ));
        }
        if self.limits.cpu.is_some() && self.hardware.cpus.is_some() {
            return Err(Error::invalid("cpus", "give a number of CPUs or which ones, not both"));
        }
        for mount in &self.mounts {
            if !mount.source.is_absolute() {
                return Err(Error::invalid(
                    "mounts",
                    format!("source '{}' is not an absolute path", mount.source.display()),
                ));
            }
            check_target("mounts", &mount.target)?;
        }
        super::cache::check(self)?;
        super::network::check(&self.networks)?;
        super::device::check(&self.devices)?;
        let mut probe = super::Command::argv(["true"]);
        probe.env = self.env.clone();
        probe.cwd = self.cwd.clone();
        probe.check()
    }
}

/// Refuses what nothing can be mounted at in a guest.
pub(super) fn check_target(what: &str, target: &str) -> Result<()> {
    if !target.starts_with('/')
        || target.split('/').any(|part| part == "..")
        || target.contains('\0')
    {
        return Err(Error::invalid(
            what,
            format!("target '{target}' is not an absolute path without '..'"),
        ));
    }
    if target.trim_matches('/').is_empty() {
        return Err(Error::invalid(what, "the root itself can't be a target"));
    }
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
    if let (Some("proc" | "sys"), _) | (Some("dev"), None) = (parts.next(), parts.next()) {
        return Err(Error::invalid_hint(
            what,
            format!("target '{target}' belongs to the kernel"),
            "mount it elsewhere, below /mnt or /srv for example",
        ));
    }
    Ok(())
}

impl Limits {
    /// Refuses zero and not-a-number.
    pub fn check(&self) -> Result<()> {
        if let Some(cpu) = self.cpu
            && !(0.01..=10_000.0).contains(&cpu)
        {
            return Err(Error::invalid_hint(
                "cpu",
                format!("{cpu} is not a number of CPUs"),
                "use a number from 0.01 to 10000",
            ));
        }
        for (what, value) in [
            ("memory", self.memory),
            ("pids", self.pids),
            ("disk", self.disk),
            ("inodes", self.inodes),
        ] {
            if value == Some(0) {
                return Err(Error::invalid(what, "a limit of 0 leaves nothing to run with"));
            }
        }
        if let Some(memory) = self.memory
            && memory < 4 << 20
        {
            return Err(Error::invalid_hint(
                "memory",
                format!("{memory} bytes are too few"),
                "use \"4MiB\" or more",
            ));
        }
        Ok(())
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOptions {
    /// How long processes get between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Kill at once.
    pub force: bool,
}

impl Default for StopOptions {
    fn default() -> Self {
        StopOptions { grace: Duration::from_secs(10), force: false }
    }
}
