//! `resolv_conf`: how the machine finds names.

use std::net::IpAddr;

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};
use crate::suggest;

/// What `/etc/resolv.conf` of the machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolv {
    /// As systemd-nspawn makes it: one of [`MODES`].
    Mode(String),
    /// A plain file with these servers and search domains.
    Own {
        /// The servers.
        dns: Vec<IpAddr>,
        /// The domains that are tried behind a name without dots.
        search: Vec<String>,
    },
}

impl Default for Resolv {
    fn default() -> Self {
        // `auto` links systemd-resolved's stub where the host has one, which no machine of its own
        // network reaches.
        Resolv::Mode("copy-host".into())
    }
}

/// What systemd-nspawn can do, `systemd-nspawn(1)`.
pub const MODES: &[&str] = &[
    "off",
    "copy-host",
    "copy-static",
    "copy-uplink",
    "copy-stub",
    "replace-host",
    "replace-static",
    "replace-uplink",
    "replace-stub",
    "bind-host",
    "bind-static",
    "bind-uplink",
    "bind-stub",
    "delete",
    "auto",
];

impl Resolv {
    /// What systemd-nspawn is told.
    pub fn native(&self) -> &str {
        match self {
            Resolv::Mode(mode) => mode,
            Resolv::Own { .. } => "off",
        }
    }

    /// The file that is written, where we write it.
    pub fn file(&self) -> Option<String> {
        let Resolv::Own { dns, search } = self else { return None };
        let mut text = String::new();
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        for server in dns {
            text.push_str(&format!("nameserver {server}\n"));
        }
        Some(text)
    }

    pub(super) fn read(node: &Node) -> Result<Resolv> {
        if let Value::Text(_) = &node.value {
            let mode = text(node)?;
            if MODES.contains(&mode.as_str()) {
                return Ok(Resolv::Mode(mode));
            }
            let message = format!("'{mode}' is no way to make resolv.conf");
            let near = suggest::nearest(&mode, MODES.iter().copied());
            return Err(MachineError::invalid(node.origin.place(), message).or_hint(match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("it is one of {}", MODES.join(", ")),
            }));
        }
        let reader = Reader::new(node)?;
        let mut dns = Vec::new();
        for node in reader.list("dns")? {
            let word = text(node)?;
            dns.push(word.parse().map_err(|_| {
                MachineError::invalid(node.origin.place(), format!("'{word}' is not an address"))
            })?);
        }
        let search = reader.texts("search")?;
        if dns.is_empty()
            || search.iter().any(|one| one.is_empty() || one.contains(char::is_whitespace))
        {
            return Err(MachineError::invalid(reader.place(), "a resolv.conf needs servers")
                .or_hint("write it as { dns = [\"192.0.2.1\"], search = [\"example.org\"] }"));
        }
        reader.finish()?;
        Ok(Resolv::Own { dns, search })
    }
}
