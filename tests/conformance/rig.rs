//! The backends under test. A new one is a function here and a line in [`RIGS`].

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandscript::backend::fake::FakeBackend;
use sandscript::backend::session;
use sandscript::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Error, Info, Kind, Owner, Result, Spec,
};
use tempfile::TempDir;

use crate::case::{Case, CaseResult};
use crate::sandbox::Sandbox;

mod scope;
#[cfg(feature = "nspawn")]
mod stores;

pub use scope::{Scope, below};
#[cfg(feature = "nspawn")]
pub use stores::ZFS;
#[cfg(not(feature = "nspawn"))]
pub const ZFS: &str = "nspawn/zfs";

type Opening = Pin<Box<dyn Future<Output = Result<Rig>>>>;

/// Every backend the suite runs against here; none where it can't (root's rig for a user).
pub const RIGS: &[fn() -> Option<Opening>] = &[
    || Some(Box::pin(fake())),
    #[cfg(feature = "local")]
    || is_root().then(|| Box::pin(local("local/root", false)) as _),
    #[cfg(feature = "local")]
    || (!is_root()).then(|| Box::pin(local("local/user", false)) as _),
    #[cfg(feature = "local")]
    || (!is_root()).then(|| Box::pin(local("local/one-id", true)) as _),
    || Some(Box::pin(async { by_session("session/fake", fake().await?).await })),
    #[cfg(feature = "local")]
    || {
        let (name, of) = match is_root() {
            true => ("session/local/root", "local/root"),
            false => ("session/local/user", "local/user"),
        };
        Some(Box::pin(async move {
            Ok(Rig { choice: Choice::Areas, ..by_session(name, local(of, false).await?).await? })
        }))
    },
    #[cfg(feature = "incus")]
    || incus_here("incus"),
    #[cfg(feature = "incus")]
    || incus_here("incus/guest"),
    #[cfg(feature = "nspawn")]
    || nspawn_here("nspawn"),
    #[cfg(feature = "nspawn")]
    || nspawn_here(BOOTED),
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    || nspawn_here(FAR),
    #[cfg(feature = "nspawn")]
    || nspawn_here(stores::OVERLAY),
    #[cfg(feature = "nspawn")]
    || nspawn_here(stores::ZFS),
    #[cfg(all(feature = "incus", feature = "truenas"))]
    || truenas_here(nas_sim::Release::V25_04),
    #[cfg(all(feature = "incus", feature = "truenas"))]
    || truenas_here(nas_sim::Release::V25_10),
    #[cfg(all(feature = "incus", feature = "truenas"))]
    || truenas_here(nas_sim::Release::V26Beta),
    #[cfg(all(feature = "incus", feature = "truenas"))]
    || truenas_here(nas_sim::Release::V26Rc),
    #[cfg(all(feature = "incus", feature = "ssh"))]
    truenas_by_ssh,
];

/// What must happen first thing in `main`.
pub fn init() {
    #[cfg(feature = "local")]
    sandscript::backend::local::init();
}

/// A backend with a fresh store.
pub struct Rig {
    /// Its section in `capabilities.toml`.
    pub name: &'static str,
    pub backend: Arc<dyn Backend>,
    /// A folder on this machine that guests must not reach, except where it is mounted.
    pub host: TempDir,
    /// An owner whose run is alive.
    pub live: Owner,
    begin: Box<dyn Fn(String) -> Result<Run> + Send + Sync>,
    store: Option<TempDir>,
    #[cfg(feature = "incus")]
    daemon: Option<crate::daemon::Daemon>,
    /// The host that it is on, where that is not this machine.
    #[cfg(feature = "nspawn")]
    pub systemd: Option<crate::systemd::Host>,
    /// What the store is on.
    #[cfg(feature = "nspawn")]
    pub disk: Option<crate::booted::Disk>,
    #[cfg(feature = "truenas")]
    nas: Option<nas_sim::Sim>,
    /// Which cases run on it.
    pub choice: Choice,
    /// Which of a NAS's releases it is, of those that cases take turns on.
    pub release: Option<u64>,
    /// Ends the session that the backend is kept open by.
    session: Option<tokio::task::AbortHandle>,
}

