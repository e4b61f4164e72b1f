//! The other end: this program on a host that somebody elsewhere works on, with the channel as its standard
//! streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};

use super::super::super::{local, session};
use super::super::{NspawnBackend, NspawnConfig};
use super::script::{CHECK, GREETS, WORD};
use super::{Begin, DIGEST};
use crate::sandbox::Backend;
use crate::transport::mux::Mux;

/// How long it waits for what it is told first.
const FIRST: Duration = Duration::from_secs(60);

/// The longest that it may be told first.
const LONGEST: usize = 64 << 10;

/// Is the other end, and never returns, when this process was started as one.
pub(in crate::backend) fn serve_if_asked() {
    let mut words = std::env::args_os().skip(1);
    let (word, more) = (words.next(), words.next());
    if more.is_some() {
        return;
    }
    match word {
        Some(word) if word == CHECK => std::process::exit(0),
        Some(word) if word == WORD => std::process::exit(i32::from(serve().is_err())),
        _ => {}
    }
}

fn serve() -> io::Result<()> {
    local::cut_loose();
    let from = rustix::stdio::stdin().try_clone_to_owned()?;
    let to = rustix::stdio::stdout().try_clone_to_owned()?;
    // What is started here outlives this process, and the channel must not stay open for that.
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    let _ = rustix::process::setsid();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(work(from, to));
    runtime.shutdown_background();
    done
}

async fn work(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let (mut from, mut to) = (Channel::over(from)?, Channel::over(to)?);
    to.write_all(format!("\n{GREETS}{}\n", env!("CARGO_PKG_VERSION")).as_bytes()).await?;
    let mut buffer = BytesMut::new();
    let told = tokio::time::timeout(FIRST, first(&mut from, &mut buffer)).await;
    let begin: Begin = serde_json::from_slice(&told.map_err(|_| io::ErrorKind::TimedOut)??)?;
    let (_mux, groups) = Mux::start(from, to, buffer);
    let opened = NspawnBackend::open(NspawnConfig {
        store: begin.store,
        image: begin.image,
        image_server: begin.image_server,
        ..NspawnConfig::default()
    });
    let backend = opened.await.map(|backend| Arc::new(backend) as Arc<dyn Backend>);
    let kept = session::Session { digest: DIGEST.to_owned(), backend, idle: Duration::MAX };
    session::serve_lanes(groups, kept).await;
    Ok(())
}

/// The first line; what comes after it stays in the buffer.
async fn first(from: &mut Channel, buffer: &mut BytesMut) -> io::Result<BytesMut> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            return Ok(buffer.split_to(end + 1));
        }
        if buffer.len() > LONGEST || from.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// One direction of it: a pipe or a socket, as the host's sshd or its sudo likes it.
struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    fn over(fd: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Channel(local::register(fd, Interest::READABLE | Interest::WRITABLE)?))
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
