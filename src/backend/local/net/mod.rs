//! The networks of sandboxes: for those that go through the gate see [`enter_gate`]. For root's that may
//! reach everything: a pair of interfaces, a small private
//! network, and address translation on the host, all by raw netlink.
//!
//! The order: [`lease`] on the host, [`attach`] once the guest's namespace exists,
//! [`configure_guest`] inside it, [`detach`] at its end; [`collect`] takes what crashes left.

mod dns;
mod filter;
mod inside;
mod lease;
mod link;
mod netlink;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

pub use dns::resolv_conf;
pub use inside::{ADDRESS, Inside, SERVER, dial, enter as enter_gate};
#[cfg(test)]
use lease::Lease;
pub use lease::{collect, lease};

/// The guest's interface.
const GUEST_LINK: &str = "eth0";

/// How the host's interfaces begin.
const LINK_PREFIX: &str = "ss";

/// The network of a sandbox: four addresses.
const PREFIX: u8 = 30;

/// The host's interface for a guest.
pub fn link_name(address: Ipv4Addr) -> String {
    format!("{LINK_PREFIX}{:08x}", u32::from(address))
}

fn table_name(address: Ipv4Addr) -> String {
    format!("sandscript-{:08x}", u32::from(address))
}

/// Connects the network namespace `guest` to the current one, and the current one's forwarding
/// and address translation to it. On an error nothing is left behind.
pub fn attach(guest: BorrowedFd<'_>, address: Ipv4Addr, gateway: Ipv4Addr) -> io::Result<()> {
    let link = link_name(address);
    // The rules first: what the guest sends is filtered from its first packet on.
    filter::install(&table_name(address), &link, address)?;
    let made = link::pair(&link, GUEST_LINK, guest)
        .and_then(|()| link::address(&link, gateway, PREFIX))
        .and_then(|()| forward());
    if made.is_err() {
        let _ = detach(address);
    }
    made
}

/// Takes a guest's interface and rules away; what is gone already is fine.
pub fn detach(address: Ipv4Addr) -> io::Result<()> {
    let link = link_name(address);
    if link::index(&link).is_ok() {
        // The pair vanishes with the guest's namespace, perhaps at this moment.
        let _ = link::delete(&link);
    }
    filter::remove(&table_name(address))
}

/// Sets address and route; called inside the guest's namespace.
pub fn configure_guest(address: Ipv4Addr, gateway: Ipv4Addr) -> io::Result<()> {
    link::address(GUEST_LINK, address, PREFIX)?;
    link::up(GUEST_LINK)?;
    link::default_route(GUEST_LINK, gateway)
}

/// Brings the loopback interface of the current namespace up.
pub fn loopback_up() -> io::Result<()> {
    link::up("lo")
}

fn forward() -> io::Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    match std::fs::read_to_string(path)?.trim() {
        "1" => Ok(()),
        _ => std::fs::write(path, "1"),
    }
}

#[cfg(test)]
mod tests;
