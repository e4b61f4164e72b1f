//! Simulators for tests.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::{Options, Release, Sim};
#[cfg(feature = "ssh")]
use sandscript::backend::truenas::{Jump, SshConfig, Ways};
use sandscript::backend::truenas::{TrueNasBackend, TrueNasConfig};
use sandscript::sandbox::{Backend, Cancel, Command, Exit, exec};
#[cfg(feature = "ssh")]
use sandscript::transport::KeySource;
use sandscript::transport::jsonrpc::{Address, Client, Login, NasConfig, RpcError};
use sandscript::transport::{Fingerprint, Trust};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::daemon;

/// All tests share it.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

type Act = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A test on each of these releases.
pub fn each(name: &str, releases: &[Release], act: fn(Release) -> Act) -> Vec<Trial> {
    let trial = |release: &Release| {
        let release = *release;
        Trial::test(format!("{name}/{}", release.name()), move || {
            let work = async { tokio::time::timeout(Duration::from_secs(120), act(release)).await };
            RUNTIME.block_on(work).map_err(|_| "it hangs")?;
            Ok(())
        })
    };
    releases.iter().map(trial).collect()
}

/// The simulators with containers, one a release, started when they are first wanted. A test has one for
/// itself while it runs.
type Slot = Arc<tokio::sync::Mutex<Option<Small>>>;
static BIG: LazyLock<Mutex<HashMap<Release, Slot>>> = LazyLock::new(Mutex::default);

type With<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Stops the simulators with containers.
pub fn end() {
    BIG.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A test on each of these releases that needs containers.
pub fn big(
    name: &str,
    releases: &[Release],
    act: for<'a> fn(&'a Small, Release) -> With<'a>,
) -> Vec<Trial> {
    let trial = |release: &Release| {
        let release = *release;
        Trial::test(format!("{name}/{}", release.name()), move || {
            match daemon::lacks() {
                Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") && is_root() => {
                    return Err(why.into());
                }
                Some(why) => {
                    println!("skip: {why}");
                    return Ok(());
                }
                None => {}
            }
            let slot = {
                let mut all = BIG.lock().unwrap_or_else(PoisonError::into_inner);
                all.entry(release).or_default().clone()
            };
            RUNTIME.block_on(async {
                let mut slot = slot.lock().await;
                if slot.is_none() {
                    *slot = Some(whole(release).await);
                }
                let Some(nas) = slot.as_ref() else { return Ok(()) };
                nas.sim.control("clear").await?;
                // All tests come from one address: a minute's logins are soon used up.
                nas.sim.control("forgive").await?;
                let work = tokio::time::timeout(Duration::from_secs(400), act(nas, release));
                work.await.map_err(|_| "it hangs".into())
            })
        })
    };
    releases.iter().map(trial).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts a simulator with containers.
async fn whole(release: Release) -> Small {
    let rootfs = daemon::rootfs().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(release, folder.path().join("state"));
    options.rootfs = Some(rootfs);
    options.transcript = Some(folder.path().join("said"));
    options.add_user(crate::walk::USER, &crate::walk::roles());
    if let Some(user) = options.users.last_mut() {
        user.web_shell = true;
    }
    let program = std::env::current_exe().unwrap();
    let sim = Sim::start(options, &program).await.unwrap();
    Small { sim, folder }
}

/// Whether a command runs in it.
pub async fn works(backend: &TrueNasBackend, name: &str) {
    say(backend, name, "true").await;
}

