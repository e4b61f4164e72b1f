//! Starting and stopping a simulator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::nas::Nas;
use crate::options::Options;
use crate::zfs::{Storage, Zfs};
use crate::{control, engine, host, method, wire};

/// A simulator that runs. Dropping it stops it and removes what it made.
pub struct Sim {
    /// Where it listens.
    pub address: SocketAddr,
    /// The API key of each user, in the order of the options.
    pub keys: Vec<String>,
    /// Its certificate as PEM.
    pub certificate: String,
    /// The SHA-256 of its certificate.
    pub fingerprint: String,
    took: Value,
    nas: Arc<Nas>,
    tasks: Vec<JoinHandle<()>>,
}

impl Sim {
    /// Starts a simulator. `program` is the `nas-sim` program, which the host's own commands are;
    /// it matters only where there is a root file system.
    pub async fn start(options: Options, program: &Path) -> Result<Self, String> {
        let state = options.state.clone();
        let fails = |e: std::io::Error| format!("{}: {e}", state.display());
        std::fs::create_dir_all(&state).map_err(fails)?;
        let state = state.canonicalize().map_err(fails)?;
        let now = 0;
        let mut up = Instant::now();
        let mut took = json!({});
        let (engine, host, zfs) = match &options.rootfs {
            Some(rootfs) => {
                let started =
                    engine::start(rootfs, &state, &options.pool, options.release, program).await?;
                let pid = started.pid;
                up = started.up;
                let [disk, daemon] = started.took.map(|t| t.as_millis() as u64);
                took = json!({"disk": disk, "daemon": daemon});
                let root = PathBuf::from(format!("/proc/{pid}/root/mnt/host"));
                let host = Host { root, pid: Some(pid) };
                let mount = format!("/mnt/host/mnt/{}", options.pool);
                let zfs = Zfs::new(&options.pool, Storage::Btrfs(pid), &mount, "/mnt/kept", now);
                (Some(started.engine), host, zfs)
            }
            None => {
                for folder in ["host", "kept", "parents"] {
                    let _ = std::fs::remove_dir_all(state.join(folder));
                    std::fs::create_dir_all(state.join(folder)).map_err(fails)?;
                }
                let root = state.join("host");
                let host = Host::plain(&root, &options.pool).map_err(fails)?;
                let text = |p: PathBuf| p.to_string_lossy().into_owned();
                let mount = text(root.join("mnt").join(&options.pool));
                let kept = text(state.join("kept"));
                (None, host, Zfs::new(&options.pool, Storage::Plain, &mount, &kept, now))
            }
        };
        let identity = wire::identity(options.identity.as_ref())?;
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|e| format!("{}: {e}", options.listen))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let keys = options.keys.iter().map(|k| k.text()).collect();
        let nas = Arc::new(Nas::new(options, host, zfs, engine)?);
        furnish(&nas, &state).await?;
        let mut tasks = vec![tokio::spawn(wire::serve(nas.clone(), listener, identity.acceptor))];
        if nas.host.pid.is_some() {
            tasks.push(tokio::spawn(host::serve::serve(nas.clone())));
            tasks.push(tokio::spawn(method::schedule(Arc::downgrade(&nas))));
            tasks.push(tokio::spawn(engine::follow(Arc::downgrade(&nas))));
            let nas = nas.clone();
            tasks.push(tokio::spawn(async move {
                if let Some(engine) = &nas.engine {
                    engine::plug(engine).await;
                }
            }));
        }
        if let Some(path) = nas.options.control.clone() {
            let nas = nas.clone();
            tasks.push(tokio::spawn(async move { control::serve(nas, &path).await }));
        }
        tasks.push(tokio::spawn(restarts(Arc::downgrade(&nas))));
        took["rest"] = (up.elapsed().as_millis() as u64).into();
        Ok(Self {
            took,
            address,
            keys,
            certificate: identity.pem,
            fingerprint: identity.fingerprint,
            nas,
            tasks,
        })
    }

    /// Runs a command as the control socket does.
    pub async fn control(&self, command: &str) -> Result<Value, String> {
        control::run(&self.nas, command).await
    }

    /// What a client needs to know to come in.
    pub fn describe(&self) -> Value {
        let engine = self.nas.engine.as_ref();
        json!({
            "url": format!("wss://{}/api/current", self.address), "release": self.nas.release.name(),
            "address": self.address.to_string(), "api_key": self.keys.first(), "keys": self.keys,
            "fingerprint": self.fingerprint, "certificate": self.certificate, "bridge": engine.map(|e| e.bridge.clone()),
            "gateway": engine.map(|e| format!("{}.1", e.network())),
            "root": self.nas.host.root, "pool": self.nas.zfs.pool, "took_ms": self.took,
        })
    }

    /// The names of all methods of its release, in order.
    pub fn methods(&self) -> Vec<String> {
        let mut names: Vec<String> = self.nas.table(None).keys().cloned().collect();
        names.sort();
        names
    }

    /// The folder that is the NAS' own root.
    pub fn root(&self) -> &Path {
        &self.nas.host.root
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.nas.jobs.lose();
        if let Some(path) = &self.nas.options.control {
            let _ = std::fs::remove_file(path);
        }
        if let Some(engine) = &self.nas.engine {
            engine.stop();
        }
    }
}