/// Which cases run on a rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of them.
    All,
    /// Those chosen for each release of a NAS, and some areas.
    #[cfg_attr(not(all(feature = "incus", feature = "truenas")), allow(dead_code))]
    Areas,
    /// Those chosen for each release of a NAS, and those about what systemd does for a machine.
    #[cfg_attr(not(feature = "nspawn"), allow(dead_code))]
    Booted,
    /// Those chosen for each release of a NAS, and those about commands and their streams.
    #[cfg_attr(not(all(feature = "nspawn", feature = "ssh")), allow(dead_code))]
    Far,
    /// Those about what a sandbox may reach, and those chosen for each release of a NAS.
    #[cfg_attr(not(feature = "incus"), allow(dead_code))]
    Egress,
    /// Those about commands and files, in sandboxes that have a network.
    #[cfg_attr(not(all(feature = "incus", feature = "ssh")), allow(dead_code))]
    BySsh,
    /// Those chosen for each release of a NAS.
    #[cfg_attr(not(all(feature = "incus", feature = "truenas")), allow(dead_code))]
    Few,
    /// Those about how a machine's files are kept.
    #[cfg_attr(not(feature = "nspawn"), allow(dead_code))]
    Stores,
}

/// A run of its own on the rig's store. When it ends, what it owned is a dead run's.
pub struct Run {
    pub backend: Arc<dyn Backend>,
    pub owner: Owner,
    /// What says that it is dead, besides dropping the backend.
    end: Box<dyn FnOnce()>,
}

impl Run {
    pub fn end(self) {
        drop(self.backend);
        (self.end)();
    }
}

fn owner(run: &str) -> Owner {
    Owner::new(run, "here")
}

async fn fake() -> Result<Rig> {
    let fake = Arc::new(FakeBackend::new());
    let backend = fake.clone();
    Ok(Rig {
        name: "fake",
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| {
            let (backend, owner, fake) = (fake.clone(), owner(&run), fake.clone());
            Ok(Run { backend, owner, end: Box::new(move || fake.end_run(run)) })
        }),
        store: None,
        #[cfg(feature = "incus")]
        daemon: None,
        #[cfg(feature = "nspawn")]
        systemd: None,
        #[cfg(feature = "nspawn")]
        disk: None,
        #[cfg(feature = "truenas")]
        nas: None,
        choice: Choice::All,
        release: None,
        session: None,
    })
}

/// The way to a session.
struct Socket(PathBuf);

#[async_trait::async_trait]
impl session::Connect for Socket {
    async fn connect(&self) -> Result<session::Connection> {
        let connected = tokio::net::UnixStream::connect(&self.0).await;
        connected.map(Into::into).map_err(|error| Error::Transport { message: error.to_string() })
    }
}

/// The same backend, kept open by a session.
async fn by_session(name: &'static str, rig: Rig) -> Result<Rig> {
    let socket = rig.host.path().join("session");
    let listener = tokio::net::UnixListener::bind(&socket)
        .map_err(|error| Error::internal(format!("{}: {error}", socket.display())))?;
    let kept = session::Session {
        digest: name.to_owned(),
        backend: Ok(rig.backend.clone()),
        idle: Duration::from_secs(3600),
    };
    let task = tokio::spawn(session::serve(listener, kept, || ()));
    let way = Arc::new(Socket(socket));
    let backend =
        session::SessionBackend::open(way, name.to_owned(), Duration::from_secs(60)).await?;
    Ok(Rig { name, backend: Arc::new(backend), session: Some(task.abort_handle()), ..rig })
}

