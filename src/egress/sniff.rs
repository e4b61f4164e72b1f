//! The name a client asks for, read from the first bytes it sends.

use super::http::{self, Head};

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Not enough has come to tell.
    More,
    /// TLS, with the server name it asks for.
    Tls(Option<String>),
    /// HTTP: the head of its first request, and how many bytes it has. None when it is no good.
    Http(Option<(Head, usize)>),
    /// Something else.
    Opaque,
}

/// No honest greeting is longer.
pub const LONGEST: usize = 32 << 10;

/// Looks at all that has come so far.
pub fn greeting(bytes: &[u8]) -> Greeting {
    match bytes {
        [] => Greeting::More,
        [22, 3, ..] => client_hello(bytes).unwrap_or(Greeting::Tls(None)),
        [22] => Greeting::More,
        // Other records of TLS, and other versions: there are servers that pass over them, and that read the
        // greeting behind them.
        [20..=24, ..] => Greeting::Tls(None),
        // The greeting of SSL 2, which may lead to a later version.
        [128..=255, _, 1, ..] => Greeting::Tls(None),
        [128..=255] | [128..=255, _] => Greeting::More,
        _ => match http::looks_like_a_request(bytes) {
            None => Greeting::More,
            Some(false) => Greeting::Opaque,
            Some(true) => match http::head(bytes) {
                Ok(None) => Greeting::More,
                Ok(Some(found)) => Greeting::Http(Some(found)),
                Err(http::Bad) => Greeting::Http(None),
            },
        },
    }
}

/// The server name of a ClientHello; `None` when it is malformed.
fn client_hello(bytes: &[u8]) -> Option<Greeting> {
    let mut hello = Vec::new();
    let mut rest = bytes;
    let wanted = loop {
        if let [_, a, b, c, ..] = hello[..] {
            let length = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if length > LONGEST {
                return None;
            }
            if hello.len() >= length {
                break length;
            }
        }
        match rest {
            [22, 3, _, high, low, body @ ..] => {
                let length = usize::from(*high) << 8 | usize::from(*low);
                if length == 0 || length > 1 << 14 {
                    return None;
                }
                let Some(part) = body.get(..length) else {
                    hello.extend_from_slice(body);
                    return more(&hello);
                };
                hello.extend_from_slice(part);
                rest = &body[length..];
            }
            [22, 3, ..] | [22] | [] => return more(&hello),
            _ => return None,
        }
    };
    let mut body = Take(&hello[4..wanted]);
    (hello[0] == 1).then_some(())?;
    body.bytes(2 + 32)?;
    body.short()?;
    body.long()?;
    body.short()?;
    if body.0.is_empty() {
        return Some(Greeting::Tls(None));
    }
    let mut extensions = Take(body.long()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let mut content = Take(extensions.long()?);
        if kind == 0 {
            let mut list = Take(content.long()?);
            let [0] = list.bytes(1)? else { return None };
            let name = std::str::from_utf8(list.long()?).ok()?;
            return Some(Greeting::Tls(list.0.is_empty().then(|| name_of(name)).flatten()));
        }
    }
    Some(Greeting::Tls(None))
}

/// Waits for the rest of what begins like a ClientHello.
fn more(hello: &[u8]) -> Option<Greeting> {
    matches!(hello, [] | [1, ..]).then_some(Greeting::More)
}

/// A host name as rules have it; none when it is none.
pub fn name_of(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let numeric = text.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    let fits = !text.is_empty() && text.len() <= 253 && !numeric && text.bytes().all(good);
    (fits && text.split('.').all(|label| !label.is_empty())).then(|| text.to_ascii_lowercase())
}

struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<usize> {
        let [high, low] = self.bytes(2)? else { return None };
        Some(usize::from(*high) << 8 | usize::from(*low))
    }

    /// With a length of one byte before it.
    fn short(&mut self) -> Option<&'a [u8]> {
        let [length] = self.bytes(1)? else { return None };
        self.bytes(usize::from(*length))
    }

    /// With a length of two bytes before it.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(name: Option<&str>) -> Vec<u8> {
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        if let Some(name) = name {
            let length = name.len() as u16;
            extensions.extend([0, 0]);
            extensions.extend((length + 5).to_be_bytes());
            extensions.extend((length + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(length.to_be_bytes());
            extensions.extend(name.bytes());
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let mut bytes = vec![22, 3, 1];
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
            bytes
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_client_hello_names_its_server_in_any_number_of_records() {
        for size in [1, 7, 4000] {
            let bytes = records(&hello(Some("A.example.com")), size);
            for end in 0..bytes.len() {
                assert_eq!(greeting(&bytes[..end]), Greeting::More, "{end} of {}", bytes.len());
            }
            assert_eq!(greeting(&bytes), Greeting::Tls(Some("a.example.com".into())));
        }
        assert_eq!(greeting(&records(&hello(None), 4000)), Greeting::Tls(None));
        for bad in ["", "10.0.0.1", "a b", "x..y"] {
            assert_eq!(greeting(&records(&hello(Some(bad)), 4000)), Greeting::Tls(None), "{bad}");
        }
    }

    #[test]
    fn other_protocols_are_opaque() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n",
            "EHLO me\r\n",
            "\0\0",
            "*1\r\n$4\r\nPING\r\n",
            "AMQP\0\0\x09\x01",
            "0039git-upload-pack /x.git\0host=a.test\0",
            "\0\0\0\x08\x04",
        ] {
            assert_eq!(greeting(bytes.as_bytes()), Greeting::Opaque, "{bytes}");
        }
        assert_eq!(greeting(&[0x80, 0x2e, 2]), Greeting::Opaque);
        assert_eq!(greeting(b"\x16\x03\x01\x00\x04\x02\0\0\0"), Greeting::Tls(None));
        assert_eq!(greeting(b"GE"), Greeting::More);
    }

    /// There is a server for each of these that takes what follows for a request or a greeting.
    #[test]
    fn what_a_lenient_server_takes_is_not_opaque() {
        for bytes in [
            "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            " \x0bGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a.test\r\n\r\n",
            "get / http/1.1\r\nHost: a.test\r\n\r\n",
            "GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
            "GET /\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ] {
            assert_eq!(greeting(bytes.as_bytes()), Greeting::Http(None), "{bytes}");
        }
        let good = greeting(b"M-SEARCH / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(matches!(good, Greeting::Http(Some(_))), "{good:?}");
        let hello = records(&hello(Some("a.test")), 4000);
        for start in [&[22, 2][..], &[22, 4], &[21, 3, 1, 0, 2, 1, 90], &[20, 3, 3], &[23, 3, 3]] {
            assert_eq!(greeting(&[start, &hello].concat()), Greeting::Tls(None), "{start:?}");
        }
        assert_eq!(greeting(&[0x80, 0x2e, 1, 3, 1]), Greeting::Tls(None));
        for begun in [&b"GET / HTT"[..], b"\r\n", b"GET", &[22], &[0x80], &[0x80, 1]] {
            assert_eq!(greeting(begun), Greeting::More, "{begun:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
            let mut all = if tls { records(&hello(Some("a.test")), 100) } else { Vec::new() };
            let at = bytes.first().map_or(0, |byte| usize::from(*byte) % (all.len() + 1));
            all.splice(at..at, bytes);
            greeting(&all);
        }
    }
}
