//! What is handed to a guest as if its peer had sent it: whole IP packets for a raw socket.

use std::net::{IpAddr, SocketAddr};

const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const HOPS: u8 = 64;

/// As many bytes as a datagram may have.
pub const LONGEST: usize = 65_507;

/// A datagram from `from` to `to`; none when both are not of one kind, or it is too long.
pub fn datagram(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > LONGEST {
        return None;
    }
    let mut udp = head(from, to, bytes.len());
    udp.extend(bytes);
    let sum = match checksum(pseudo(from.ip(), to.ip(), UDP, udp.len())?, &udp) {
        // Zero means that there is none.
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(from.ip(), to.ip(), UDP, &udp)
}

/// "Port unreachable" for a datagram that was sent from `from` to `to`, with so many bytes.
pub fn unreachable(from: SocketAddr, to: SocketAddr, length: usize) -> Option<Vec<u8>> {
    let original = packet(from.ip(), to.ip(), UDP, &head(from, to, length.min(LONGEST)))?;
    let (protocol, kind, code) = match from.ip() {
        IpAddr::V4(_) => (ICMP, 3, 3),
        IpAddr::V6(_) => (ICMP6, 1, 4),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(original);
    let start = match from.ip() {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => pseudo(to.ip(), from.ip(), protocol, message.len())?,
    };
    let sum = checksum(start, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(to.ip(), from.ip(), protocol, &message)
}

/// A UDP header without its checksum.
fn head(from: SocketAddr, to: SocketAddr, length: usize) -> Vec<u8> {
    let mut head = from.port().to_be_bytes().to_vec();
    head.extend(to.port().to_be_bytes());
    head.extend((length as u16 + 8).to_be_bytes());
    head.extend([0, 0]);
    head
}

fn packet(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Option<Vec<u8>> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (body.len() + 20) as u16;
            let mut head = vec![0x45, 0];
            head.extend(length.to_be_bytes());
            head.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
            head.extend(from.octets());
            head.extend(to.octets());
            let sum = checksum(0, &head);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            head
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut head = vec![0x60, 0, 0, 0];
            head.extend((body.len() as u16).to_be_bytes());
            head.extend([protocol, HOPS]);
            head.extend(from.octets());
            head.extend(to.octets());
            head
        }
        _ => return None,
    };
    packet.extend(body);
    Some(packet)
}

/// The sum of what a checksum covers beside the message itself.
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Option<u32> {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => return None,
    };
    Some(sum(u32::from(protocol) + length as u32, &addresses))
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    start + words.sum::<u32>()
}

/// RFC 1071.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_the_standard() {
        // The example of RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(0, &bytes), !0xddf2);
        assert_eq!(checksum(0, &[1]), !0x0100);
    }

    #[test]
    fn what_is_made_checks_out() {
        let four = |text: &str| -> SocketAddr { text.parse().unwrap() };
        for (from, to) in [("203.0.113.1:53", "192.0.0.2:4000"), ("[2001:db8::1]:53", "[::1]:4000")]
        {
            let (from, to) = (four(from), four(to));
            for length in [0, 1, 2, 1400, LONGEST] {
                let whole = datagram(from, to, &vec![0xab; length]).unwrap();
                let head = if from.is_ipv4() { 20 } else { 40 };
                let udp = &whole[head..];
                assert_eq!(checksum(pseudo(from.ip(), to.ip(), UDP, udp.len()).unwrap(), udp), 0);
                if from.is_ipv4() {
                    assert_eq!(checksum(0, &whole[..20]), 0);
                    assert_eq!(usize::from(u16::from_be_bytes([whole[2], whole[3]])), whole.len());
                }
                assert_eq!(udp.len(), length + 8);
            }
            let refusal = unreachable(to, from, 12).unwrap();
            let inner = if from.is_ipv4() { &refusal[28..] } else { &refusal[48..] };
            let ports = &inner[inner.len() - 8..inner.len() - 4];
            assert_eq!(ports, [to.port().to_be_bytes(), from.port().to_be_bytes()].concat());
        }
        assert!(datagram(four("1.2.3.4:1"), four("[::1]:1"), b"").is_none());
        assert!(datagram(four("1.2.3.4:1"), four("1.2.3.4:1"), &[0; LONGEST + 1]).is_none());
    }
}