#[cfg(feature = "local")]
fn is_root() -> bool {
    // The owner of our own folder in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// `local` as root, as an ordinary user with subordinate ids, and as one who does without them.
#[cfg(feature = "local")]
async fn local(name: &'static str, single_id: bool) -> Result<Rig> {
    use sandscript::backend::local::{LocalBackend, LocalConfig};
    let store = scratch()?;
    let config = LocalConfig {
        store: store.path().join("store"),
        single_id,
        image_server: Some(no_images()?),
        ..LocalConfig::default()
    };
    let backend = Arc::new(LocalBackend::open(config.clone())?);
    Ok(Rig {
        name,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| {
            let backend = Arc::new(LocalBackend::open(config.clone())?);
            Ok(Run { backend, owner: owner(&run), end: Box::new(|| ()) })
        }),
        store: Some(store),
        #[cfg(feature = "incus")]
        daemon: None,
        #[cfg(feature = "nspawn")]
        systemd: None,
        #[cfg(feature = "nspawn")]
        disk: None,
        #[cfg(feature = "truenas")]
        nas: None,
        choice: Choice::All,
        release: None,
        session: None,
    })
}

/// `incus` where a daemon can be started, and where something of it is asked for.
#[cfg(feature = "incus")]
fn incus_here(name: &'static str) -> Option<Opening> {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    if wanted.is_some_and(|word| {
        ["fake", "local", "nspawn", "session", "truenas"]
            .iter()
            .any(|other| word.starts_with(other))
            || word.starts_with("incus/") && !word.starts_with(name)
            || word.starts_with("incus:") && name != "incus"
    }) {
        return None;
    }
    match crate::daemon::lacks() {
        None => Some(Box::pin(incus(name))),
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") && is_root() => {
            Some(Box::pin(async move { Err(Error::internal(why)) }))
        }
        Some(why) => {
            println!("skipped {name}: {why}");
            None
        }
    }
}

/// A run of it is dead when its time is over. `incus/guest` is a server elsewhere, reached by HTTPS with a
/// certificate, whose guests keep to egress rules themselves.
#[cfg(feature = "incus")]
async fn incus(name: &'static str) -> Result<Rig> {
    use sandscript::backend::incus::{IncusBackend, IncusConfig, NewRemote, add};
    let store = scratch()?;
    let daemon = crate::daemon::Daemon::start(store.path()).map_err(Error::internal)?;
    let mut config = IncusConfig {
        // Debian without systemd: what the suite looks at is the same, and it starts at once.
        image: Some("small".into()),
        ..IncusConfig::default()
    };
    if name == "incus/guest" {
        let port = daemon.https().map_err(Error::internal)?;
        let said = daemon.incus(&["config", "trust", "add", "suite"]).map_err(Error::internal)?;
        let token = said.lines().last().unwrap_or_default().to_owned();
        let folder = store.path().join("remotes");
        let remote = NewRemote {
            name: "elsewhere".into(),
            address: Some(format!("https://127.0.0.1:{port}")),
            token: Some(token),
            ..NewRemote::default()
        };
        add(&folder, &remote).await?;
        config.folders = vec![folder];
        config.host = Some("elsewhere".into());
    } else {
        config.socket = Some(daemon.socket());
        config.gates = Some(store.path().join("gates"));
    }
    let backend = Arc::new(IncusBackend::open(config).await?);
    let shared = backend.clone();
    Ok(Rig {
        name,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| {
            let life = Duration::from_secs(15);
            let end = std::time::Instant::now() + life;
            let mut owner = owner(&run);
            owner.until = std::time::SystemTime::now().checked_add(life);
            let over = move || {
                std::thread::sleep(end.saturating_duration_since(std::time::Instant::now()));
            };
            Ok(Run { backend: shared.clone(), owner, end: Box::new(over) })
        }),
        store: Some(store),
        daemon: Some(daemon),
        #[cfg(feature = "nspawn")]
        systemd: None,
        #[cfg(feature = "nspawn")]
        disk: None,
        #[cfg(feature = "truenas")]
        nas: None,
        choice: match name {
            "incus/guest" => Choice::Egress,
            _ => Choice::All,
        },
        release: None,
        session: None,
    })
}

