//! Ports of a sandbox on this host.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::net::UnixStream;

use super::Inner;
use super::gate::{Gate, Kept};
use super::record::{self, Record};
use super::store::Store;
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
        let record = self.store.record(name)?;
        if !matches!(self.state(name).await?, State::Running | State::Frozen) {
            return Err(Error::NotRunning { name: name.into() });
        }
        let save = |open: &[Published]| self.save_ports(&record, open);
        publish(&self.store, &self.gate, name, &record.published, (port, at), save).await
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
        let record = self.store.record(name)?;
        let running = matches!(self.state(name).await?, State::Running | State::Frozen);
        let open = if running { record.published.as_slice() } else { &[] };
        let save = |open: &[Published]| self.save_ports(&record, open);
        unpublish(&self.store, &self.gate, name, open, (port, at), save).await
    }

    fn save_ports(&self, record: &Record, open: &[Published]) -> Result<()> {
        self.store.save(&Record { published: open.to_vec(), ..record.clone() })
    }
}

/// Opens a port of this host's for one of a sandbox that runs and is changed by nobody else. `open` is what
/// is open of it; `save` writes down what is.
pub(super) async fn publish(
    store: &Store,
    gate: &Gate,
    name: &str,
    open: &[Published],
    (port, at): (u16, Option<SocketAddr>),
    save: impl Fn(&[Published]) -> Result<()>,
) -> Result<SocketAddr> {
    let known = |open: &&Published| {
        open.port == port && at.map_or(open.at.ip().is_loopback(), |at| open.at == at)
    };
    if let Some(open) = open.iter().find(known) {
        gate.revive(store).await?;
        return Ok(open.at);
    }
    let at = at.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    // Not by the gate: that may open no privileged port.
    let listener = match listen(at) {
        Ok(listener) => listener,
        Err(error) => return Err(not_opened(store, at, port, error).await),
    };
    let failed = |error| Error::io(format!("opening {at}"), error);
    let at = listener.local_addr().map_err(failed)?;
    let new = Published { port, at };
    // First the record: nothing is open that nobody knows of.
    save(&[open, &[new]].concat())?;
    let published = gate.publish(store, name, new, &listener).await;
    if published.is_err() {
        save(open)?;
    }
    published.map(|()| at)
}

/// Closes what is open for a port of a sandbox's that is changed by nobody else.
pub(super) async fn unpublish(
    store: &Store,
    gate: &Gate,
    name: &str,
    open: &[Published],
    (port, at): (u16, Option<SocketAddr>),
    save: impl Fn(&[Published]) -> Result<()>,
) -> Result<Vec<Published>> {
    let closing = Published::matching(open, name, port, at)?;
    for one in &closing {
        gate.close(store, name, *one).await?;
    }
    let left: Vec<Published> =
        open.iter().filter(|open| !closing.contains(open)).copied().collect();
    save(&left)?;
    Ok(closing)
}

/// Why a place on this host can't be had.
async fn not_opened(store: &Store, at: SocketAddr, port: u16, error: io::Error) -> Error {
    let (message, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let free = "leave the host's port out: then a free one is taken";
            match holder(store, at).await {
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

/// Which sandbox that runs has a place on this host.
async fn holder(store: &Store, at: SocketAddr) -> Option<String> {
    for name in store.names().ok()? {
        let path = store.folder(&name).join("record.json");
        let Ok(Some(kept)) = record::load::<Kept>(&path) else { continue };
        let overlaps = |one: &Published| {
            let any = one.at.ip().is_unspecified() || at.ip().is_unspecified();
            one.at.port() == at.port() && (any || one.at.ip() == at.ip())
        };
        if kept.published.iter().any(overlaps)
            && UnixStream::connect(store.socket(&name)).await.is_ok()
        {
            return Some(name);
        }
    }
    None
}

/// A socket that listens there.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
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
