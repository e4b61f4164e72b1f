//! Machines of systemd-nspawn on this host, or on another one by SSH.
//!
//! A machine is a folder of the store: its tree, what is known of it, its snapshots. It runs below a
//! `systemd-nspawn` of its own, in cgroups of its own, with users of its own that are mapped by its mounts, and
//! with a network that has no interface: what it may reach it reaches through the gate, as a sandbox of the
//! backend `local`. Where systemd has booted the host, a machine is a service of it and known to its machined.
//! Nothing that matters is kept in `/etc` or in `/run`. On another host the same is done by this program there:
//! `remote`.

mod agents;
mod authored;
mod autostart;
mod backend;
mod capabilities;
mod command;
mod egress;
mod groups;
mod hooks;
mod host;
mod identity;
mod image;
pub mod install;
mod launch;
mod lifecycle;
pub mod machine;
mod record;
#[cfg(feature = "ssh")]
pub mod remote;
mod rendered;
mod setup;
mod snapshots;
mod storage;
mod store;
mod systemd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use self::agents::Agents;
use self::host::Host;
use self::image::Images;
use self::record::Machine;
use self::storage::Storage;
use self::store::Store;
use super::guest::{Attached, Fail, Guests, Sessions, Turns};
use super::local::gatehouse::Gatehouse;
use crate::sandbox::{Capabilities, Error, Result, State, WindowSize};

const BACKEND: &str = "nspawn";

/// Where machines are kept when nothing else is said.
pub const STORE: &str = "/var/lib/sandscript/nspawn";

/// Where and how to work.
#[derive(Clone, Debug, Default)]
pub struct NspawnConfig {
    /// The folder for everything; made when missing, [`STORE`] when not given.
    pub store: Option<PathBuf>,
    /// A program that calls [`init`](super::local::init), for callers that can't do so themselves; this program
    /// when not given.
    pub helper: Option<PathBuf>,
    /// The image when a spec names none; `debian/12` when not given.
    pub image: Option<String>,
    /// The simplestreams server that aliases of images are looked up at;
    /// [`IMAGE_SERVER`](crate::image::IMAGE_SERVER) when not given.
    pub image_server: Option<String>,
    /// Name servers that machines' names are looked up with; those of this host when there are none.
    pub name_servers: Vec<SocketAddr>,
}

/// Machines of systemd-nspawn.
pub struct NspawnBackend(Arc<Inner>);

pub(super) struct Inner {
    store: Store,
    storage: Storage,
    host: Host,
    images: Images,
    gatehouse: Gatehouse,
    /// What starts machines, where this program can't.
    helper: Option<PathBuf>,
    capabilities: Capabilities,
    agents: Agents,
    sessions: Sessions,
    turns: Turns,
}

impl NspawnBackend {
    /// Opens the store and finds out what can be done here.
    ///
    /// # Errors
    /// `Unsupported` without root, without `systemd-nspawn`, and without cgroups of version 2.
    pub async fn open(config: NspawnConfig) -> Result<NspawnBackend> {
        capabilities::check(config.helper.as_deref())?;
        let store = Store::open(config.store.unwrap_or_else(|| STORE.into()).as_path())?;
        let storage = Storage::probe(store.root()).await?;
        let host = Host::probe(store.scope());
        let store = store.with(host.systemd().cloned());
        if let Some(why) = host.cannot_freeze() {
            return Err(Error::unsupported("starting machines", BACKEND, why));
        }
        let capabilities = capabilities::of(&host, &storage, config.image);
        let images = Images::new(config.image_server);
        let gatehouse =
            Gatehouse::open(&store.gates(), config.helper.clone(), config.name_servers)?;
        let inner = Inner {
            store,
            storage,
            host,
            images,
            gatehouse,
            helper: config.helper,
            capabilities,
            agents: Agents::default(),
            sessions: Sessions::default(),
            turns: Turns::default(),
        };
        Ok(NspawnBackend(Arc::new(inner)))
    }
}

impl Inner {
    /// What is known of a running machine.
    async fn known(&self, name: &str) -> Result<Arc<Machine>> {
        self.settle(name).await?;
        if !self.store.machine(name)?.ready {
            return Err(Error::Busy {
                name: name.to_owned(),
                what: "it is not made yet, or its maker was killed: start or delete it".into(),
            });
        }
        match self.agents.of(self, name).await {
            Ok(known) => {
                let machine = Arc::clone(&known.machine);
                self.keep_serving(name, &machine).await?;
                Ok(machine)
            }
            Err(fail) => Err(self.explain(name, fail, "running a command").await),
        }
    }

    /// Lets go of a machine whose processes go or are gone.
    fn forget(&self, name: &str) {
        self.sessions.end(name);
        self.agents.end(name);
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
            let known = self.agents.of(self, name).await?;
            match known.agent.attach(script, tty, detached).await {
                // The machine was started anew since it was last asked.
                Err(Fail::Lost(_)) if known.agent.is_over() && tries < 2 => tries += 1,
                done => return done,
            }
        }
    }

    async fn explain(&self, name: &str, fail: Fail, doing: &str) -> Error {
        let doing = format!("{doing} in sandbox '{name}'");
        match self.state(name) {
            Err(error @ Error::NotFound { .. }) => error,
            Err(_) => fail.plain(&doing),
            Ok(State::Stopped) => Error::NotRunning { name: name.to_owned() },
            Ok(State::Frozen) => {
                Error::Busy { name: name.to_owned(), what: "its processes are frozen".into() }
            }
            Ok(State::Transitional(what)) => Error::Busy { name: name.to_owned(), what },
            Ok(State::Running | State::Error(_)) => match fail {
                Fail::NoWay(why) => Error::unsupported("working in this sandbox", BACKEND, why),
                fail => fail.plain(&doing),
            },
        }
    }

    async fn word(&self, name: &str, id: &str) -> Option<Vec<u8>> {
        let known = self.agents.of(self, name).await.ok()?;
        known.agent.word(id).await.map(|word| word.to_vec())
    }
}
