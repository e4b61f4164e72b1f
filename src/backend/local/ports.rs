//! Ports of a sandbox on this host.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::Inner;
use crate::sandbox::{Error, Published, Result, State, check_name, check_port};

impl Inner {
    /// Opens a port of this host's for one of a running sandbox's, until it ends.
    pub(super) async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        check_name(name)?;
        check_port(port)?;
        let _lock = self.store.changing(name).await?;
        let mut record = self.store.record(name)?;
        if !matches!(self.state(name).await?, State::Running | State::Frozen) {
            return Err(Error::NotRunning { name: name.into() });
        }
        let known = |open: &&Published| open.port == port && open.at.ip().is_loopback();
        if let (None, Some(open)) = (at, record.published.iter().find(known)) {
            self.gate.revive(&self.store).await?;
            return Ok(open.at);
        }
        let at = at.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        // Not by the gate: that may open no privileged port.
        let listener = match open(at) {
            Ok(listener) => listener,
            Err(error) => return Err(self.not_opened(at, port, error).await),
        };
        let failed = |error| Error::io(format!("opening {at}"), error);
        let at = listener.local_addr().map_err(failed)?;
        let open = Published { port, at };
        record.published.push(open);
        // First the record: nothing is open that nobody knows of.
        self.store.save(&record)?;
        let published = self.gate.publish(&self.store, name, open, &listener).await;
        if published.is_err() {
            record.published.pop();
            self.store.save(&record)?;
        }
        published.map(|()| at)
    }

    /// Closes what is open for a port of a sandbox's: one place, or all of them.
    pub(super) async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        check_name(name)?;
        check_port(port)?;
        let _lock = self.store.changing(name).await?;
        let mut record = self.store.record(name)?;
        let running = matches!(self.state(name).await?, State::Running | State::Frozen);
        let open = if running { record.published.as_slice() } else { &[] };
        let closing = Published::matching(open, name, port, at)?;
        for one in &closing {
            self.gate.close(&self.store, name, *one).await?;
        }
        record.published.retain(|open| !closing.contains(open));
        self.store.save(&record)?;
        Ok(closing)
    }

    /// Why a place on this host can't be had.
    async fn not_opened(&self, at: SocketAddr, port: u16, error: io::Error) -> Error {
        let (message, hint) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let free = "leave the host's port out: then a free one is taken";
                match self.holder(at).await {
                    Some(name) => (
                        format!("{at} is a port of sandbox '{name}' already"),
                        format!("stop it: sandscript stop {name}; or {free}"),
                    ),
                    None => (
                        format!("{at} is in use by another program"),
                        format!("choose another port, or {free}"),
                    ),
                }
            }
            io::ErrorKind::AddrNotAvailable => (
                format!("{} is not an address of this machine", at.ip()),
                "127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere".into(),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("port {} of this machine is root's", at.port()),
                format!("choose one from {} on: \"{}:{port}\"", first_free(), high(port)),
            ),
            _ => return Error::io(format!("opening {at}"), error),
        };
        Error::invalid_hint("at", message, hint)
    }

    /// Which sandbox has a place on this host.
    async fn holder(&self, at: SocketAddr) -> Option<String> {
        for name in self.store.names().ok()? {
            let Ok(record) = self.store.record(&name) else { continue };
            let overlaps = |one: &Published| {
                let any = one.at.ip().is_unspecified() || at.ip().is_unspecified();
                one.at.port() == at.port() && (any || one.at.ip() == at.ip())
            };
            if record.published.iter().any(overlaps)
                && matches!(self.state(&name).await, Ok(State::Running | State::Frozen))
            {
                return Some(name);
            }
        }
        None
    }
}

/// A socket that listens there.
pub(super) fn open(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The first port that everybody may open.
fn first_free() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// A port like this one that everybody may open.
fn high(port: u16) -> u16 {
    match port.checked_add(8000) {
        Some(high) if port < 1024 => high,
        _ => port,
    }
}
