//! A connection with what was read ahead of it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a connection can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection with what was read ahead of it.
pub struct Stream {
    ahead: Vec<u8>,
    inner: Box<dyn Duplex>,
}

impl Stream {
    /// A connection of which nothing was read.
    pub fn new(inner: impl Duplex + 'static) -> Self {
        Self { ahead: Vec::new(), inner: Box::new(inner) }
    }

    /// Reads more and gives all that was read and not taken yet; `None` at the end.
    pub async fn more(&mut self) -> Option<&[u8]> {
        let mut chunk = [0; 16384];
        let count = self.inner.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        self.ahead.extend_from_slice(&chunk[..count]);
        Some(&self.ahead)
    }

    /// What was read and not taken yet.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes the first `count` bytes away.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.ahead.drain(..count).collect()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        let bytes: Vec<u8> = self.ahead.drain(..count).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