/// `nspawn` on a host that systemd has booted.
#[cfg(feature = "nspawn")]
const BOOTED: &str = "nspawn/systemd";

/// `nspawn` where machines can be started, and where something of it is asked for.
#[cfg(feature = "nspawn")]
fn nspawn_here(name: &'static str) -> Option<Opening> {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    if wanted.is_some_and(|word| {
        ["fake", "local", "incus", "session", "truenas"].iter().any(|other| word.starts_with(other))
            || word.starts_with("nspawn/") && (name == "nspawn" || !word.starts_with(name))
            || word.starts_with("nspawn:") && name != "nspawn"
    }) {
        return None;
    }
    match crate::booted::lacks().or_else(|| stores::lacks(name)) {
        None if name == BOOTED => Some(Box::pin(nspawn_booted())),
        #[cfg(feature = "ssh")]
        None if name == FAR => Some(Box::pin(nspawn_far())),
        None => Some(Box::pin(nspawn(name))),
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") && is_root() => {
            Some(Box::pin(async move { Err(Error::internal(why)) }))
        }
        Some(why) => {
            println!("skipped {name}: {why}");
            None
        }
    }
}

/// The word by which this program is called on such a host, followed by where it is to listen.
#[cfg(feature = "nspawn")]
const SERVE: &str = "serve-nspawn";

/// What this program does on a host that was booted for it: it keeps the backend open there.
#[cfg(feature = "nspawn")]
pub fn served() -> Option<std::process::ExitCode> {
    let mut args = std::env::args().skip(1);
    let socket = args.next().filter(|word| word == SERVE).and(args.next())?;
    let serve = async {
        use sandscript::backend::nspawn::{NspawnBackend, NspawnConfig};
        let image = crate::booted::image_in("/opt").map_err(Error::internal)?;
        let config = NspawnConfig {
            image: Some(image.display().to_string()),
            image_server: Some(no_images()?),
            ..NspawnConfig::default()
        };
        let backend: Arc<dyn Backend> = Arc::new(NspawnBackend::open(config).await?);
        first(&*backend).await?;
        let listener = tokio::net::UnixListener::bind(&socket)
            .map_err(|error| Error::internal(format!("{socket}: {error}")))?;
        let idle = Duration::from_secs(3600);
        let kept = session::Session { digest: BOOTED.into(), backend: Ok(backend), idle };
        session::serve(listener, kept, || ()).await;
        Ok::<_, Error>(())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().ok()?;
    Some(match runtime.block_on(serve) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    })
}

/// The image is unpacked before the first case, which else would wait for it with all others.
#[cfg(feature = "nspawn")]
async fn first(backend: &dyn Backend) -> Result<()> {
    let first = Spec { bare: true, ..Spec::new("first") };
    backend.create(&first, &Cancel::new()).await?;
    backend.delete("first", &Cancel::new()).await
}

/// The backend in this program on a booted host, kept open by a session.
#[cfg(feature = "nspawn")]
async fn nspawn_booted() -> Result<Rig> {
    let store = scratch()?;
    crate::booted::image().map_err(Error::internal)?;
    let disk = crate::booted::Disk::mount(store.path()).map_err(Error::internal)?;
    let host = crate::systemd::Host::boot(store.path(), disk.path()).map_err(Error::internal)?;
    let backend = served_by(&host).await?;
    let shared = backend.clone();
    Ok(Rig {
        name: BOOTED,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| timed(shared.clone(), &run)),
        store: Some(store),
        #[cfg(feature = "incus")]
        daemon: None,
        systemd: Some(host),
        disk: Some(disk),
        #[cfg(feature = "truenas")]
        nas: None,
        choice: match std::env::var_os("SANDSCRIPT_ALL_CASES") {
            Some(_) => Choice::All,
            None => Choice::Booted,
        },
        release: None,
        session: None,
    })
}

