//! Carrying bytes from one socket to another without looking at them: the kernel moves the pages.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

/// How much is moved at once.
const SIZE: usize = 1 << 20;

/// What is on its way between two sockets.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// An empty one. An error where no more files may be open.
    pub fn open() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // An ordinary user has a bounded number of large ones; a small one does it, too.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Pipe { read, write })
    }

    /// Moves all that comes, and says the end on.
    pub async fn pass(
        &self,
        from: &TcpStream,
        to: &mut WriteHalf<'_>,
        count: &AtomicU64,
    ) -> io::Result<()> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            from.readable().await?;
            let come = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.write, None, SIZE, flags)?)
            });
            let mut left = match come {
                Ok(0) => return to.shutdown().await,
                Ok(come) => come,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            count.fetch_add(left as u64, Ordering::Relaxed);
            while left > 0 {
                let to: &TcpStream = to.as_ref();
                to.writable().await?;
                let gone = to.try_io(Interest::WRITABLE, || {
                    Ok(splice(&self.read, None, to, None, left, flags)?)
                });
                match gone {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(gone) => left -= gone,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
