//! The process that keeps a backend open between commands: where it is, and how it is started.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::config::Settings;
use super::output::Output;
use crate::backend::session::{self, Connect, Connection, SessionBackend};
use crate::backend::{self, Config};
use crate::sandbox::{Backend, Error, Result};

/// How long a session may say nothing while it opens a backend, until it tells what that can do.
const PATIENCE: Duration = Duration::from_secs(90);

/// Opens a backend: by the session that keeps it open, where it has one. A call that is soon over, `brief`,
/// has most of it. `output` is told what stands in the way of a session.
pub(super) async fn open(
    name: &str,
    host: Option<String>,
    settings: &Settings,
    output: Option<&Output>,
    brief: bool,
) -> Result<Arc<dyn Backend>> {
    let config = settings.backend(host);
    // A NAS takes twenty logins a minute. Others take any number, and what runs long has its own.
    let far = name == "incus" || (name == "nspawn" && config.host.is_some());
    let wanted = name == "truenas" || (far && brief);
    if wanted
        && !settings.no_session
        && let Ok(digest) = digest(name, &config)
    {
        match Place::of(name, config.host.as_deref(), &digest, &settings.sessions) {
            Ok(place) => {
                let (name, idle) = (name.to_owned(), settings.session_idle);
                let handed = Handed { name, digest: digest.clone(), config, place, idle };
                let way = Arc::new(Way(handed));
                return Ok(Arc::new(SessionBackend::open(way, digest, PATIENCE).await?));
            }
            Err(error) => {
                if let Some(output) = output {
                    output.warn(format!(
                        "nothing is kept open between commands in {}: {error}; to do without is --no-session",
                        settings.sessions.display()
                    ));
                }
            }
        }
    }
    backend::open(name, &config).await
}

/// What decides whether a session is fit for a command: what its backend is opened with, and the program.
fn digest(name: &str, config: &Config) -> Result<String> {
    let program = fs::metadata("/proc/self/exe");
    let program = program.map(|meta| (meta.dev(), meta.ino(), meta.len(), meta.mtime_nsec()));
    Ok(format!("{}/{:?}", config.digest(name)?, program.ok()))
}

/// What a session is told when it is started.
#[derive(Serialize, Deserialize)]
pub(super) struct Handed {
    /// The backend's name.
    pub name: String,
    /// What it is opened with.
    pub config: Config,
    /// Tells that from anything else.
    pub digest: String,
    /// Where it listens.
    pub place: Place,
    /// After how long without a command it ends.
    pub idle: Duration,
}

/// Where the session of a backend listens.
#[derive(Serialize, Deserialize)]
pub(super) struct Place {
    /// Its socket.
    pub socket: PathBuf,
    /// Held by whoever makes the socket or takes it away.
    lock: PathBuf,
}

impl Place {
    /// In this user's own folder, which is made.
    fn of(name: &str, host: Option<&str>, digest: &str, folder: &Path) -> io::Result<Place> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let meta = fs::symlink_metadata(folder)?;
        let own = rustix::process::geteuid().as_raw();
        if !meta.is_dir() || meta.uid() != own {
            return Err(io::Error::other("that is no folder of this user's own"));
        }
        if meta.mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..10].to_owned();
        let (host, digest) = (short(host.unwrap_or_default()), short(digest));
        let socket = folder.join(format!("{name}-{host}-{digest}"));
        // The longest that a socket's address may be, with its zero.
        if socket.as_os_str().len() >= 108 {
            return Err(io::Error::other("the path is too long for a socket"));
        }
        Ok(Place { lock: folder.join("all.lock"), socket })
    }

    /// Nobody else makes it or takes it away meanwhile.
    pub fn locked(&self) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(&self.lock)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(lock)
    }
}

/// The way to a session.
struct Way(Handed);

impl Way {
    /// Makes the socket and hands it to a process that listens there.
    fn start(&self) -> io::Result<()> {
        let Way(handed) = self;
        let socket = &handed.place.socket;
        let _lock = handed.place.locked()?;
        // Somebody else was faster.
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
        let (told, mut tell) = io::pipe()?;
        let mut session = Command::new("/proc/self/exe")
            .arg("serve")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(told)))
            .stderr(Stdio::null())
            .spawn()?;
        // Not by its environment or its arguments: there may be a key in it.
        serde_json::to_writer(&mut tell, handed)?;
        drop(tell);
        // It may end before this process does, and would wait for that.
        std::thread::spawn(move || session.wait());
        self.retire_others();
        Ok(())
    }

    /// Tells sessions for the same machine, with other settings or of another program, that their time is
    /// over.
    fn retire_others(&self) {
        let socket = &self.0.place.socket;
        let (Some(folder), Some(own)) = (socket.parent(), socket.file_name()) else { return };
        let own = own.to_string_lossy();
        let Some((machine, _)) = own.rsplit_once('-') else { return };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name != own && name.rsplit_once('-').is_some_and(|(other, _)| other == machine) {
                session::retire(&entry.path());
            }
        }
    }
}

#[async_trait]
impl Connect for Way {
    async fn connect(&self) -> Result<Connection> {
        let lost = |error: io::Error| Error::Transport {
            message: format!("there is no way to its session ({error}); do without: --no-session"),
        };
        match UnixStream::connect(&self.0.place.socket).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) => {}
            connected => return connected.map(Connection::from).map_err(lost),
        }
        self.start().map_err(lost)?;
        let connected = UnixStream::connect(&self.0.place.socket).await;
        connected.map(Connection::from).map_err(lost)
    }
}