/// `nspawn` on such a host, by SSH.
#[cfg(all(feature = "nspawn", feature = "ssh"))]
const FAR: &str = "nspawn/ssh";

/// The backend on a booted host that nobody but its SSH server has been told of.
#[cfg(all(feature = "nspawn", feature = "ssh"))]
async fn nspawn_far() -> Result<Rig> {
    let store = scratch()?;
    let image = crate::booted::image().map_err(Error::internal)?;
    let disk = crate::booted::Disk::mount(store.path()).map_err(Error::internal)?;
    let mut host =
        crate::systemd::Host::boot(store.path(), disk.path()).map_err(Error::internal)?;
    let sshd = host.sshd("first", "").map_err(Error::internal)?;
    let image = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let config = sandscript::backend::nspawn::remote::RemoteConfig {
        image: Some(format!("/opt/{image}")),
        image_server: Some(no_images()?),
        ..host.far("root", &sshd).map_err(Error::internal)?
    };
    let backend = Arc::new(sandscript::backend::nspawn::remote::open(config.clone()).await?);
    first(&*backend).await?;
    host.way = Some(config);
    let shared = backend.clone();
    Ok(Rig {
        name: FAR,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| timed(shared.clone(), &run)),
        store: Some(store),
        #[cfg(feature = "incus")]
        daemon: None,
        systemd: Some(host),
        disk: Some(disk),
        #[cfg(feature = "truenas")]
        nas: None,
        choice: match std::env::var_os("SANDSCRIPT_ALL_CASES") {
            Some(_) => Choice::All,
            None => Choice::Far,
        },
        release: None,
        session: None,
    })
}

/// The backend on such a host.
#[cfg(feature = "nspawn")]
pub async fn served_by(host: &crate::systemd::Host) -> Result<Arc<dyn Backend>> {
    let way = Arc::new(Socket(host.serve(SERVE).map_err(Error::internal)?));
    let patience = Duration::from_secs(60);
    Ok(Arc::new(session::SessionBackend::open(way, BOOTED.to_owned(), patience).await?))
}

/// A run that is dead when its time is over.
#[cfg(feature = "nspawn")]
fn timed(backend: Arc<dyn Backend>, run: &str) -> Result<Run> {
    let life = Duration::from_secs(15);
    let end = std::time::Instant::now() + life;
    let mut owner = owner(run);
    owner.until = std::time::SystemTime::now().checked_add(life);
    let over = move || {
        std::thread::sleep(end.saturating_duration_since(std::time::Instant::now()));
    };
    Ok(Run { backend, owner, end: Box::new(over) })
}

/// A run of it is dead when its time is over.
#[cfg(feature = "nspawn")]
async fn nspawn(name: &'static str) -> Result<Rig> {
    use sandscript::backend::nspawn::{NspawnBackend, NspawnConfig};
    let store = scratch()?;
    let image = crate::booted::image().map_err(Error::internal)?;
    let disk = stores::disk(name, store.path()).map_err(Error::internal)?;
    let config = NspawnConfig {
        store: Some(disk.path().join("store")),
        image: Some(image.display().to_string()),
        image_server: Some(no_images()?),
        ..NspawnConfig::default()
    };
    let backend = Arc::new(NspawnBackend::open(config).await?);
    first(&*backend).await?;
    let shared = backend.clone();
    Ok(Rig {
        name,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| timed(shared.clone(), &run)),
        store: Some(store),
        #[cfg(feature = "incus")]
        daemon: None,
        systemd: None,
        disk: Some(disk),
        #[cfg(feature = "truenas")]
        nas: None,
        choice: stores::choice(name),
        release: None,
        session: None,
    })
}

