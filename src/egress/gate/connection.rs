//! One TCP connection of a guest.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::refusal::{self, Refusal};
use super::relay::{Watch, relay};
use super::tally::Tally;
use super::{Shared, dns, lock, peer};
use crate::egress::answer::Kind;
use crate::egress::filter::Verdict;
use crate::egress::http::{Head, Requests};
use crate::egress::programs::Caller;
use crate::egress::sniff::{self, Greeting};
use crate::sandbox::{Protocol, Reason};

/// How long a client may be silent before it counts as one that waits for the server to begin.
const SILENCE: Duration = Duration::from_millis(300);

/// How long a greeting may take once it has begun.
const GREETING: Duration = Duration::from_secs(20);

/// How long a server may take to accept.
pub const DIAL: Duration = Duration::from_secs(30);

/// Where a connection goes, and what its client may send on it.
struct Way {
    name: Option<String>,
    to: SocketAddr,
    watch: Watch,
}

/// Why it does not go on: the name it was for, and the reason; none when nothing was refused.
type Refused = Option<(Option<String>, Reason)>;

/// Serves a connection to its end.
pub async fn serve(shared: &Shared, mut guest: TcpStream, to: SocketAddr) {
    let _ = guest.set_nodelay(true);
    if let Some((peers, address)) = peer::of(shared, to) {
        return peer::serve(shared, &*peers, guest, (address, to)).await;
    }
    let mut greeting = Vec::new();
    match find(shared, &mut guest, to, &mut greeting).await {
        Ok(Some(way)) => match carry(shared, &mut guest, way, greeting).await {
            Ok(()) => return,
            Err(refused) => note(shared, &guest, to, refused).await,
        },
        // Answered here.
        Ok(None) => return,
        Err(refused) => note(shared, &guest, to, refused).await,
    }
    reset(&guest);
}

async fn note(shared: &Shared, guest: &TcpStream, to: SocketAddr, refused: Refused) {
    if let Some((name, reason)) = refused {
        let known = || lock(&shared.names).of(to.ip()).first().map(|(name, _)| name.clone());
        let name = name.or_else(known);
        let (name, what) = (name.as_deref(), (to.port(), Protocol::Tcp));
        let refusal = Refusal { name, address: Some(to.ip()), what, reason };
        refusal::note(shared, refusal, caller(guest, to)).await;
    }
}

/// The guest's end of a connection to there.
pub fn caller(guest: &TcpStream, to: SocketAddr) -> Option<Caller> {
    Some(Caller { protocol: Protocol::Tcp, from: guest.peer_addr().ok()?, to: Some(to) })
}

/// Cut rather than closed: the other side is to know that it did not end by itself.
pub fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
}

/// Decides where it may go.
async fn find(
    shared: &Shared,
    guest: &mut TcpStream,
    to: SocketAddr,
    first: &mut Vec<u8>,
) -> Result<Option<Way>, Refused> {
    match shared.filter().unnamed(to.ip(), to.port(), Protocol::Tcp) {
        Some(Verdict::Allow) => return Ok(Some(Way { name: None, to, watch: Watch::Free })),
        // Whatever server the guest had in mind, it is answered here, as by UDP.
        _ if to.port() == 53 => {
            let caller = caller(guest, to);
            dns::serve(shared, guest, caller).await;
            return Ok(None);
        }
        Some(Verdict::Deny(reason)) => {
            // Only to say in the log what it was for.
            let silent = tokio::time::timeout(SILENCE, read_greeting(guest, first)).await;
            let name = match silent {
                Ok(Ok(Greeting::Tls(name))) => name,
                Ok(Ok(Greeting::Http(Some((head, _))))) => head.host,
                _ => None,
            };
            return Err(Some((name, reason)));
        }
        None => {}
    }
    // Not `readable`, which may be wrong.
    let begun = tokio::time::timeout(SILENCE, guest.peek(&mut [0])).await;
    if begun.is_err() {
        return behind(shared, to, Watch::Silent).await.map(Some);
    }
    let greeting = match tokio::time::timeout(GREETING, read_greeting(guest, first)).await {
        Ok(Ok(greeting)) => greeting,
        // It only looked whether it can connect: that it could not is to be known.
        Ok(Err(_)) => return Err(behind(shared, to, Watch::Silent).await.err().flatten()),
        Err(_) => return Err(Some((None, Reason::Unnamed))),
    };
    match greeting {
        Greeting::Opaque => behind(shared, to, Watch::Free).await.map(Some),
        Greeting::Tls(Some(name)) => named(shared, name, to, Watch::Free).await.map(Some),
        Greeting::Http(Some((head, length))) => {
            http(shared, head, length, to, first).await.map(Some)
        }
        Greeting::Tls(None) | Greeting::Http(None) | Greeting::More => {
            Err(Some((None, Reason::Unnamed)))
        }
    }
}

async fn read_greeting(guest: &mut TcpStream, first: &mut Vec<u8>) -> io::Result<Greeting> {
    loop {
        if guest.read_buf(first).await? == 0 {
            // What has come is all that comes.
            return match (sniff::greeting(first), first.is_empty()) {
                (_, true) => Err(io::ErrorKind::UnexpectedEof.into()),
                (found, _) => Ok(found),
            };
        }
        match sniff::greeting(first) {
            Greeting::More if first.len() < sniff::LONGEST => {}
            found => return Ok(found),
        }
    }
}

