//! Others that a guest reaches by name, whatever its policy is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Those that a guest shares a network with, as they are at each moment.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Where the one of this name is; none where nobody has it. In lower case.
    fn find(&self, name: &str) -> Option<PeerAddress>;

    /// The name of the one that is there.
    fn name(&self, address: PeerAddress) -> Option<String>;

    /// A connection to a port of the one that is there now, by IPv6 if `six`. It sees the guest's own
    /// address as the other end.
    async fn dial(&self, to: PeerAddress, port: u16, six: bool) -> io::Result<TcpStream>;

    /// The same for datagrams, which have no end of their own: that of the one at the other end.
    async fn datagrams(
        &self,
        to: PeerAddress,
        port: u16,
        six: bool,
    ) -> io::Result<(UdpSocket, CancellationToken)>;
}

/// The range of the IPv4 addresses, 198.18.0.0/15: nobody's in the internet.
const FIRST: u32 = 0xc612_0000;
const COUNT: u32 = 1 << 17;

/// The range of the IPv6 addresses, fd73:616e:6473::/64: private, and drawn for us.
const PREFIX: [u16; 4] = [0xfd73, 0x616e, 0x6473, 0];

/// Where one of them is for the others: an address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(u32);

impl PeerAddress {
    /// The one of a number: the same for numbers that are 131070 apart.
    pub fn new(number: u32) -> PeerAddress {
        // Never the first or the last one of the range.
        PeerAddress(1 + number % (COUNT - 2))
    }

    /// The one that has this address; none for addresses that are of neither range.
    pub fn of(address: IpAddr) -> Option<PeerAddress> {
        match address.to_canonical() {
            IpAddr::V4(four) => {
                let four = u32::from(four);
                (four & !(COUNT - 1) == FIRST).then(|| PeerAddress(four - FIRST))
            }
            IpAddr::V6(six) => {
                let [a, b, c, d, 0, 0, high, low] = six.segments() else { return None };
                let number = u32::from(high) << 16 | u32::from(low);
                ([a, b, c, d] == PREFIX && number < COUNT).then_some(PeerAddress(number))
            }
        }
    }

    /// By IPv4.
    pub fn four(self) -> Ipv4Addr {
        (FIRST + self.0).into()
    }

    /// By IPv6.
    pub fn six(self) -> Ipv6Addr {
        let [a, b, c, d] = PREFIX;
        Ipv6Addr::new(a, b, c, d, 0, 0, (self.0 >> 16) as u16, self.0 as u16)
    }

    /// By IPv6 if `six`.
    pub fn by(self, six: bool) -> IpAddr {
        if six { self.six().into() } else { self.four().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_peers() {
        for (number, four, six) in [
            (0, "198.18.0.1", "fd73:616e:6473::1"),
            (131_069, "198.19.255.254", "fd73:616e:6473::1:fffe"),
            (131_070, "198.18.0.1", "fd73:616e:6473::1"),
        ] {
            let one = PeerAddress::new(number);
            assert_eq!((one.four().to_string(), one.six().to_string()), (four.into(), six.into()));
            assert_eq!(PeerAddress::of(one.by(false)), Some(one));
            assert_eq!(PeerAddress::of(one.by(true)), Some(one));
        }
        let inside = |text: &str| PeerAddress::of(text.parse().unwrap()).is_some();
        assert!(inside("198.18.0.1") && inside("198.19.255.254") && inside("::ffff:198.18.0.1"));
        for text in [
            "198.17.255.255",
            "198.20.0.0",
            "::1",
            "fd73:616e:6473::2:0",
            "fd73:616e:6473:1::2",
            "fd73:616e:6473::1:0:1",
            "fd73:616e:6474::1",
        ] {
            assert!(!inside(text), "{text}");
        }
        assert!(inside(&PeerAddress::new(u32::MAX).six().to_string()));
    }
}
