//! Where a NAS is.

use std::fmt;
use std::net::IpAddr;

use crate::sandbox::{Error, Result};

/// Where a NAS is, and whether it is spoken to by TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether by TLS. Without it, only on this machine.
    pub tls: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Address {
    /// Reads `nas`, `nas:8443`, `https://nas` and so on. What is not TLS is refused but on this
    /// machine: a NAS revokes a key that it is shown in plain text.
    pub fn parse(text: &str) -> Result<Address> {
        let wrong = |why: &str| {
            Error::invalid_hint(
                "host",
                format!("'{text}' {why}"),
                "name the NAS as in nas.lan, nas.lan:8443 or https://192.168.1.10",
            )
        };
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https" | "wss", rest)) => (true, rest),
            Some(("http" | "ws", rest)) => (false, rest),
            Some(_) => return Err(wrong("is no address of a NAS")),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, port)) if host.parse::<IpAddr>().is_ok_and(|at| at.is_ipv6()) => {
                    (host, port.strip_prefix(':'))
                }
                _ => return Err(wrong("is no address of a NAS")),
            },
            None if rest.parse::<IpAddr>().is_ok() => (rest, None),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(wrong("has no port that there is")),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong("is no address of a NAS"));
        }
        let address = Address { host: host.to_ascii_lowercase(), port, tls };
        if !tls && !address.is_here() {
            return Err(Error::invalid_hint(
                "host",
                format!("'{text}' is in plain text: the NAS would revoke the key that it is shown"),
                format!("use https://{rest}"),
            ));
        }
        Ok(address)
    }

    fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|at| at.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let at = |text: &str| Address::parse(text).map(|at| (at.to_string(), at.tls)).unwrap();
        assert_eq!(at("nas"), ("nas:443".into(), true));
        assert_eq!(at("NAS.lan:8443"), ("nas.lan:8443".into(), true));
        assert_eq!(at("https://nas/ui/"), ("nas:443".into(), true));
        assert_eq!(at("wss://[fd00::1]:444/api/current"), ("[fd00::1]:444".into(), true));
        assert_eq!(at("fd00::1"), ("[fd00::1]:443".into(), true));
        assert_eq!(at("ws://127.0.0.1:80"), ("127.0.0.1:80".into(), false));
        assert_eq!(at("http://localhost"), ("localhost:80".into(), false));
        for text in ["", "ftp://nas", "nas:0", "nas:x", "[nas]", "a b", "https://", "nas:99999"] {
            assert!(matches!(Address::parse(text), Err(Error::InvalidInput { .. })), "{text}");
        }
        let error = Address::parse("http://nas").unwrap_err();
        insta::assert_snapshot!(error, @"host: 'http://nas' is in plain text: the NAS would revoke the key that it is shown");
        assert_eq!(error.hint().unwrap(), "use https://nas");
    }
}
