//! Connections to those that the guest shares a network with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connection::{DIAL, caller, reset};
use super::refusal::{self, Refusal};
use super::relay::{Count, Watch, relay};
use super::{Shared, lock};
use crate::egress::peers::{Peers, as_peer};
use crate::sandbox::{Protocol, Reason};

/// How long a guest may rely on a peer's address, in seconds: it may be another's soon.
pub const TTL: u32 = 1;

/// Where a connection goes that is for a peer; none for all others.
pub fn of(shared: &Shared, to: SocketAddr) -> Option<(Arc<dyn Peers>, Ipv4Addr)> {
    let peers = shared.around.peers.clone()?;
    Some((peers, as_peer(to.ip())?))
}

/// Serves it to its end. What the policy says is of no concern here.
pub async fn serve(shared: &Shared, peers: &dyn Peers, mut guest: TcpStream, to: (Ipv4Addr, u16)) {
    let (address, port) = to;
    let Some(name) = peers.name(address) else {
        let refusal = Refusal {
            name: None,
            address: Some(address.into()),
            what: (port, Protocol::Tcp),
            reason: Reason::NoPeer,
        };
        refusal::note(shared, refusal, caller(&guest, to.into())).await;
        return reset(&guest);
    };
    let count = Count::default();
    let whole = async {
        let dialled = tokio::time::timeout(DIAL, peers.dial(address, port)).await;
        let mut peer = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let _ = peer.set_nodelay(true);
        lock(&shared.log).connect(&name);
        let carried = relay(&mut guest, &mut peer, Watch::Free, &count).await;
        if carried.is_err() {
            reset(&peer);
        }
        carried
    };
    let ended = whole.await;
    let (sent, received) = (count.sent.into_inner(), count.received.into_inner());
    if sent + received > 0 {
        lock(&shared.log).bytes(&name, sent, received);
    }
    if ended.is_err() {
        reset(&guest);
    }
}
