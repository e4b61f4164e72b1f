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
        Capability::TarImage,
    ]);
    let mut missing = BTreeMap::from([
        (Capability::Cluster, "this backend is this machine alone; Incus has clusters".to_owned()),
        (
            Capability::Init,
            "sandboxes of this backend run commands and background processes, not an init system"
                .to_owned(),
        ),
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
    }
}
