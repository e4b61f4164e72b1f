//! Carrying bytes from one socket to another without looking at them: the kernel moves the pages.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::budget::BUDGET;

/// How much is moved at once: an ordinary user may have 64 MiB in large pipes, and all of ours are half of it.
const SIZE: usize = 256 << 10;

/// Whose bytes stand still for that long has no pipe any more.
const STILL: Duration = Duration::from_millis(500);

/// As often it moves something before others have their turn.
const TURN: u32 = 8;

/// What is on its way between two sockets that are moving.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _permit: OwnedSemaphorePermit,
}

impl Pipe {
    /// An empty one; none when there are enough.
    pub fn open() -> Option<Pipe> {
        let permit = BUDGET.pipes.clone().try_acquire_owned().ok()?;
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A small one does it, too.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Some(Pipe { read, write, _permit: permit })
    }

    /// Moves all that comes until one side stands still: then what is left of it. None at the end, which
    /// is said on.
    pub async fn pass(
        self,
        from: &TcpStream,
        to: &mut WriteHalf<'_>,
        count: &AtomicU64,
    ) -> io::Result<Option<Vec<u8>>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let mut turn = 0;
        loop {
            let come = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.write, None, SIZE, flags)?)
            });
            let mut left = match come {
                Ok(0) => return to.shutdown().await.map(|()| None),
                Ok(come) => come,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match timeout(STILL, from.readable()).await {
                        Ok(ready) => ready?,
                        Err(_) => return Ok(Some(Vec::new())),
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            count.fetch_add(left as u64, Ordering::Relaxed);
            while left > 0 {
                let to: &TcpStream = to.as_ref();
                let gone = to.try_io(Interest::WRITABLE, || {
                    Ok(splice(&self.read, None, to, None, left, flags)?)
                });
                match gone {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(gone) => left -= gone,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        match timeout(STILL, to.writable()).await {
                            Ok(ready) => ready?,
                            Err(_) => return self.rest(left).map(Some),
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn rest(self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut done = 0;
        while done < count {
            match rustix::io::read(&self.read, &mut bytes[done..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(bytes)
    }
}
