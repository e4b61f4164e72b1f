//! What happens to instances by themselves, told to those who listen.

use std::sync::Weak;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::event::Change;
use crate::method;
use crate::nas::Nas;

/// Follows the daemon's events until the server is gone.
pub async fn follow(nas: Weak<Nas>) {
    loop {
        let Some(strong) = nas.upgrade() else { return };
        let Some(engine) = &strong.engine else { return };
        let stream = UnixStream::connect(engine.socket()).await;
        drop(strong);
        let Ok(stream) = stream else {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        let url = "ws://incus/1.0/events?type=lifecycle,logging";
        let Ok((mut socket, _)) = tokio_tungstenite::client_async(url, stream).await else {
            return;
        };
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            let Ok(event) = serde_json::from_str::<Value>(text) else { continue };
            let Some(nas) = nas.upgrade() else { return };
            tell(&nas, &event).await;
        }
    }
}

async fn tell(nas: &Nas, event: &Value) {
    let data = &event["metadata"];
    if event["type"] == "logging" {
        // Only virtual machines have an agent.
        if data["message"] == "Instance agent started" && !nas.release.is_26() {
            let name = data["context"]["instance"].clone();
            nas.events.emit("virt.instance.agent_running", Change::Changed, name, Value::Null);
        }
        return;
    }
    let source = data["source"].as_str().unwrap_or_default();
    let name = source.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
    let status = match data["action"].as_str() {
        Some("instance-started" | "instance-restarted" | "instance-resumed") => "RUNNING",
        Some("instance-stopped" | "instance-shutdown") => "STOPPED",
        _ => return,
    };
    if nas.release.is_26() {
        method::container_changed(nas, name).await;
        return;
    }
    let fields = match nas.traps.on(26) {
        true => json!({"status": status}),
        false => method::virt_entry(nas, name).await.unwrap_or_default(),
    };
    nas.events.emit("virt.instance.query", Change::Changed, name, fields);
}
