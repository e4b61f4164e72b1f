//! Sandboxes on this machine, by namespaces, overlays and cgroups: no daemon, root or not.
//!
//! A program that uses it calls [`init`] first thing in its `main`: sandboxes are started by this
//! very program, executed again.

mod ahead;
mod backend;
mod caches;
pub(in crate::backend) mod cgroup;
pub(in crate::backend) mod confine;
mod control;
mod copy;
mod disk;
mod egress;
mod errors;
mod exec;
mod files;
mod gate;
#[cfg(any(feature = "incus", feature = "nspawn"))]
pub(in crate::backend) mod gatehouse;
mod gc;
mod images;
mod init;
mod keeper;
mod launch;
mod layers;
mod lifecycle;
mod mode;
mod net;
mod porter;
mod ports;
mod probe;
mod protocol;
mod range;
mod record;
mod snapshots;
mod spare;
mod store;
mod sys;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use self::cgroup::Cgroups;
use self::gate::Gate;
use self::images::Image;
use self::keeper::Keeper;
use self::mode::Mode;
use self::store::Store;

#[cfg(feature = "nspawn")]
pub(in crate::backend) use self::images::{blocking, fetching};
#[cfg(feature = "nspawn")]
pub(in crate::backend) use self::record::{boot, load, save, store_error};
#[cfg(feature = "incus")]
pub(in crate::backend) use self::store::Lock;
#[cfg(not(feature = "incus"))]
use self::store::Lock;
#[cfg(all(feature = "nspawn", feature = "ssh"))]
pub(in crate::backend) use self::sys::register;
#[cfg(feature = "nspawn")]
pub(in crate::backend) use self::sys::{idmap_mount, send_signal};
use crate::sandbox::{Capabilities, Error, Result};

/// Must be called first thing in `main` by a program that uses [`LocalBackend`].
///
/// In an ordinary start it does nothing but note that it was called. When the program was executed
/// to serve the backend, it does that and never returns.
pub fn init() {
    keeper::serve_if_asked();
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    super::nspawn::remote::serve_if_asked();
}

/// For a process that is to outlive whoever started it: closes what it was handed by accident, all but
/// its standard streams, and lets it open as many files as it may. Nothing of its own may be open yet.
pub fn cut_loose() {
    sys::close_all_except(&mut []);
    sys::set_no_file_limit();
}

/// Where and how to work.
#[derive(Clone, Debug, Default)]
pub struct LocalConfig {
    /// The folder for everything; made when missing.
    pub store: PathBuf,
    /// A program that calls [`init`], for callers that can't do so themselves (test harnesses); this
    /// program when not given.
    pub helper: Option<PathBuf>,
    /// Do without the user's subordinate ids.
    pub single_id: bool,
    /// Name servers that sandboxes' names are looked up with; those of this machine when there are none.
    pub name_servers: Vec<std::net::SocketAddr>,
    /// The simplestreams server that aliases such as `debian/12` are looked up at;
    /// [`IMAGE_SERVER`](crate::image::IMAGE_SERVER) when not given.
    pub image_server: Option<String>,
}

/// The backend.
#[derive(Clone)]
pub struct LocalBackend(Arc<Inner>);

struct Inner {
    store: Store,
    mode: Mode,
    capabilities: Capabilities,
    helper: Option<PathBuf>,
    keeper: OnceCell<Keeper>,
    gate: Gate,
    host_image: OnceCell<Image>,
    image_server: String,
    groups: Cgroups,
    /// The run that stands for this process where sandboxes have no owner.
    maker: String,
    held: Arc<Mutex<Held>>,
    next: Mutex<ahead::Next>,
}

/// What lives as long as the backend.
#[derive(Default)]
struct Held {
    /// Locks of the runs that make sandboxes through it.
    runs: HashMap<String, Lock>,
    /// The sandboxes whose runs are here.
    own: HashMap<String, Own>,
    /// Tops of chains that are being merged.
    merging: HashSet<String>,
}

/// A running sandbox of a run that is here.
struct Own {
    /// Write end of a pipe that it watches: it ends when that closes.
    #[expect(dead_code, reason = "held for its end")]
    lifeline: OwnedFd,
    /// Cgroups that know of its memory.
    measured: Vec<PathBuf>,
    /// What it had taken when its last command ended.
    taken: Option<protocol::Taken>,
}

impl LocalBackend {
    /// Opens the store and finds out what can be done here.
    pub fn open(config: LocalConfig) -> Result<LocalBackend> {
        if config.helper.is_none() && !keeper::ready_to_serve() {
            return Err(Error::internal(
                "sandscript::backend::local::init() was not called: call it first thing in main()",
            ));
        }
        let store = Store::open(&config.store)?;
        let mode = Mode::detect(!config.single_id);
        // Two stores may hold sandboxes of one name.
        let scope = blake3::hash(store.root().as_os_str().as_encoded_bytes()).to_hex();
        let groups = Cgroups::probe(&scope[..8]);
        let capabilities = probe::capabilities(&mode, &groups);
        sys::set_no_file_limit();
        Ok(LocalBackend(Arc::new(Inner {
            store,
            mode,
            capabilities,
            gate: Gate { helper: config.helper.clone(), servers: config.name_servers },
            helper: config.helper,
            keeper: OnceCell::new(),
            host_image: OnceCell::new(),
            image_server: config.image_server.unwrap_or_else(|| crate::image::IMAGE_SERVER.into()),
            groups,
            maker: format!("make-{}", store::random_id()),
            held: Arc::default(),
            next: Mutex::default(),
        })))
    }
}

impl Inner {
    async fn keeper(&self) -> Result<&Keeper> {
        self.keeper
            .get_or_try_init(|| async {
                let (helper, mode) = (self.helper.clone(), self.mode.clone());
                tokio::task::spawn_blocking(move || Keeper::start(helper.as_deref(), &mode))
                    .await
                    .map_err(|error| Error::internal(format!("starting the keeper: {error}")))?
            })
            .await
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
