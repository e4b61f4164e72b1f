//! One sandbox's way out.

mod budget;
mod connection;
mod datagram;
mod dns;
mod log;
mod packet;
mod peer;
mod pipe;
mod refusal;
mod relay;
mod tally;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::budget::BUDGET;
use self::log::Log;
use super::filter::{Filter, Verdict};
use super::names::Names;
use super::peers::Peers;
use super::programs::Programs;
use super::resolver::Resolver;
use crate::sandbox::{EgressLog, Policy, Protocol};

pub use relay::carry;

/// As many DNS questions of one sandbox at once.
const QUESTIONS: usize = 128;

/// Where a guest's connections arrive: sockets opened inside the sandbox.
#[derive(Debug)]
pub struct Sockets {
    /// Listening sockets, to which all TCP is redirected.
    pub tcp: Vec<OwnedFd>,
    /// Sockets to which UDP to port 53 is redirected.
    pub udp: Vec<OwnedFd>,
    /// For all other UDP.
    pub datagrams: Vec<Datagrams>,
    /// Receives from those.
    pub original: Original,
}

/// Sockets for UDP, both inside the sandbox.
#[derive(Debug)]
pub struct Datagrams {
    /// Gets what was meant for others.
    pub receive: OwnedFd,
    /// A raw socket, for answers in their name.
    pub reply: OwnedFd,
}

/// Receives one datagram without waiting: its length, who sent it, and to whom.
pub type Original = fn(BorrowedFd<'_>, &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)>;

/// What a gate may know of a sandbox beside its sockets.
#[derive(Clone, Default)]
pub struct Around {
    /// Others whom it reaches, whatever its policy is.
    pub peers: Option<Arc<dyn Peers>>,
    /// Its programs, for the log.
    pub programs: Option<Arc<dyn Programs>>,
}

/// Serves one sandbox until it is dropped; then every connection of it is cut.
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    filter: Mutex<Arc<Filter>>,
    names: Mutex<Names>,
    log: Mutex<Log>,
    open: Mutex<HashMap<u64, Open>>,
    tallies: Mutex<HashMap<u64, (String, Arc<relay::Count>)>>,
    serial: AtomicU64,
    resolver: Arc<Resolver>,
    around: Around,
    /// The sandbox has IPv6.
    six: bool,
    stop: CancellationToken,
    connections: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

/// A connection that was let through, as it was decided about.
struct Open {
    name: Option<String>,
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    cut: CancellationToken,
}

impl Gate {
    /// Begins to serve. The log goes on from `log`.
    pub fn open(
        sockets: Sockets,
        policy: Policy,
        resolver: Arc<Resolver>,
        around: Around,
        log: EgressLog,
    ) -> io::Result<Gate> {
        let is_six = |socket: &OwnedFd| {
            let own = rustix::net::getsockname(socket);
            own.is_ok_and(|own| own.address_family() == rustix::net::AddressFamily::INET6)
        };
        let shared = Arc::new(Shared {
            six: sockets.tcp.iter().any(is_six),
            filter: Mutex::new(Arc::new(Filter::new(policy))),
            names: Mutex::default(),
            log: Mutex::new(Log::of(log)),
            open: Mutex::default(),
            tallies: Mutex::default(),
            serial: AtomicU64::new(0),
            resolver,
            around,
            stop: CancellationToken::new(),
            connections: Arc::new(Semaphore::new(BUDGET.connections_each)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        });
        // Dropped when one of the sockets is no good.
        let gate = Gate { shared: shared.clone() };
        for socket in sockets.tcp {
            rustix::io::ioctl_fionbio(&socket, true)?;
            let listener = TcpListener::from_std(socket.into())?;
            shared.until_stopped(accept(shared.clone(), listener));
        }
        for socket in sockets.udp {
            rustix::io::ioctl_fionbio(&socket, true)?;
            let socket = Arc::new(UdpSocket::from_std(socket.into())?);
            shared.until_stopped(dns::answer_all(shared.clone(), socket));
        }
        for datagrams in sockets.datagrams {
            rustix::io::ioctl_fionbio(&datagrams.receive, true)?;
            shared.until_stopped(datagram::serve(shared.clone(), datagrams, sockets.original));
        }
        Ok(gate)
    }

    /// Puts another policy in force at once, and cuts the connections that it does not allow.
    pub fn set_policy(&self, policy: Policy) {
        let filter = Arc::new(Filter::new(policy));
        *lock(&self.shared.filter) = filter.clone();
        for open in lock(&self.shared.open).values() {
            let Open { name, address, port, protocol, cut } = open;
            let name = name.as_deref();
            if filter.carries(name, *address, *port, *protocol) != Verdict::Allow {
                cut.cancel();
            }
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.shared.filter().policy().clone()
    }

    /// What was refused and carried so far.
    pub fn log(&self) -> EgressLog {
        tally::tell_all(&self.shared);
        lock(&self.shared.log).all()
    }

    /// The log, if it has changed since this was asked for.
    pub fn news(&self) -> Option<EgressLog> {
        tally::tell_all(&self.shared);
        lock(&self.shared.log).news()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn filter(&self) -> Arc<Filter> {
        lock(&self.filter).clone()
    }

    fn until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Decides about a connection and, when it is let through, keeps it in view from that moment on:
    /// a change of policy either comes before the decision or finds it here.
    fn admit(
        &self,
        name: Option<&str>,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Admitted<'_>, Verdict> {
        let mut open = lock(&self.open);
        let verdict = self.filter().carries(name, to.ip(), to.port(), protocol);
        if verdict != Verdict::Allow {
            return Err(verdict);
        }
        let id = self.serial.fetch_add(1, Ordering::Relaxed);
        let cut = self.stop.child_token();
        let entry = Open {
            name: name.map(str::to_owned),
            address: to.ip(),
            port: to.port(),
            protocol,
            cut: cut.clone(),
        };
        open.insert(id, entry);
        Ok(Admitted { shared: self, id, cut })
    }
}

/// A connection in view; out of it when this is dropped.
struct Admitted<'a> {
    shared: &'a Shared,
    id: u64,
    cut: CancellationToken,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.id);
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        // One guest must not use up what all share: more of them wait.
        let Ok(own) = shared.connections.clone().acquire_owned().await else { return };
        let Ok(common) = BUDGET.connections.clone().acquire_owned().await else { return };
        let permit = (own, common);
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(to) = original(&stream) else { continue };
        let one = shared.clone();
        shared.until_stopped(async move {
            let _permit = permit;
            connection::serve(&one, stream, to).await;
        });
    }
}

/// Where the guest wanted to go; none for who came to the gate itself.
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
    let own = stream.local_addr().ok()?;
    let fd = stream.as_fd();
    let to: SocketAddr = match own {
        SocketAddr::V4(_) => ip_original_dst(fd).ok()?.into(),
        SocketAddr::V6(_) => ipv6_original_dst(fd).ok()?.into(),
    };
    (to != own).then(|| SocketAddr::new(to.ip().to_canonical(), to.port()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
