//! The guest's resolver: it answers for allowed names only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::budget::BUDGET;
use super::refusal::{self, Refusal};
use super::{Shared, lock, peer};
use crate::egress::answer::{self, Answer, Kind};
use crate::egress::peers::PeerAddress;
use crate::egress::programs::Caller;
use crate::sandbox::{Policy, Protocol, Reason, Target};

/// What a message by UDP may have without the client saying more.
const ROOM: usize = 512;

/// Answers what comes to a socket.
pub async fn answer_all(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(permit) = shared.questions.clone().acquire_owned().await else { return };
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (query, one, socket) = (buffer[..count].to_vec(), shared.clone(), socket.clone());
        shared.until_stopped(async move {
            let _permits = (permit, BUDGET.questions.acquire().await);
            let caller = Caller { protocol: Protocol::Udp, from, to: None };
            if let Some(reply) = answer(&one, &query, ROOM, Some(caller)).await {
                let _ = socket.send_to(&reply, from).await;
            }
        });
    }
}

/// Answers what comes on a connection.
pub async fn serve(shared: &Shared, stream: &mut TcpStream, caller: Option<Caller>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(reply) = answer(shared, &query, usize::from(u16::MAX), caller).await else {
            return;
        };
        let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
        framed.extend(reply);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The host that a name is of: services and keys of it are asked for by labels in front.
fn host_of(name: &str) -> &str {
    let mut host = name;
    while let Some((label, rest)) = host.split_once('.')
        && label.starts_with('_')
    {
        host = rest;
    }
    host
}

async fn answer(
    shared: &Shared,
    message: &[u8],
    room: usize,
    caller: Option<Caller>,
) -> Option<Vec<u8>> {
    let query = answer::query(message)?;
    let reply = |what: Answer<'_>| answer::reply(message, &what, room);
    if let Some(peers) = &shared.around.peers {
        if let Some(address) = peers.find(&query.name) {
            let addresses: &[IpAddr] = match query.kind {
                Kind::A => &[address.four().into()],
                Kind::Aaaa if shared.six => &[address.six().into()],
                _ => &[],
            };
            return reply(Answer::Addresses(addresses, peer::TTL));
        }
        if let Kind::Name(address) = query.kind
            && let Some(name) = PeerAddress::of(address).and_then(|address| peers.name(address))
        {
            return reply(Answer::Name(&name, peer::TTL));
        }
    }
    let filter = shared.filter();
    let host = host_of(&query.name);
    let refuse = |address: Option<IpAddr>, reason| {
        let (name, what) = (Some(host), (53, Protocol::Udp));
        refusal::note(shared, Refusal { name, address, what, reason }, caller)
    };
    if !filter.resolves(&query.name) {
        // Who looks up the name of an address, or a service of a host that is allowed, means no harm.
        let harmless = query.name.ends_with(".arpa") || host != query.name && filter.resolves(host);
        if !harmless {
            refuse(None, Reason::NotAllowed).await;
        }
        return reply(Answer::Missing);
    }
    if !matches!(query.kind, Kind::A | Kind::Aaaa) {
        return reply(Answer::Addresses(&[], 0));
    }
    let Ok((found, end)) = shared.resolver.find(&query.name, query.kind).await else {
        return reply(Answer::Failed);
    };
    if found.missing {
        return reply(Answer::Missing);
    }
    let open = |address: &IpAddr| match filter.policy() {
        Policy::Unrestricted => true,
        policy => policy.rules().any(|rule| {
            let inside = match rule.target {
                Target::Network(network) => network.has(*address),
                Target::Name { within: Some(within), .. } => {
                    rule.names(&query.name) && within.has(*address)
                }
                _ => false,
            };
            inside || crate::egress::special::special(*address).is_none()
        }),
    };
    let (told, kept): (Vec<IpAddr>, Vec<IpAddr>) = found.addresses.iter().partition(|a| open(a));
    if let (true, Some(first)) = (told.is_empty(), kept.first()) {
        refuse(Some(*first), Reason::Private).await;
    }
    lock(&shared.names).tell(&query.name, &told, end);
    let left = end.saturating_duration_since(Instant::now()).as_secs();
    reply(Answer::Addresses(&told, left.try_into().unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn whose_a_name_is() {
        for (name, host) in [
            ("_http._tcp.a.test", "a.test"),
            ("a.test", "a.test"),
            ("x_y.a.test", "x_y.a.test"),
            ("a._tcp.test", "a._tcp.test"),
            ("_tcp", "_tcp"),
        ] {
            assert_eq!(host_of(name), host);
        }
    }
}
