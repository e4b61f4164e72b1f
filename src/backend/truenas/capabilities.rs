//! What can be done on a NAS.

use std::collections::{BTreeMap, BTreeSet};

use super::BACKEND;
use super::api::Api;
use crate::sandbox::{Capabilities, Capability, Enforcer};

pub(super) fn of(api: Api, image: Option<String>, mounts: bool) -> Capabilities {
    let mut has: BTreeSet<Capability> = [
        Capability::CpuSet,
        Capability::EgressAllowlist,
        Capability::EgressUnrestricted,
        Capability::Init,
        Capability::LimitDisk,
        Capability::NetworkCard,
        Capability::StoragePool,
        Capability::Programs,
        Capability::Setup,
        Capability::SystemWritable,
        Capability::Users,
    ]
    .into();
    let mut missing: BTreeMap<Capability, String> = [
        (Capability::Caches, "backend 'truenas' keeps no caches yet: build a base instead"),
        (Capability::Cluster, "a NAS is one machine; Incus has clusters"),
        (Capability::Devices, "backend 'truenas' gives no devices: folders are `mounts`"),
        (Capability::Freeze, "a NAS does not let processes stand still: stop the sandbox"),
        (Capability::HostImage, "use an image of the NAS's registry, such as debian/12"),
        (Capability::LimitInodes, "a NAS has no limit on the number of files"),
        (Capability::LimitPids, "a NAS has no limit on the number of processes"),
        (Capability::MachineFiles, "machine files are for backend 'nspawn'"),
        (Capability::Mounts, "no folder of the NAS is named that sandboxes may have: mounts = [\"/mnt/tank/code\"] for it in your config.toml"),
        (Capability::Nesting, "backend 'truenas' runs no containers in a sandbox"),
        (Capability::Networks, "backend 'truenas' makes no networks yet"),
        (Capability::Pool, "a NAS does not say which of two clients was first: none waits"),
        (Capability::Publish, "backend 'truenas' publishes no ports yet"),
        (
            Capability::RestoreAny,
            "a NAS goes back to the newest snapshot only: clone the older one instead, or allow that newer ones go",
        ),
        (
            Capability::SnapshotExpiry,
            "backend 'truenas' keeps a snapshot until it is deleted: leave `expires` out",
        ),
        (Capability::TarImage, "a NAS takes images of its registry only, such as debian/12"),
        (Capability::Usage, "a NAS does not say what one of its machines takes"),
    ]
    .map(|(capability, why)| (capability, why.to_owned()))
    .into();
    if mounts {
        missing.remove(&Capability::Mounts);
        has.insert(Capability::Mounts);
    }
    match api {
        Api::Virt => {
            has.insert(Capability::LimitMemory);
            let why = "TrueNAS 25 gives whole CPUs only: a cpu of 1, 2 and so on works, and cpus such as \"0-3\"";
            missing.insert(Capability::LimitCpu, why.into());
        }
        Api::Container => {
            let why = "TrueNAS 26 has no limit on a container's memory";
            missing.insert(Capability::LimitMemory, why.into());
            let why =
                "TrueNAS 26 can only say which CPUs a container runs on: cpus, such as \"0-3\"";
            missing.insert(Capability::LimitCpu, why.into());
        }
    }
    Capabilities {
        backend: BACKEND.into(),
        default_image: image.unwrap_or_else(|| "debian/12".into()),
        // Root in the guest can undo it: the NAS has no rules for its machines.
        egress: Enforcer::Guest,
        has,
        missing,
        parallelism: 4,
        verbs: BTreeMap::new(),
    }
}
