//! HTTP over the daemon's socket.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// One request on a connection of its own.
pub async fn request(
    socket: &str,
    verb: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, String> {
    let mut stream =
        UnixStream::connect(socket).await.map_err(|e| format!("the daemon at {socket}: {e}"))?;
    let body = body.filter(|b| !b.is_null()).map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nHost: incus\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    talk.await.map_err(|e| format!("the daemon: {e}"))?;
    parse(&answer)
}

/// Posts what comes in pieces.
pub async fn upload(
    socket: &str,
    path: &str,
    headers: &str,
    mut from: mpsc::Receiver<Vec<u8>>,
) -> Result<Value, String> {
    let mut stream =
        UnixStream::connect(socket).await.map_err(|e| format!("the daemon at {socket}: {e}"))?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: incus\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    );
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(head.as_bytes()).await?;
        while let Some(piece) = from.recv().await.filter(|p| !p.is_empty()) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            stream.write_all(&piece).await?;
            stream.write_all(b"\r\n").await?;
        }
        stream.write_all(b"0\r\n\r\n").await?;
        stream.read_to_end(&mut answer).await
    };
    talk.await.map_err(|e| format!("the daemon: {e}"))?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Value, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(answer) else {
        return Err("the daemon closed the connection".into());
    };
    let chunked = response.headers.iter().any(|h| {
        h.name.eq_ignore_ascii_case("transfer-encoding") && h.value.eq_ignore_ascii_case(b"chunked")
    });
    let body = if chunked { unchunk(&answer[length..]) } else { answer[length..].to_vec() };
    serde_json::from_slice(&body).map_err(|e| format!("the daemon's answer: {e}"))
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let start = end + 2;
        if size == 0 || bytes.len() < start + size {
            break;
        }
        whole.extend_from_slice(&bytes[start..start + size]);
        bytes = bytes.get(start + size + 2..).unwrap_or_default();
    }
    whole
}
