//! Interfaces, addresses and routes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

use super::netlink::{ACK, Batch, CREATE, EXCL, Socket};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const INET: u8 = 2;
const UP: u32 = 1;

/// How connections within a namespace share it; every kernel has this one.
pub(super) const CONGESTION: &str = "reno";

fn call(batch: &Batch, acks: usize) -> io::Result<()> {
    Socket::open(None)?.call(batch, acks)
}

/// A link's fixed header.
fn head(index: u32, flags: u32) -> Vec<u8> {
    let mut head = vec![0; 4];
    head.extend(index.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head
}

/// The number of an interface in the current namespace.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let flags = SocketFlags::CLOEXEC;
    let any = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    Ok(netdevice::name_to_index(&any, name)?)
}

/// Makes a pair of interfaces: `name` here and up, `peer` in the namespace `there`.
pub(super) fn pair(name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(NEW_LINK, ACK | CREATE | EXCL, &head(0, UP), |link| {
        link.text(3, name);
        link.nest(18, |info| {
            info.put(1, b"veth");
            info.nest(2, |data| {
                data.nest_raw(1, &head(0, 0), |other| {
                    other.text(3, peer);
                    other.put(28, &there.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
    call(&batch, 1)
}

/// Deletes an interface and its other end.
pub(super) fn delete(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(DELETE_LINK, ACK, &head(0, 0), |link| link.text(3, name));
    call(&batch, 1)
}

/// Brings an interface up.
pub(super) fn up(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(NEW_LINK, ACK, &head(index(name)?, UP), |_| {});
    call(&batch, 1)
}

/// Gives an interface an address.
pub(super) fn address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut head = vec![INET, prefix, 0, 0];
    head.extend(index(name)?.to_ne_bytes());
    let mut batch = Batch::new();
    batch.message(NEW_ADDRESS, ACK | CREATE | EXCL, &head, |set| {
        set.put(1, &address.octets());
        set.put(2, &address.octets());
    });
    call(&batch, 1)
}

/// Sets the default route.
pub(super) fn default_route(name: &str, gateway: Ipv4Addr) -> io::Result<()> {
    // Main table, set at boot, everywhere, unicast.
    let head = [INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let index = index(name)?;
    let mut batch = Batch::new();
    batch.message(NEW_ROUTE, ACK | CREATE | EXCL, &head, |route| {
        route.put(5, &gateway.octets());
        route.put(4, &index.to_ne_bytes());
    });
    call(&batch, 1)
}

/// Has every address of a family lead to this very namespace, from `source` where one is given.
pub(super) fn local_route(family: u8, source: Option<Ipv4Addr>) -> io::Result<()> {
    // Main table, set at boot, of this host, local.
    let head = [family, 0, 0, 0, 254, 3, 254, 2, 0, 0, 0, 0];
    let index = index("lo")?;
    let mut batch = Batch::new();
    batch.message(NEW_ROUTE, ACK | CREATE | EXCL, &head, |route| {
        route.put(4, &index.to_ne_bytes());
        // Nothing is lost on the way, and pacing as some hosts have it by default makes it slow.
        route.nest(8, |metrics| metrics.text(16, CONGESTION));
        if let Some(source) = source {
            route.put(7, &source.octets());
        }
    });
    call(&batch, 1)
}
