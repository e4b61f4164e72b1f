//! Which socket of the current namespace is one end of a connection. Lists of all that there are would do,
//! too, but of TCP's the kernel makes one by looking through the whole machine's.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink;

use super::netlink::{Batch, Socket};

const BY_FAMILY: u16 = 20;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
/// Where an answer has the inode: behind family, state and timers, both ends, and four numbers.
const INODE: usize = 4 + 48 + 16;

/// The inode of the TCP socket that is connected from there to there.
pub fn inode(from: SocketAddr, to: SocketAddr) -> io::Result<u32> {
    let mut head = vec![if from.is_ipv4() { IPV4 } else { IPV6 }, TCP, 0, 0];
    // In every state.
    head.extend(u32::MAX.to_ne_bytes());
    head.extend(from.port().to_be_bytes());
    head.extend(to.port().to_be_bytes());
    for end in [from, to] {
        let mut bytes = match end.ip() {
            IpAddr::V4(four) => four.octets().to_vec(),
            IpAddr::V6(six) => six.octets().to_vec(),
        };
        bytes.resize(16, 0);
        head.extend(bytes);
    }
    // By any interface, and whatever its cookie is.
    head.extend([0; 4]);
    head.extend([u8::MAX; 8]);
    let mut batch = Batch::new();
    batch.message(BY_FAMILY, 0, &head, |_| {});
    let (kind, body) = Socket::open(Some(netlink::SOCK_DIAG))?.ask(&batch)?;
    let bytes = body.get(INODE..INODE + 4).and_then(|bytes| bytes.try_into().ok());
    match bytes.map(u32::from_ne_bytes) {
        Some(inode) if kind == BY_FAMILY && inode != 0 => Ok(inode),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_connection_has_an_owner() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(place) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (from, to) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let link = std::fs::read_link(link).unwrap();
            let inode = super::inode(from, to).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("socket:[{inode}]"));
            drop((stream, listener));
            assert!(super::inode(to, from).is_err());
        }
    }
}