async fn http(
    shared: &Shared,
    head: Head,
    length: usize,
    to: SocketAddr,
    first: &mut Vec<u8>,
) -> Result<Way, Refused> {
    let Some(name) = head.host.clone() else { return Err(Some((None, Reason::Unnamed))) };
    let (proxied, port) = (head.proxied, head.port);
    // More requests may have come with the first.
    let mut requests = Requests::after(head);
    let rest =
        requests.pass(&first[length..]).map_err(|_| Some((Some(name.clone()), Reason::Unnamed)))?;
    first.truncate(length);
    first.extend(rest);
    let watch = Watch::Requests(Box::new(requests));
    if !proxied {
        return named(shared, name, to, watch).await;
    }
    // The proxy has to be allowed, and what it is asked for, too.
    let target = (port.unwrap_or(80), Protocol::Tcp);
    let filter = shared.filter();
    let asked = address_of(shared, &name, to.ip()).await;
    let allowed = asked.is_none_or(|address| {
        filter.connect(Some(&name), address, target.0, target.1) == Verdict::Allow
    });
    if !allowed || !filter.resolves(&name) {
        lock(&shared.log).deny(Some(&name), asked, target, Reason::NotAllowed);
        return Err(None);
    }
    behind(shared, to, watch).await
}

/// An address of a name, of the kind of another.
async fn address_of(shared: &Shared, name: &str, like: IpAddr) -> Option<IpAddr> {
    let (found, _) = shared.resolver.find(name, Kind::of(like)).await.ok()?;
    found.addresses.first().copied()
}

/// To a name that the client asks for: at an address that the name has, whatever the guest chose.
async fn named(
    shared: &Shared,
    name: String,
    to: SocketAddr,
    watch: Watch,
) -> Result<Way, Refused> {
    let filter = shared.filter();
    let not_allowed = || Some((Some(name.clone()), Reason::NotAllowed));
    if !filter.resolves(&name) {
        return Err(not_allowed());
    }
    let told = lock(&shared.names).of(to.ip());
    let found = shared.resolver.find(&name, Kind::of(to.ip())).await;
    let addresses = match found {
        Ok((found, _)) => found.addresses,
        // Nobody can be asked just now, but it was told so before.
        Err(_) if told.iter().any(|(known, _)| *known == name) => vec![to.ip()],
        Err(_) => return Err(not_allowed()),
    };
    // Where the guest was going first, if the name leads there.
    let mut last = Reason::NotAllowed;
    let first = addresses.iter().filter(|address| **address == to.ip());
    for address in first.chain(&addresses) {
        match filter.connect(Some(&name), *address, to.port(), Protocol::Tcp) {
            Verdict::Allow => {
                let to = SocketAddr::new(*address, to.port());
                return Ok(Way { name: Some(name), to, watch });
            }
            Verdict::Deny(reason) => last = reason,
        }
    }
    Err(Some((Some(name), last)))
}

/// To an address, for a name that the guest was told has it.
async fn behind(shared: &Shared, to: SocketAddr, watch: Watch) -> Result<Way, Refused> {
    let filter = shared.filter();
    let told = lock(&shared.names).of(to.ip());
    let mut refused = (None, Reason::NotAllowed);
    for (name, end) in told {
        let verdict = filter.connect(Some(&name), to.ip(), to.port(), Protocol::Tcp);
        if let Verdict::Deny(reason) = verdict {
            refused = (Some(name), reason);
            continue;
        }
        if holds(shared, &name, end, to.ip()).await {
            return Ok(Way { name: Some(name), to, watch });
        }
        refused = (Some(name), Reason::NotAllowed);
    }
    Err(Some(refused))
}

/// Whether a name that the guest was told until `end` has this address, or still has it.
pub async fn holds(shared: &Shared, name: &str, end: Instant, address: IpAddr) -> bool {
    end > Instant::now()
        || matches!(shared.resolver.find(name, Kind::of(address)).await,
            Ok((found, _)) if found.addresses.contains(&address))
}

async fn carry(
    shared: &Shared,
    guest: &mut TcpStream,
    way: Way,
    greeting: Vec<u8>,
) -> Result<(), Refused> {
    let admitted = match shared.admit(way.name.as_deref(), way.to, Protocol::Tcp) {
        Ok(admitted) => admitted,
        Err(Verdict::Deny(reason)) => return Err(Some((way.name, reason))),
        Err(Verdict::Allow) => return Err(None),
    };
    let known = || lock(&shared.names).of(way.to.ip()).first().map(|(name, _)| name.clone());
    let host = way.name.clone().or_else(known).unwrap_or_else(|| way.to.ip().to_string());
    let whole = async {
        let dialled = tokio::time::timeout(DIAL, TcpStream::connect(way.to)).await;
        let mut server = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let _ = server.set_nodelay(true);
        let tally = Tally::begin(shared, &host);
        let count = &tally.count;
        server.write_all(&greeting).await?;
        count.sent.fetch_add(greeting.len() as u64, Ordering::Relaxed);
        let carried = tokio::select! {
            carried = relay(guest, &mut server, way.watch, count) => carried,
            () = admitted.cut.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if carried.is_err() {
            reset(&server);
        }
        carried
    };
    let ended: io::Result<()> = whole.await;
    match ended {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Some((way.name, Reason::Unnamed)))
        }
        Err(_) => Err(None),
    }
}
