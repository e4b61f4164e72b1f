//! Asking the host's name servers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::{self, Found, Kind, Useless};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// As many answers are remembered.
const MOST: usize = 1024;

/// Answers, remembered as long as they hold. Who shares one with others can tell what they asked for.
pub struct Resolver {
    servers: Vec<SocketAddr>,
    cache: Mutex<HashMap<(String, Kind), (Found, Instant)>>,
}

impl Resolver {
    /// Asks these servers; those of `/etc/resolv.conf`, as it is at each time, when there are none.
    pub fn new(servers: Vec<SocketAddr>) -> Resolver {
        Resolver { servers, cache: Mutex::default() }
    }

    /// The addresses of a name, and until when they hold.
    pub async fn find(&self, name: &str, kind: Kind) -> io::Result<(Found, Instant)> {
        let key = (name.to_owned(), kind);
        let now = Instant::now();
        if let Some((found, end)) = self.cache().get(&key)
            && *end > now
        {
            return Ok((found.clone(), *end));
        }
        let found = self.follow(name, kind).await?;
        // A name without a time to live is asked for again at the next connection, but not within it.
        let end = Instant::now() + found.ttl.max(Duration::from_secs(1));
        let mut cache = self.cache();
        if cache.len() >= MOST {
            cache.retain(|_, (_, end)| *end > now);
            if cache.len() >= MOST {
                cache.clear();
            }
        }
        cache.insert(key, (found.clone(), end));
        Ok((found, end))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Kind), (Found, Instant)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most servers follow aliases by themselves; what is left of a chain is followed here.
    async fn follow(&self, name: &str, kind: Kind) -> io::Result<Found> {
        let mut found = self.ask(name, kind).await?;
        for _ in 0..8 {
            let Some(alias) = found.alias.take() else { break };
            let next = self.ask(&alias, kind).await?;
            found = Found { ttl: next.ttl.min(found.ttl), ..next };
        }
        Ok(found)
    }

    async fn ask(&self, name: &str, kind: Kind) -> io::Result<Found> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no name server to ask");
        let servers = match self.servers.is_empty() {
            true => servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
            false => self.servers.clone(),
        };
        for _ in 0..2 {
            for server in &servers {
                match tokio::time::timeout(PATIENCE, ask_one(*server, name, kind)).await {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
        }
        Err(last)
    }
}

async fn ask_one(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Found> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let query = answer::ask(id, name, kind).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match answer::found(&buffer[..count], id, name, kind) {
            Ok(found) => return Ok(found),
            // Somebody guesses, or it is late.
            Err(Useless::Wrong) => {}
            Err(Useless::Failed) => return Err(io::Error::other("the name server can't answer")),
            Err(Useless::Short) => break,
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&(query.len() as u16).to_be_bytes()).await?;
    stream.write_all(&query).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    answer::found(&bytes, id, name, kind)
        .map_err(|error| io::Error::other(format!("the name server answers nonsense: {error:?}")))
}

/// The servers of a `resolv.conf`.
fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    };
    text.lines().filter_map(server).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_of_the_file() {
        let text =
            "# x\nnameserver 127.0.0.53\nsearch a\nnameserver ::1\nnameserver fe80::1%eth0\n";
        let found: Vec<String> = servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[::1]:53"]);
    }
}
