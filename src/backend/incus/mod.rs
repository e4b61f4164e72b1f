//! Sandboxes on an Incus server: system containers, driven by its REST API.
//!
//! Everything that is known of a sandbox is in the instance's own configuration, so that any machine
//! that talks to the server sees the same. Commands and files go through two small programs in the
//! guest, written in Perl, which come with each request and leave nothing behind.

mod agents;
mod attach;
mod backend;
#[cfg(feature = "local")]
mod bounds;
mod caches;
mod capabilities;
mod client;
mod cluster;
mod devices;
mod disk;
mod egress;
#[cfg(feature = "local")]
mod fence;
#[cfg(not(feature = "local"))]
#[path = "no_fence.rs"]
mod fence;
mod guard;
mod hardware;
#[cfg(feature = "local")]
mod host;
#[cfg(not(feature = "local"))]
#[path = "no_host.rs"]
mod host;
mod image;
mod lifecycle;
mod news;
mod operations;
mod ports;
mod prepare;
mod reach;
mod record;
mod remotes;
mod restoring;
mod seccomp;
mod settings;
mod snapshots;
mod trust;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use self::client::{Client, Fail};
use self::cluster::Cluster;
use self::host::Host;
use self::record::Record;
use super::guest::{Attached, Ground, Guests, Sessions, Turns};
use crate::sandbox::{Capabilities, Error, Kind, Result, State, WindowSize};
use crate::transport::Place;

pub use self::fence::examine;
pub use self::remotes::{Remote, remotes};
pub use self::trust::{Added, NewRemote, add, remove};

const BACKEND: &str = "incus";

/// Where the daemon's socket is when nothing else is said.
pub const SOCKET: &str = "/var/lib/incus/unix.socket";

/// Which server, and what of it.
#[derive(Clone, Debug, Default)]
pub struct IncusConfig {
    /// A server: the name of a remote with or without a project behind it (`nas`, `nas/tests`), a URL
    /// (`https://192.0.2.1:8443`) or the path of a socket. The daemon of this machine when not given.
    pub host: Option<String>,
    /// Folders with remotes, certificates and keys, laid out as the Incus client's; the first one counts.
    pub folders: Vec<PathBuf>,
    /// The daemon's socket on this machine; [`SOCKET`] when not given.
    pub socket: Option<PathBuf>,
    /// The image when a spec names none; `debian/12` when not given.
    pub image: Option<String>,
    /// The project, where `host` names none; else it is the remote's own, or the server's default.
    pub project: Option<String>,
    /// A program that calls `local::init` first thing, for callers that can't; this one when not given.
    pub helper: Option<PathBuf>,
    /// Name servers that sandboxes' names are looked up with; those of this machine when there are none.
    pub name_servers: Vec<SocketAddr>,
    /// Where it is kept what this machine does for guests of its own server; `/run/sandscript/incus` when
    /// not given.
    pub gates: Option<PathBuf>,
    /// The server is treated as one elsewhere: nothing is done for its guests by this machine.
    pub elsewhere: bool,
    /// No network ACLs are used on a server elsewhere: guests alone keep to rules.
    pub without_acls: bool,
    /// How long an answer of the server may take; a minute when not given. What it works on afterwards may take longer.
    pub patience: Option<Duration>,
}

/// Sandboxes on an Incus server.
pub struct IncusBackend(Arc<Inner>);

pub(crate) struct Inner {
    client: Arc<Client>,
    capabilities: Capabilities,
    agents: agents::Agents,
    sessions: Sessions,
    turns: Turns,
    /// Who changes a policy that its guest keeps to.
    changes: Turns,
    /// What is known of the places that guests are in, once it was asked for, by member of the cluster.
    grounds: Mutex<HashMap<String, Ground>>,
    name_servers: Vec<SocketAddr>,
    /// What encloses sandboxes whose guests keep to rules.
    fences: fence::Fences,
    without_acls: bool,
    /// The server's version, and why it encloses none, as it was written down there.
    version: String,
    marked_no: Option<String>,
    images: image::Images,
    /// Whether an instance's first process may be chosen.
    lowlevel: AtomicBool,
    /// Held while a port of a guest's is opened or closed by the server.
    ports: tokio::sync::Mutex<()>,
    /// Whether calls may be denied to guests.
    filters: AtomicBool,
    /// The storage pool that new sandboxes are on, and how it works.
    pool: devices::Pool,
    /// Whether guests are on this machine, so that its folders are those of the server.
    here: bool,
    /// The cluster that the server is a member of.
    cluster: Option<Cluster>,
    /// This machine, where it is the server's and we may do with its guests' networks what we like; else why not.
    host: std::result::Result<Host, String>,
}