/// What this program does when it is called by a name of the simulated host's own commands.
#[cfg(feature = "truenas")]
pub fn tool() -> Option<std::process::ExitCode> {
    let argv: Vec<String> = std::env::args().collect();
    let name = argv.first()?.rsplit('/').next()?;
    let known = nas_sim::tool::NAMES.contains(&name);
    known.then(|| (nas_sim::tool::run(name, &argv[1..]) as u8).into())
}

/// A simulated NAS where its containers can be had, and where something of it is asked for.
#[cfg(all(feature = "incus", feature = "truenas"))]
fn truenas_here(release: nas_sim::Release) -> Option<Opening> {
    let name = match release {
        nas_sim::Release::V25_04 => "truenas/25.04",
        nas_sim::Release::V25_10 => "truenas/25.10",
        nas_sim::Release::V26Beta => "truenas/26-beta",
        nas_sim::Release::V26Rc => "truenas/26-rc",
    };
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let other = |word: &String| {
        ["fake", "local", "incus", "nspawn", "session"].iter().any(|other| word.starts_with(other))
            || word.starts_with("truenas/") && !word.starts_with(name)
    };
    if wanted.as_ref().is_some_and(other) {
        return None;
    }
    nas_here(name, release)
}

/// One that is worked on by SSH.
#[cfg(all(feature = "incus", feature = "ssh"))]
fn truenas_by_ssh() -> Option<Opening> {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let other = |word: &String| {
        ["fake", "local", "incus", "nspawn"].iter().any(|other| word.starts_with(other))
            || word.starts_with("truenas/") && !word.starts_with(BY_SSH)
    };
    match wanted.as_ref().is_some_and(other) {
        true => None,
        false => nas_here(BY_SSH, nas_sim::Release::V25_10),
    }
}

#[cfg(all(feature = "incus", feature = "truenas"))]
const BY_SSH: &str = "truenas/ssh";

#[cfg(all(feature = "incus", feature = "truenas"))]
fn nas_here(name: &'static str, release: nas_sim::Release) -> Option<Opening> {
    match crate::daemon::lacks() {
        None => Some(Box::pin(truenas(name, release))),
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") && is_root() => {
            Some(Box::pin(async move { Err(Error::internal(why)) }))
        }
        Some(why) => {
            println!("skipped {name}: {why}");
            None
        }
    }
}

/// A run of it is dead when its time is over.
#[cfg(all(feature = "incus", feature = "truenas"))]
async fn truenas(name: &'static str, release: nas_sim::Release) -> Result<Rig> {
    use sandscript::backend::truenas::{SshConfig, TrueNasBackend, TrueNasConfig, Ways};
    use sandscript::transport::KeySource;
    use sandscript::transport::jsonrpc::{Address, Login, NasConfig};
    use sandscript::transport::{Fingerprint, Trust};
    let store = scratch()?;
    let mut options = nas_sim::Options::new(release, store.path().join("nas"));
    options.rootfs = Some(crate::daemon::rootfs().map_err(Error::internal)?);
    let program = std::env::current_exe().map_err(|error| Error::internal(error.to_string()))?;
    let nas = nas_sim::Sim::start(options, &program).await.map_err(Error::internal)?;
    let pinned = Fingerprint::parse(&nas.fingerprint)
        .ok_or_else(|| Error::internal("the simulator has no fingerprint"))?;
    let login = Login::ApiKey { user: "root".into(), key: nas.keys[0].clone() };
    let address = Address::parse(&nas.address.to_string())?;
    let config = NasConfig::new(address, Trust::Fingerprint(pinned), login);
    let config = TrueNasConfig {
        ways: if name == BY_SSH { Ways::Ssh } else { Ways::Any },
        ssh: (name == BY_SSH).then(|| SshConfig {
            key: KeySource::Made(store.path().join("ssh/id_ed25519")),
            known: None,
            jump: None,
        }),
        ..TrueNasConfig::new(config)
    };
    let backend = Arc::new(TrueNasBackend::open(config).await?);
    let shared = backend.clone();
    Ok(Rig {
        name,
        backend,
        host: scratch()?,
        live: owner("live"),
        begin: Box::new(move |run| {
            let life = Duration::from_secs(15);
            let end = std::time::Instant::now() + life;
            let mut owner = owner(&run);
            owner.until = std::time::SystemTime::now().checked_add(life);
            let over = move || {
                std::thread::sleep(end.saturating_duration_since(std::time::Instant::now()));
            };
            Ok(Run { backend: shared.clone(), owner, end: Box::new(over) })
        }),
        store: Some(store),
        daemon: None,
        #[cfg(feature = "nspawn")]
        systemd: None,
        #[cfg(feature = "nspawn")]
        disk: None,
        nas: Some(nas),
        choice: match release {
            _ if name == BY_SSH => Choice::BySsh,
            _ if std::env::var_os("SANDSCRIPT_ALL_CASES").is_some() => Choice::All,
            nas_sim::Release::V25_10 => Choice::Areas,
            _ => Choice::Few,
        },
        release: (name != BY_SSH).then_some(release as u64),
        session: None,
    })
}

