//! `/_upload` and `/_download`.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::head::{Body, Head};
use super::http::{answer, json};
use super::stream::Stream;
use crate::auth::{Credential, login};
use crate::dispatch::{self, Call};
use crate::fail::Fail;
use crate::job;
use crate::nas::Nas;
use crate::session::Session;

/// `GET /_download/ID?auth_token=…`
pub async fn download(nas: &Arc<Nas>, stream: &mut Stream, head: &Head, remote: SocketAddr) {
    let text = head.parameter("auth_token").unwrap_or_default();
    let token = nas.auth.token(&text, remote.ip(), nas.now());
    let id = head.path.rsplit('/').next().and_then(|id| id.parse::<i64>().ok());
    let Some(token) = token.filter(|t| t.attrs["job"].as_i64() == id && id.is_some()) else {
        return answer(stream, 401, "text/plain", b"").await;
    };
    let Some(job) = id.and_then(|id| nas.jobs.get(id)) else {
        return answer(stream, 404, "text/plain", b"").await;
    };
    let name =
        token.attrs["filename"].as_str().unwrap_or("download").replace(['"', '\r', '\n'], "");
    let start = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    let Some(pipe) = &job.pipe else {
        // The log of a job.
        let logs = job.logs();
        let _ = stream.write_all(start.as_bytes()).await;
        chunk(stream, &logs).await;
        let _ = stream.write_all(b"0\r\n\r\n").await;
        let _ = stream.shutdown().await;
        return;
    };
    let Some(mut from) = pipe.read() else {
        return answer(stream, 404, "text/plain", b"").await;
    };
    if job.state().ended() {
        return answer(stream, 410, "text/plain", b"").await;
    }
    pipe.opened.notify_one();
    let _ = stream.write_all(start.as_bytes()).await;
    while let Some(piece) = from.recv().await {
        chunk(stream, &piece).await;
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    let _ = stream.shutdown().await;
}

async fn chunk(stream: &mut Stream, bytes: &[u8]) {
    if !bytes.is_empty() {
        let _ = stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.write_all(b"\r\n").await;
    }
}

/// `POST /_upload`
pub async fn upload(
    nas: &Arc<Nas>,
    stream: &mut Stream,
    head: &Head,
    remote: SocketAddr,
    tls: bool,
) {
    let (out, _) = mpsc::unbounded_channel();
    let session = Session::new(nas.clone(), remote, tls, None, out);
    match credential(nas, &session, head) {
        Some(credential) => session.set_credential(Some(credential)),
        None => return answer(stream, 401, "text/plain", b"").await,
    }
    if head.method != "POST" {
        return answer(stream, 405, "text/plain", b"").await;
    }
    match receive(nas, &session, stream, head).await {
        Ok(id) => json(stream, 200, &json!({"job_id": id})).await,
        Err((status, text)) => answer(stream, status, "text/plain", text.as_bytes()).await,
    }
    let _ = stream.shutdown().await;
}

fn credential(nas: &Arc<Nas>, session: &Arc<Session>, head: &Head) -> Option<Credential> {
    if let Some(token) = head.parameter("auth_token") {
        return nas.auth.token(&token, session.remote.ip(), nas.now()).map(|t| t.credential);
    }
    let method = nas.table(None).get("auth.login_ex")?.clone();
    let local = nas.options.loopback_is_local && session.remote.ip().is_loopback();
    let secure = session.tls || local;
    let call = Call {
        nas: nas.clone(),
        session: session.clone(),
        method,
        args: vec![],
        job: None,
        secure,
        piped: false,
    };
    let (scheme, value) = head.header("authorization")?.split_once(' ')?;
    match scheme {
        "Bearer" => login::bearer(&call, value),
        "Token" => nas.auth.token(value, session.remote.ip(), nas.now()).map(|t| t.credential),
        "Basic" => {
            let text = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
            let text = String::from_utf8(text).ok()?;
            let (name, password) = text.split_once(':')?;
            login::basic(&call, name, password)
        }
        _ => None,
    }
}

/// A part of a form: its name, and whether it is the last piece of it.
struct Form<'a> {
    stream: &'a mut Stream,
    body: Body,
    held: Vec<u8>,
    boundary: Vec<u8>,
}

