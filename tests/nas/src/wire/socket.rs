//! A WebSocket: frames in, frames out, and what cuts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::head::Head;
use super::stream::Stream;
use crate::nas::Nas;
use crate::rpc;
use crate::session::{Out, Session};
use crate::transcript::Transcript;

/// A frame is never longer than this, whoever sends it.
const FRAME: usize = 4 << 20;

/// Does the handshake; `None` when the client did not ask properly.
pub async fn upgrade(mut stream: Stream, head: &Head) -> Option<WebSocketStream<Stream>> {
    let key = head.header("sec-websocket-key")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let config =
        WebSocketConfig::default().max_message_size(Some(FRAME)).max_frame_size(Some(FRAME));
    Some(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
}

/// Ends a connection: with a word, or by cutting it.
async fn end(order: Out, sink: &mut Sink, source: &mut Source) {
    let Out::Close(code, reason) = order else { return };
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    // Give the client a moment to read it before the line goes.
    let rest = async { while let Some(Ok(_)) = source.next().await {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), rest).await;
}

type Sink = SplitSink<WebSocketStream<Stream>, Message>;
type Source = SplitStream<WebSocketStream<Stream>>;

/// Serves the API on a connection until it closes.
pub async fn serve(
    nas: Arc<Nas>,
    socket: WebSocketStream<Stream>,
    remote: SocketAddr,
    tls: bool,
    version: Option<&'static str>,
) {
    let number = nas.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let transcript = Transcript::open(&nas.options, number);
    let (out, mut orders) = mpsc::unbounded_channel();
    let session = Session::new(nas.clone(), remote, tls, version, out);
    let (mut sink, mut source) = socket.split();
    let idle = (!nas.release.is_26() && nas.traps.on(20)).then_some(nas.options.idle);
    let mut said = Instant::now();
    let mut frames = 0u64;
    loop {
        let quiet = async {
            match idle {
                Some(idle) => tokio::time::sleep(idle.saturating_sub(said.elapsed())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Out::Text(text)) => {
                    let mut texts = vec![text];
                    // What is ready goes out with it.
                    let after = loop {
                        match orders.try_recv() {
                            Ok(Out::Text(text)) => texts.push(text),
                            Ok(other) => break Some(other),
                            Err(_) => break None,
                        }
                    };
                    let mut sent = Ok(());
                    for text in texts {
                        transcript.line("s2c", &text);
                        sent = sent.and(sink.feed(Message::text(text)).await);
                    }
                    if sent.is_err() || sink.flush().await.is_err() {
                        break;
                    }
                    said = Instant::now();
                    if let Some(order) = after {
                        end(order, &mut sink, &mut source).await;
                        break;
                    }
                }
                Some(order) => {
                    end(order, &mut sink, &mut source).await;
                    break;
                }
                None => break,
            },
            message = source.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    transcript.line("c2s", &text);
                    frames += 1;
                    if nas.faults(|f| f.drop_after.is_some_and(|n| frames > n)) {
                        break;
                    }
                    match nas.faults(crate::fault::Faults::drops) {
                        Some(true) => {
                            rpc::text(&session, &text);
                            break;
                        }
                        Some(false) => break,
                        None => rpc::text(&session, &text),
                    }
                }
                Some(Ok(Message::Binary(bytes))) => rpc::binary(&session, &bytes),
                // The pong goes out by itself.
                Some(Ok(Message::Ping(_))) => {
                    let _ = sink.flush().await;
                    said = Instant::now();
                }
                Some(Ok(Message::Close(_))) => {
                    let _ = sink.flush().await;
                    break;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            () = quiet => break,
        }
    }
    session.set_credential(None);
    crate::method::closed(&session);
}
