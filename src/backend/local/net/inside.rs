//! The network of a sandbox that goes through the gate: it has the loopback interface and nothing
//! else. Every address leads there, and every connection from there to the gate's sockets, which are
//! served from outside. Whoever undoes the rules in here closes the door and opens nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};

use super::link;
use super::netlink::Socket;
use crate::backend::local::sys::{receive_for_others, receive_original};
use crate::egress::nft::{
    ACCEPT, ACK, Batch, CREATE, DELETE_TABLE, DIFFERS, DROP, EQUAL, NEW_TABLE, begin, compare, ct,
    end, expression, load, mask, message, meta, new_chain, payload, redirect, rule, verdict,
};
use crate::sandbox::Protocol;

/// What the guest has as an address: programs ask whether there is one beside the loopback's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);

/// The same by IPv6: of a range drawn for us, behind which nobody is.
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x616e, 0x6473, 1, 0, 0, 0, 2);

/// What it has as a name server. Nothing is there: all questions are redirected.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// Where the gate's sockets are, and those for UDP one above: the first of these where nobody is.
const PORTS: [u16; 6] = [3129, 43129, 33129, 23129, 13129, 53129];
const TABLE: &str = "sandscript";
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
/// After the guest's own chains, by which containers have ports of its addresses.
const BEHIND_OTHERS: i32 = -90;
const IIFNAME: u32 = 6;
const DADDR: u32 = 2;
const IIF: u32 = 8;
/// An address of this very host, as its routes say it.
const LOCAL: u32 = 2;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// Of a connection that is there already, or belongs to one.
const ESTABLISHED: u32 = 2 | 4;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
/// From the end that a connection was made to.
const REPLY: u8 = 1;

/// The gate's sockets.
#[derive(Debug)]
pub struct Inside {
    /// Listening for TCP, to 127.0.0.1, the guest's address and ::1.
    pub tcp: Vec<OwnedFd>,
    /// For UDP to port 53, the same.
    pub udp: Vec<OwnedFd>,
    /// For all other UDP, the same.
    pub datagrams: Vec<OwnedFd>,
    /// Raw ones, for answers to that in the name of whom it was for, the same.
    pub raw: Vec<OwnedFd>,
}

impl Inside {
    /// All of them, each kind as many.
    pub fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kinds = [&self.tcp, &self.udp, &self.datagrams, &self.raw];
        kinds.into_iter().flatten().map(AsFd::as_fd)
    }

    /// From all of them.
    pub fn of(mut all: Vec<OwnedFd>) -> Inside {
        let each = all.len() / 4;
        let raw = all.split_off(each * 3);
        let datagrams = all.split_off(each * 2);
        let udp = all.split_off(each);
        Inside { tcp: all, udp, datagrams, raw }
    }
}

