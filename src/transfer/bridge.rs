//! Byte streams between a blocking thread and async code, with bounded memory.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::mpsc;

use crate::sandbox::Reader;

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 8;

/// What a blocking `producer` writes, as an async stream. The producer's error becomes the
/// stream's; dropping the stream ends the producer at its next write.
pub(super) fn produce(
    producer: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Reader {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink { sender, buffer: BytesMut::new() };
        let outcome = producer(&mut sink).and_then(|()| sink.flush());
        let last = outcome.map(|()| Bytes::new());
        let _ = sink.sender.blocking_send(last);
    });
    Box::new(Stream { receiver, chunk: Bytes::new(), ended: false })
}

struct Sink {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the archive"))
    }
}

struct Stream {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Ok(chunk)) => {
                    // An empty chunk says that the producer came to its end; without it, it died.
                    self.ended = chunk.is_empty();
                    self.chunk = chunk;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(error));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(Err(io::Error::other("the archive's producer died")));
                }
            }
        }
        let count = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Lets a blocking `consumer` read an async stream. Dropping the future lets the consumer's next
/// read fail.
pub(super) async fn consume<T: Send + 'static>(
    mut from: Reader,
    consumer: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let consumer = tokio::task::spawn_blocking(move || {
        consumer(&mut Source { receiver, chunk: Bytes::new(), ended: false })
    });
    let pump = async {
        loop {
            let mut buffer = BytesMut::with_capacity(CHUNK);
            let chunk = match from.read_buf(&mut buffer).await {
                Ok(_) => Ok(buffer.freeze()),
                Err(error) => Err(error),
            };
            let last = chunk.as_ref().map_or(true, Bytes::is_empty);
            if sender.send(chunk).await.is_err() || last {
                // The sender stays alive until the consumer is done: its drop means a cancel.
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        outcome = consumer => outcome.map_err(io::Error::other),
        () = pump => Err(io::Error::other("the archive's consumer is gone")),
    }
}

struct Source {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.chunk = chunk;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                None => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "cancelled")),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        Ok(count)
    }
}
