//! A terminal on the server, or in one of its containers.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::connection::Socket;
use super::{Client, RpcError};

/// Where terminals are.
const PATH: &str = "/websocket/shell";

/// A terminal: what is typed goes out as binary messages, what is written comes in as such.
pub struct Shell {
    /// What carries it.
    pub socket: Socket,
    /// By which its size is changed.
    pub id: String,
}

/// A connection that a terminal can be opened on, once.
pub struct ShellLine {
    socket: Socket,
    token: Value,
    place: String,
}

impl ShellLine {
    /// Opens a terminal on it. The options say where, and which program.
    pub async fn open(self, options: Value) -> Result<Shell, RpcError> {
        let ShellLine { mut socket, token, place } = self;
        let broken = |why: String| RpcError::Broken { place: place.clone(), why };
        let hello = json!({"token": token, "options": options}).to_string();
        let work = async {
            socket.send(Message::text(hello)).await.map_err(|error| broken(error.to_string()))?;
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(serde_json::from_str::<Value>(&text).unwrap_or_default());
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Err(error)) => return Err(broken(error.to_string())),
                    _ => return Err(broken("the shell closes at once".into())),
                }
            }
        };
        let answer = match tokio::time::timeout(super::DEADLINE, work).await {
            Ok(answer) => answer?,
            Err(_) => return Err(broken("the shell gives no answer".into())),
        };
        if answer["msg"] != "connected" {
            let reason = answer["error"]["reason"].as_str().unwrap_or("no reason");
            return Err(RpcError::Auth(format!(
                "{place} opens no shell: {reason}; the user's privilege needs \"Web Shell Access\""
            )));
        }
        Ok(Shell { socket, id: answer["id"].as_str().unwrap_or_default().to_owned() })
    }
}

impl Client {
    /// A connection that a terminal can be opened on: it is made while the right to do so is asked for.
    pub async fn shell_line(&self) -> Result<ShellLine, RpcError> {
        let before = self.dialer();
        let token = self.read("auth.generate_token", json!([300, {}, true, true]));
        let (token, opened) = tokio::join!(token, before.socket(PATH));
        let token = token?;
        let dialer = self.dialer();
        let socket = match opened {
            Ok(socket) if Arc::ptr_eq(&before, &dialer) => socket,
            // The server came back only now, or another one is in its place.
            _ => dialer.socket(PATH).await?,
        };
        Ok(ShellLine { socket, token, place: dialer.address.to_string() })
    }

    /// Changes a terminal's size.
    pub async fn resize(&self, shell: &str, cols: u16, rows: u16) -> Result<(), RpcError> {
        self.call("core.resize_shell", json!([shell, cols, rows])).await.map(drop)
    }
}
