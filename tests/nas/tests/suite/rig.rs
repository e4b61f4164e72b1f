//! Simulators for tests, and what they need.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use nas_sim::{Options, Release, Sim};
use tokio::runtime::Runtime;

/// All tests share it.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// What a test does.
pub type Act = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The program itself.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_nas-sim"))
}

/// A test that runs anywhere.
pub fn test(name: &str, act: impl FnOnce() -> Act + Send + 'static) -> Trial {
    Trial::test(name, move || {
        RUNTIME.block_on(act());
        Ok(())
    })
}

/// A simulator without containers, and the folder that it lives in.
pub struct Small {
    /// The simulator.
    pub sim: Sim,
    _folder: tempfile::TempDir,
}

/// Starts a simulator without containers.
pub async fn small(release: Release, change: impl FnOnce(&mut Options)) -> Small {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options::new(release, folder.path());
    options.check_results = true;
    change(&mut options);
    // To see a trap's test fail: NAS_SIM_WITHOUT_TRAP=8 cargo test -p nas-sim -- trap_08
    let without = std::env::var("NAS_SIM_WITHOUT_TRAP").unwrap_or_default();
    options.without.extend(without.split(',').filter_map(|n| n.parse::<u8>().ok()));
    let sim = Sim::start(options, program()).await.expect("the simulator starts");
    Small { sim, _folder: folder }
}

/// The simulators with containers, one a release, started when they are first wanted. A test has
/// one for itself while it runs.
type Slot = Arc<tokio::sync::Mutex<Option<Small>>>;
static BIG: LazyLock<Mutex<HashMap<Release, Slot>>> = LazyLock::new(Mutex::default);

/// Stops the simulators with containers.
pub fn end() {
    BIG.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A test that needs root, and is left out without.
pub fn rooted(name: String, act: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, act).with_ignored_flag(!rustix::process::geteuid().is_root())
}

/// A test that needs containers.
pub fn big(
    name: &str,
    release: Release,
    act: impl for<'a> FnOnce(&'a Sim) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> + Send + 'static,
) -> Trial {
    rooted(name.to_owned(), move || {
        let rootfs = match needs() {
            Ok(rootfs) => rootfs,
            Err(why) => return why,
        };
        let slot = {
            let mut all = BIG.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(release).or_default().clone()
        };
        RUNTIME.block_on(async {
            let mut slot = slot.lock().await;
            if slot.is_none() {
                *slot = Some(small(release, |o| o.rootfs = Some(rootfs)).await);
            }
            if let Some(big) = slot.as_ref() {
                // All tests come from one address: a minute's logins are soon used up.
                big.sim.control("forgive").await.expect("a command");
                act(&big.sim).await;
            }
        });
        Ok(())
    })
}

/// What containers need, or why there are none: a skip, or with `CI=true` a failure.
pub fn needs() -> Result<PathBuf, Result<(), Failed>> {
    static FOUND: LazyLock<Result<PathBuf, String>> = LazyLock::new(rootfs);
    match &*FOUND {
        Ok(path) => Ok(path.clone()),
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => Err(Err(why.into())),
        Err(why) => {
            eprintln!("skip: {why}");
            Err(Ok(()))
        }
    }
}

/// The folder for what is built once.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nas")
}

fn rootfs() -> Result<PathBuf, String> {
    for (program, package) in [
        ("/usr/libexec/incus/incusd", "incus-base"),
        ("/usr/bin/incus", "incus-client"),
        ("/usr/bin/mmdebstrap", "mmdebstrap"),
        ("/usr/bin/rsync", "rsync"),
    ] {
        if !Path::new(program).exists() {
            return Err(format!("{program} is not there (package {package})"));
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|l| l.starts_with("root:")) {
            return Err(format!("{file} has no range for root"));
        }
    }
    std::fs::create_dir_all(cache()).map_err(|e| e.to_string())?;
    let tar = cache().canonicalize().map_err(|e| e.to_string())?.join("debian.tar");
    if !tar.exists() {
        let part = tar.with_extension("part.tar");
        let include = "--include=systemd,systemd-sysv,dbus,openssh-server,iproute2,nftables,ca-certificates,\
            sudo,curl,gcc,libc6-dev,isc-dhcp-client,ifupdown,netbase,python3-minimal,dnsmasq,iputils-ping";
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", include, "bookworm"])
            .arg(&part)
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            let text = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(format!("mmdebstrap: {}", text.lines().last().unwrap_or_default()));
        }
        std::fs::rename(&part, &tar).map_err(|e| e.to_string())?;
    }
    Ok(tar)
}