impl IncusBackend {
    /// Connects to a server and asks what it can do.
    pub async fn open(config: IncusConfig) -> Result<IncusBackend> {
        let (place, project) = match &config.host {
            Some(host) => remotes::find(host, &config)?,
            None => (Place::Unix(config.socket.clone().unwrap_or_else(|| SOCKET.into())), None),
        };
        let client =
            Client::new(place, project.or_else(|| config.project.clone()), config.patience);
        let (server, profile) =
            tokio::join!(client.get("/1.0"), client.get("/1.0/profiles/default"));
        let server =
            server.map_err(|fail| reach::explain(fail, client.place(), config.host.as_deref()))?;
        if server["auth"] != "trusted" {
            let way = match client.place() {
                Place::Unix(_) => "who may use it is in the group 'incus-admin'",
                Place::Tls(_) => {
                    "on the server, get a token (incus config trust add ME), then: sandscript remote add NAME --token TOKEN"
                }
            };
            return Err(Error::Auth {
                message: format!("the Incus server at {} does not know you; {way}", client.place()),
            });
        }
        let profile = profile.map_err(|fail| fail.plain("reading the profile 'default'"))?;
        let pool = devices::pool(&client, profile, &server).await?;
        let client = Arc::new(client);
        let cluster = Cluster::of(&client, &server);
        let host = match cluster.is_some() {
            true => Err("the server is a member of a cluster".to_owned()),
            false => Host::find(&client, &server, &config),
        };
        let why = host.as_ref().err().map(String::as_str);
        let here = matches!(client.place(), Place::Unix(_)) && cluster.is_none();
        let mut capabilities = capabilities::probe(&pool, config.image, why, here);
        if host.is_err() {
            guard::of_guests(&mut capabilities);
        }
        if let Some(cluster) = &cluster {
            let own = server["environment"]["server_name"].as_str().unwrap_or_default();
            capabilities::of_cluster(&mut capabilities, &cluster.meet(own).await?);
        }
        let inner = Inner {
            client,
            capabilities,
            cluster,
            agents: agents::Agents::default(),
            host,
            sessions: Sessions::default(),
            turns: Turns::default(),
            changes: Turns::default(),
            grounds: Mutex::default(),
            fences: fence::Fences::new(config.name_servers.clone()),
            without_acls: config.without_acls,
            version: server["environment"]["server_version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            marked_no: server["config"][fence::NO].as_str().map(str::to_owned),
            name_servers: config.name_servers,
            images: image::Images::new(config.folders),
            lowlevel: AtomicBool::new(true),
            filters: AtomicBool::new(true),
            ports: tokio::sync::Mutex::default(),
            pool,
            here,
        };
        Ok(IncusBackend(Arc::new(inner)))
    }
}

impl Inner {
    /// An instance that is a sandbox, as the server has it.
    async fn instance(&self, name: &str) -> Result<(Value, Record)> {
        match self.client.get(&format!("/1.0/instances/{name}")).await {
            Ok(mut instance) => match Record::read(&instance) {
                Some(mut record) => {
                    if restoring::is_half(&instance) {
                        instance = self.whole(name, instance).await?;
                        record = Record::read(&instance).unwrap_or(record);
                    }
                    if let Some(cluster) = &self.cluster {
                        cluster.note(&instance);
                    }
                    Ok((instance, record))
                }
                None => Err(Error::not_found_hint(
                    Kind::Sandbox,
                    name,
                    "there is an instance of this name that sandscript did not make",
                )),
            },
            Err(fail) if fail.is_missing() => Err(Error::not_found(Kind::Sandbox, name)),
            Err(fail) => Err(self.blame(name, fail, &format!("looking at sandbox '{name}'")).await),
        }
    }

    /// Lets go of a guest whose processes go or are gone.
    fn forget(&self, name: &str) {
        self.sessions.end(name);
        self.agents.end(name);
    }

    /// A failure, or that the member of the cluster that holds the sandbox does not answer.
    async fn blame(&self, name: &str, fail: Fail, doing: &str) -> Error {
        let server = matches!(fail, Fail::Refused(500.., _) | Fail::Failed(..) | Fail::Lost(_));
        if let Some(cluster) = self.cluster.as_ref().filter(|_| server)
            && let Some(member) = cluster.away(name).await
        {
            return Error::MemberAway { member, what: doing.to_owned() };
        }
        self.lost(fail, doing)
    }

    /// A failure, or that the member of the cluster that was asked has gone, and the answer with it.
    fn lost(&self, fail: Fail, doing: &str) -> Error {
        match (&fail, self.client.left()) {
            (Fail::Lost(_), Some(member)) => {
                Error::MemberAway { member: member.to_owned(), what: doing.to_owned() }
            }
            _ => fail.plain(doing),
        }
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
        if tty.is_none()
            && !detached
            && let Some(known) = self.agents.of(&self.client, name).await
        {
            match known.agent.attach(script, tty, detached).await {
                // The guest was started anew since.
                Err(Fail::Lost(_)) if known.agent.is_over() => {}
                done => return done,
            }
        }
        attach::attach(&self.client, name, &["perl", "-e", script], tty).await
    }

    async fn explain(&self, name: &str, fail: Fail, doing: &str) -> Error {
        let doing = format!("{doing} in sandbox '{name}'");
        if matches!(
            fail,
            Fail::Away(_) | Fail::Unreachable(_) | Fail::Untrusted(_) | Fail::Refused(401 | 403, _)
        ) {
            return fail.plain(&doing);
        }
        match self.instance(name).await {
            Err(error @ Error::NotFound { .. }) => error,
            Err(Error::MemberAway { member, .. }) => Error::MemberAway { member, what: doing },
            Err(_) => self.lost(fail, &doing),
            Ok((instance, _)) => match record::state(&instance) {
                State::Stopped => Error::NotRunning { name: name.to_owned() },
                State::Frozen => {
                    Error::Busy { name: name.to_owned(), what: "its processes are frozen".into() }
                }
                State::Transitional(what) => Error::Busy { name: name.to_owned(), what },
                State::Running | State::Error(_) => self.lost(fail, &doing),
            },
        }
    }

    async fn word(&self, name: &str, id: &str) -> Option<Vec<u8>> {
        let path = format!("/1.0/instances/{name}/files?path=/run/.sandscript.{id}");
        let word = self.client.file(&path).await.ok()??;
        // It is of no use any more; one that stays does no harm.
        let _ = self.client.remove(&path).await;
        Some(word.to_vec())
    }
}