/// Restarts the middleware as often as is asked for at the moment.
async fn restarts(nas: Weak<Nas>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(nas) = nas.upgrade() else { return };
        match nas.faults(|f| f.restart_every) {
            Some(every) if last.elapsed() >= every => {
                nas.restart().await;
                last = Instant::now();
            }
            Some(_) => {}
            None => last = Instant::now(),
        }
    }
}

/// What every NAS has from the start.
async fn furnish(nas: &Arc<Nas>, state: &Path) -> Result<(), String> {
    let ready = nas.options.ready;
    let pool = ready.then(|| nas.zfs.pool.clone());
    let net = nas.engine.as_ref().map_or_else(|| "10.47.214".to_owned(), |e| e.network());
    nas.rows.add(
        "virt.global",
        json!({
            "pool": pool, "storage_pools": pool.iter().collect::<Vec<_>>(), "bridge": null,
            "v4_network": format!("{net}.1/24"), "v6_network": null, "state": null,
        }),
    );
    nas.rows.add(
        "lxc",
        json!({
            "preferred_pool": pool, "bridge": null, "v4_network": format!("{net}.0/24"),
            "v6_network": "fd42:4c58:43ae::/64",
        }),
    );
    let part = if nas.release.is_26() { ".truenas_containers" } else { ".ix-virt" };
    let parents = match nas.engine {
        Some(_) => "/mnt/parents".to_owned(),
        None => state.join("parents").to_string_lossy().into_owned(),
    };
    let mut folder = format!("{parents}/{part}");
    let mut name = format!("{}/{part}", nas.zfs.pool);
    let old = (!nas.release.is_26()).then_some("custom");
    for child in ["", "containers", "images"].into_iter().chain(old) {
        let (name, folder) = match child {
            "" => (name.clone(), folder.clone()),
            child => (format!("{name}/{child}"), format!("{folder}/{child}")),
        };
        if !nas.zfs.storage.here(&folder).exists() {
            nas.zfs.storage.create(&folder).await.map_err(|r| r.to_string())?;
        }
        nas.zfs.tree().insert(&name, folder, None, nas.now());
    }
    name.clear();
    folder.clear();
    if let Some(engine) = &nas.engine
        && nas.release.is_26()
    {
        // Where one learns a container's address from.
        let leases = nas.host.root.join("var/lib/dnsmasq");
        let _ = std::fs::create_dir_all(&leases);
        let target = format!("/var/lib/incus/networks/{}/dnsmasq.leases", engine.bridge);
        let _ = std::os::unix::fs::symlink(target, leases.join("dnsmasq.leases"));
    }
    Ok(())
}
