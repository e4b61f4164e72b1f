//! Simulators for tests.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::{Options, Release, Sim};
use sandscript::transport::jsonrpc::{Address, Client, Login, NasConfig, RpcError};
use sandscript::transport::{Fingerprint, Trust};
use tokio::runtime::Runtime;

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