/// Makes it in the current network namespace, whose loopback interface is up. Programs in there may listen on
/// ports already.
pub fn enter() -> io::Result<Inside> {
    let mut busy = None;
    for port in PORTS {
        match enter_at(port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => busy = Some(error),
            done => return done,
        }
    }
    Err(busy.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn enter_at(port: u16) -> io::Result<Inside> {
    let six = Ipv6Addr::LOCALHOST;
    link::address("lo", ADDRESS.into())?;
    let mut inside = Inside { tcp: vec![], udp: vec![], datagrams: vec![], raw: vec![] };
    // The second is for what comes by another interface, which the loopback's own address is out of reach of.
    for own in [Ipv4Addr::LOCALHOST, ADDRESS] {
        inside.tcp.push(TcpListener::bind((own, port))?.into());
        inside.udp.push(UdpSocket::bind((own, port))?.into());
        let datagrams = UdpSocket::bind((own, port + 1))?;
        receive_for_others(&datagrams, false)?;
        inside.datagrams.push(datagrams.into());
        inside.raw.push(raw(AddressFamily::INET)?);
    }
    // Where the machine has no IPv6, the guest has none.
    let tcp = match TcpListener::bind((six, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        tcp => tcp.ok(),
    };
    if let Some(tcp) = tcp {
        inside.tcp.push(tcp.into());
        inside.udp.push(UdpSocket::bind((six, port))?.into());
        let datagrams = UdpSocket::bind((six, port + 1))?;
        receive_for_others(&datagrams, true)?;
        inside.datagrams.push(datagrams.into());
        inside.raw.push(raw(AddressFamily::INET6)?);
        link::address("lo", ADDRESS6.into())?;
    }
    for socket in &inside.tcp {
        rustix::net::listen(socket, 1024)?;
        rustix::net::sockopt::set_tcp_congestion(socket, link::CONGESTION)?;
    }
    let has_six = inside.tcp.len() > 2;
    rules(port, has_six)?;
    // The last step: before it, nothing leads anywhere.
    if has_six {
        link::local_route(ADDRESS6.into())?;
    }
    link::local_route(ADDRESS.into())?;
    Ok(inside)
}

/// Receives one datagram of the guest's without waiting: its length, who sent it, and to whom. One under an
/// address that is not the guest's is invalid: an answer to it would be taken for another one.
pub fn receive_datagram(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    let (count, from, to) = receive_original(socket, buffer)?;
    match is_own(from.ip().to_canonical()) {
        true => Ok((count, from, to)),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address == ADDRESS || address == ADDRESS6
}

/// A socket that sends whole packets and receives none.
fn raw(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::RAW, flags, Some(rustix::net::ipproto::RAW))?)
}

/// A socket that is being connected to an address of this very namespace's own, from `from`, which may be
/// anybody's.
pub fn dial(to: SocketAddr, from: Option<IpAddr>, protocol: Protocol) -> io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    if !is_own(to.ip()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if let Some(from) = from {
        match from {
            IpAddr::V4(_) => rustix::net::sockopt::set_ip_freebind(&socket, true)?,
            IpAddr::V6(_) => rustix::net::sockopt::set_ipv6_freebind(&socket, true)?,
        }
        rustix::net::bind(&socket, &SocketAddrAny::from(SocketAddr::new(from, 0)))?;
    }
    match rustix::net::connect(&socket, &SocketAddrAny::from(to)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn rules(port: u16, has_six: bool) -> io::Result<()> {
    let mut done = Ok(());
    // A kernel without an expression: nothing for the guest's containers then, or no UDP but the resolver's, too.
    for (datagrams, nested) in [(true, true), (true, false), (false, false)] {
        done = install(port, datagrams, nested, has_six);
        if !matches!(&done, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    done
}

fn install(port: u16, datagrams: bool, nested: bool, has_six: bool) -> io::Result<()> {
    let mut batch = begin();
    // Whoever was here before may have left one.
    for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
        message(&mut batch, kind, CREATE, |set| set.text(1, TABLE));
    }
    let nat = "redirect";
    new_chain(&mut batch, TABLE, nat, "nat", HOOK_OUTPUT, -100);
    own(&mut batch, nat);
    rule(&mut batch, TABLE, nat, 0, |list| {
        meta(list, L4PROTO);
        compare(list, EQUAL, &[TCP]);
        redirect(list, port);
    });
    rule(&mut batch, TABLE, nat, 0, |list| {
        meta(list, L4PROTO);
        compare(list, EQUAL, &[UDP]);
        payload(list, TRANSPORT, 2, 2);
        compare(list, EQUAL, &53u16.to_be_bytes());
        redirect(list, port);
    });
    if nested {
        containers(&mut batch, port);
    }
    let filter = "filter";
    new_chain(&mut batch, TABLE, filter, "filter", HOOK_OUTPUT, 0);
    rule(&mut batch, TABLE, filter, 0, |list| {
        ct(list, CT_STATE);
        mask(list, &ESTABLISHED.to_ne_bytes());
        compare(list, DIFFERS, &0u32.to_ne_bytes());
        verdict(list, ACCEPT);
    });
    own(&mut batch, filter);
    if datagrams {
        rule(&mut batch, TABLE, filter, 0, |list| {
            meta(list, L4PROTO);
            compare(list, EQUAL, &[UDP]);
            verdict(list, ACCEPT);
        });
        let take = "take";
        new_chain(&mut batch, TABLE, take, "filter", HOOK_PREROUTING, -150);
        own(&mut batch, take);
        // What the guest says to somebody who has come from outside.
        rule(&mut batch, TABLE, take, 0, |list| {
            ct(list, CT_DIRECTION);
            compare(list, EQUAL, &[REPLY]);
            verdict(list, ACCEPT);
        });
        // Of the guest's containers: the resolver gets it.
        rule(&mut batch, TABLE, take, 0, |list| {
            meta(list, L4PROTO);
            compare(list, EQUAL, &[UDP]);
            payload(list, TRANSPORT, 2, 2);
            compare(list, EQUAL, &53u16.to_be_bytes());
            verdict(list, ACCEPT);
        });
        to_datagrams(&mut batch, (take, port + 1), IPV4, &Ipv4Addr::LOCALHOST.octets());
        if has_six {
            to_datagrams(&mut batch, (take, port + 1), IPV6, &Ipv6Addr::LOCALHOST.octets());
        }
        // Nobody took it.
        rule(&mut batch, TABLE, take, 0, |list| {
            meta(list, L4PROTO);
            compare(list, EQUAL, &[UDP]);
            verdict(list, DROP);
        });
    }
    rule(&mut batch, TABLE, filter, ACK, |list| {
        // Port unreachable, so that a program sees at once that nothing is there.
        expression(list, "reject", |set| {
            set.put(1, &2u32.to_be_bytes());
            set.put(2, &[1]);
        });
        verdict(list, DROP);
    });
    Socket::open(Some(rustix::net::netlink::NETFILTER))?.call(&end(batch), 1)
}

/// What containers in the guest send to somebody who is neither the guest nor another one of them goes to the gate,
/// as what the guest itself sends.
fn containers(batch: &mut Batch, port: u16) {
    let nested = "nested";
    new_chain(batch, TABLE, nested, "nat", HOOK_PREROUTING, BEHIND_OTHERS);
    rule(batch, TABLE, nested, 0, |list| {
        meta(list, IIFNAME);
        compare(list, EQUAL, b"lo\0");
        verdict(list, ACCEPT);
    });
    own(batch, nested);
    // Every address leads here, and those that lead elsewhere are the containers'.
    rule(batch, TABLE, nested, 0, |list| {
        leads(list, DADDR);
        compare(list, DIFFERS, &LOCAL.to_ne_bytes());
        verdict(list, ACCEPT);
    });
    // The guest's own on that interface.
    rule(batch, TABLE, nested, 0, |list| {
        leads(list, DADDR | IIF);
        compare(list, EQUAL, &LOCAL.to_ne_bytes());
        verdict(list, ACCEPT);
    });
    for (protocol, only) in [(TCP, None), (UDP, Some(53u16))] {
        rule(batch, TABLE, nested, 0, |list| {
            meta(list, NFPROTO);
            compare(list, EQUAL, &[IPV4]);
            meta(list, L4PROTO);
            compare(list, EQUAL, &[protocol]);
            if let Some(only) = only {
                payload(list, TRANSPORT, 2, 2);
                compare(list, EQUAL, &only.to_be_bytes());
            }
            load(list, 1, &ADDRESS.octets());
            load(list, 2, &port.to_be_bytes());
            expression(list, "nat", |set| {
                // To another destination.
                set.put(1, &1u32.to_be_bytes());
                set.put(2, &u32::from(IPV4).to_be_bytes());
                set.put(3, &1u32.to_be_bytes());
                set.put(5, &2u32.to_be_bytes());
            });
        });
    }
}

/// What kind of address a packet is for.
fn leads(list: &mut Batch, flags: u32) {
    expression(list, "fib", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &3u32.to_be_bytes());
        set.put(3, &flags.to_be_bytes());
    });
}

/// UDP goes to the gate's socket at an address of the loopback interface: the kernel would choose any.
fn to_datagrams(batch: &mut Batch, (chain, port): (&str, u16), family: u8, address: &[u8]) {
    rule(batch, TABLE, chain, 0, |list| {
        meta(list, NFPROTO);
        compare(list, EQUAL, &[family]);
        meta(list, L4PROTO);
        compare(list, EQUAL, &[UDP]);
        load(list, 1, &port.to_be_bytes());
        load(list, 2, address);
        expression(list, "tproxy", |set| {
            set.put(1, &u32::from(family).to_be_bytes());
            set.put(2, &2u32.to_be_bytes());
            set.put(3, &1u32.to_be_bytes());
        });
        verdict(list, ACCEPT);
    });
}

/// What the guest says to itself goes on.
fn own(batch: &mut Batch, chain: &str) {
    rule(batch, TABLE, chain, 0, |list| {
        meta(list, NFPROTO);
        compare(list, EQUAL, &[IPV4]);
        payload(list, NETWORK, 16, 4);
        mask(list, &[255, 0, 0, 0]);
        compare(list, EQUAL, &[127, 0, 0, 0]);
        verdict(list, ACCEPT);
    });
    rule(batch, TABLE, chain, 0, |list| {
        meta(list, NFPROTO);
        compare(list, EQUAL, &[IPV4]);
        payload(list, NETWORK, 16, 4);
        compare(list, EQUAL, &ADDRESS.octets());
        verdict(list, ACCEPT);
    });
    for address in [Ipv6Addr::LOCALHOST, ADDRESS6] {
        rule(batch, TABLE, chain, 0, |list| {
            meta(list, NFPROTO);
            compare(list, EQUAL, &[IPV6]);
            payload(list, NETWORK, 24, 16);
            compare(list, EQUAL, &address.octets());
            verdict(list, ACCEPT);
        });
    }
}