/// What a command in it says.
pub async fn say(backend: &TrueNasBackend, name: &str, line: &str) -> String {
    let output = exec(backend, name, &Command::shell(line), &Cancel::new()).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the sandboxes there are; the NAS has no other machines than these.
pub async fn names(backend: &TrueNasBackend) -> Vec<String> {
    let all = backend.list(&Cancel::new()).await.unwrap();
    let names: Vec<String> = all.into_iter().map(|info| info.name).collect();
    let mut there = Vec::new();
    for method in ["virt.instance.query", "container.query"] {
        if let Ok(rows) = backend.call(method, Vec::new(), false, &Cancel::new()).await {
            let rows = rows.as_array().unwrap().clone();
            there.extend(rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        }
    }
    there.sort();
    assert_eq!(names, there);
    names
}

/// A simulator without containers, and the folder that it lives in.
pub struct Small {
    pub sim: Sim,
    pub folder: tempfile::TempDir,
}

/// Starts one.
pub async fn small(release: Release, change: impl FnOnce(&mut Options)) -> Small {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(release, folder.path().join("state"));
    options.check_results = true;
    change(&mut options);
    let sim = Sim::start(options, std::path::Path::new("/bin/false")).await.unwrap();
    Small { sim, folder }
}

impl Small {
    /// Root's key.
    pub fn key(&self) -> Login {
        Login::ApiKey { user: "root".into(), key: self.sim.keys[0].clone() }
    }

    /// What a client needs to come in.
    pub fn config(&self, login: Login) -> NasConfig {
        let trust = Trust::Fingerprint(Fingerprint::parse(&self.sim.fingerprint).unwrap());
        NasConfig::new(Address::parse(&self.sim.address.to_string()).unwrap(), trust, login)
    }

    /// A client with root's key.
    pub async fn client(&self) -> Client {
        Client::open(self.config(self.key())).await.unwrap()
    }

    /// A backend on it, with root's key.
    pub async fn backend(&self) -> Arc<TrueNasBackend> {
        let config = TrueNasConfig::new(self.config(self.key()));
        Arc::new(TrueNasBackend::open(config).await.unwrap())
    }

    /// A backend that works on guests in this way, with a key and a memory below a folder.
    #[cfg(feature = "ssh")]
    pub async fn by(&self, ways: Ways, folder: &std::path::Path) -> Arc<TrueNasBackend> {
        self.by_way_of(ways, folder, None).await
    }

    /// The same, by another machine.
    #[cfg(feature = "ssh")]
    pub async fn by_way_of(
        &self,
        ways: Ways,
        folder: &std::path::Path,
        jump: Option<Jump>,
    ) -> Arc<TrueNasBackend> {
        let mut config = TrueNasConfig::new(self.config(self.key()));
        config.ways = ways;
        let key = KeySource::Made(folder.join("id_ed25519"));
        config.ssh = Some(SshConfig { key, known: Some(folder.join("known")), jump });
        Arc::new(TrueNasBackend::open(config).await.unwrap())
    }

    /// What clients have called so far, without the logins.
    pub fn called(&self) -> Vec<String> {
        let said = self.said();
        let ours = said.values().flatten().filter(|line| line["dir"] == "c2s");
        let mut called: Vec<String> =
            ours.filter_map(|line| line["frame"]["method"].as_str().map(str::to_owned)).collect();
        called.retain(|method| !method.starts_with("auth.login"));
        called.sort();
        called
    }

    /// What was said so far on each connection to the API: by its number, in order.
    fn said(&self) -> BTreeMap<u64, Vec<Value>> {
        let entries = std::fs::read_dir(self.folder.path().join("said")).unwrap();
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let number = path.file_stem()?.to_str()?.rsplit_once('_')?.1.parse().ok()?;
            let text = std::fs::read_to_string(&path).unwrap();
            let frames = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            Some((number, frames.collect()))
        };
        entries.filter_map(read).collect()
    }

    /// How many connections to the API there were.
    pub fn connections(&self) -> u64 {
        self.said().into_keys().max().unwrap_or_default()
    }

    /// On the one connection that there was since: how many calls were sent one after another, each after an answer
    /// to the one before it. Logins do not count. With them what was called.
    pub fn rounds(&self, since: u64) -> (usize, Vec<String>) {
        let mut new = self.said().split_off(&(since + 1)).into_values();
        let frames = new.next().expect("a connection");
        assert!(new.next().is_none(), "there are two connections");
        let (mut depths, mut answered, mut called) = (HashMap::new(), 0, Vec::new());
        for mut line in frames {
            let frame = line["frame"].take();
            let Some(id) = frame["id"].as_u64() else { continue };
            match frame["method"].as_str() {
                Some(method) if method.starts_with("auth.login") => {}
                Some(method) => {
                    depths.insert(id, answered + 1);
                    called.push(format!("{}: {method}", answered + 1));
                }
                None => answered = answered.max(depths.get(&id).copied().unwrap_or_default()),
            }
        }
        (depths.into_values().max().unwrap_or_default(), called)
    }

    /// Why somebody does not come in.
    pub async fn refuses(&self, login: Login) -> String {
        match Client::open(self.config(login)).await {
            Ok(_) => panic!("it lets us in"),
            Err(error @ RpcError::Auth(_)) => self.without_place(&error),
            Err(error) => panic!("not asked: {error:?}"),
        }
    }

    /// An error without the port.
    pub fn without_place(&self, error: &RpcError) -> String {
        error.to_string().replace(&self.sim.address.to_string(), "NAS")
    }
}

/// Waits for something.
pub async fn until<F: Future<Output = bool>>(mut is: impl FnMut() -> F) {
    for _ in 0..1000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it does not come to that");
}
