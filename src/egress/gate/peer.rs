//! Connections to those that the guest shares a network with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Shared;
use super::connection::{DIAL, caller, reset};
use super::refusal::{self, Refusal};
use super::relay::{Watch, relay};
use super::tally::Tally;
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
    let whole = async {
        let dialled = tokio::time::timeout(DIAL, peers.dial(address, port)).await;
        let mut peer = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let _ = peer.set_nodelay(true);
        let tally = Tally::begin(shared, &name);
        let carried = relay(&mut guest, &mut peer, Watch::Free, &tally.count).await;
        if carried.is_err() {
            reset(&peer);
        }
        carried
    };
    if whole.await.is_err() {
        reset(&guest);
    }
}
