//! `/websocket/shell`: a terminal over a WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::stream::Stream;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::shell;

/// Serves one shell until its process or its connection ends.
pub async fn serve(nas: Arc<Nas>, mut socket: WebSocketStream<Stream>, remote: SocketAddr) {
    let Some(Ok(first)) = socket.next().await else { return };
    let request = first.to_text().ok().and_then(|t| serde_json::from_str::<Value>(t).ok());
    let request = request.unwrap_or_default();
    let token = request["token"].as_str().unwrap_or_default();
    let token = nas.auth.token(token, remote.ip(), nas.now());
    let plain = |t: &crate::auth::Token| t.attrs.as_object().is_none_or(|a| a.is_empty());
    let Some(token) = token.filter(plain) else {
        let _ = socket.send(Message::text(shell::refused("Invalid token", 207).to_string())).await;
        let _ = socket.close(None).await;
        return;
    };
    if !token.credential.web_shell {
        let errno = if nas.release.is_26() { 13 } else { 207 };
        let _ =
            socket.send(Message::text(shell::refused("Not authorized", errno).to_string())).await;
        let _ = socket.close(None).await;
        return;
    }
    let mut terminal = match shell::open(&nas, &token.credential, &request["options"]).await {
        Ok(terminal) => terminal,
        Err(fail) => {
            if let Fail::Call(errno @ 13, reason) = fail {
                let refused = shell::refused(&reason, errno).to_string();
                let _ = socket.send(Message::text(refused)).await;
            }
            let _ = socket.close(None).await;
            return;
        }
    };
    let hello = json!({"msg": "connected", "id": terminal.id}).to_string();
    let _ = socket.send(Message::text(hello)).await;
    let ends = terminal.ours.try_clone().and_then(|copy| {
        let flags = rustix::fs::fcntl_getfl(&copy)?;
        rustix::fs::fcntl_setfl(&copy, flags | rustix::fs::OFlags::NONBLOCK)?;
        // A terminal is no pipe, but can be waited for like one.
        let reader = Receiver::from_file_unchecked(terminal.ours.try_clone()?)?;
        Ok((reader, Sender::from_file_unchecked(copy)?))
    });
    let mut cut = false;
    if let Ok((mut reader, mut writer)) = ends {
        cut = talk(&nas, &mut socket, &mut reader, &mut writer, &mut terminal.child).await;
    }
    nas.shells.leave(&terminal.id);
    let _ = terminal.child.kill().await;
    if !cut {
        let _ = socket.close(None).await;
    }
}

/// Whether it was cut off.
async fn talk(
    nas: &Nas,
    socket: &mut WebSocketStream<Stream>,
    reader: &mut Receiver,
    writer: &mut Sender,
    child: &mut tokio::process::Child,
) -> bool {
    let mut cuts = nas.shells.cuts.subscribe();
    let mut ended = false;
    let mut bytes = [0; 1024];
    loop {
        if nas.restarting() {
            return false;
        }
        tokio::select! {
            // EIO is the end of a terminal.
            count = reader.read(&mut bytes) => match count {
                Ok(count) if count > 0 => {
                    let piece = bytes[..count].to_vec();
                    if socket.send(Message::binary(piece)).await.is_err() {
                        return false;
                    }
                }
                _ => return false,
            },
            _ = cuts.changed() => return true,
            message = socket.next() => match message {
                Some(Ok(Message::Binary(keys))) => {
                    let cut = nas.faults(crate::fault::Faults::drops_shell);
                    if cut == Some(false) {
                        return true;
                    }
                    if writer.write_all(&keys).await.is_err() {
                        return false;
                    }
                    if cut == Some(true) {
                        // What was typed is done, and nobody hears of it.
                        let mut rest = vec![0; 1024];
                        let quiet = std::time::Duration::from_millis(200);
                        while let Ok(Ok(1..)) =
                            tokio::time::timeout(quiet, reader.read(&mut rest)).await
                        {}
                        return true;
                    }
                }
                // Text after the first frame is a type error in the writer: nothing is typed.
                Some(Ok(Message::Text(_))) => return false,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            },
            // What it still has to say is read first: the terminal ends by itself.
            _ = child.wait(), if !ended => ended = true,
            () = tokio::time::sleep(std::time::Duration::from_secs(1)), if ended => return false,
        }
    }
}
