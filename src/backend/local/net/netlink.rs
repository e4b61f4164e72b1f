//! Netlink sockets.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, sockopt,
};

pub(super) use crate::egress::nft::{ACK, Batch, CREATE};

pub(super) const EXCL: u16 = 0x200;
const ERROR: u16 = 2;

/// A netlink socket in the namespace of the thread that opened it.
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens one for `protocol`; for links and routes (number 0) when none is given.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Socket> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let fd = rustix::net::socket_with(family, SocketType::RAW, flags, protocol)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
        Ok(Socket(fd))
    }

    /// Sends all messages; the first error, or the answer to the `acks` that were asked for.
    pub(super) fn call(&self, batch: &Batch, acks: usize) -> io::Result<()> {
        send(&self.0, batch.bytes(), SendFlags::empty())?;
        let mut left = acks;
        let mut buffer = vec![0; 32 << 10];
        while left > 0 {
            let (count, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some((kind, body, next)) = split(rest) {
                if kind == ERROR {
                    match number(body) {
                        0 => left = left.saturating_sub(1),
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    }
                }
                rest = next;
            }
        }
        Ok(())
    }

    /// Sends a message; its answer, by type and body.
    pub(super) fn ask(&self, batch: &Batch) -> io::Result<(u16, Vec<u8>)> {
        send(&self.0, batch.bytes(), SendFlags::empty())?;
        let mut buffer = vec![0; 4 << 10];
        let (count, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
        match split(&buffer[..count]) {
            Some((ERROR, body, _)) => Err(io::Error::from_raw_os_error(-number(body))),
            Some((kind, body, _)) => Ok((kind, body.to_vec())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The first message of `bytes`: its type, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((kind, bytes.get(16..length)?, &bytes[next..]))
}

fn number(body: &[u8]) -> i32 {
    let bytes = body.get(..4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, i32::from_ne_bytes)
}
