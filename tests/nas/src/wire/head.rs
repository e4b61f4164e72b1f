//! The head of an HTTP request, and its body.

use super::stream::Stream;

/// The head of a request.
pub struct Head {
    /// `GET` or `POST`.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// What is behind the question mark.
    pub query: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` when the connection ends or speaks something else.
    pub async fn read(stream: &mut Stream) -> Option<Self> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(stream.ahead()) {
                Ok(httparse::Status::Complete(length)) => {
                    let target = request.path?.to_owned();
                    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                    let head = Self {
                        method: request.method?.to_owned(),
                        path: path.to_owned(),
                        query: query.to_owned(),
                        headers: request
                            .headers
                            .iter()
                            .map(|h| {
                                let value = String::from_utf8_lossy(h.value).into_owned();
                                (h.name.to_ascii_lowercase(), value)
                            })
                            .collect(),
                    };
                    stream.take(length);
                    return Some(head);
                }
                Ok(httparse::Status::Partial) if stream.ahead().len() < 65_536 => {
                    stream.more().await?;
                }
                _ => return None,
            }
        }
    }

    /// A header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then(|| unescape(value))
        })
    }

    /// Whether a client wants to go on as a WebSocket.
    pub fn upgrades(&self) -> bool {
        self.header("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket"))
    }

    /// Whether the connection stays open after the answer.
    pub fn keep_alive(&self) -> bool {
        !self.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"))
    }
}

/// A body, by its length or in chunks.
pub struct Body {
    left: Option<usize>,
    chunked: bool,
    ended: bool,
}

impl Body {
    /// The body that `head` announces.
    pub fn of(head: &Head) -> Self {
        let chunked = head
            .header("transfer-encoding")
            .is_some_and(|t| t.to_ascii_lowercase().contains("chunked"));
        let left = head.header("content-length").and_then(|l| l.trim().parse().ok());
        Self { left: left.or((!chunked).then_some(0)), chunked, ended: false }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self, stream: &mut Stream) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        if self.chunked && self.left.is_none_or(|l| l == 0) {
            let size = self.size(stream).await?;
            if size == 0 {
                self.ended = true;
                return None;
            }
            self.left = Some(size);
        }
        let left = self.left.filter(|l| *l > 0)?;
        if stream.ahead().is_empty() {
            stream.more().await?;
        }
        let count = left.min(stream.ahead().len());
        let piece = stream.take(count);
        self.left = Some(left - count);
        Some(piece)
    }

    async fn size(&mut self, stream: &mut Stream) -> Option<usize> {
        loop {
            let text = stream.ahead();
            // The end of the chunk before.
            let skip = if text.starts_with(b"\r\n") { 2 } else { 0 };
            if let Some(end) = text[skip..].windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&text[skip..skip + end]).into_owned();
                stream.take(skip + end + 2);
                return usize::from_str_radix(line.split(';').next()?.trim(), 16).ok();
            }
            stream.more().await?;
        }
    }
}

/// Undoes percent signs.
pub fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = std::str::from_utf8(after.get(..2).unwrap_or_default()).unwrap_or_default();
        match (first, u8::from_str_radix(hex, 16)) {
            (b'%', Ok(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
