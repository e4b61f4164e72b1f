//! What the local backend can do here, and why not where it can't.

use std::collections::{BTreeMap, BTreeSet};

use super::cgroup::{Cgroups, Controller};
use super::disk;
use super::mode::Mode;
use crate::sandbox::{Capabilities, Capability, Enforcer};

const AS_ROOT: &str = "needs root";

/// Finds out, without starting anything.
pub fn capabilities(mode: &Mode, groups: &Cgroups) -> Capabilities {
    let mut has = BTreeSet::from([
        Capability::Caches,
        Capability::Freeze,
        Capability::HostImage,
        Capability::Mounts,
        Capability::Networks,
        Capability::Programs,
        Capability::Publish,
        Capability::RestoreAny,
        Capability::SnapshotExpiry,
        Capability::TarImage,
    ]);
    let mut missing = BTreeMap::from([
        (Capability::Cluster, "this backend is this machine alone; Incus has clusters".to_owned()),
        (
            Capability::CpuSet,
            "the kernel chooses among all CPUs here: say how many with cpu".to_owned(),
        ),
        (
            Capability::NetworkCard,
            "sandboxes of this backend are in networks of their own, and have no card in yours"
                .to_owned(),
        ),
        (Capability::StoragePool, "this backend has one store: choose it with --store".to_owned()),
        (Capability::MachineFiles, "machine files are for backend 'nspawn'".to_owned()),
        (Capability::Setup, "build a base with what is to be in it".to_owned()),
        (
            Capability::Devices,
            "sandboxes of this backend get folders by `mounts` and ports by publish(), and no devices of this machine; Incus has them"
                .to_owned(),
        ),
        (
            Capability::Nesting,
            "guests of this backend make no namespaces of their own: use Incus for containers in a sandbox"
                .to_owned(),
        ),
        (
            Capability::Init,
            "sandboxes of this backend run commands and background processes, not an init system"
                .to_owned(),
        ),
        (Capability::Pool, "a clone is made in milliseconds here: none waits".to_owned()),
    ]);
    let mut decide = |capability, reason: Option<String>| match reason {
        None => {
            has.insert(capability);
        }
        Some(reason) => {
            missing.insert(capability, reason);
        }
    };
    let root = *mode == Mode::Root;
    decide(Capability::EgressAllowlist, None);
    decide(Capability::EgressUnrestricted, None);
    decide(
        Capability::SystemWritable,
        (!root).then(|| format!("{AS_ROOT}: an ordinary user can't change the host image's /usr; use a tarball image, or write to /usr/local, /opt, /srv or /home")),
    );
    decide(Capability::Usage, None);
    decide(
        Capability::Users,
        match mode {
            Mode::Single { reason, .. } => Some(reason.clone()),
            _ => None,
        },
    );
    for (limit, controller) in [
        (Capability::LimitCpu, Controller::Cpu),
        (Capability::LimitMemory, Controller::Memory),
        (Capability::LimitPids, Controller::Pids),
    ] {
        decide(limit, groups.missing(controller).map(str::to_owned));
    }
    for limit in [Capability::LimitDisk, Capability::LimitInodes] {
        decide(limit, disk::missing(mode));
    }
    Capabilities {
        backend: "local".into(),
        default_image: "host".into(),
        egress: Enforcer::Host,
        has,
        missing,
        parallelism: std::thread::available_parallelism().map_or(2, usize::from),
        verbs: Default::default(),
    }
}
