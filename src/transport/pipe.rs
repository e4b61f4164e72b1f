//! Byte streams over WebSockets: binary messages, and an empty text message at the end.

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error, Message};

const CHUNK: usize = 64 << 10;

/// Sends what `from` gives, and with `end` says when that is all. Whether the other side took it.
pub async fn feed(
    mut to: impl Sink<Message, Error = Error> + Unpin,
    mut from: impl AsyncRead + Unpin,
    end: bool,
) -> bool {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(1..) => {
                if to.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                    return false;
                }
            }
            _ => return !end || to.send(Message::text("")).await.is_ok(),
        }
    }
}

/// Writes what comes to `to` until the end. When `to` is closed, `closed` is told of it at each
/// message that comes in vain.
pub async fn drain(
    mut from: impl Stream<Item = Result<Message, Error>> + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut closed: impl FnMut(),
) {
    let mut open = true;
    while let Some(Ok(message)) = from.next().await {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(_) | Message::Close(_) => break,
            _ => continue,
        };
        open = open && to.write_all(&bytes).await.is_ok();
        if !open {
            closed();
        }
    }
    let _ = to.shutdown().await;
}
