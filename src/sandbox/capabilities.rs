//! What a backend can do on this machine, and why not where it can't.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing a backend may or may not be able to do here.
///
/// The conformance suite skips by these and by nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Capability {
    /// Folders of the backend's that outlive the sandboxes they are mounted in.
    Caches,
    /// Several machines behind one address: a sandbox can be put on one of them.
    Cluster,
    /// Which CPUs a sandbox runs on.
    CpuSet,
    /// Devices of the machine's in a sandbox: disks, interfaces, proxies, GPUs, USB.
    Devices,
    /// Egress policies with rules: the guest reaches what they allow.
    EgressAllowlist,
    /// Egress policy `unrestricted`: the guest reaches the network.
    EgressUnrestricted,
    /// `freeze` and `thaw`.
    Freeze,
    /// The image `host`: this machine's own programs.
    HostImage,
    /// An init system runs in the guest, so that services can be managed.
    Init,
    /// A CPU limit.
    LimitCpu,
    /// A limit on what the guest may write to disk.
    LimitDisk,
    /// A limit on how many files the guest may create.
    LimitInodes,
    /// A memory limit.
    LimitMemory,
    /// A limit on the number of processes.
    LimitPids,
    /// Machines that a file says all about.
    MachineFiles,
    /// Host folders mounted into the guest.
    Mounts,
    /// A hardware address and a fixed address of a sandbox's card.
    NetworkCard,
    /// Containers in a sandbox, where that is asked for.
    Nesting,
    /// Networks that sandboxes of one run share.
    Networks,
    /// A sandbox that was made ahead can be taken over: `pool` in a matrix.
    Pool,
    /// Real Linux programs run in the guest: pipes, devices and terminals are the kernel's.
    Programs,
    /// Ports of a sandbox on this host.
    Publish,
    /// Going back to an older snapshot without losing the newer ones.
    RestoreAny,
    /// Accounts, keys, name servers and packages that a sandbox is made with.
    Setup,
    /// Which pool of the machine's a sandbox's files are on.
    StoragePool,
    /// Snapshots that are deleted when their time is over.
    SnapshotExpiry,
    /// The guest may change the image's system folders (`/usr`), whatever image it is.
    SystemWritable,
    /// Images from a tarball.
    TarImage,
    /// What a sandbox takes of the machine is measured: processor time at least.
    Usage,
    /// More than one user id in the guest (`user: "nobody"`).
    Users,
}

impl Capability {
    /// All of them, in order.
    pub const ALL: &[Capability] = &[
        Capability::Caches,
        Capability::Cluster,
        Capability::CpuSet,
        Capability::Devices,
        Capability::EgressAllowlist,
        Capability::EgressUnrestricted,
        Capability::Freeze,
        Capability::HostImage,
        Capability::Init,
        Capability::LimitCpu,
        Capability::LimitDisk,
        Capability::LimitInodes,
        Capability::LimitMemory,
        Capability::LimitPids,
        Capability::MachineFiles,
        Capability::Mounts,
        Capability::NetworkCard,
        Capability::Nesting,
        Capability::Networks,
        Capability::Pool,
        Capability::Programs,
        Capability::Publish,
        Capability::RestoreAny,
        Capability::Setup,
        Capability::StoragePool,
        Capability::SnapshotExpiry,
        Capability::SystemWritable,
        Capability::TarImage,
        Capability::Usage,
        Capability::Users,
    ];

    /// The word used in tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Caches => "caches",
            Capability::Cluster => "cluster",
            Capability::CpuSet => "cpu-set",
            Capability::Devices => "devices",
            Capability::EgressAllowlist => "egress-allowlist",
            Capability::EgressUnrestricted => "egress-unrestricted",
            Capability::Freeze => "freeze",
            Capability::HostImage => "host-image",
            Capability::Init => "init",
            Capability::LimitCpu => "limit-cpu",
            Capability::LimitDisk => "limit-disk",
            Capability::LimitInodes => "limit-inodes",
            Capability::LimitMemory => "limit-memory",
            Capability::LimitPids => "limit-pids",
            Capability::MachineFiles => "machine-files",
            Capability::Mounts => "mounts",
            Capability::NetworkCard => "network-card",
            Capability::Nesting => "nesting",
            Capability::Networks => "networks",
            Capability::Pool => "pool",
            Capability::Programs => "programs",
            Capability::Publish => "publish",
            Capability::RestoreAny => "restore-any",
            Capability::Setup => "setup",
            Capability::StoragePool => "storage-pool",
            Capability::SnapshotExpiry => "snapshot-expiry",
            Capability::SystemWritable => "system-writable",
            Capability::TarImage => "tar-image",
            Capability::Usage => "usage",
            Capability::Users => "users",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who enforces the egress policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcer {
    /// The host: root in the guest can't undo it.
    Host,
    /// Rules inside the guest: its root can undo them.
    Guest,
}

/// How something is done, where there are several ways or a server asks for rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    /// What it is done by.
    pub by: String,
    /// The least that the credentials must allow for it.
    pub rights: Vec<String>,
}

