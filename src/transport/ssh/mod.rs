//! SSH to one machine whose host key is known beforehand: one connection, as many channels as one wants.
//! Which key that is, and how one comes in, may be said by the files of OpenSSH.
//!
//! Nobody is trusted at first sight. Only this module knows the library that it is done by.

mod config;
mod keys;
mod known;
mod pin;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::Preferred;
use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PublicKeyOrCertificate};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use config::HostConfig;
pub use keys::Keys;
pub use known::{known_hosts, not_revoked};
pub use pin::Pins;

/// How long a line may be silent until it is tried, and how often before it counts as broken.
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(15), 3);

/// Both directions of a channel.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where somebody is, and who that is.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name to log in by.
    pub user: String,
    /// A name or an address.
    pub host: String,
    /// The port of its server.
    pub port: u16,
    /// Its host keys.
    pub pins: Pins,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { user, host, port, .. } = self;
        match (host.contains(':'), *port) {
            (_, 22) => write!(f, "{user}@{host}"),
            (true, port) => write!(f, "{user}@[{host}]:{port}"),
            (false, port) => write!(f, "{user}@{host}:{port}"),
        }
    }
}

/// Why one does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshError {
    /// Nobody answers there.
    Unreachable(String),
    /// Somebody else answers.
    Untrusted(String),
    /// None of the keys is let in.
    Refused(String),
    /// It began, and broke.
    Broken(String),
    /// There is no key that could be used.
    Keys(String),
}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (SshError::Unreachable(text)
        | SshError::Untrusted(text)
        | SshError::Refused(text)
        | SshError::Broken(text)
        | SshError::Keys(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for SshError {}

/// Compares the host key that a server shows, and keeps what it is.
struct Doorman(Pins, Arc<OnceLock<String>>);

impl client::Handler for Doorman {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let _ = self.1.set(key.fingerprint(HashAlg::Sha256).to_string());
                self.0.has(key)
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// A connection. It ends when this and all of its channels are dropped.
pub struct Ssh {
    handle: Handle<Doorman>,
    place: String,
    key: String,
}

impl Ssh {
    /// Connects and logs in, by way of another machine where that is given; both within a time.
    pub async fn connect(
        to: &Target,
        keys: &Keys,
        through: Option<&Ssh>,
        patience: Duration,
    ) -> Result<Ssh, SshError> {
        match tokio::time::timeout(patience, Ssh::enter(to, keys, through)).await {
            Ok(done) => done,
            Err(_) => Err(SshError::Unreachable(format!("{to} does not answer"))),
        }
    }

    async fn enter(to: &Target, keys: &Keys, through: Option<&Ssh>) -> Result<Ssh, SshError> {
        let unreachable = |why: &dyn fmt::Display| SshError::Unreachable(format!("{to}: {why}"));
        let stream: Box<dyn Stream> = match through {
            None => {
                let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
                let stream = stream.map_err(|error| unreachable(&error))?;
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
            Some(over) => {
                let (host, port) = (to.host.clone(), u32::from(to.port));
                let opened =
                    over.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await;
                let opened = opened.map_err(|error| {
                    unreachable(&format!("there is no way by {}: {error}", over.place))
                })?;
                Box::new(opened.into_stream())
            }
        };
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE.0),
            keepalive_max: KEEPALIVE.1,
            nodelay: true,
            preferred: Preferred {
                key: to.pins.kinds(&Preferred::DEFAULT.key).into(),
                ..Preferred::DEFAULT
            },
            ..client::Config::default()
        };
        let shown = Arc::new(OnceLock::new());
        let doorman = Doorman(to.pins.clone(), Arc::clone(&shown));
        let mut handle = match client::connect_stream(Arc::new(config), stream, doorman).await {
            Ok(handle) => handle,
            Err(russh::Error::UnknownKey) => {
                let key = shown.get().map_or("one that is signed", String::as_str);
                return Err(SshError::Untrusted(if to.pins.is_empty() {
                    format!("{to} has a host key that is not known: {key}")
                } else if to.pins.only_rsa() {
                    format!(
                        "{to} has the host key {key}, and only an RSA key of it is known, which is not used here"
                    )
                } else {
                    format!("{to} has another host key than it should: {key}")
                }));
            }
            Err(error) if to.pins.only_rsa() => {
                return Err(unreachable(&format!(
                    "{error}; only an RSA key of it is known, which is not used here"
                )));
            }
            Err(error) => return Err(unreachable(&error)),
        };
        let place = to.to_string();
        let key = shown.get().cloned().unwrap_or_default();
        let broken = |error: &dyn fmt::Display| SshError::Broken(format!("{place}: {error}"));
        if let Some(mut agent) = keys.agent().await? {
            for own in agent.keys {
                let signer = &mut agent.client;
                let done = handle.authenticate_publickey_with(&to.user, own, None, signer).await;
                match done {
                    Ok(AuthResult::Success) => return Ok(Ssh { handle, place, key }),
                    Ok(AuthResult::Failure { .. }) => {}
                    Err(error) => return Err(broken(&error)),
                }
            }
        }
        for own in keys.own() {
            match handle.authenticate_publickey(&to.user, own).await {
                Ok(AuthResult::Success) => return Ok(Ssh { handle, place, key }),
                Ok(AuthResult::Failure { .. }) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Err(SshError::Refused(format!("{place} does not let our key in")))
    }

    /// Whether the connection is gone.
    pub fn is_over(&self) -> bool {
        self.handle.is_closed()
    }

    /// Who it is, as `user@host:port`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The SHA-256 of the host key that it showed.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Starts a command by the user's shell: its standard input and output.
    pub async fn run(&self, line: &str) -> Result<impl Stream + use<>, SshError> {
        let broken = |error: russh::Error| SshError::Broken(format!("{}: {error}", self.place));
        let channel = self.handle.channel_open_session().await.map_err(broken)?;
        channel.exec(false, line).await.map_err(broken)?;
        Ok(channel.into_stream())
    }
}
