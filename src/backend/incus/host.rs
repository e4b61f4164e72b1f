//! This machine, where it is the server's own and we are its root: the network of a guest is then the gate's,
//! as that of a sandbox of the backend `local`. The guest has no interface, so whatever ends and begins again
//! has no way out until it is let in here.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::IncusConfig;
use super::client::Client;
use super::record::Record;
use crate::backend::local::gatehouse::{Entry, Gatehouse, Guest};
use crate::sandbox::{EgressLog, Error, Policy, Published, Result};
use crate::transport::Place;

pub(super) use crate::backend::local::Lock;
pub(super) use crate::backend::local::gatehouse::SERVER;

/// Where it is kept who is served.
const FOLDER: &str = "/run/sandscript/incus";

/// The server's machine.
pub(super) struct Host {
    gatehouse: Gatehouse,
    /// `/proc` as the daemon sees it: the ids that it tells are of there.
    processes: PathBuf,
    /// The daemon's processes have the same ids for us.
    same: bool,
    project: Option<String>,
}

/// Whether it takes a gate to keep what holds for a sandbox.
pub(super) fn is_gated(record: &Record) -> bool {
    record.egress != Policy::None || !record.networks.is_empty()
}

fn guest(name: &str, record: &Record) -> Guest {
    Guest {
        name: name.to_owned(),
        hostname: Some(record.hostname.clone()).filter(|hostname| hostname != name),
        limits: record.limits.clone(),
        networks: record.networks.clone(),
        egress: record.egress.clone(),
    }
}

impl Host {
    /// This machine, or why it does nothing for its guests' networks.
    pub fn find(
        client: &Client,
        server: &Value,
        config: &IncusConfig,
    ) -> std::result::Result<Host, String> {
        let Place::Unix(socket) = client.place() else {
            return Err("this server is reached by HTTPS".into());
        };
        if config.elsewhere {
            return Err("it is not to do anything for them".into());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("you are not root".into());
        }
        if !Gatehouse::is_possible(config.helper.as_deref()) {
            return Err("this program has not called local::init() first thing".into());
        }
        let text = |error: io::Error| format!("{}: {error}", socket.display());
        let peer = UnixStream::connect(socket).map_err(text)?;
        let peer = rustix::net::sockopt::socket_peercred(&peer).map_err(|e| text(e.into()))?;
        let peer = PathBuf::from(format!("/proc/{}", peer.pid.as_raw_nonzero()));
        let processes = peer.join("root/proc");
        let daemon = server["environment"]["server_pid"].as_u64().unwrap_or_default();
        let name = fs::read_to_string(processes.join(format!("{daemon}/comm"))).unwrap_or_default();
        if name.trim() != "incusd" {
            return Err(format!("{} does not lead to a daemon of this machine", socket.display()));
        }
        let same = is_same(&peer.join("ns/pid"), Path::new("/proc/self/ns/pid")).map_err(text)?;
        let place = socket.parent().unwrap_or(Path::new("/"));
        let place = fs::metadata(place).map_err(text)?;
        let project = client.project().map(str::to_owned);
        // Two daemons may have instances of one name, and so may two projects.
        let scope = format!("{} {} {:?}", place.dev(), place.ino(), project);
        let scope = blake3::hash(scope.as_bytes()).to_hex();
        let folder = config.gates.clone().unwrap_or_else(|| FOLDER.into()).join(&scope[..12]);
        let servers = config.name_servers.clone();
        let gatehouse = Gatehouse::open(&folder, config.helper.clone(), servers)
            .map_err(|error| error.to_string())?;
        Ok(Host { gatehouse, processes, same, project })
    }

