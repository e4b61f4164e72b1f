//! Guests of another backend on this machine whose network is the gate's, as that of this one's sandboxes is.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::gate::{Gate, Kept, LOG};
use super::record::{self, store_error};
use super::store::{Lock, Store};
use super::{keeper, net, porter, ports, sys};
use crate::sandbox::{EgressLog, Error, Policy, Published, Result};

pub use super::gate::Guest;

/// What such a guest has as a name server.
pub const SERVER: std::net::Ipv4Addr = net::SERVER;

/// Those of one server.
pub struct Gatehouse {
    store: Store,
    gate: Gate,
}

/// A guest that runs: its process 1, and the network that it has.
pub struct Entry {
    process: OwnedFd,
    network: File,
    inode: u64,
}

/// What is kept of a guest.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    #[serde(flatten)]
    kept: Kept,
    /// Tells one guest of a name from the next one.
    token: String,
    /// Tells one start of it from the next one.
    network: u64,
    /// Whether it was let in to the end.
    ready: bool,
}

impl Entry {
    /// Of the process with this id, which must have a network, users and processes of its own.
    pub fn of(pid: i32) -> io::Result<Entry> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let place = |kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        for kind in ["net", "pid", "user"] {
            let own = fs::metadata(format!("/proc/self/ns/{kind}"))?;
            if fs::metadata(place(kind))?.ino() == own.ino() {
                return Err(io::Error::other(format!("process {pid} is none of a guest")));
            }
        }
        let network = File::open(place("net"))?;
        let inode = network.metadata()?.ino();
        // What was looked at is this process only as long as it lives.
        match sys::is_readable(&process, Duration::ZERO) {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(Entry { process, network, inode }),
        }
    }
}

impl Gatehouse {
    /// Whether this program can serve guests.
    pub fn is_possible(helper: Option<&Path>) -> bool {
        helper.is_some() || keeper::ready_to_serve()
    }

    /// Keeps what there is to know in this folder.
    pub fn open(
        folder: &Path,
        helper: Option<PathBuf>,
        servers: Vec<SocketAddr>,
    ) -> Result<Gatehouse> {
        let store = Store::open_for_guests(folder)?;
        Ok(Gatehouse { store, gate: Gate { helper, servers } })
    }

