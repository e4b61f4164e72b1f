//! What a simulator is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{Key, User};
use crate::fault::Faults;
use crate::release::Release;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which release it is.
    pub release: Release,
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Traps that are switched off.
    pub without: Vec<u8>,
    /// How long 25.x keeps a connection on which it has nothing to say.
    pub idle: Duration,
    /// Who may log in.
    pub users: Vec<User>,
    /// Their API keys.
    pub keys: Vec<Key>,
    /// Faults from the start.
    pub faults: Faults,
    /// Where each connection's frames are written down.
    pub transcript: Option<PathBuf>,
    /// Where faults are switched while it runs: a Unix socket.
    pub control: Option<PathBuf>,
    /// Where its own root, its daemon's state and its pool live; emptied at the start.
    pub state: PathBuf,
    /// A root file system as a tar, and with it containers. Without: a NAS whose pool holds data only.
    pub rootfs: Option<PathBuf>,
    /// The name of its pool.
    pub pool: String,
    /// Whether the apps' pool is chosen already.
    pub ready: bool,
    /// Whether a client on loopback counts as local. It does on a NAS; here everybody is on loopback.
    pub loopback_is_local: bool,
    /// Addresses that its card has besides the one that every NAS has here, as `203.0.113.1/24`.
    pub addresses: Vec<String>,
    /// Where a standby controller sends its clients.
    pub redirect: Vec<String>,
    /// How long a middleware restart takes.
    pub restart_takes: Duration,
    /// Its certificate chain and key as PEM files; without, it makes a certificate of its own.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What `GET /api/versions` answers instead of the release's own.
    pub versions: Option<Vec<String>>,
    /// Whether a result that does not fit its model is an error.
    pub check_results: bool,
}

impl Options {
    /// A NAS of this release on a free port of loopback: user `root` with password `root` and one
    /// API key, state below `state`, no faults, no containers.
    pub fn new(release: Release, state: impl Into<PathBuf>) -> Self {
        let root = User {
            name: "root".into(),
            uid: 0,
            password: "root".into(),
            otp: None,
            roles: vec!["FULL_ADMIN".into()],
            web_shell: true,
            denied: false,
        };
        let key = Key {
            id: 1,
            name: "sim".into(),
            username: "root".into(),
            secret: crate::random::text(64),
            revoked: None,
            expires: None,
            created: 0,
        };
        Self {
            release,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            without: Vec::new(),
            idle: Duration::from_secs(60),
            users: vec![root],
            keys: vec![key],
            faults: Faults::default(),
            transcript: None,
            control: None,
            state: state.into(),
            rootfs: None,
            pool: "tank".into(),
            ready: true,
            loopback_is_local: false,
            addresses: Vec::new(),
            redirect: Vec::new(),
            restart_takes: Duration::from_millis(500),
            identity: None,
            versions: None,
            check_results: false,
        }
    }

    /// Adds a user without rights but these roles, and gives its API key.
    pub fn add_user(&mut self, name: &str, roles: &[&str]) -> String {
        let number = self.users.len() as u32;
        self.users.push(User {
            name: name.into(),
            uid: 3000 + number,
            password: name.into(),
            otp: None,
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            web_shell: false,
            denied: false,
        });
        let key = Key {
            id: i64::from(number) + 1,
            name: format!("{name}-key"),
            username: name.into(),
            secret: crate::random::text(64),
            revoked: None,
            expires: None,
            created: 0,
        };
        let text = key.text();
        self.keys.push(key);
        text
    }
}
