//! Carrying bytes both ways.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::pipe::Pipe;
use crate::egress::http::Requests;
use crate::egress::sniff::{self, Greeting};

/// What the client's bytes are held against.
pub enum Watch {
    /// Nothing.
    Free,
    /// Its later requests.
    Requests(Box<Requests>),
    /// Its greeting, which has not come yet: it must not be one that names a host.
    Silent,
}

/// Bytes carried so far.
#[derive(Default)]
pub struct Count {
    /// From the guest.
    pub sent: AtomicU64,
    /// To the guest.
    pub received: AtomicU64,
}

const SIZE: usize = 64 << 10;

/// Carries until both sides have ended. An error when what the client sends may not go on.
pub async fn relay(
    guest: &mut TcpStream,
    server: &mut TcpStream,
    watch: Watch,
    count: &Count,
) -> io::Result<()> {
    let (from_guest, to_guest) = guest.split();
    let (from_server, to_server) = server.split();
    let up = pass(from_guest, to_server, watch, &count.sent);
    let down = pass(from_server, to_guest, Watch::Free, &count.received);
    tokio::try_join!(up, down).map(drop)
}

/// Carries between two connections until both sides have ended.
pub async fn carry(one: &mut TcpStream, other: &mut TcpStream) -> io::Result<()> {
    let (_, _) = (one.set_nodelay(true), other.set_nodelay(true));
    relay(one, other, Watch::Free, &Count::default()).await
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut watch: Watch,
    count: &AtomicU64,
) -> io::Result<()> {
    // A quiet connection holds no memory.
    let mut buffer = Vec::new();
    loop {
        from.readable().await?;
        buffer.resize(SIZE, 0);
        let read = match from.try_read(&mut buffer) {
            Ok(0) => return to.shutdown().await,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                buffer = Vec::new();
                continue;
            }
            Err(error) => return Err(error),
        };
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        match &mut watch {
            Watch::Free => {
                to.write_all(&buffer[..read]).await?;
                // There is a lot to come: from here on the kernel moves it.
                if read == SIZE
                    && let Some(pipe) = Pipe::open()
                {
                    count.fetch_add(read as u64, Ordering::Relaxed);
                    buffer = Vec::new();
                    match pipe.pass(from.as_ref(), &mut to, count).await? {
                        None => return Ok(()),
                        Some(rest) => to.write_all(&rest).await?,
                    }
                    continue;
                }
            }
            Watch::Requests(requests) => {
                let passed = requests.pass(&buffer[..read]).map_err(|_| refused())?;
                to.write_all(&passed).await?;
            }
            Watch::Silent => {
                let mut first = buffer[..read].to_vec();
                loop {
                    match sniff::greeting(&first) {
                        Greeting::Opaque => break,
                        Greeting::More if first.len() < sniff::LONGEST => {
                            if from.read_buf(&mut first).await? == 0 {
                                break;
                            }
                        }
                        _ => return Err(refused()),
                    }
                }
                to.write_all(&first).await?;
                watch = Watch::Free;
            }
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
