//! Requests of HTTP/1, as far as it takes to know which host each of them is for.

use super::sniff::name_of;

/// What a request's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The host, as rules have it; none for an address, or where none is given.
    pub host: Option<String>,
    /// It asks a proxy for something elsewhere: `CONNECT`, or a whole URL.
    pub proxied: bool,
    /// The port it asks a proxy for.
    pub port: Option<u16>,
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    /// A tunnel.
    Endless,
}

/// It is no request that all servers would read the same way.
#[derive(Debug)]
pub struct Bad;

/// Longer heads are refused by servers, too.
const LONGEST: usize = 32 << 10;

/// Methods that servers take without a version behind the target, too.
const OLD: &[&[u8]] =
    &[b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];

/// Whether some server would take it for a request, however lenient it is; none when more has to come.
/// Only [`head`] says whether all servers would take it for the same one.
pub fn looks_like_a_request(bytes: &[u8]) -> Option<bool> {
    // Many pass over empty lines.
    let blank = |byte: &&u8| byte.is_ascii_whitespace() || **byte == 0x0b;
    let start = bytes.iter().take_while(blank).count();
    let Some(text) = bytes.get(start..).filter(|text| !text.is_empty()) else {
        return if start > LONGEST { Some(true) } else { None };
    };
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let whole = line.len() < text.len();
    let word = line.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    let method = &line[..word];
    // No method has such a byte in it.
    if line.get(word).is_some_and(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b) {
        return Some(false);
    }
    if line.windows(5).any(|part| part.eq_ignore_ascii_case(b"HTTP/")) {
        return if whole || text.len() > LONGEST { Some(true) } else { None };
    }
    let loud = method.iter().all(u8::is_ascii_uppercase);
    if whole || (line.contains(&0) && !loud) {
        return Some(OLD.contains(&method));
    }
    if text.len() > LONGEST { Some(true) } else { None }
}

/// The head at the beginning of `bytes`, and its length; none when more has to come.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Bad> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
        // A bare line break may end a head for some servers.
        let loose = bytes.windows(2).any(|part| part == b"\n\n");
        return if loose || bytes.len() > LONGEST { Err(Bad) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Bad)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad);
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || text.contains(['\0']) {
        return Err(Bad);
    }
    let (mut host, mut length, mut chunked) = (None, None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Bad)?;
        let token = |byte: u8| byte.is_ascii_graphic();
        if name.is_empty() || !name.bytes().all(token) || line.contains(['\n', '\r']) {
            return Err(Bad);
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" if host.is_some() => return Err(Bad),
            "host" => host = Some(value),
            "content-length" if length.is_some() => return Err(Bad),
            "content-length" => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                length = Some(value.parse::<u64>().ok().filter(|_| digits).ok_or(Bad)?);
            }
            "transfer-encoding" if chunked => return Err(Bad),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => chunked = true,
            "transfer-encoding" => return Err(Bad),
            _ => {}
        }
    }
    if chunked && (length.is_some() || version == "HTTP/1.0") {
        return Err(Bad);
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || !method.bytes().all(token) {
        return Err(Bad);
    }
    let connect = method == "CONNECT";
    let url = target.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
    let proxied = connect || url.is_some();
    let asked = if connect { Some(target) } else { url.or(host) };
    let (name, port) = asked.map_or((None, None), host_and_port);
    // Some servers go by the one, some by the other.
    if proxied && host.is_some_and(|host| host_and_port(host).0 != name) {
        return Err(Bad);
    }
    let body = match (connect, chunked) {
        (true, _) => Body::Endless,
        (_, true) => Body::Chunked,
        _ => Body::Length(length.unwrap_or(0)),
    };
    Ok(Some((Head { host: name, proxied, port, body }, end + 4)))
}

fn host_and_port(text: &str) -> (Option<String>, Option<u16>) {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    (name_of(host), port)
}

/// Follows the requests of one connection: a later one may not be for another host than the first.
pub struct Requests {
    first: Head,
    held: Vec<u8>,
    state: State,
}

enum State {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailer,
    Endless,
}

