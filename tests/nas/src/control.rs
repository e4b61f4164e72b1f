//! Faults while it runs: a Unix socket that takes a command a line.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::nas::Nas;
use crate::session::Out;

/// Answers commands until the task is aborted.
pub async fn serve(nas: Arc<Nas>, path: &Path) {
    let _ = std::fs::remove_file(path);
    let Ok(listener) = UnixListener::bind(path) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let nas = nas.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                let answer = match run(&nas, line.trim()).await {
                    Ok(value) => value,
                    Err(text) => json!({"error": text}),
                };
                line.clear();
                if stream.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Runs one command: a fault of [`crate::fault::Faults::set`], or `status`, `restart`, `drop`, `drop-shells`, `forgive`
/// (anonymous calls are counted anew),
/// `revoke ID`, `expire ID`, `virt-state STATE|auto`, `trap N on|off`.
pub async fn run(nas: &Arc<Nas>, command: &str) -> Result<Value, String> {
    let (name, value) = command.split_once(' ').unwrap_or((command, ""));
    let id = || value.parse::<i64>().map_err(|e| format!("{value}: {e}"));
    match name {
        "status" => {
            let jobs = nas.jobs.all().len();
            let sessions = nas.events.sessions().len();
            return Ok(json!({
                "faults": nas.faults(|f| f.describe()), "jobs": jobs, "sessions": sessions,
                "release": nas.release.name(),
            }));
        }
        "restart" => {
            let nas = nas.clone();
            tokio::spawn(async move { nas.restart().await });
        }
        "forgive" => nas.auth.lock().anonymous.clear(),
        "drop-shells" => nas.shells.cuts.send_modify(|cuts| *cuts += 1),
        "drop" => nas.events.sessions().iter().for_each(|s| s.out(Out::Cut)),
        "revoke" | "expire" => {
            let (id, now) = (id()?, nas.now());
            let mut inner = nas.auth.lock();
            let key = inner.keys.iter_mut().find(|k| k.id == id).ok_or("no such key")?;
            match name {
                "revoke" => key.revoked = Some("Revoked on demand".into()),
                _ => key.expires = Some(now - 1000),
            }
        }
        "trap" => {
            let (number, state) = value.split_once(' ').unwrap_or((value, "on"));
            let number = number.parse::<u8>().ok().filter(|n| (1..=crate::trap::COUNT).contains(n));
            nas.traps.set(number.ok_or("no such trap")?, state != "off");
        }
        "virt-state" => {
            let state = if value == "auto" { Value::Null } else { value.into() };
            nas.rows.update("virt.global", 1, &json!({"state": state}));
        }
        _ => nas.faults(|f| f.set(command))?,
    }
    Ok(json!({"ok": true}))
}
