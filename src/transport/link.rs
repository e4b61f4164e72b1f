//! A connection that carries messages and descriptors to another process of this machine.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::frames;
use crate::sandbox::{Error, Result};

/// One end of it.
pub struct Link {
    stream: UnixStream,
    header: Vec<u8>,
    body: Vec<u8>,
    filled: usize,
    fds: Vec<OwnedFd>,
}

impl Link {
    /// From a connected stream socket.
    #[cfg(feature = "local")]
    pub fn new(socket: OwnedFd) -> io::Result<Link> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self::over(UnixStream::from_std(socket.into())?))
    }

    /// Over a tokio stream.
    pub fn over(stream: UnixStream) -> Link {
        Link { stream, header: Vec::new(), body: Vec::new(), filled: 0, fds: Vec::new() }
    }

    /// Sends a message. Whoever drops this in the middle has to drop the link, too.
    pub async fn send(
        &self,
        message: &(impl Serialize + Sync),
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let bytes = frames::framed(message).map_err(lost)?;
        let mut done = 0;
        while done < bytes.len() {
            let (rest, fds) = (&bytes[done..], if done == 0 { fds } else { &[] });
            let send = || frames::send_some(self.stream.as_fd(), rest, fds);
            // Most have room at once. Waiting must not hold the thread: the reader may need it.
            let sent = match send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.async_io(Interest::WRITABLE, send).await
                }
                sent => sent,
            };
            done += sent.map_err(lost)?;
        }
        Ok(())
    }

    /// The next message; `None` at the end. Cancel safe: a message half read is kept.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        while self.header.len() < 4 {
            let mut rest = [0; 4];
            let wanted = 4 - self.header.len();
            let count = some(&self.stream, &mut rest[..wanted], &mut self.fds).await?;
            if count == 0 {
                return if self.header.is_empty() { Ok(None) } else { Err(lost(eof())) };
            }
            self.header.extend_from_slice(&rest[..count]);
        }
        let length =
            u32::from_le_bytes([self.header[0], self.header[1], self.header[2], self.header[3]]);
        if length as usize > frames::MAX_LENGTH {
            return Err(lost(io::Error::other("the message is too long")));
        }
        self.body.resize(length as usize, 0);
        while self.filled < self.body.len() {
            match some(&self.stream, &mut self.body[self.filled..], &mut self.fds).await? {
                0 => return Err(lost(eof())),
                count => self.filled += count,
            }
        }
        let message = serde_json::from_slice(&self.body).map_err(|error| lost(error.into()))?;
        self.header.clear();
        self.filled = 0;
        Ok(Some((message, std::mem::take(&mut self.fds))))
    }
}

async fn some(stream: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
    stream
        .async_io(Interest::READABLE, || frames::receive_some(stream.as_fd(), buffer, fds))
        .await
        .map_err(lost)
}

fn eof() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn lost(error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => Error::io("talking to another process", error),
        _ => Error::Transport { message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends on one thread: with one of them waiting on it, the other would never read.
    #[tokio::test]
    async fn a_message_longer_than_the_buffers_holds_no_thread() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, mut other) = (Link::over(one), Link::over(other));
        let (message, (held, beside)) = ("x".repeat(4 << 20), io::pipe().unwrap());
        let fds = [held.as_fd()];
        let (sent, received) = tokio::join!(one.send(&message, &fds), other.receive::<String>());
        sent.unwrap();
        let (text, fds) = received.unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (4 << 20, 1));
        drop((held, beside));
    }
}
