//! Connections to those that the guest shares a network with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Shared;
use super::connection::{DIAL, caller, reset};
use super::refusal::{self, Refusal};
use super::relay::{Watch, relay};
use super::tally::Tally;
use crate::egress::peers::{PeerAddress, Peers};
use crate::sandbox::{Protocol, Reason};

/// How long a guest may rely on a peer's address, in seconds: it may be another's soon.
pub const TTL: u32 = 1;

/// Where a connection goes that is for a peer; none for all others.
pub fn of(shared: &Shared, to: SocketAddr) -> Option<(Arc<dyn Peers>, PeerAddress)> {
    let peers = shared.around.peers.clone()?;
    Some((peers, PeerAddress::of(to.ip())?))
}

/// Serves it to its end. What the policy says is of no concern here.
pub async fn serve(
    shared: &Shared,
    peers: &dyn Peers,
    mut guest: TcpStream,
    (address, to): (PeerAddress, SocketAddr),
) {
    let Some(name) = peers.name(address) else {
        let refusal = Refusal {
            name: None,
            address: Some(to.ip()),
            what: (to.port(), Protocol::Tcp),
            reason: Reason::NoPeer,
        };
        refusal::note(shared, refusal, caller(&guest, to)).await;
        return reset(&guest);
    };
    let whole = async {
        let mut peer = dial(peers, address, to).await?;
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

/// By the guest's choice of a family, or by the other one where only that is listened on: the guest has been
/// told that it is connected, and would not try another address any more.
async fn dial(peers: &dyn Peers, address: PeerAddress, to: SocketAddr) -> io::Result<TcpStream> {
    let by = async |six: bool| {
        let dialled = tokio::time::timeout(DIAL, peers.dial(address, to.port(), six)).await;
        dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    };
    match by(to.is_ipv6()).await {
        Ok(peer) => Ok(peer),
        Err(error) => by(!to.is_ipv6()).await.map_err(|_| error),
    }
}