/// What a backend can do here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: String,
    /// The image used when a spec names none.
    pub default_image: String,
    /// Who enforces egress.
    pub egress: Enforcer,
    /// What it can do.
    pub has: BTreeSet<Capability>,
    /// For what it can't do: why, and how to get it.
    pub missing: BTreeMap<Capability, String>,
    /// How many sandboxes may sensibly work at once.
    pub parallelism: usize,
    /// For verbs, where there is something to say about that: how they are done, and with which rights.
    #[serde(default)]
    pub verbs: BTreeMap<String, Means>,
}

impl Capabilities {
    /// How a verb is done, where there is something to say about that.
    pub fn means(&self, verb: &str) -> Option<&Means> {
        let named = |verbs: &str| verbs.split(", ").any(|one| one == verb);
        self.verbs.iter().find(|(verbs, _)| named(verbs)).map(|(_, means)| means)
    }

    /// Whether `capability` is there.
    pub fn has(&self, capability: Capability) -> bool {
        self.has.contains(&capability)
    }

    /// Ok when a sandbox's machine can be like that, and be given that, here.
    pub fn require_machine(&self, spec: &super::Spec) -> crate::sandbox::Result<()> {
        let hardware = &spec.hardware;
        let asked = [
            (hardware.cpus.is_some(), Capability::CpuSet),
            (hardware.mac.is_some() || hardware.address.is_some(), Capability::NetworkCard),
            (hardware.pool.is_some(), Capability::StoragePool),
            (!spec.setup.is_empty(), Capability::Setup),
            (!spec.machine.is_empty(), Capability::MachineFiles),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).try_for_each(|(_, what)| self.require(what))
    }

    /// Ok when a sandbox can be put there: anywhere, or there is a cluster.
    pub fn require_target(&self, target: Option<&super::Placement>) -> crate::sandbox::Result<()> {
        match target {
            None => Ok(()),
            Some(_) => self.require(Capability::Cluster),
        }
    }

    /// Ok when an egress policy can be enforced here.
    pub fn require_egress(&self, policy: &super::Policy) -> crate::sandbox::Result<()> {
        match policy {
            super::Policy::None => Ok(()),
            super::Policy::Rules(_) => self.require(Capability::EgressAllowlist),
            super::Policy::Unrestricted => self.require(Capability::EgressUnrestricted),
        }
    }

    /// Ok when a sandbox can be in these networks here.
    pub fn require_networks(&self, networks: &[super::Network]) -> crate::sandbox::Result<()> {
        match networks.is_empty() {
            true => Ok(()),
            false => self.require(Capability::Networks),
        }
    }

    /// Ok when a sandbox can have these devices here, and containers in it where that is asked for.
    pub fn require_devices(
        &self,
        devices: &[super::Device],
        nesting: bool,
    ) -> crate::sandbox::Result<()> {
        if !devices.is_empty() {
            self.require(Capability::Devices)?;
        }
        // A folder of the machine is what a mount is.
        let is_folder = |device: &super::Device| {
            matches!(device.kind, super::DeviceKind::Disk { pool: None, .. })
        };
        if devices.iter().any(is_folder) {
            self.require(Capability::Mounts)?;
        }
        match nesting {
            true => self.require(Capability::Nesting),
            false => Ok(()),
        }
    }

    /// Ok when `capability` is there, else [`crate::sandbox::Error::Unsupported`] with the reason.
    pub fn require(&self, capability: Capability) -> crate::sandbox::Result<()> {
        if self.has(capability) {
            return Ok(());
        }
        let hint = self.missing.get(&capability).cloned().unwrap_or_default();
        Err(crate::sandbox::Error::unsupported(capability.as_str(), self.backend.clone(), hint))
    }
}