impl Requests {
    /// After the first head has been let through.
    pub fn after(first: Head) -> Requests {
        let state = match first.body {
            Body::Length(0) => State::Head,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkSize,
            Body::Endless => State::Endless,
        };
        Requests { first, held: Vec::new(), state }
    }

    /// Takes what the client sends, and gives what may go on. The rest is held until it is complete.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Bad> {
        if matches!(self.state, State::Endless) {
            return Ok(bytes.to_vec());
        }
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let rest = &self.held[done..];
            match self.state {
                State::Endless => done = self.held.len(),
                State::Body(left) | State::Chunk(left) => {
                    let count = left.min(rest.len() as u64);
                    done += count as usize;
                    let chunk = matches!(self.state, State::Chunk(_));
                    self.state = match (left - count, chunk) {
                        (0, true) => State::ChunkSize,
                        (0, false) => State::Head,
                        (left, true) => State::Chunk(left),
                        (left, false) => State::Body(left),
                    };
                    if count == 0 && left > 0 {
                        break;
                    }
                }
                State::ChunkSize => {
                    let Some(line) = line(rest)? else { break };
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let size = u64::from_str_radix(size, 16).ok().filter(|_| hex).ok_or(Bad)?;
                    done += line.len() + 2;
                    // With the line break behind it.
                    let next = size.checked_add(2).ok_or(Bad)?;
                    self.state = if size == 0 { State::Trailer } else { State::Chunk(next) };
                }
                State::Trailer => {
                    let Some(line) = line(rest)? else { break };
                    done += line.len() + 2;
                    if line.is_empty() {
                        self.state = State::Head;
                    }
                }
                State::Head => {
                    // Some send a line break too many after a body.
                    if rest.starts_with(b"\r\n") {
                        done += 2;
                        continue;
                    }
                    if rest != b"\r" && looks_like_a_request(rest) == Some(false) {
                        return Err(Bad);
                    }
                    let Some((next, length)) = head(rest)? else { break };
                    if (&next.host, next.proxied, next.port)
                        != (&self.first.host, self.first.proxied, self.first.port)
                    {
                        return Err(Bad);
                    }
                    done += length;
                    self.state = Requests::after(next).state;
                }
            }
            if done == self.held.len() {
                break;
            }
        }
        let rest = self.held.split_off(done);
        Ok(std::mem::replace(&mut self.held, rest))
    }
}

fn line(bytes: &[u8]) -> Result<Option<&str>, Bad> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes[..end].strip_suffix(b"\r").ok_or(Bad)?;
            std::str::from_utf8(line).map(Some).map_err(|_| Bad)
        }
        None if bytes.len() > 4096 => Err(Bad),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Head {
        head(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_head_names_its_host() {
        let one = first("GET /x HTTP/1.1\r\nhost: A.test:8080\r\nX: y\r\n\r\n");
        assert_eq!(
            (one.host.as_deref(), one.proxied, one.port),
            (Some("a.test"), false, Some(8080))
        );
        let one = first("CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n");
        assert_eq!((one.host.as_deref(), one.proxied, one.port), (Some("b.test"), true, Some(443)));
        let one = first("GET http://c.test/ HTTP/1.1\r\nHost: C.test\r\n\r\n");
        assert_eq!((one.host.as_deref(), one.proxied), (Some("c.test"), true));
        assert_eq!(first("GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n").host, None);
        assert_eq!(first("GET / HTTP/1.0\r\n\r\n").host, None);
        for bad in [
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n folded: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\n\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\nHost: a.test\n\n",
            "GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
            "CONNECT a.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GE\"T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(head(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn later_requests_are_for_the_same_host() {
        let get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n";
        let all = [get, post, chunked, get].concat();
        for size in [1, 5, 1000] {
            let mut requests = Requests::after(first(get));
            let passed: Vec<u8> =
                all.as_bytes().chunks(size).flat_map(|part| requests.pass(part).unwrap()).collect();
            assert_eq!(String::from_utf8(passed).unwrap(), all);
        }
        let other = "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
        for before in [get, post, chunked] {
            let mut requests = Requests::after(first(get));
            assert!(requests.pass([before, other].concat().as_bytes()).is_err());
        }
        let mut requests = Requests::after(first(get));
        assert!(requests.pass(b"\x16\x03\x01").is_err());
    }
}
