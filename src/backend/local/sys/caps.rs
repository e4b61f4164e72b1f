//! Capabilities of the guest's processes.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What the guest's root keeps: enough to install packages and run services, nothing that mounts,
/// makes devices, loads code into the kernel or looks into init. All of it is held in the
/// sandbox's own user namespace only.
const GUEST: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::IPC_OWNER)
    .union(CapabilitySet::LEASE)
    .union(CapabilitySet::AUDIT_WRITE);

/// Takes everything but the guest's set out of the bounding set, for the caller and all it will fork.
pub fn bound_capabilities() -> io::Result<()> {
    for bit in 0..64 {
        let Some(one) = CapabilitySet::from_bits(1 << bit) else { continue };
        if GUEST.contains(one) {
            continue;
        }
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Drops everything but the guest's set.
pub fn keep_guest_capabilities() -> io::Result<()> {
    set(GUEST)
}

/// Drops everything but what it takes to have sockets in another network namespace, and to see whose a
/// connection there is.
pub fn keep_network_capabilities() -> io::Result<()> {
    let network = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);
    set(network.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::DAC_READ_SEARCH))
}

/// Drops all capabilities: for a user other than root.
pub fn drop_capabilities() -> io::Result<()> {
    set(CapabilitySet::empty())
}

fn set(capabilities: CapabilitySet) -> io::Result<()> {
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}
