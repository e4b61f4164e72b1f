//! Ports of sandboxes on the host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// How a port is written.
const PORT: &str = "a port is a number from 1 to 65535";
/// How a place on the host is written.
const PLACE: &str = "write it as \"9000\", \"127.0.0.1:9000\", \"[::1]:9000\", or \"0.0.0.0:9000\" for all who reach this machine";

/// A port of a sandbox that is open on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The port that the guest's programs listen on.
    pub port: u16,
    /// Where it is reached on the host.
    pub at: SocketAddr,
}

impl Published {
    /// Who else than this host reaches it, in a sentence; none when nobody does.
    pub fn exposure(&self) -> Option<String> {
        let Published { port, at } = self;
        let who = match at.ip().to_canonical() {
            ip if ip.is_loopback() => return None,
            ip if ip.is_unspecified() => "everybody who reaches this machine".to_owned(),
            ip => format!("everybody who reaches {ip}"),
        };
        Some(format!("port {port} is open at {at}: {who} can connect to it"))
    }
}

impl Published {
    /// Those of the open ports that are for a port of the sandbox's, at one place or at any. None is an error.
    pub fn matching(
        open: &[Published],
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        let is = |one: &&Published| {
            let there = |at: SocketAddr| {
                one.at.ip() == at.ip() && (at.port() == 0 || one.at.port() == at.port())
            };
            one.port == port && at.is_none_or(there)
        };
        let found: Vec<Published> = open.iter().filter(is).copied().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let message = match at {
            None => format!("{port} of sandbox '{name}' is not open"),
            Some(at) => format!("{port} of sandbox '{name}' is not open at {at}"),
        };
        let list: Vec<String> = open.iter().map(Published::to_string).collect();
        let hint = match list.is_empty() {
            true => "it has no port open".to_owned(),
            false => format!("open are: {}", list.join(", ")),
        };
        Err(Error::invalid_hint("port", message, hint))
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.at, self.port)
    }
}

/// A port that is to be opened on the host: `8080`, `9000:8080`, `127.0.0.1:9000:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishSpec {
    /// The port that the guest's programs listen on.
    pub port: u16,
    /// Where, with port 0 for a free one; a free port of the loopback interface when not given.
    pub at: Option<SocketAddr>,
}

impl FromStr for PublishSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (at, port) = match text.rsplit_once(':') {
            // Where its address ends and the port begins nobody could tell.
            Some((at, _)) if at.parse::<Ipv6Addr>().is_ok() => return Err(no_place(at)),
            Some((at, port)) => (Some(parse_place(at)?), port),
            None => (None, text),
        };
        Ok(PublishSpec { port: parse_port(port)?, at })
    }
}

/// Refuses port 0, where nobody can listen.
pub fn check_port(port: u16) -> Result<()> {
    match port {
        0 => Err(Error::invalid_hint("port", "'0' is not a port", PORT)),
        _ => Ok(()),
    }
}

/// A port as a person writes it.
pub fn parse_port(text: &str) -> Result<u16> {
    let number = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    number().filter(|port| *port != 0).ok_or_else(|| {
        Error::invalid_hint("port", format!("'{}' is not a port", text.escape_debug()), PORT)
    })
}

/// A place on the host as a person writes it: a port of the loopback interface, an address, or both.
/// Without a port it is 0: a free one.
pub fn parse_place(text: &str) -> Result<SocketAddr> {
    let wrong = || no_place(text);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, 0).into());
    }
    let six = |text: &str| {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))?;
        inner.parse::<Ipv6Addr>().ok()
    };
    let (ip, port) = match text.rsplit_once(':') {
        Some((ip, port)) if !port.ends_with(']') => {
            let four = || ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            (six(ip).map(IpAddr::V6).or_else(four).ok_or_else(wrong)?, port)
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            (Ipv4Addr::LOCALHOST.into(), text)
        }
        _ => (six(text).ok_or_else(wrong)?.into(), ""),
    };
    if port.is_empty() {
        return Ok((ip, 0).into());
    }
    Ok((ip, parse_port(port)?).into())
}

fn no_place(text: &str) -> Error {
    let message = format!("'{}' is no place on this machine", text.escape_debug());
    Error::invalid_hint("at", message, PLACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match text.parse::<PublishSpec>() {
            Ok(PublishSpec { port, at: Some(at) }) => format!("{at} {port}"),
            Ok(PublishSpec { port, at: None }) => port.to_string(),
            Err(error) => format!("{error}; {}", error.hint().unwrap_or_default()),
        }
    }

    #[test]
    fn ports_as_they_are_written() {
        for (text, means) in [
            ("8080", "8080"),
            ("9000:8080", "127.0.0.1:9000 8080"),
            ("0.0.0.0:9000:8080", "0.0.0.0:9000 8080"),
            ("192.0.2.1:9000:8080", "192.0.2.1:9000 8080"),
            ("127.0.0.2::8080", "127.0.0.2:0 8080"),
            ("[::1]:9000:8080", "[::1]:9000 8080"),
            ("[::]::8080", "[::]:0 8080"),
            ("[::1]:8080", "[::1]:0 8080"),
        ] {
            assert_eq!(read(text), means, "{text}");
        }
        let wrong = [
            "",
            "0",
            "65536",
            "-1",
            "+80",
            "http",
            "80:",
            ":80",
            "0:80",
            "70000:80",
            "localhost:9000:80",
            "::1:80",
            "1.2.3:9000:80",
            "[::1:9000:80",
            "[]:9000:80",
        ];
        let said: Vec<String> =
            wrong.iter().map(|text| format!("{text:?}: {}", read(text))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn who_reaches_it() {
        let say = |at: &str| Published { port: 8080, at: at.parse().unwrap() }.exposure();
        assert_eq!((say("127.0.0.1:9000"), say("[::1]:9000")), (None, None));
        let all = [say("0.0.0.0:9000"), say("[::]:9000"), say("192.0.2.1:9000")];
        insta::assert_snapshot!(all.map(Option::unwrap).join("\n"), @r"
        port 8080 is open at 0.0.0.0:9000: everybody who reaches this machine can connect to it
        port 8080 is open at [::]:9000: everybody who reaches this machine can connect to it
        port 8080 is open at 192.0.2.1:9000: everybody who reaches 192.0.2.1 can connect to it
        ");
    }
}
