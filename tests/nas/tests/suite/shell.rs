//! The shell endpoint, as tests use it.

use futures_util::{SinkExt, StreamExt};
use nas_sim::Sim;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, LIMIT, socket};

/// Opens a shell with these options, types `keys`, and reads until it closes or says `until`.
pub async fn talk(sim: &Sim, options: Value, keys: &str, until: &str) -> String {
    let mut client = Client::root(sim).await;
    let token = client.ok("auth.generate_token", json!([300, {}, true, true])).await;
    let mut shell = socket(sim, "/websocket/shell", true).await;
    let hello = json!({"token": token, "options": options});
    shell.send(Message::text(hello.to_string())).await.unwrap();
    let first = shell.next().await.unwrap().unwrap();
    let first: Value = serde_json::from_str(first.to_text().unwrap()).unwrap();
    assert_eq!(first["msg"], "connected", "{first}");
    client.ok("core.resize_shell", json!([first["id"], 100, 40])).await;
    if !keys.is_empty() {
        shell.send(Message::binary(keys.as_bytes().to_vec())).await.unwrap();
    }
    let mut said = String::new();
    let read = async {
        while let Some(Ok(message)) = shell.next().await {
            if let Message::Binary(bytes) = &message {
                assert!(bytes.len() <= 1024);
                said += &String::from_utf8_lossy(bytes);
                if !until.is_empty() && said.contains(until) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("the shell says what is waited for");
    said
}
