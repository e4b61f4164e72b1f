//! Sandboxes on a TrueNAS: 25.04 and 25.10 by `virt.*`, 26 by `container.*`.
//!
//! Everything that is known of a sandbox is kept on the NAS itself, so that any machine with a key sees
//! the same. Commands and files go through the NAS's own shell endpoint, so that a guest needs neither
//! an SSH server nor an address.

mod agent;
mod alone;
mod api;
mod backend;
mod call;
mod capabilities;
mod devices;
mod examine;
mod fail;
mod guard;
mod hardware;
mod host;
mod image;
mod lifecycle;
mod lines;
mod release;
mod rights;
mod row;
mod snapshots;
#[cfg(feature = "ssh")]
mod ssh;
mod way;
mod zfs;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::api::Api;
use self::host::HOST;
use self::lines::Lines;
use super::guest::{Attached, Fail, Ground, Guests, Record, Sessions, Turns};
use crate::sandbox::{Capabilities, Error, Result, State, WindowSize};
use crate::transport::jsonrpc::{Address, Client, Login, NasConfig};
use crate::transport::{Fingerprint, Trust};

pub use examine::examine;
pub use way::{Jump, SshConfig, Ways};

const BACKEND: &str = "truenas";

/// Which NAS, and what of it.
#[derive(Clone, Debug)]
pub struct TrueNasConfig {
    /// Where it is, and who asks.
    pub nas: NasConfig,
    /// The image when a spec names none; `debian/12` when not given.
    pub image: Option<String>,
    /// The pool that new sandboxes are on; the NAS's own choice when not given.
    pub pool: Option<String>,
    /// The release that one which is not known is treated as: `25.04`, `25.10` or `26`.
    pub assume_release: Option<String>,
    /// What new sandboxes are plugged into: an interface of the NAS, or `lan` for the one to its gateway;
    /// the NAS's own choice when not given.
    pub network: Option<String>,
    /// Whether new sandboxes start when the NAS does.
    pub autostart: bool,
    /// Folders of the NAS that sandboxes may have.
    pub mounts: Vec<String>,
    /// Which way commands go.
    pub ways: Ways,
    /// What SSH needs; without it commands go by the NAS's shell.
    pub ssh: Option<SshConfig>,
}

impl TrueNasConfig {
    /// A NAS with everything at its default.
    pub fn new(nas: NasConfig) -> TrueNasConfig {
        TrueNasConfig {
            nas,
            image: None,
            pool: None,
            assume_release: None,
            network: None,
            autostart: false,
            mounts: Vec::new(),
            ways: Ways::Any,
            ssh: None,
        }
    }
}

/// How one comes in at a NAS, as settings and environment say it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Access {
    /// The user; `root` when not given.
    pub user: Option<String>,
    /// An API key of that user, or why there is none.
    pub key: Option<Result<String>>,
    /// The SHA-256 of the NAS's certificate; without it, an authority has to vouch for that.
    pub fingerprint: Option<String>,
    /// The pool that new sandboxes are on.
    pub pool: Option<String>,
    /// The image when a spec names none.
    pub image: Option<String>,
    /// The release that one which is not known is treated as.
    pub assume_release: Option<String>,
    /// What new sandboxes are plugged into.
    pub network: Option<String>,
    /// Whether new sandboxes start when the NAS does.
    pub autostart: bool,
    /// Folders of the NAS that sandboxes may have.
    pub mounts: Vec<String>,
    /// Which way commands go: `ssh` or `shell`; what works when not given.
    pub exec: Option<String>,
    /// What SSH needs, or what is wrong with it.
    pub ssh: Option<Result<SshConfig>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Access {
    /// What a backend is opened with, for the NAS that `host` names.
    pub fn config(&self, host: Option<&str>) -> Result<TrueNasConfig> {
        let host = host.ok_or_else(|| {
            Error::invalid_hint(
                "host",
                "backend 'truenas' drives a NAS, and none is named",
                "name it: --host nas.lan",
            )
        })?;
        let address = Address::parse(host)?;
        let key = match &self.key {
            Some(key) => key.clone()?,
            None => {
                return Err(Error::Auth {
                    message: format!(
                        "there is no API key for {address}: make one there (Credentials > Users > API Keys), and set TRUENAS_API_KEY"
                    ),
                });
            }
        };
        let trust = match &self.fingerprint {
            None => Trust::System,
            Some(text) => Trust::Fingerprint(Fingerprint::parse(text).ok_or_else(|| {
                Error::invalid_hint(
                    "fingerprint",
                    format!("'{text}' is not the SHA-256 of a certificate"),
                    "it has 64 hexadecimal digits: openssl x509 -noout -sha256 -fingerprint",
                )
            })?),
        };
        let user = self.user.clone().unwrap_or_else(|| "root".into());
        let login = Login::ApiKey { user, key: key.trim().to_owned() };
        let nas = NasConfig::new(address, trust, login);
        Ok(TrueNasConfig {
            nas,
            image: self.image.clone(),
            pool: self.pool.clone(),
            assume_release: self.assume_release.clone(),
            network: self.network.clone(),
            autostart: self.autostart,
            mounts: self.mounts.clone(),
            ways: self.exec.as_deref().map(Ways::parse).transpose()?.unwrap_or_default(),
            ssh: self.ssh.clone().transpose()?,
        })
    }
}

/// Sandboxes on a TrueNAS.
pub struct TrueNasBackend(Arc<Inner>);

