//! Ports, kept as data: nothing listens and nothing connects.

use std::net::{Ipv4Addr, SocketAddr};

use super::machine::World;
use crate::sandbox::{Error, Published, Result};

/// The first port that is given where none is asked for.
const FIRST_FREE: u16 = 40_000;

impl World {
    /// Opens a port of the host for one of a running sandbox's.
    pub fn publish(&mut self, name: &str, port: u16, at: Option<SocketAddr>) -> Result<SocketAddr> {
        let known = self.running(name)?.info.ports.iter();
        let mut known = known.filter(|open| open.port == port && open.at.ip().is_loopback());
        if let (None, Some(open)) = (at, known.next()) {
            return Ok(open.at);
        }
        let mut at = at.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        if at.port() == 0 {
            let free = (FIRST_FREE..u16::MAX).find(|port| {
                at.set_port(*port);
                self.holder(at).is_none()
            });
            at.set_port(free.unwrap_or(u16::MAX));
        }
        if let Some(holder) = self.holder(at) {
            return Err(Error::invalid_hint(
                "at",
                format!("{at} is a port of sandbox '{holder}' already"),
                format!(
                    "stop it: sandscript stop {holder}; or leave the host's port out: then a free one is taken"
                ),
            ));
        }
        self.running(name)?.info.ports.push(Published { port, at });
        Ok(at)
    }

    /// Closes what is open for a port of a sandbox's.
    pub fn unpublish(
        &mut self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        let ports = &mut self.settled(name)?.info.ports;
        let closing = Published::matching(ports, name, port, at)?;
        ports.retain(|open| !closing.contains(open));
        Ok(closing)
    }

    fn holder(&self, at: SocketAddr) -> Option<&str> {
        let taken = |open: &Published| {
            let any = open.at.ip().is_unspecified() || at.ip().is_unspecified();
            open.at.port() == at.port() && (any || open.at.ip() == at.ip())
        };
        let mut machines = self.machines.values();
        let holder = machines.find(|machine| machine.info.ports.iter().any(taken))?;
        Some(&holder.info.name)
    }
}
