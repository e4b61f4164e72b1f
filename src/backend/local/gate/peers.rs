//! Who shares a network with whom, among the sandboxes that a gate serves.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::Guest;
use super::dial::Door;
use crate::backend::local::net;
use crate::egress::{PeerAddress, Peers};
use crate::sandbox::Network;

/// A sandbox that is in networks, as long as it runs.
#[derive(Clone)]
struct Member {
    networks: Arc<[Network]>,
    hostname: Option<String>,
    address: PeerAddress,
    door: Door,
    id: u64,
    /// Cancelled when it leaves.
    end: CancellationToken,
}

/// All that are in networks, by name.
#[derive(Default)]
pub struct Members(Mutex<HashMap<String, Member>>);

/// One's place among them; it leaves when this is dropped.
pub struct Seat {
    all: Arc<Members>,
    name: String,
    id: u64,
    end: CancellationToken,
}

/// What one of them sees of the others.
pub struct Neighbours {
    all: Arc<Members>,
    networks: Arc<[Network]>,
    /// Where it is itself.
    own: PeerAddress,
}

impl Members {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one that has started; `id` tells it from others of its name.
    pub fn join(self: &Arc<Self>, spec: &Guest, door: Door, id: u64) -> (Seat, Arc<Neighbours>) {
        let networks: Arc<[Network]> = spec.networks.clone().into();
        let mut all = self.all();
        // The same at each start as far as nobody has it, for who remembers it.
        let hash = blake3::hash(spec.name.as_bytes());
        let bytes = hash.as_bytes();
        let mut number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let taken = |address: PeerAddress| {
            all.iter().any(|(name, member)| member.address == address && *name != spec.name)
        };
        while taken(PeerAddress::new(number)) {
            number = number.wrapping_add(1);
        }
        let own = PeerAddress::new(number);
        let member = Member {
            networks: networks.clone(),
            hostname: spec.hostname.clone(),
            address: own,
            door,
            id,
            end: CancellationToken::new(),
        };
        let end = member.end.clone();
        all.insert(spec.name.clone(), member);
        let seat = Seat { all: self.clone(), name: spec.name.clone(), id, end };
        (seat, Arc::new(Neighbours { all: self.clone(), networks, own }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end.cancel();
        let mut all = self.all.all();
        // Unless it has started again meanwhile.
        if all.get(&self.name).is_some_and(|member| member.id == self.id) {
            all.remove(&self.name);
        }
    }
}

impl Neighbours {
    fn sees(&self, member: &Member) -> bool {
        member.networks.iter().any(|network| self.networks.contains(network))
    }

    fn at(&self, address: PeerAddress) -> Option<(String, Member)> {
        let all = self.all.all();
        let (name, member) =
            all.iter().find(|(_, member)| member.address == address && self.sees(member))?;
        Some((name.clone(), member.clone()))
    }
}

/// Not of the loopback interface: what listens on that alone is for the sandbox itself.
fn within(port: u16, six: bool) -> SocketAddr {
    let address = if six { net::ADDRESS6.into() } else { net::ADDRESS.into() };
    SocketAddr::new(address, port)
}

#[async_trait]
impl Peers for Neighbours {
    fn find(&self, name: &str) -> Option<PeerAddress> {
        let all = self.all.all();
        let named = all.get(name).filter(|member| self.sees(member));
        // Names are unique, host names need not be: then it is the first one's by name.
        let called = || {
            let fits =
                |member: &Member| member.hostname.as_deref() == Some(name) && self.sees(member);
            all.iter().filter(|(_, member)| fits(member)).min_by_key(|(name, _)| *name)
        };
        named.or_else(|| called().map(|(_, member)| member)).map(|member| member.address)
    }

    fn name(&self, address: PeerAddress) -> Option<String> {
        self.at(address).map(|(name, _)| name)
    }

    async fn dial(&self, to: PeerAddress, port: u16, six: bool) -> io::Result<TcpStream> {
        let (_, member) = self.at(to).ok_or(io::ErrorKind::ConnectionRefused)?;
        member.door.dial(within(port, six), Some(self.own.by(six))).await
    }

    async fn datagrams(
        &self,
        to: PeerAddress,
        port: u16,
        six: bool,
    ) -> io::Result<(UdpSocket, CancellationToken)> {
        let (_, member) = self.at(to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let socket = member.door.datagrams(within(port, six), Some(self.own.by(six))).await?;
        Ok((socket, member.end))
    }
}