    /// What runs as process `pid` of the daemon's, if that is the sandbox's process 1.
    fn entry(&self, name: &str, pid: u64) -> io::Result<Entry> {
        let pid = match self.same {
            true => i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?,
            false => self.translate(pid)?,
        };
        let entry = Entry::of(pid)?;
        let full = match self.project.as_deref() {
            None | Some("default") => name.to_owned(),
            Some(project) => format!("{project}_{name}"),
        };
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let payload = format!("lxc.payload.{full}");
        match groups.lines().flat_map(|line| line.split('/')).any(|part| part == payload) {
            true => Ok(entry),
            false => Err(io::Error::other(format!("process {pid} is not of '{name}'"))),
        }
    }

    /// The id that a process 1 has here: the daemon is in a namespace of its own.
    fn translate(&self, pid: u64) -> io::Result<i32> {
        let wanted = fs::metadata(self.processes.join(format!("{pid}/ns/pid")))?.ino();
        let mut all = fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_first = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            ids.is_some_and(|ids| ids.split_whitespace().next_back() == Some("1"))
        };
        let in_it = |pid: i32| {
            fs::metadata(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own.ino() == wanted)
        };
        let found = all.find(|pid| in_it(*pid) && is_first(*pid));
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// One at a time may change a sandbox's network.
    pub async fn changing(&self, name: &str) -> Result<Lock> {
        self.gatehouse.changing(name).await
    }

    /// Serves what has started as process `pid`; false when that is gone.
    pub async fn admit(&self, lock: &Lock, name: &str, record: &Record, pid: u64) -> Result<bool> {
        let entry = match self.entry(name, pid) {
            Ok(entry) => entry,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => {
                return Err(Error::io(format!("looking at sandbox '{name}'"), error));
            }
        };
        let guest = guest(name, record);
        self.gatehouse.admit(lock, &guest, &record.token, is_gated(record), entry).await?;
        Ok(true)
    }

    /// Whether it is served.
    pub async fn is_served(&self, name: &str) -> bool {
        self.gatehouse.is_served(name).await
    }

    /// Whether it is served, and was let in to the end.
    pub async fn is_ready(&self, name: &str) -> bool {
        self.gatehouse.is_ready(name).await
    }

    /// Whether it was served since it was made.
    pub fn keeps(&self, name: &str) -> bool {
        self.gatehouse.keeps(name)
    }

    /// Starts the gate when it is gone.
    pub async fn revive(&self) -> Result<()> {
        self.gatehouse.revive().await
    }

    /// Puts a policy in force for one that is served.
    pub async fn set(&self, lock: &Lock, name: &str, policy: &Policy) -> Result<()> {
        self.gatehouse.set(lock, name, policy).await
    }

    pub async fn log(&self, name: &str, record: &Record) -> Result<EgressLog> {
        self.gatehouse.log(name, &record.token).await
    }

    pub async fn publish(
        &self,
        lock: &Lock,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        self.gatehouse.publish(lock, name, port, at).await
    }

    pub async fn unpublish(
        &self,
        lock: &Lock,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        self.gatehouse.unpublish(lock, name, port, at).await
    }

    /// What is open of it.
    pub async fn ports(&self, name: &str) -> Vec<Published> {
        self.gatehouse.ports(name).await
    }

    /// Forgets what is about to be deleted.
    pub async fn forget(&self, name: &str) -> Result<()> {
        if self.gatehouse.names()?.iter().any(|one| one == name) {
            let lock = self.changing(name).await?;
            self.gatehouse.forget(lock, name)?;
        }
        Ok(())
    }

    /// Forgets those that are no more.
    pub async fn forget_others(&self, living: &[&str]) -> Result<()> {
        for name in self.gatehouse.names()? {
            if living.contains(&name.as_str()) {
                continue;
            }
            let lock = self.changing(&name).await?;
            // It may have been made since.
            if !self.is_served(&name).await {
                self.gatehouse.forget(lock, &name)?;
            }
        }
        Ok(())
    }
}

/// Whether a process ended while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    let gone = rustix::io::Errno::SRCH.raw_os_error();
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(gone)
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(fs::metadata(one)?.ino() == fs::metadata(other)?.ino())
}