impl Form<'_> {
    async fn more(&mut self) -> bool {
        match self.body.next(self.stream).await {
            Some(piece) => {
                self.held.extend(piece);
                true
            }
            None => false,
        }
    }

    /// The name of the next part; what is before it is thrown away.
    async fn part(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.held, &self.boundary) {
                let after = at + self.boundary.len();
                if self.held[after..].starts_with(b"--") {
                    return None;
                }
                if let Some(end) = find(&self.held[after..], b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&self.held[after..after + end]).into_owned();
                    self.held.drain(..after + end + 4);
                    let name = head.split(" name=").nth(1)?;
                    let name = name.split([';', '\r']).next()?.trim_matches('"');
                    return Some(name.to_owned());
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// A piece of the part's content; `None` at its end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        let mut mark = b"\r\n".to_vec();
        mark.extend(&self.boundary);
        loop {
            if let Some(at) = find(&self.held, &mark) {
                // The boundary itself stays for the next part.
                let piece: Vec<u8> = self.held.drain(..at).collect();
                return (!piece.is_empty()).then_some(piece);
            }
            if self.held.len() > mark.len() + 65_536 {
                let safe = self.held.len() - mark.len();
                return Some(self.held.drain(..safe).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

async fn receive(
    nas: &Arc<Nas>,
    session: &Arc<Session>,
    stream: &mut Stream,
    head: &Head,
) -> Result<i64, (u16, String)> {
    let bad = |status: u16, text: &str| (status, text.to_owned());
    let kind = head.header("content-type").unwrap_or_default();
    let boundary = kind.split("boundary=").nth(1).map(|b| b.trim_matches('"').to_owned());
    let boundary = boundary.ok_or_else(|| bad(405, "Data not in multipart form"))?;
    let boundary = format!("--{boundary}").into_bytes();
    let mut form = Form { stream, body: Body::of(head), held: Vec::new(), boundary };
    let order = "No part named \"data\" on payload";
    let mut early: Option<Vec<u8>> = None;
    let mut name = form.part().await.ok_or_else(|| bad(405, order))?;
    if name == "file" && !nas.traps.on(44) {
        let mut all = Vec::new();
        while let Some(piece) = form.piece().await {
            all.extend(piece);
        }
        early = Some(all);
        name = form.part().await.ok_or_else(|| bad(405, order))?;
    }
    if name != "data" {
        return Err(bad(405, order));
    }
    let mut data = Vec::new();
    while let Some(piece) = form.piece().await {
        data.extend(piece);
    }
    let data: Value = serde_json::from_slice(&data).map_err(|e| (400, e.to_string()))?;
    let wanted = data["method"].as_str().ok_or_else(|| bad(422, "No method specified"))?;
    let table = nas.table(None);
    let method = table.get(wanted).cloned().ok_or_else(|| bad(422, "No such method"))?;
    dispatch::allowed(session, &method).map_err(|_| bad(403, ""))?;
    if !method.input {
        return Err(bad(422, "Method has no input"));
    }
    if early.is_none() && form.part().await.as_deref() != Some("file") {
        return Err(bad(405, "No part named \"file\" on payload"));
    }
    let params = data["params"].as_array().cloned().unwrap_or_default();
    let wrong = |f: Fail| (412, f.reason());
    let mut call = dispatch::prepare(session, method, params).map_err(wrong)?;
    call.piped = true;
    let job = job::start(call, None).map_err(wrong)?;
    let into = job.pipe.as_ref().and_then(|p| p.write()).ok_or_else(|| bad(500, "no pipe"))?;
    if let Some(all) = early {
        let _ = into.send(all).await;
    } else {
        while let Some(piece) = form.piece().await {
            if into.send(piece).await.is_err() {
                break;
            }
        }
    }
    drop(into);
    if !nas.traps.on(44) {
        let _ = job.outcome().await;
    }
    Ok(job.id)
}
