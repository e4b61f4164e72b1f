//! What can be done on a server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::devices::Pool;
use crate::sandbox::{Capabilities, Capability, Enforcer, Member};

/// Whether storage of this kind goes back to the newest snapshot only: ZFS, here or on a TrueNAS.
pub(super) fn goes_back_to_newest(driver: &str) -> bool {
    matches!(driver, "zfs" | "truenas")
}

/// The image when a spec names none.
const IMAGE: &str = "debian/12";

/// How many sandboxes at once are asked of a server whose processors are not known.
const AT_ONCE: usize = 8;

/// Whether AppArmor keeps guests from mounting anew what was mounted for them, on this machine.
fn confined() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.trim() == "Y")
}

/// What changes where the server is a member of a cluster.
pub(super) fn of_cluster(capabilities: &mut Capabilities, members: &[Member]) {
    capabilities.missing.remove(&Capability::Cluster);
    capabilities.has.insert(Capability::Cluster);
    capabilities.has.remove(&Capability::Caches);
    let why = "on a cluster a volume is on one of its members: build a base with it, or attach a volume of the server's (devices: type disk, pool, source)";
    capabilities.missing.insert(Capability::Caches, why.into());
    let room = members.iter().filter(|member| member.fits(None)).map(Member::capacity).sum();
    capabilities.parallelism = std::cmp::max(room, 1);
}

/// What there is on this server. Where this machine does nothing for the guests' networks, `elsewhere` says why;
/// with `here`, guests are on this very machine, and what it has says what they have.
pub(super) fn probe(
    pool: &Pool,
    image: Option<String>,
    elsewhere: Option<&str>,
    here: bool,
) -> Capabilities {
    let mut has: BTreeSet<Capability> = [
        Capability::Caches,
        Capability::Devices,
        Capability::Init,
        Capability::LimitCpu,
        Capability::LimitMemory,
        Capability::LimitPids,
        Capability::Nesting,
        Capability::Pool,
        Capability::Programs,
        Capability::Publish,
        Capability::SnapshotExpiry,
        Capability::StoragePool,
        Capability::SystemWritable,
        Capability::Usage,
        Capability::Users,
    ]
    .into();
    const NO_FILES: &str = "machine files are for backend 'nspawn'";
    let mut missing: BTreeMap<Capability, String> = [
        (Capability::Cluster, "the server is no member of a cluster"),
        (Capability::CpuSet, "say how many CPUs it may use with cpu"),
        (Capability::Setup, "build a base with what is to be in it"),
        (Capability::HostImage, "use an image of the server's, such as debian/12"),
        (Capability::MachineFiles, NO_FILES),
        (Capability::LimitInodes, "Incus has no limit on the number of files: use `disk`"),
        (Capability::TarImage, "import it on the server: incus image import FILE --alias NAME"),
    ]
    .map(|(capability, why)| (capability, why.to_owned()))
    .into();
    if !here {
        let why = "the server does not tell whether its machine has cgroups v2, and the freezer of v1 may never come to its end: run sandscript on that machine";
        missing.insert(Capability::Freeze, why.into());
    } else if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        has.insert(Capability::Freeze);
    } else {
        let why = "this machine has cgroups v1, whose freezer may never come to its end: boot it with systemd.unified_cgroup_hierarchy=1";
        missing.insert(Capability::Freeze, why.into());
    }
    if super::disk::WITH_QUOTAS.contains(&pool.driver.as_str()) {
        has.insert(Capability::LimitDisk);
    } else {
        let why = format!(
            "the storage pool '{}' is of the kind '{}', which has no quotas of its own: use btrfs, ZFS or LVM",
            pool.name, pool.driver
        );
        missing.insert(Capability::LimitDisk, why);
    }
    match pool.driver.as_str() {
        driver if goes_back_to_newest(driver) => {
            let why = "ZFS goes back to its newest snapshot only: clone the older one instead, or allow that newer ones go";
            missing.insert(Capability::RestoreAny, why.into());
        }
        _ => drop(has.insert(Capability::RestoreAny)),
    }
    if !here {
        let why = "the server does not tell whether its machine has AppArmor, without which root in a guest makes a read-only folder writable: run sandscript on that machine, or attach a volume of the server's (devices: type disk, pool, source)";
        missing.insert(Capability::Mounts, why.into());
    } else if confined() {
        has.insert(Capability::Mounts);
    } else {
        let why = "this machine's kernel has no AppArmor, and without it root in a guest makes a read-only folder writable";
        missing.insert(Capability::Mounts, why.into());
    }
    let gated = [Capability::EgressAllowlist, Capability::Networks];
    match elsewhere {
        None => has.extend(gated),
        Some(why) => missing.extend(gated.map(|capability| {
            let what = match capability {
                Capability::EgressAllowlist => "rules are enforced",
                _ => "networks are made",
            };
            (capability, format!("{what} by the server's own machine, for root there: {why}"))
        })),
    }
    const NO_NETWORK: &str = "the profile 'default' has no network: incus profile device add default eth0 nic network=incusbr0";
    if pool.networks.is_empty() {
        missing.insert(Capability::NetworkCard, NO_NETWORK.into());
    } else {
        has.insert(Capability::NetworkCard);
    }
    if elsewhere.is_none() {
        has.insert(Capability::EgressUnrestricted);
    } else if pool.networks.is_empty() {
        missing.insert(Capability::EgressUnrestricted, NO_NETWORK.into());
    } else {
        has.insert(Capability::EgressUnrestricted);
    }
    Capabilities {
        backend: super::BACKEND.into(),
        default_image: image.unwrap_or_else(|| IMAGE.into()),
        egress: Enforcer::Host,
        has,
        missing,
        parallelism: match here {
            true => std::thread::available_parallelism().map_or(4, usize::from) * 2,
            false => AT_ONCE,
        },
        verbs: Default::default(),
    }
}
