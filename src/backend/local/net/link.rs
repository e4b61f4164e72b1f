//! Interfaces, addresses and routes.

use std::io;
use std::net::IpAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

use super::netlink::{ACK, Batch, CREATE, EXCL, Socket};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const INET: u8 = 2;
const INET6: u8 = 10;
/// An address that nobody is asked about first.
const NO_DAD: u8 = 2;
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

/// Brings an interface up.
pub(super) fn up(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(NEW_LINK, ACK, &head(index(name)?, UP), |_| {});
    call(&batch, 1)
}

/// The same, where it may be done already.
fn ensure(batch: &Batch) -> io::Result<()> {
    match call(batch, 1) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Gives an interface an address that is a network by itself.
pub(super) fn address(name: &str, address: IpAddr) -> io::Result<()> {
    let (family, prefix, flags) =
        if address.is_ipv4() { (INET, 32, 0) } else { (INET6, 128, NO_DAD) };
    let mut head = vec![family, prefix, flags, 0];
    head.extend(index(name)?.to_ne_bytes());
    let mut batch = Batch::new();
    batch.message(NEW_ADDRESS, ACK | CREATE | EXCL, &head, |set| {
        set.put(1, &octets(address));
        set.put(2, &octets(address));
    });
    ensure(&batch)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// Has every address of a family lead to this very namespace, from `source`.
pub(super) fn local_route(source: IpAddr) -> io::Result<()> {
    let family = if source.is_ipv4() { INET } else { INET6 };
    // Main table, set at boot, of this host, local.
    let head = [family, 0, 0, 0, 254, 3, 254, 2, 0, 0, 0, 0];
    let index = index("lo")?;
    let mut batch = Batch::new();
    batch.message(NEW_ROUTE, ACK | CREATE | EXCL, &head, |route| {
        route.put(4, &index.to_ne_bytes());
        // Nothing is lost on the way, and pacing as some hosts have it by default makes it slow.
        route.nest(8, |metrics| metrics.text(16, CONGESTION));
        route.put(7, &octets(source));
    });
    ensure(&batch)
}