pub(super) struct Inner {
    client: Arc<Client>,
    api: Api,
    /// A beta of 26.
    early: tokio::sync::OnceCell<bool>,
    /// The release's name, where it is not known: then it is only looked at.
    unknown: Option<String>,
    pool: Option<String>,
    network: Option<String>,
    autostart: bool,
    mounts: Vec<String>,
    /// Who logs in, where that is known.
    user: Option<String>,
    capabilities: Capabilities,
    sessions: Sessions,
    turns: Turns,
    /// Who changes a policy.
    changes: Turns,
    ways: Ways,
    ssh: Option<SshConfig>,
    #[cfg(feature = "ssh")]
    own: ssh::Own,
    lines: Lines,
    /// What is known of the place that guests are in, once it was asked for.
    ground: tokio::sync::OnceCell<Ground>,
}

impl TrueNasBackend {
    /// Connects to a NAS, logs in and looks at its release.
    pub async fn open(config: TrueNasConfig) -> Result<TrueNasBackend> {
        let user = match &config.nas.login {
            Login::ApiKey { user, .. } | Login::Password { user, .. } => Some(user.clone()),
            Login::Token(_) => None,
        };
        let client = Client::open(config.nas).await?;
        let release::Release { api, unknown } =
            release::of(client.versions().newest(), config.assume_release.as_deref())?;
        let mut capabilities = capabilities::of(api, config.image, !config.mounts.is_empty());
        capabilities.verbs = rights::means(api, config.ways, config.ssh.is_some());
        let inner = Inner {
            client: Arc::new(client),
            api,
            early: tokio::sync::OnceCell::new(),
            unknown,
            pool: config.pool,
            network: config.network,
            autostart: config.autostart,
            mounts: config.mounts,
            user,
            capabilities,
            sessions: Sessions::default(),
            turns: Turns::default(),
            changes: Turns::default(),
            ways: config.ways,
            ssh: config.ssh,
            #[cfg(feature = "ssh")]
            own: ssh::Own::default(),
            lines: Lines::default(),
            ground: tokio::sync::OnceCell::new(),
        };
        Ok(TrueNasBackend(Arc::new(inner)))
    }
}

impl Inner {
    /// What is known of a running sandbox, without asking the NAS when it was asked before.
    async fn record(&self, name: &str) -> Result<Arc<Record>> {
        match self.agent(name).await {
            Ok(known) => Ok(known.record),
            Err(fail) => Err(self.explain(name, fail, "running a command").await),
        }
    }

    /// Lets go of a guest whose processes go or are gone.
    fn forget(&self, name: &str) {
        self.sessions.end(name);
        self.lines.forget(name);
    }
}

#[async_trait]
impl Guests for Inner {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    async fn attach(
        &self,
        name: &str,
        script: &'static str,
        tty: Option<WindowSize>,
        detached: bool,
    ) -> std::result::Result<Attached, Fail> {
        let mut tries = 0;
        loop {
            let agent = self.agent(name).await?.agent;
            match agent.attach(script, tty, detached).await {
                // The guest was started anew since it was last asked.
                Err(Fail::Lost(_)) if agent.is_over() && tries < 2 => tries += 1,
                done => return done,
            }
        }
    }

    async fn explain(&self, name: &str, fail: Fail, doing: &str) -> Error {
        if name == HOST {
            return match fail {
                // Its shell is there, but not for root.
                Fail::Failed(said, Some(127)) => {
                    Error::Auth { message: format!("the NAS's shell says: {said}") }
                }
                fail => fail.plain("working in the NAS's shell"),
            };
        }
        let doing = format!("{doing} in sandbox '{name}'");
        if matches!(fail, Fail::Unreachable(_) | Fail::Refused(401 | 403, _)) {
            return fail.plain(&doing);
        }
        match self.row(name).await {
            Err(error @ Error::NotFound { .. }) => error,
            Err(_) => fail.plain(&doing),
            Ok(row) => match row.state {
                State::Stopped => Error::NotRunning { name: name.to_owned() },
                State::Frozen => {
                    Error::Busy { name: name.to_owned(), what: "its processes are frozen".into() }
                }
                State::Transitional(what) => Error::Busy { name: name.to_owned(), what },
                State::Running | State::Error(_) => match fail {
                    Fail::NoWay(why) => Error::unsupported("SSH to this sandbox", BACKEND, why),
                    Fail::Failed(said, Some(127)) => Error::unsupported(
                        "working in this sandbox",
                        BACKEND,
                        format!(
                            "its shell says: {said}; there must be a perl in the image, as in debian/12"
                        ),
                    ),
                    fail => fail.plain(&doing),
                },
            },
        }
    }

    async fn word(&self, name: &str, id: &str) -> Option<Vec<u8>> {
        let agent = self.agent(name).await.ok()?.agent;
        agent.word(id).await.map(|word| word.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_to_come_in_is_said() {
        let access = Access::default();
        insta::assert_snapshot!(access.config(None).unwrap_err(), @"host: backend 'truenas' drives a NAS, and none is named");
        insta::assert_snapshot!(access.config(Some("nas")).unwrap_err(), @"not authorised: there is no API key for nas:443: make one there (Credentials > Users > API Keys), and set TRUENAS_API_KEY");
        let mut access = Access { key: Some(Ok("1-x\n".into())), ..access };
        let config = access.config(Some("nas")).unwrap();
        assert!(
            matches!(config.nas.login, Login::ApiKey { user, key } if user == "root" && key == "1-x")
        );
        assert!(!format!("{access:?}").contains("1-x"));
        access.fingerprint = Some("x".into());
        insta::assert_snapshot!(access.config(Some("nas")).unwrap_err(), @"fingerprint: 'x' is not the SHA-256 of a certificate");
    }
}
