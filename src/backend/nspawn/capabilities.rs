//! What can be done on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::BACKEND;
use super::host::Host;
use super::storage::Storage;
use super::systemd;
use crate::backend::local::cgroup::Controller;
use crate::backend::local::gatehouse::Gatehouse;
use crate::sandbox::{Capabilities, Capability, Enforcer, Error, Result};

/// The image when a spec names none.
const IMAGE: &str = "debian/12";

/// What to do where a program is missing.
pub(super) const INSTALL: &str =
    "systemd-nspawn and systemd-run have to be on this host: apt install systemd-container";

/// Refuses a host that nothing can be done on.
pub(super) fn check(helper: Option<&Path>) -> Result<()> {
    let refuse = |what: &str, why: &str| Err(Error::unsupported(what, BACKEND, why));
    if !Gatehouse::is_possible(helper) {
        return Err(Error::internal(
            "sandscript::backend::local::init() was not called: call it first thing in main()",
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return refuse(
            "starting machines",
            "systemd-nspawn needs root: run it with sudo, or use backend 'local'",
        );
    }
    // The other one is told of the machines.
    let more = if systemd::is_booted() { "machinectl" } else { "setsid" };
    for program in ["systemd-nspawn", "systemd-run", "setpriv", more] {
        let there = ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(program).exists());
        if !there {
            return refuse("starting machines", INSTALL);
        }
    }
    Ok(())
}

/// What there is.
pub(super) fn of(host: &Host, storage: &Storage, image: Option<String>) -> Capabilities {
    let mut has: BTreeSet<Capability> = [
        Capability::EgressAllowlist,
        Capability::EgressUnrestricted,
        Capability::Init,
        Capability::MachineFiles,
        Capability::Networks,
        Capability::Programs,
        Capability::Publish,
        Capability::SnapshotExpiry,
        Capability::RestoreAny,
        Capability::SystemWritable,
        Capability::Users,
    ]
    .into();
    let mut missing: BTreeMap<Capability, String> = [
        (Capability::Caches, "backend 'nspawn' keeps no caches yet: build a base instead"),
        (Capability::Cluster, "it is one host"),
        (Capability::CpuSet, "say how many CPUs it may use with cpu"),
        (Capability::Devices, "backend 'nspawn' passes no devices yet"),
        (Capability::HostImage, "a machine boots its image: use one with an init, such as debian/12"),
        (Capability::LimitInodes, "no file system limits the number of files of a folder"),
        (
            Capability::Mounts,
            "systemd-nspawn lets root in a machine make a read-only folder writable: push what it is to have",
        ),
        (Capability::Nesting, "backend 'nspawn' starts no containers in machines yet"),
        (Capability::NetworkCard, "a machine has no interface: all it sends goes through the gate"),
        (Capability::Pool, "a clone takes a fraction of a second"),
        (Capability::Setup, "build a base with what is to be in it"),
        (Capability::StoragePool, "machines are in the store: name another one with --store"),
        (
            Capability::TarImage,
            "any archive is not enough: it has to hold a whole system with systemd and perl",
        ),
    ]
    .map(|(capability, why)| (capability, why.to_owned()))
    .into();
    match storage.no_quota() {
        None => drop(has.insert(Capability::LimitDisk)),
        Some(why) => drop(missing.insert(Capability::LimitDisk, why.to_owned())),
    }
    let limits = [
        (Capability::LimitCpu, Controller::Cpu),
        (Capability::LimitMemory, Controller::Memory),
        (Capability::LimitPids, Controller::Pids),
    ];
    for (capability, controller) in limits {
        match host.missing(controller) {
            None => drop(has.insert(capability)),
            Some(why) => drop(missing.insert(capability, why.to_owned())),
        }
    }
    match host.cannot_freeze() {
        None => has.extend([Capability::Freeze, Capability::Usage]),
        Some(why) => {
            missing
                .extend([Capability::Freeze, Capability::Usage].map(|one| (one, why.to_owned())));
        }
    }
    Capabilities {
        backend: BACKEND.into(),
        default_image: image.unwrap_or_else(|| IMAGE.into()),
        egress: Enforcer::Host,
        has,
        missing,
        parallelism: std::thread::available_parallelism().map_or(4, usize::from) * 2,
        verbs: Default::default(),
    }
}
