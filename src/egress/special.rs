//! Addresses that are not the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::sandbox::Cidr;

const FOUR: &[([u8; 4], u8)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Where one cloud keeps its metadata; the others' are in ranges of this list.
    ([168, 63, 129, 16], 32),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Among them those that carry an IPv4 address inside, which may be any.
const SIX: &[([u16; 8], u8)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 96),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 9),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

/// The private or special range an address lies in: a rule has to lie in that range, too, to open it. An
/// address of this host's own is a range by itself.
pub fn special(address: IpAddr) -> Option<Cidr> {
    range(address).or_else(|| is_own(address).then(|| Cidr::single(address)))
}

/// The private and special ranges themselves, of which none lies in another one.
pub fn special_ranges() -> impl Iterator<Item = Cidr> {
    let four = FOUR.iter().map(|(bytes, prefix)| (IpAddr::V4(Ipv4Addr::from(*bytes)), *prefix));
    let six = SIX.iter().map(|(parts, prefix)| (IpAddr::V6(Ipv6Addr::from(*parts)), *prefix));
    four.chain(six).filter_map(|(start, prefix)| Cidr::new(start, prefix).ok())
}

fn range(address: IpAddr) -> Option<Cidr> {
    let found = special_ranges().find(|range| range.has(address))?;
    // Inside a private range the host's own address is still only opened by itself.
    Some(if is_own(address) { Cidr::single(address) } else { found })
}

/// Whether it is one of this host's: then the kernel would send from the very same. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Who can't be asked about is not let through: ports or descriptors may have been used up on purpose.
    let Ok(socket) = UdpSocket::bind((any, 0)) else { return true };
    socket.connect((address, 9)).is_ok() && socket.local_addr().is_ok_and(|own| own.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_special() {
        for text in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.168.1.1",
            "172.31.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "fd00:ec2::254",
            "fe80::1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "::10.0.0.1",
            "ff02::1",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["1.1.1.1", "203.0.113.9", "172.32.0.1", "2606:4700::1111", "2001:db8::1"] {
            assert!(special(text.parse().unwrap()).is_none(), "{text}");
        }
    }
}