/// The address of an image server that has no images, so that none elsewhere is asked.
#[cfg(feature = "local")]
fn no_images() -> Result<String> {
    use std::io::{Read, Write};
    let failed = |error: std::io::Error| Error::internal(format!("the image server: {error}"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let url = format!("http://{}", listener.local_addr().map_err(failed)?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let body = r#"{"index":{}}"#;
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    Ok(url)
}

fn scratch() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("sandscript-conformance-")
        .tempdir()
        .map_err(|error| Error::internal(format!("no temporary folder: {error}")))
}

impl Rig {
    /// The first capability that `case` needs and this backend lacks, with the reason.
    pub fn lacks(&self, case: &Case) -> Option<(Capability, String)> {
        let capabilities = self.backend.capabilities();
        let lacking = case.needs.iter().find(|need| !capabilities.has(**need))?;
        let hint = capabilities.missing.get(lacking).cloned().unwrap_or_default();
        Some((*lacking, hint))
    }

    /// Begins a run that can end before the others.
    pub fn run(&self, name: &str) -> Result<Run> {
        (self.begin)(name.to_owned())
    }

    pub fn scope(self: &Arc<Self>, case: &'static Case) -> Scope {
        Scope {
            rig: self.clone(),
            stem: case.name.replace('_', "-").chars().take(44).collect(),
            names: Arc::default(),
            serial: Arc::default(),
            cancel: Cancel::new(),
        }
    }

    /// Fails when a case left a sandbox behind, or the store can't be thrown away.
    pub async fn close(self) -> Result<()> {
        let left = self.backend.list(&Cancel::new()).await?;
        if let Some(info) = left.first() {
            return Err(Error::internal(format!("sandbox '{}' is left", info.name)));
        }
        self.backend.gc(false, &Cancel::new()).await?;
        drop((self.begin, self.backend));
        if let Some(session) = self.session {
            session.abort();
        }
        #[cfg(feature = "incus")]
        drop(self.daemon);
        #[cfg(feature = "nspawn")]
        drop((self.systemd, self.disk));
        #[cfg(feature = "truenas")]
        drop(self.nas);
        for folder in self.store.into_iter().chain([self.host]) {
            let path = folder.path().to_owned();
            // What was deleted last may still be on its way out.
            let until = std::time::Instant::now() + Duration::from_secs(20);
            while std::fs::remove_dir_all(&path).is_err() && std::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            drop(folder);
            if path.exists() {
                return Err(Error::internal(format!("{} can't be removed", path.display())));
            }
        }
        Ok(())
    }
}
