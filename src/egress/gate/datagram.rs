//! UDP other than questions for the resolver: by address, or by rules that say `udp://`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, sendto};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::budget::BUDGET;
use super::packet::{datagram, unreachable};
use super::refusal::{self, Refusal};
use super::relay::Count;
use super::tally::Tally;
use super::{Datagrams, Original, Shared, connection, lock, peer};
use crate::egress::filter::Verdict;
use crate::egress::peers::{PeerAddress, Peers};
use crate::egress::programs::Caller;
use crate::sandbox::{Protocol, Reason};

/// How long one is kept in which nothing moves.
const IDLE: Duration = Duration::from_secs(60);

const SIZE: usize = 64 << 10;

/// As many are taken before others have their turn.
const TURN: u32 = 64;

type Key = (SocketAddr, SocketAddr);
type Flows = Arc<Mutex<HashMap<Key, Flow>>>;

enum Flow {
    /// It is being decided; what comes meanwhile is lost, as UDP may be.
    Deciding,
    Open(Arc<Way>),
}

struct Way {
    socket: UdpSocket,
    count: Arc<Count>,
    last: Mutex<Instant>,
}

/// Carries what comes to a socket, until it fails.
pub async fn serve(shared: Arc<Shared>, datagrams: Datagrams, original: Original) {
    let guest = Arc::new(datagrams.reply);
    let receive = std::net::UdpSocket::from(datagrams.receive);
    let Ok(receive) = UdpSocket::from_std(receive) else { return };
    let flows = Flows::default();
    loop {
        if receive.readable().await.is_err() {
            return;
        }
        let mut buffer = vec![0; SIZE];
        for _ in 0..TURN {
            let come =
                receive.try_io(Interest::READABLE, || original(receive.as_fd(), &mut buffer));
            match come {
                Ok((count, from, to)) => {
                    take(&shared, &flows, &guest, (from, to), &buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

fn take(shared: &Arc<Shared>, flows: &Flows, guest: &Arc<OwnedFd>, key: Key, bytes: &[u8]) {
    // To the gate itself.
    if key.1.ip().to_canonical().is_loopback() {
        return;
    }
    let mut all = lock(flows);
    match all.get(&key) {
        Some(Flow::Open(way)) => way.send(bytes),
        Some(Flow::Deciding) => {}
        None => {
            // One guest must not use up the host's ports.
            let common = BUDGET.flows.clone().try_acquire_owned();
            let Some(permit) = common.ok().filter(|_| all.len() < BUDGET.flows_each) else {
                let (from, to) = key;
                return hand(guest, from, unreachable(from, to, bytes.len()));
            };
            all.insert(key, Flow::Deciding);
            let (one, flows, guest, first) =
                (shared.clone(), flows.clone(), guest.clone(), bytes.to_vec());
            shared.until_stopped(async move {
                let _permit = permit;
                carry(&one, &flows, &guest, key, &first).await;
                lock(&flows).remove(&key);
            });
        }
    }
}

impl Way {
    fn send(&self, bytes: &[u8]) {
        // What finds no room is lost, as it may be.
        if let Ok(sent) = self.socket.try_send(bytes) {
            self.count.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        *lock(&self.last) = Instant::now();
    }
}

async fn carry(shared: &Shared, flows: &Flows, guest: &OwnedFd, (from, to): Key, first: &[u8]) {
    let refuse = || hand(guest, from, unreachable(from, to, first.len()));
    let real = SocketAddr::new(to.ip().to_canonical(), to.port());
    let deny = async |name: Option<String>, reason| {
        let what = (to.port(), Protocol::Udp);
        let refusal = Refusal { name: name.as_deref(), address: Some(real.ip()), what, reason };
        let caller = Caller { protocol: Protocol::Udp, from, to: Some(to) };
        refusal::note(shared, refusal, Some(caller)).await;
        refuse();
    };
    if let Some((peers, address)) = peer::of(shared, real) {
        let Some(name) = peers.name(address) else { return deny(None, Reason::NoPeer).await };
        // Where nobody has the port in the guest's choice of a family, but in the other one.
        let Ok((socket, end)) = (match peer_by(&*peers, address, real, first, real.is_ipv6()).await
        {
            Ok(open) => Ok(open),
            Err(_) => peer_by(&*peers, address, real, first, !real.is_ipv6()).await,
        }) else {
            return refuse();
        };
        return exchange(shared, flows, guest, (from, to), (&name, socket, &end), first.len())
            .await;
    }
    let name = match decide(shared, real).await {
        Ok(name) => name,
        Err((name, reason)) => return deny(name, reason).await,
    };
    let admitted = match shared.admit(name.as_deref(), real, Protocol::Udp) {
        Ok(admitted) => admitted,
        Err(Verdict::Deny(reason)) => return deny(name, reason).await,
        Err(Verdict::Allow) => return refuse(),
    };
    let Ok(socket) = dial(real).await else { return refuse() };
    if say(&socket, first).await.is_err() {
        return refuse();
    }
    let known = || lock(&shared.names).of(real.ip()).first().map(|(name, _)| name.clone());
    let host = name.or_else(known).unwrap_or_else(|| real.ip().to_string());
    let cut = &admitted.cut;
    exchange(shared, flows, guest, (from, to), (&host, socket, cut), first.len()).await;
}

/// A socket to a peer through which the first datagram has gone.
async fn peer_by(
    peers: &dyn Peers,
    address: PeerAddress,
    to: SocketAddr,
    first: &[u8],
    six: bool,
) -> io::Result<(UdpSocket, CancellationToken)> {
    let (socket, end) = peers.datagrams(address, to.port(), six).await?;
    say(&socket, first).await?;
    // In one namespace the kernel knows at once that nobody is there.
    match socket.take_error()? {
        None => Ok((socket, end)),
        Some(error) => Err(error),
    }
}

/// Sends the first one of a flow.
async fn say(socket: &UdpSocket, first: &[u8]) -> io::Result<()> {
    socket.writable().await?;
    match socket.try_send(first) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        // What can't be sent is lost, as it may be.
        _ => Ok(()),
    }
}

/// Carries both ways, until nothing has moved for a while or it is cut. The first `sent` bytes have gone.
async fn exchange(
    shared: &Shared,
    flows: &Flows,
    guest: &OwnedFd,
    key: Key,
    (host, socket, cut): (&str, UdpSocket, &CancellationToken),
    sent: usize,
) {
    let tally = Tally::begin(shared, host);
    let (count, last) = (tally.count.clone(), Mutex::new(Instant::now()));
    count.sent.fetch_add(sent as u64, Ordering::Relaxed);
    let way = Arc::new(Way { socket, count, last });
    lock(flows).insert(key, Flow::Open(way.clone()));
    tokio::select! {
        () = cut.cancelled() => {}
        () = replies(&way, guest, key) => {}
    }
}

/// Hands the guest what comes back, until nothing has moved for a while.
async fn replies(way: &Way, guest: &OwnedFd, (from, to): Key) {
    loop {
        let left = (*lock(&way.last) + IDLE).saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, way.socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) if lock(&way.last).elapsed() < IDLE => continue,
            Err(_) => return,
        }
        let mut buffer = vec![0; SIZE];
        match way.socket.try_recv(&mut buffer) {
            Ok(count) => {
                *lock(&way.last) = Instant::now();
                way.count.received.fetch_add(count as u64, Ordering::Relaxed);
                hand(guest, from, datagram(to, from, &buffer[..count]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody is there, and the guest is told so, too.
            Err(_) => hand(guest, from, unreachable(from, to, 0)),
        }
    }
}

/// Gives a packet to the guest's own network.
fn hand(guest: &OwnedFd, to: SocketAddr, packet: Option<Vec<u8>>) {
    if let Some(packet) = packet {
        // A raw socket has no port.
        let to = SocketAddr::new(to.ip(), 0);
        let _ = sendto(guest, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to);
    }
}

async fn dial(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// The name it is for, when that is what it is allowed for; else why it is refused.
async fn decide(
    shared: &Shared,
    to: SocketAddr,
) -> Result<Option<String>, (Option<String>, Reason)> {
    if to.ip().is_multicast() {
        return Err((None, Reason::Protocol));
    }
    let filter = shared.filter();
    let told = lock(&shared.names).of(to.ip());
    let first = || told.first().map(|(name, _)| name.clone());
    match filter.unnamed(to.ip(), to.port(), Protocol::Udp) {
        Some(Verdict::Allow) => return Ok(None),
        Some(Verdict::Deny(reason)) => return Err((first(), reason)),
        None => {}
    }
    let mut refused = (first(), Reason::NotAllowed);
    for (name, end) in &told {
        match filter.datagram(Some(name), to.ip(), to.port()) {
            Verdict::Allow if connection::holds(shared, name, *end, to.ip()).await => {
                return Ok(Some(name.clone()));
            }
            Verdict::Allow => {}
            Verdict::Deny(reason) => refused = (Some(name.clone()), reason),
        }
    }
    Err(refused)
}
