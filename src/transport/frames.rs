//! Framed messages with descriptors over a Unix stream socket: four bytes of length (little
//! endian), then JSON; descriptors travel with the length.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
#[cfg(feature = "local")]
use serde::de::DeserializeOwned;

const MAX_FDS: usize = 24;
/// Longer than any argv the kernel takes with its environment.
pub const MAX_LENGTH: usize = 64 << 20;

/// Sends a message, blocking.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = framed(message)?;
    let mut done = 0;
    while done < bytes.len() {
        let fds = if done == 0 { fds } else { &[] };
        match send_some(&socket, &bytes[done..], fds) {
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&socket, rustix::event::PollFlags::OUT)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One send, without waiting where the socket doesn't: how many bytes went, and the descriptors with them.
pub fn send_some(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Sends a message without descriptors, whole and at once, or not at all.
#[cfg(feature = "local")]
pub fn try_send(socket: impl AsFd, message: &impl Serialize, limit: usize) -> io::Result<()> {
    let bytes = framed(message)?;
    if bytes.len() > limit {
        return Err(io::Error::other("the message is too long"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let count = rustix::net::send(socket, &bytes, flags)?;
    if count < bytes.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// A message with its length before it.
pub fn framed(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Receives a message, blocking; `None` at the end of the stream.
#[cfg(feature = "local")]
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut header = [0; 4];
    if !fill(&socket, &mut header, &mut fds)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_LENGTH {
        return Err(io::Error::other("the message is too long"));
    }
    let mut body = vec![0; length];
    if !fill(&socket, &mut body, &mut fds)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

/// One receive, without waiting: how many bytes came; 0 at the end of the stream.
pub fn receive_some(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.flags.contains(ReturnFlags::CTRUNC) {
        // They did not fit below the limit on open files: what was sent is not what came.
        return Err(rustix::io::Errno::MFILE.into());
    }
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            fds.extend(received);
        }
    }
    Ok(message.bytes)
}

/// Fills `buffer`; false when the stream ended before its first byte.
#[cfg(feature = "local")]
fn fill(socket: &impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match receive_some(socket, &mut buffer[done..], fds) {
            Ok(0) if done == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(socket, rustix::event::PollFlags::IN)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether there is something to read, or the other end is closed; waits so long for it.
#[cfg(feature = "local")]
pub fn is_readable(socket: &impl AsFd, longest: std::time::Duration) -> bool {
    let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
    let time = rustix::event::Timespec {
        tv_sec: longest.as_secs() as i64,
        tv_nsec: longest.subsec_nanos().into(),
    };
    !matches!(rustix::event::poll(&mut fds, Some(&time)), Ok(0))
}

fn wait(socket: &impl AsFd, flags: rustix::event::PollFlags) -> io::Result<()> {
    let mut fds = [rustix::event::PollFd::new(socket, flags)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
