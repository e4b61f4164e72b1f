//! `resolv_conf`: how the machine finds names.

use std::net::IpAddr;

use super::error::{MachineError, Result};
use super::host::Host;
use super::nic::Network;
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

/// Whether the host asks nobody but itself for names.
pub(super) fn is_stub(host: &dyn Host) -> bool {
    let text = host.read("/etc/resolv.conf").unwrap_or_default();
    let mut servers =
        text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).peekable();
    servers.peek().is_some() && servers.all(|one| one.starts_with("127.") || one == "::1")
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

    /// The same for a host whose own servers are a stub of its own, which a machine with another network than
    /// the host's does not reach: those behind it, where systemd-resolved says them.
    pub fn settled(&self, network: &Network, host: &dyn Host) -> Resolv {
        let own = !matches!(network, Network::Host | Network::Gate);
        let stub = *self == Resolv::default() && own && is_stub(host);
        match stub && host.exists("/run/systemd/resolve/resolv.conf") {
            true => Resolv::Mode("copy-uplink".into()),
            false => self.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nspawn::machine::host::MadeUp;

    #[test]
    fn a_stub_of_the_hosts_is_told_to_no_machine() {
        let stub = ("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0\n");
        let uplink = ("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n");
        let own = Network::Own(Vec::new());
        let usual = Resolv::default();
        let behind = Resolv::Mode("copy-uplink".into());
        assert_eq!(usual.settled(&own, &MadeUp::with([stub, uplink])), behind);
        assert_eq!(usual.settled(&Network::Host, &MadeUp::with([stub, uplink])), usual);
        assert_eq!(usual.settled(&own, &MadeUp::with([stub])), usual);
        let plain = ("/etc/resolv.conf", "nameserver 192.0.2.1\n");
        assert_eq!(usual.settled(&own, &MadeUp::with([plain, uplink])), usual);
        let said = Resolv::Mode("off".into());
        assert_eq!(said.settled(&own, &MadeUp::with([stub, uplink])), said);
        assert!(is_stub(&MadeUp::with([stub])) && !is_stub(&MadeUp::default()));
    }
}
