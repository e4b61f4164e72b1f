//! Which path is answered how.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::head::Head;
use super::stream::Stream;
use super::{files, shell, socket};
use crate::nas::Nas;
use crate::release::Release;

/// Answers requests until the connection closes or becomes a WebSocket.
pub async fn serve(nas: Arc<Nas>, mut stream: Stream, remote: SocketAddr, tls: bool) {
    while let Some(head) = Head::read(&mut stream).await {
        let nas = nas.clone();
        if nas.restarting() {
            answer(&mut stream, 502, "text/html", b"<h1>502 Bad Gateway</h1>").await;
            return;
        }
        match head.path.as_str() {
            "/api/versions" => {
                let own = || nas.release.versions().into_iter().map(str::to_owned).collect();
                let versions: Vec<String> = nas.options.versions.clone().unwrap_or_else(own);
                json(&mut stream, 200, &json!(versions)).await;
            }
            "/api/boot_id" if nas.release >= Release::V25_10 => {
                json(&mut stream, 200, &json!(nas.boot_id)).await;
            }
            "/websocket/shell" if head.upgrades() => {
                if let Some(stream) = socket::upgrade(stream, &head).await {
                    shell::serve(nas, stream, remote).await;
                }
                return;
            }
            "/_upload" | "/_upload/" => {
                files::upload(&nas, &mut stream, &head, remote, tls).await;
                return;
            }
            path if path.starts_with("/_download/") => {
                files::download(&nas, &mut stream, &head, remote).await;
                return;
            }
            path if path.starts_with("/api/") => {
                let wanted = &path["/api/".len()..];
                let known = nas.release.versions().into_iter().find(|v| *v == wanted);
                // The newest version is the current one by another name.
                let newest = nas.release.versions().last().copied();
                let version = known.filter(|v| Some(*v) != newest);
                if wanted != "current" && known.is_none() {
                    answer(&mut stream, 404, "text/plain", b"404: Not Found").await;
                } else if head.upgrades() {
                    if let Some(stream) = socket::upgrade(stream, &head).await {
                        socket::serve(nas, stream, remote, tls, version).await;
                    }
                    return;
                } else {
                    let text = b"Can \"Upgrade\" only to \"WebSocket\".";
                    answer(&mut stream, 400, "text/plain", text).await;
                }
            }
            _ => answer(&mut stream, 404, "text/plain", b"404: Not Found").await,
        }
        if !head.keep_alive() {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Answers with JSON.
pub async fn json(stream: &mut Stream, status: u16, value: &Value) {
    answer(stream, status, "application/json; charset=utf-8", value.to_string().as_bytes()).await;
}

/// Answers with a body.
pub async fn answer(stream: &mut Stream, status: u16, kind: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nServer: nginx\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        reason(status),
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        412 => "Precondition Failed",
        422 => "Unprocessable Entity",
        502 => "Bad Gateway",
        _ => "Internal Server Error",
    }
}
