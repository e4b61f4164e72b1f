//! The ways in which commands come to a guest.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Result};
use crate::transport::KeySource;

/// Which way commands go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ways {
    /// By SSH where that works, else by the NAS's shell.
    #[default]
    Any,
    /// By the NAS's shell.
    Shell,
    /// By SSH.
    Ssh,
}

impl Ways {
    /// Reads `ssh` or `shell`.
    pub fn parse(text: &str) -> Result<Ways> {
        match text {
            "ssh" => Ok(Ways::Ssh),
            "shell" => Ok(Ways::Shell),
            _ => Err(Error::invalid_hint(
                "exec",
                format!("'{text}' is no way for commands to a guest"),
                "use \"ssh\" or \"shell\", or leave it out for what works",
            )),
        }
    }
}

/// What is needed for SSH to guests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SshConfig {
    /// What we come in by.
    pub key: KeySource,
    /// The folder for what is known of guests: their host keys and addresses.
    pub known: Option<PathBuf>,
    /// The machine that they are reached by; they are reached from here without one.
    pub jump: Option<Jump>,
}

/// A machine that guests are reached by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// Who logs in there.
    pub user: String,
    /// Its name or address.
    pub host: String,
    /// The port of its SSH server.
    pub port: u16,
    /// The SHA-256 of its host key; without it, it is the NAS and is asked for by its shell.
    pub key: Option<String>,
}

impl Jump {
    /// Reads `user@host:port`; without a user it is root, without a port 22.
    pub fn parse(text: &str, key: Option<String>) -> Result<Jump> {
        let wrong = || {
            Error::invalid_hint(
                "jump",
                format!("'{text}' is no machine to go by"),
                "name it as in root@nas.lan or root@nas.lan:2222",
            )
        };
        let (user, place) = text.split_once('@').unwrap_or(("root", text));
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match place.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (place, None),
            },
        };
        let port = port.map_or(Ok(22), |port| port.parse().map_err(|_| wrong()))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
        if user.is_empty() || host.is_empty() || !host.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Jump { user: user.into(), host: host.into(), port, key })
    }
}

/// The way that a guest's commands go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The NAS's shell, and why not by SSH where that was tried.
    Shell(Option<String>),
    /// SSH, to this place.
    Ssh(String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Shell(None) => f.write_str("the NAS's shell"),
            Way::Shell(Some(why)) => write!(f, "the NAS's shell, not SSH: {why}"),
            Way::Ssh(place) => write!(f, "ssh {place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_read_as_it_is_written() {
        let jump = |text: &str| Jump::parse(text, None).map(|j| (j.user, j.host, j.port)).ok();
        let of = |user: &str, host: &str, port| Some((user.to_owned(), host.to_owned(), port));
        assert_eq!(jump("nas.lan"), of("root", "nas.lan", 22));
        assert_eq!(jump("ann@nas.lan:2222"), of("ann", "nas.lan", 2222));
        assert_eq!(jump("ann@[fd00::1]:2222"), of("ann", "fd00::1", 2222));
        assert_eq!(jump("fd00::1"), of("root", "fd00::1", 22));
        for text in ["", "ann@", "@nas", "nas:x", "nas:99999", "na s", "-oX=y z"] {
            assert_eq!(jump(text), None, "{text}");
        }
        let error = Jump::parse("a b", None).unwrap_err();
        insta::assert_snapshot!(error, @"jump: 'a b' is no machine to go by");
        insta::assert_snapshot!(Ways::parse("telnet").unwrap_err(), @"exec: 'telnet' is no way for commands to a guest");
    }
}
