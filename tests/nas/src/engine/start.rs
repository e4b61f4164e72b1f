//! Starting the daemon in namespaces of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::{Engine, golden, leftovers};
use crate::release::Release;

const SCRIPT: &str = include_str!("../../rig/run.sh");

/// Holds the daemon: when this goes, so does everything in its namespaces.
pub struct Keeper {
    child: Child,
    stdin: Option<ChildStdin>,
    entry: Option<leftovers::Entry>,
    disk: std::path::PathBuf,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Keeper {
    /// Stops the daemon and everything in its namespaces.
    pub fn stop(&mut self) {
        if self.entry.is_none() {
            return;
        }
        drop(self.stdin.take());
        // The end of its standard input ends process 1; wait for it, so that the bridge is free.
        for _ in 0..200 {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
        let _ = self.child.start_kill();
        drop(self.entry.take());
        let _ = std::fs::remove_file(&self.disk);
    }
}

/// A daemon that runs, and where its files are.
pub struct Started {
    /// The daemon.
    pub engine: Engine,
    /// Process 1 of its namespaces.
    pub pid: u32,
    /// How long its disk took, and the daemon itself until it answered.
    pub took: [Duration; 2],
    /// When it answered.
    pub up: Instant,
}

/// Starts a daemon from a root file system. `state` is where its disk goes.
pub async fn start(
    rootfs: &Path,
    state: &Path,
    pool: &str,
    release: Release,
    program: &Path,
) -> Result<Started, String> {
    let began = Instant::now();
    let golden = golden::disk(rootfs, pool).await?;
    let entry = leftovers::enter(state)?;
    let disk = state.join("disk.img");
    let copied = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([&golden, &disk])
        .status()
        .await
        .map_err(|e| format!("cp: {e}"))?;
    if !copied.success() {
        return Err(format!("the disk {} can't be copied", golden.display()));
    }
    let copied = Instant::now();
    let mut child = Command::new("unshare")
        .args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private"])
        .args(["bash", "-c", SCRIPT, "run.sh"])
        .arg(&disk)
        .arg(entry.name())
        .arg(program)
        .arg(release.name())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(state.join("daemon.log")).map_err(|e| e.to_string())?)
        .spawn()
        .map_err(|e| format!("unshare: {e}"))?;
    let stdin = child.stdin.take();
    let unshare = child.id().unwrap_or_default();
    if let Some(mut out) = child.stdout.take() {
        let mut line = [0; 5];
        let _ = tokio::io::AsyncReadExt::read_exact(&mut out, &mut line).await;
    }
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let text = std::fs::read_to_string(children).unwrap_or_default();
    let pid: u32 = text.trim().parse().map_err(|_| log(state, "the daemon did not start"))?;
    let [a, b] = [10, 96 + entry.number / 100];
    let gateway = [a, b, entry.number, 1];
    let bridge = entry.name();
    let keeper = Keeper { child, stdin, entry: Some(entry), disk };
    let keeper = std::sync::Mutex::new(keeper);
    let engine = Engine { pid, bridge, gateway, keeper, plugged: watch::Sender::new(None) };
    ready(&engine, state).await?;
    let up = Instant::now();
    Ok(Started { engine, pid, took: [copied - began, up - copied], up })
}

async fn ready(engine: &Engine, state: &Path) -> Result<(), String> {
    for _ in 0..600 {
        if engine.get("/1.0").await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err(log(state, "the daemon does not answer"))
}

fn log(state: &Path, text: &str) -> String {
    let log = std::fs::read_to_string(state.join("daemon.log")).unwrap_or_default();
    format!("{text}: {}", log.trim())
}

/// Makes the network. Who changes something waits for that, who only asks does not.
pub async fn plug(engine: &Engine) {
    let done = network(engine).await;
    engine.plugged.send_replace(Some(done));
}

/// A bridge with addresses by DHCP, and a profile that plugs into it.
async fn network(engine: &Engine) -> Result<(), String> {
    let config = json!({
        "ipv4.address": format!("{}.1/24", engine.network()), "ipv4.nat": "true",
        "ipv6.address": "none", "ipv4.dhcp.ranges": format!("{0}.10-{0}.250", engine.network()),
    });
    let body = json!({"name": engine.bridge, "type": "bridge", "config": config});
    // The daemon looks at all of the machine's interfaces, and gives up when one goes meanwhile.
    for attempt in 0.. {
        match engine.change("POST", "/1.0/networks", body.clone()).await {
            Ok(_) => break,
            Err(fail) if attempt == 20 => return Err(fail.reason()),
            Err(_) => {
                let path = format!("/1.0/networks/{}", engine.bridge);
                let _ = engine.change("DELETE", &path, serde_json::Value::Null).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let device = json!({"type": "nic", "network": engine.bridge, "name": "eth0"});
    let body = json!({"devices": {
        "root": engine.get("/1.0/profiles/default").await.map_err(|f| f.reason())?["devices"]["root"],
        "eth0": device,
    }});
    engine.change("PATCH", "/1.0/profiles/default", body).await.map_err(|f| f.reason())?;
    Ok(())
}
