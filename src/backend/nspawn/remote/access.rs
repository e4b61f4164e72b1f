//! How one comes in at another host: what was said of it, and what the files of OpenSSH say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Result};
use crate::transport::ssh::{HostConfig, Keys, Pins, SshError, Target, known_hosts, not_revoked};

/// What is known of the ways to another host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Access {
    /// Files as `ssh_config`, the nearest first.
    pub ssh_config: Vec<PathBuf>,
    /// Files as `known_hosts`. Where those of `ssh_config` name others, only those below `/etc` are read besides: they
    /// are for all users.
    pub known_hosts: Vec<PathBuf>,
    /// What `~` stands for in them.
    pub home: Option<PathBuf>,
    /// The socket of an agent.
    pub agent: Option<PathBuf>,
    /// Files with keys that are tried where nothing names one. Those that are not there are left out.
    pub keys: Vec<PathBuf>,
    /// The one that was named.
    pub key: Option<PathBuf>,
    /// The SHA-256 of the host's key, or the key, where it is not among the hosts that are known.
    pub host_key: Option<String>,
    /// The program there, where that is not to be sent.
    pub program: Option<String>,
    /// The folder of the machines there.
    pub store: Option<String>,
}

/// A host, and what lets us in there.
pub(super) struct Way {
    /// As it was named.
    pub name: String,
    pub target: Target,
    pub keys: Keys,
    /// Keys that can't be used, and why.
    pub wrong: Vec<SshError>,
    /// The host that it is reached by.
    pub jump: Option<Box<Way>>,
}

impl Access {
    /// The way to a host: `user@name:port`, where what is not said is looked up.
    pub(super) fn way(&self, host: &str) -> Result<Way> {
        let way = self.one(host, self.host_key.as_deref())?;
        let Some(jump) = way.1.filter(|jump| !jump.eq_ignore_ascii_case("none")) else {
            return Ok(way.0);
        };
        if jump.contains(',') {
            return Err(Error::invalid_hint(
                "host",
                format!("'{host}' is reached by more than one other host (ProxyJump {jump})"),
                "name one of them at most",
            ));
        }
        let (jump, _) = self.one(&jump, None)?;
        Ok(Way { jump: Some(Box::new(jump)), ..way.0 })
    }

    fn one(&self, host: &str, pinned: Option<&str>) -> Result<(Way, Option<String>)> {
        let (user, name, port) = split(host)?;
        let said = HostConfig::read(&self.ssh_config, self.home.as_deref(), &name);
        let real = said.host.unwrap_or_else(|| name.clone());
        let port = port.or(said.port).unwrap_or(22);
        let known: Vec<PathBuf> = match said.known.is_empty() {
            true => self.known_hosts.clone(),
            false => {
                let shared = self.known_hosts.iter().filter(|file| file.starts_with("/etc"));
                said.known.iter().chain(shared).cloned().collect()
            }
        };
        // An alias stands for the port, too.
        let (known_as, known_port) = match &said.known_as {
            Some(alias) => (alias.as_str(), 22),
            None => (real.as_str(), port),
        };
        let pins = match pinned {
            Some(pinned) => {
                let pins = Pins::parse(pinned);
                if pins.is_empty() {
                    return Err(Error::invalid_hint(
                        "host_key",
                        format!("'{pinned}' is no host key"),
                        "write it as ssh-keygen -l shows it: SHA256:…",
                    ));
                }
                let pins = not_revoked(pins, &known, known_as, known_port);
                if pins.is_empty() {
                    return Err(Error::Auth {
                        message: format!(
                            "{host}: the host_key '{pinned}' is revoked in the files of the hosts that are known; take its \
                             new one"
                        ),
                    });
                }
                pins
            }
            None => known_hosts(&known, known_as, known_port),
        };
        let (keys, wrong) = match &self.key {
            Some(key) => Keys::any(std::slice::from_ref(key), None),
            None if !said.keys.is_empty() => Keys::any(&said.keys, self.agent.clone()),
            None => Keys::any(&self.keys, self.agent.clone()),
        };
        let user = user.or(said.user).unwrap_or_else(|| "root".into());
        let target = Target { user, host: real, port, pins };
        Ok((Way { name: host.to_owned(), target, keys, wrong, jump: None }, said.jump))
    }
}

/// The parts of `user@name:port`.
fn split(text: &str) -> Result<(Option<String>, String, Option<u16>)> {
    let wrong = || {
        Error::invalid_hint(
            "host",
            format!("'{text}' is no host"),
            "name it as in nas, root@nas.lan or root@nas.lan:2222",
        )
    };
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, text),
    };
    let (name, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match place.split_once(':') {
            Some((name, port)) if !port.contains(':') => (name, Some(port)),
            _ => (place, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        None => None,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
    let empty = user.as_ref().is_some_and(|user| user.is_empty() || user.contains('@'));
    if empty || name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
        return Err(wrong());
    }
    Ok((user, name.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let parts = |text| split(text).ok();
        let some = |user: Option<&str>, name: &str, port| {
            Some((user.map(str::to_owned), name.to_owned(), port))
        };
        assert_eq!(parts("nas"), some(None, "nas", None));
        assert_eq!(parts("root@nas.lan:2222"), some(Some("root"), "nas.lan", Some(2222)));
        assert_eq!(parts("ssh://ann@[::1]:22"), some(Some("ann"), "::1", Some(22)));
        assert_eq!(parts("fe80::1"), some(None, "fe80::1", None));
        for wrong in ["", "@nas", "nas:0", "nas:x", "-oProxyCommand=x", "na s", "a@b@c", "nas/x"] {
            assert!(parts(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_said_is_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let (config, known) = (folder.path().join("config"), folder.path().join("known"));
        std::fs::write(
            &config,
            "Host nas\nHostName 10.0.0.2\nUser ann\nPort 2222\nProxyJump b@gate\n",
        )
        .unwrap();
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        std::fs::write(&known, format!("[10.0.0.2]:2222 {key}\n")).unwrap();
        let access =
            Access { ssh_config: vec![config], known_hosts: vec![known], ..Access::default() };
        let way = access.way("nas").unwrap();
        assert_eq!(way.target.to_string(), "ann@10.0.0.2:2222");
        assert!(!way.target.pins.is_empty() && way.keys.is_empty());
        let jump = way.jump.unwrap();
        assert_eq!(jump.target.to_string(), "b@gate");
        assert!(jump.target.pins.is_empty());
        assert_eq!(access.way("root@nas:22").unwrap().target.to_string(), "root@10.0.0.2");
        let pinned = Access { host_key: Some("nonsense".into()), ..Access::default() };
        assert!(matches!(pinned.way("nas"), Err(Error::InvalidInput { .. })));
    }

    #[test]
    fn what_is_revoked_is_so_for_a_pin_and_an_alias() {
        let folder = tempfile::tempdir().unwrap();
        let (config, known) = (folder.path().join("config"), folder.path().join("known"));
        std::fs::write(&config, "Host nas\nPort 2222\nHostKeyAlias tower\n").unwrap();
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        std::fs::write(&known, format!("tower {key}\n")).unwrap();
        let access =
            Access { ssh_config: vec![config], known_hosts: vec![known], ..Access::default() };
        assert!(!access.way("nas").unwrap().target.pins.is_empty());
        let pinned = Access { host_key: Some(key.into()), ..access };
        assert!(pinned.way("nas").is_ok());
        std::fs::write(&pinned.known_hosts[0], format!("@revoked tower {key}\n")).unwrap();
        assert!(matches!(pinned.way("nas"), Err(Error::Auth { .. })));
    }
}
