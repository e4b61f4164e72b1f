//! What a call goes over: a socket of its own with pipes beside it, or lanes of a connection to another
//! machine.

use std::os::fd::{AsFd, OwnedFd};

use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::pump;
use crate::sandbox::{Error, Reader, Result, Writer};
use crate::transport::mux::{Group, LaneReader, LaneWriter, Mux};
use crate::transport::{Link, frames};

/// A way to a session.
pub enum Connection {
    /// A connection for one call, to a process of this machine.
    Socket(UnixStream),
    /// One for all calls, to a machine that is called so.
    Lanes(Mux, String),
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Connection {
        Connection::Socket(stream)
    }
}

/// One end of the line that a call's messages go over.
pub(super) enum Line {
    Socket(Link),
    Lanes(Lanes),
}

/// The same over lanes.
pub(super) struct Lanes {
    from: LaneReader,
    to: LaneWriter,
    buffer: BytesMut,
    /// What the other machine is called.
    place: String,
}

/// The streams of a call, at the caller's end: those it reads, and those it writes.
pub(super) struct Ends {
    pub readers: Vec<Reader>,
    pub writers: Vec<Writer>,
}

/// The same at the session's end.
pub(super) enum Pipes {
    Fds(std::vec::IntoIter<OwnedFd>),
    Lanes(std::vec::IntoIter<LaneReader>, std::vec::IntoIter<LaneWriter>),
}

impl Line {
    /// Sends the first message of a call that has so many streams to read and to write.
    pub async fn begin(
        connection: Connection,
        message: &(impl Serialize + Sync),
        (reads, writes): (u8, u8),
    ) -> Result<(Line, Ends)> {
        match connection {
            Connection::Socket(stream) => {
                let link = Link::over(stream);
                let (mut readers, mut writers, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..reads {
                    let (from, to) = pump::pair()?;
                    readers.push(Box::new(pump::receiver(from)?) as Reader);
                    theirs.push(to);
                }
                for _ in 0..writes {
                    let (from, to) = pump::pair()?;
                    writers.push(Box::new(pump::sender(to)?) as Writer);
                    theirs.push(from);
                }
                let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
                link.send(message, &fds).await?;
                Ok((Line::Socket(link), Ends { readers, writers }))
            }
            Connection::Lanes(mux, place) => {
                let Group { from, to, readers, writers } = mux.open(reads, writes);
                let line = Line::Lanes(Lanes { from, to, buffer: BytesMut::new(), place });
                line.send(message).await?;
                let readers = readers.into_iter().map(|one| Box::new(one) as Reader).collect();
                let writers = writers.into_iter().map(|one| Box::new(one) as Writer).collect();
                Ok((line, Ends { readers, writers }))
            }
        }
    }

    /// A call that somebody at another machine makes.
    pub fn of(group: Group) -> (Line, Pipes) {
        let Group { from, to, readers, writers } = group;
        let place = "the other end".to_owned();
        let line = Line::Lanes(Lanes { from, to, buffer: BytesMut::new(), place });
        (line, Pipes::Lanes(readers.into_iter(), writers.into_iter()))
    }

    /// Sends a message. Whoever drops this in the middle has to drop the line, too.
    pub async fn send(&self, message: &(impl Serialize + Sync)) -> Result<()> {
        match self {
            Line::Socket(link) => link.send(message, &[]).await,
            Line::Lanes(lanes) => {
                let bytes = frames::framed(message).map_err(|error| lanes.lost(error))?;
                lanes.to.send(&bytes).await.map_err(|_| lanes.broke())
            }
        }
    }

    /// The next message, with the pipes that came with it; `None` at the end. Cancel safe.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        match self {
            Line::Socket(link) => link.receive().await,
            Line::Lanes(lanes) => Ok(lanes.receive().await?.map(|message| (message, Vec::new()))),
        }
    }

    /// What it means that nothing comes any more.
    pub fn over(&self) -> Error {
        match self {
            Line::Socket(_) => {
                Error::Transport { message: "the session's process ended in the middle".into() }
            }
            Line::Lanes(lanes) => lanes.broke(),
        }
    }
}

impl Lanes {
    async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if self.buffer.len() >= 4 {
                let length = self.buffer.as_ref().get_u32_le() as usize;
                if length > frames::MAX_LENGTH {
                    return Err(self.lost("the message is too long"));
                }
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    let body = self.buffer.split_to(length);
                    let message = serde_json::from_slice(&body);
                    return message.map(Some).map_err(|error| self.lost(error));
                }
            }
            match self.from.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                _ => return Err(self.broke()),
            }
        }
    }

    fn lost(&self, why: impl std::fmt::Display) -> Error {
        Error::Transport { message: format!("{}: {why}", self.place) }
    }

    fn broke(&self) -> Error {
        self.lost(
            "the connection broke in the middle; machines run on, the next call connects anew: \
             see 'sandscript list'",
        )
    }
}

impl Pipes {
    /// The next stream that the session writes to.
    pub fn writer(&mut self) -> Result<Option<Writer>> {
        Ok(match self {
            Pipes::Fds(fds) => match fds.next() {
                Some(fd) => Some(Box::new(pump::sender(fd)?)),
                None => None,
            },
            Pipes::Lanes(_, writers) => writers.next().map(|one| Box::new(one) as _),
        })
    }

    /// The next stream that it reads.
    pub fn reader(&mut self) -> Result<Option<Reader>> {
        Ok(match self {
            Pipes::Fds(fds) => match fds.next() {
                Some(fd) => Some(Box::new(pump::receiver(fd)?)),
                None => None,
            },
            Pipes::Lanes(readers, _) => readers.next().map(|one| Box::new(one) as _),
        })
    }
}