    /// One at a time may change a guest's network. It is let in afterwards, or forgotten.
    pub async fn changing(&self, name: &str) -> Result<Lock> {
        let folder = self.store.folder(name);
        loop {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(store_error("making", &folder, error));
                }
                _ => {}
            }
            match self.store.changing(name).await {
                // Forgotten meanwhile.
                Err(Error::NotFound { .. }) => {}
                lock => return lock,
            }
        }
    }

    /// Serves a guest that has started, as far as that is not done already. With `gated` all its connections
    /// go through the gate from now on; else it has no network, and its ports can be published.
    pub async fn admit(
        &self,
        _lock: &Lock,
        guest: &Guest,
        token: &str,
        gated: bool,
        entry: Entry,
    ) -> Result<()> {
        let name = guest.name.as_str();
        let before = self.note(name)?;
        let mut note = Note {
            kept: Kept { spec: guest.clone(), gated, published: Vec::new() },
            token: token.to_owned(),
            network: entry.inode,
            ready: false,
        };
        if before.token != token {
            let _ = fs::remove_file(self.store.folder(name).join(LOG));
        }
        let served =
            before.token == token && before.network == entry.inode && self.is_served(name).await;
        if served {
            note.kept.published = before.kept.published;
            note.kept.gated |= before.kept.gated;
        }
        self.save(&note)?;
        if !served {
            self.start(name, entry).map_err(|error| {
                Error::io(format!("entering the network of sandbox '{name}'"), error)
            })?;
        }
        match (gated, served) {
            (false, _) => {}
            (true, false) => self.gate.attach(&self.store, name, &guest.egress).await?,
            (true, true) => self.gate.set(&self.store, name, &guest.egress).await?,
        }
        note.ready = true;
        self.save(&note)
    }

    /// Whether a guest that runs was let in to the end, so that only the gate may have to be started again.
    pub async fn is_ready(&self, name: &str) -> bool {
        self.note(name).is_ok_and(|note| note.ready) && self.is_served(name).await
    }

    /// Whether a guest that runs is served, by the gate or by what comes before it.
    pub async fn is_served(&self, name: &str) -> bool {
        UnixStream::connect(self.store.socket(name)).await.is_ok()
    }

    /// Whether a guest's connections went through the gate when it was last served.
    pub fn keeps(&self, name: &str) -> bool {
        self.note(name).is_ok_and(|note| note.kept.gated)
    }

    /// Starts the gate when it is gone.
    pub async fn revive(&self) -> Result<()> {
        self.gate.revive(&self.store).await
    }

    /// Puts a policy in force for a guest that is served.
    pub async fn set(&self, _lock: &Lock, name: &str, policy: &Policy) -> Result<()> {
        let mut note = self.note(name)?;
        note.kept.spec.egress = policy.clone();
        note.kept.gated = true;
        self.gate.set(&self.store, name, policy).await?;
        self.save(&note)
    }

    /// What a guest was refused and what it reached.
    pub async fn log(&self, name: &str, token: &str) -> Result<EgressLog> {
        let note = self.note(name)?;
        if note.token != token {
            return Ok(EgressLog::default());
        }
        if note.kept.gated
            && self.is_served(name).await
            && let Some(log) = self.gate.log(&self.store, name).await?
        {
            return Ok(log);
        }
        Ok(record::load(&self.store.folder(name).join(LOG))?.unwrap_or_default())
    }

    /// Opens a port of this host's for one of a guest that is served.
    pub async fn publish(
        &self,
        _lock: &Lock,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        let note = self.note(name)?;
        let save = |open: &[Published]| self.save(&with(&note, open));
        ports::publish(&self.store, &self.gate, name, &note.kept.published, (port, at), save).await
    }

    /// Closes what is open for a port of a guest's.
    pub async fn unpublish(
        &self,
        _lock: &Lock,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        let note = self.note(name)?;
        let open = if self.is_served(name).await { note.kept.published.as_slice() } else { &[] };
        let save = |open: &[Published]| self.save(&with(&note, open));
        ports::unpublish(&self.store, &self.gate, name, open, (port, at), save).await
    }

    /// What is open of a guest's.
    pub async fn ports(&self, name: &str) -> Vec<Published> {
        let open = self.note(name).map(|note| note.kept.published).unwrap_or_default();
        if !open.is_empty() && self.is_served(name).await { open } else { Vec::new() }
    }

    /// Forgets a guest that is no more.
    pub fn forget(&self, _lock: Lock, name: &str) -> Result<()> {
        let folder = self.store.folder(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(store_error("deleting", &folder, error))
            }
            _ => Ok(()),
        }
    }

    /// All that something is kept of.
    pub fn names(&self) -> Result<Vec<String>> {
        self.store.names()
    }

    fn note(&self, name: &str) -> Result<Note> {
        Ok(record::load(&self.store.folder(name).join("record.json"))?.unwrap_or_default())
    }

    fn save(&self, note: &Note) -> Result<()> {
        record::save_for_a_run(&self.store.folder(&note.kept.spec.name).join("record.json"), note)
    }

    fn start(&self, name: &str, entry: Entry) -> io::Result<()> {
        let path = self.store.socket(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let program = self.gate.helper.clone().unwrap_or_else(|| "/proc/self/exe".into());
        let mut child = Command::new(program)
            .arg0(porter::ARGV0)
            // For who looks at a list of processes.
            .arg(name)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(entry.network)))
            .stderr(Stdio::from(entry.process))
            .spawn()?;
        // It goes on in a child of its own.
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("there is no way in")),
        }
    }
}

fn with(note: &Note, open: &[Published]) -> Note {
    let mut note = note.clone();
    note.kept.published = open.to_vec();
    note
}
