//! Others that a guest reaches by name, whatever its policy is.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Those that a guest shares a network with, as they are at each moment.
#[async_trait]
pub trait Peers: Send + Sync {
    /// The address of the one of this name; none where nobody has it. In lower case.
    fn address(&self, name: &str) -> Option<Ipv4Addr>;

    /// The name of the one that has this address.
    fn name(&self, address: Ipv4Addr) -> Option<String>;

    /// A connection to a port of the one that has this address now.
    async fn dial(&self, address: Ipv4Addr, port: u16) -> io::Result<TcpStream>;

    /// The same for datagrams, which have no end of their own: that of the one at the other end.
    async fn datagrams(
        &self,
        address: Ipv4Addr,
        port: u16,
    ) -> io::Result<(UdpSocket, CancellationToken)>;
}

/// The range that peers' addresses are of, 198.18.0.0/15: nobody's in the internet.
const FIRST: u32 = 0xc612_0000;
const COUNT: u32 = 1 << 17;

/// The address of a number: the same for numbers that are 131070 apart, and never the first or the last one
/// of the range.
pub fn peer_address(number: u32) -> Ipv4Addr {
    (FIRST + 1 + number % (COUNT - 2)).into()
}

/// The address as one of the range; none for others.
pub fn as_peer(address: IpAddr) -> Option<Ipv4Addr> {
    match address.to_canonical() {
        IpAddr::V4(address) if u32::from(address) & !(COUNT - 1) == FIRST => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_peers() {
        for (number, address) in
            [(0, "198.18.0.1"), (131_069, "198.19.255.254"), (131_070, "198.18.0.1")]
        {
            assert_eq!(peer_address(number).to_string(), address);
        }
        let inside = |text: &str| as_peer(text.parse().unwrap()).is_some();
        assert!(inside("198.18.0.1") && inside("198.19.255.254") && inside("::ffff:198.18.0.1"));
        assert!(!inside("198.17.255.255") && !inside("198.20.0.0") && !inside("::1"));
        assert!(inside(&peer_address(u32::MAX).to_string()));
    }
}
