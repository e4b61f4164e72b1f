//! A store in the made-up internet, and the shortest words for what the tests do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::backend::local::{LocalBackend, LocalConfig};
use sandscript::backend::nspawn::{NspawnBackend, NspawnConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command, EgressLog, Error, Mount, Network, Policy, Restore, Result,
    Rule, SnapshotSpec, Spec, StopOptions, WriteOptions, exec,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::nas::Nas;

/// Where the guest finds the probe.
const PROBE: &str = "/srv/probe/probe";

pub struct Rig {
    pub backend: Arc<dyn Backend>,
    pub store: PathBuf,
    runtime: Runtime,
    temp: TempDir,
    serial: AtomicUsize,
    zone: Mutex<PathBuf>,
    /// Where its sandboxes are, if not here.
    server: Option<Server>,
}

/// A server that sandboxes are on.
#[derive(Clone)]
enum Server {
    Incus(Incus),
    /// Machines of systemd-nspawn, with stores on this disk.
    Machines(PathBuf),
    Nas(Arc<Nas>),
}

/// An Incus server, and what sandboxes there are cloned from: one with the probe in it.
#[derive(Clone)]
struct Incus {
    socket: PathBuf,
    base: String,
    by: By,
}

/// Who keeps to rules for a server's sandboxes. But for the first it is treated as one elsewhere.
#[derive(Clone, Copy, PartialEq)]
pub enum By {
    Host,
    Guest,
    /// The server, beside the guest.
    Server,
}

impl Server {
    /// Whether guests keep to rules themselves.
    fn is_elsewhere(&self) -> bool {
        match self {
            Server::Incus(incus) => incus.by != By::Host,
            Server::Machines(_) => false,
            Server::Nas(_) => true,
        }
    }

    /// What its sandboxes are cloned from, where they are: its snapshot `s`.
    fn base(&self) -> Option<&str> {
        match self {
            Server::Incus(incus) => Some(&incus.base),
            Server::Machines(_) => Some("base"),
            Server::Nas(_) => None,
        }
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Rig {
    pub fn open() -> Result<Rig> {
        Rig::with(None)
    }

    /// One like this with a gate of its own.
    pub fn own(&self) -> Rig {
        Rig::with(self.server.clone()).unwrap()
    }

    /// On the server of this machine with this socket.
    pub fn open_server(socket: &Path, by: By) -> Result<Rig> {
        let base = format!("base{}-{}", by as u8, std::process::id());
        Rig::with(Some(Server::Incus(Incus { socket: socket.to_owned(), base, by })))
    }

    /// On machines of systemd-nspawn, with a store on this disk.
    pub fn open_machines(disk: &Path) -> Result<Rig> {
        Rig::with(Some(Server::Machines(disk.to_owned())))
    }

    /// On a simulated NAS of its own.
    pub fn open_nas(release: nas_sim::Release) -> Result<Rig> {
        Rig::with(Some(Server::Nas(Arc::new(Nas::start(release)?))))
    }

    /// The NAS that its sandboxes are on.
    pub fn nas(&self) -> Option<&Nas> {
        match &self.server {
            Some(Server::Nas(nas)) => Some(nas),
            _ => None,
        }
    }

    /// What Incus's own client says on the server.
    #[track_caller]
    pub fn incus(&self, args: &[&str]) -> String {
        let Some(Server::Incus(incus)) = &self.server else { panic!("it is no Incus server") };
        let output = std::process::Command::new("/usr/bin/incus")
            .args(args)
            .env("INCUS_SOCKET", &incus.socket)
            .env("INCUS_CONF", self.temp.path().join("client"))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn with(server: Option<Server>) -> Result<Rig> {
        // Left-overs of sandboxes become children of this process.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let failed = |error: std::io::Error| Error::internal(error.to_string());
        let temp =
            tempfile::Builder::new().prefix("sandscript-egress-").tempdir().map_err(failed)?;
        let store = match &server {
            Some(Server::Machines(disk)) => disk.join(temp.path().file_name().unwrap_or_default()),
            _ => temp.path().join("store"),
        };
        let probe = temp.path().join("probe");
        fs::create_dir(&probe).map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        fs::copy(&own, probe.join("probe")).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(failed)?;
        let backend = runtime.block_on(backend(&server, &store))?;
        let mut store = store;
        match &server {
            None => {}
            Some(Server::Nas(nas)) => nas.bring(&probe.join("probe"))?,
            Some(Server::Machines(_)) => {
                store.push("gates");
                let options = StopOptions { force: true, ..StopOptions::default() };
                let probe = probe.join("probe");
                runtime.block_on(async {
                    prepare(backend.as_ref(), "base", &probe).await?;
                    backend.stop("base", options, &Cancel::new()).await
                })?;
            }
            Some(Server::Incus(incus)) => {
                if incus.by == By::Host {
                    // Each server has a folder of its own there.
                    let mut all = fs::read_dir(&store).map_err(failed)?.flatten();
                    store = all.next().ok_or_else(|| Error::internal("there is no folder"))?.path();
                }
                let probe = probe.join("probe");
                runtime.block_on(prepare(backend.as_ref(), &incus.base, &probe))?;
            }
        }
        let zone = Mutex::new(std::env::var_os("SANDSCRIPT_TEST_ZONE").unwrap_or_default().into());
        let serial = AtomicUsize::new(0);
        let rig = Rig { backend, store, runtime, temp, serial, zone, server };
        let probe = rig.try_sandbox(Policy::allowlist(["allowed.test"])?)?;
        // The servers may still be starting.
        eventually("the internet is there", || {
            probe.probe(&["ask", "9.9.9.9:53", "allowed.test", "a"]).contains("203.0.113.10")
        });
        drop(probe);
        Ok(rig)
    }

    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        let call = async { tokio::time::timeout(Duration::from_secs(100), call).await };
        self.runtime.block_on(call).expect("it hangs")
    }

    pub fn name(&self) -> String {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        format!("egress-{}-{serial}", std::process::id())
    }

    fn try_sandbox(&self, policy: Policy) -> Result<Sandbox<'_>> {
        let mut spec = Spec::new(self.name());
        spec.egress = policy;
        self.try_sandbox_of(spec)
    }

    /// A sandbox in these networks of a run.
    pub fn member(&self, policy: Policy, run: &str, networks: &[&str]) -> Sandbox<'_> {
        let mut spec = Spec::new(self.name());
        spec.egress = policy;
        spec.networks = networks.iter().map(|name| Network::new(run, *name)).collect();
        self.try_sandbox_of(spec).unwrap()
    }

    /// A sandbox of this spec, with the probe in it.
    pub fn try_sandbox_of(&self, mut spec: Spec) -> Result<Sandbox<'_>> {
        if let Some(nas) = self.nas() {
            let name = self.wait(nas.guest(self.backend.as_ref(), spec))?;
            return Ok(Sandbox { rig: self, name });
        }
        if let Some(base) = self.server.as_ref().and_then(Server::base) {
            let mut clone = CloneSpec::new(&spec.name);
            clone.label = Some("s".into());
            clone.egress = Some(spec.egress);
            (clone.networks, clone.hostname) = (spec.networks, spec.hostname);
            let backend = self.backend.as_ref();
            self.wait(Backend::clone(backend, base, &clone, &Cancel::new()))?;
            return Ok(Sandbox { rig: self, name: spec.name });
        }
        spec.mounts = self.probe_mount();
        self.wait(self.backend.create(&spec, &Cancel::new()))?;
        Ok(Sandbox { rig: self, name: spec.name })
    }

    pub fn probe_mount(&self) -> Vec<Mount> {
        let source = self.temp.path().join("probe");
        vec![Mount { source, target: "/srv/probe".into(), readonly: true }]
    }

    /// A sandbox with these rules.
    pub fn sandbox(&self, rules: &[&str]) -> Sandbox<'_> {
        self.try_sandbox(Policy::allowlist(rules).unwrap()).unwrap()
    }

    pub fn sandbox_of(&self, policy: Policy) -> Sandbox<'_> {
        self.try_sandbox(policy).unwrap()
    }

    /// Another backend on the same store, as another command would have.
    pub fn another(&self) -> Arc<dyn Backend> {
        self.runtime.block_on(self.another_now())
    }

    /// The same from where something is waited for.
    pub async fn another_now(&self) -> Arc<dyn Backend> {
        let store = match &self.server {
            Some(_) => self.store.parent().unwrap(),
            None => &self.store,
        };
        backend(&self.server, store).await.unwrap()
    }

    /// Puts a line into the zone, in front of all others.
    pub fn put_name(&self, line: &str) {
        let zone = self.zone.lock().unwrap();
        let before = fs::read_to_string(&*zone).unwrap();
        let new = zone.with_extension("new");
        fs::write(&new, format!("{line}\n{before}")).unwrap();
        fs::rename(new, &*zone).unwrap();
    }

    /// The process 1 of a server's sandbox, as soon as there is one.
    pub fn process_one(&self, name: &str) -> i32 {
        if let Some(Server::Machines(_)) = &self.server {
            let run = self.store.with_file_name("machines").join(name).join("run.json");
            let run: serde_json::Value = serde_json::from_slice(&fs::read(run).unwrap()).unwrap();
            return i32::try_from(run["leader"].as_i64().unwrap()).unwrap();
        }
        let payload = format!("lxc.payload.{name}");
        let is = |pid: &i32| {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let first = read("status").lines().any(|line| {
                line.starts_with("NSpid:") && line.ends_with("\t1") && !line.ends_with(":\t1")
            });
            first && read("cgroup").split(['/', '\n']).any(|part| part == payload)
        };
        // Of one that restarts it is another one soon.
        let mut found = None;
        eventually("it runs", || {
            found = processes().into_iter().find(is);
            found.is_some()
        });
        found.unwrap()
    }

    /// The gates that serve this store.
    pub fn gates(&self) -> Vec<i32> {
        let Ok(store) = self.store.canonicalize() else { return Vec::new() };
        processes()
            .into_iter()
            .filter(|pid| comm(*pid) == "sandscript-gate" && serves(*pid, &store))
            .collect()
    }

    /// Whether none of them takes connections any more: one that is dying may for a moment.
    pub fn gate_is_gone(&self) -> bool {
        let connected = std::os::unix::net::UnixStream::connect(self.store.join("gate"));
        self.gates().is_empty() && connected.is_err()
    }

    /// Whether nobody else has sandboxes where it has its own.
    fn owns_all(&self) -> bool {
        matches!(self.server, None | Some(Server::Machines(_)))
    }

    pub fn close(&self) -> std::result::Result<(), String> {
        if let Some(Server::Machines(_)) = &self.server {
            let cancel = Cancel::new();
            let call = self.backend.delete("base", &cancel);
            self.wait(call).map_err(|e| e.to_string())?;
        }
        let left = self.wait(self.backend.list(&Cancel::new())).map_err(|e| e.to_string())?;
        // Others may have theirs on the same server; all of it goes with it.
        if let Some(info) = left.first().filter(|_| self.owns_all()) {
            return Err(format!("sandbox '{}' is left", info.name));
        }
        let end = Instant::now() + Duration::from_secs(20);
        while !self.gates().is_empty() {
            if Instant::now() > end {
                return Err("a gate runs on without a sandbox".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

async fn backend(server: &Option<Server>, store: &Path) -> Result<Arc<dyn Backend>> {
    let Incus { socket, by, .. } = match server {
        None => return Ok(Arc::new(LocalBackend::open(config(store))?)),
        Some(Server::Nas(nas)) => return nas.backend().await,
        Some(Server::Machines(_)) => {
            let config = NspawnConfig {
                store: Some(store.to_owned()),
                image: std::env::var("SANDSCRIPT_TEST_IMAGE").ok(),
                name_servers: config(store).name_servers,
                ..NspawnConfig::default()
            };
            return Ok(Arc::new(NspawnBackend::open(config).await?));
        }
        Some(Server::Incus(incus)) => incus,
    };
    let config = IncusConfig {
        socket: Some(socket.clone()),
        image: Some("small".into()),
        name_servers: config(store).name_servers,
        gates: Some(store.to_owned()),
        elsewhere: *by != By::Host,
        without_acls: *by == By::Guest,
        ..IncusConfig::default()
    };
    Ok(Arc::new(IncusBackend::open(config).await?))
}

/// Makes what sandboxes are cloned from, if it is not there yet.
async fn prepare(backend: &dyn Backend, base: &str, probe: &Path) -> Result<()> {
    let cancel = Cancel::new();
    if backend.get(base, &cancel).await.is_ok() {
        return Ok(());
    }
    backend.create(&Spec::new(base), &cancel).await?;
    let failed = |error: std::io::Error| Error::internal(error.to_string());
    let content = Box::new(tokio::fs::File::open(probe).await.map_err(failed)?);
    let options = WriteOptions { mode: Some(0o755), parents: true, ..WriteOptions::default() };
    backend.write(base, PROBE, content, &options, &cancel).await?;
    backend.snapshot(base, &SnapshotSpec::new("s"), &cancel).await.map(drop)
}

pub fn config(store: &Path) -> LocalConfig {
    LocalConfig {
        store: store.to_owned(),
        name_servers: vec!["203.0.113.53:53".parse().unwrap()],
        // Else a range of subordinate ids is not to be had inside the namespace that the tests are in.
        single_id: !is_root() && std::env::var_os("SANDSCRIPT_TEST_RANGE").is_none(),
        ..LocalConfig::default()
    }
}

pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

pub fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn serves(pid: i32, store: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|word| word == store.as_os_str().as_encoded_bytes())
}

pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

pub fn signal(pid: i32, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// Waits for it, for 20 seconds: the machine may be busy.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub struct Sandbox<'a> {
    pub rig: &'a Rig,
    pub name: String,
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if let Some(nas) = self.rig.nas().filter(|nas| nas.is_shared(&self.name)) {
            nas.give_back(self);
            if nas.is_shared(&self.name) {
                return;
            }
        }
        let _ = self.rig.wait(self.rig.backend.delete(&self.name, &Cancel::new()));
    }
}

impl<'a> Sandbox<'a> {
    /// Where no gate reads the name from what is sent, a client has to ask for it, as clients do.
    fn ask_first(&self, words: &[&str]) {
        if let ["get" | "tls" | "hold", _, name] = words
            && self.rig.server.as_ref().is_some_and(Server::is_elsewhere)
            && name.ends_with(".test")
        {
            self.probe(&["ask", "9.9.9.9:53", name, "a"]);
        }
    }

    /// What the probe prints.
    pub fn probe(&self, words: &[&str]) -> String {
        self.ask_first(words);
        let argv = [PROBE, "probe"].iter().chain(words).copied();
        let command = Command::argv(argv);
        let output =
            self.rig.wait(exec(self.rig.backend.as_ref(), &self.name, &command, &Cancel::new()));
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.exit.ok(), "{words:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Asserts that a server answered the probe.
    #[track_caller]
    pub fn reaches(&self, words: &[&str], server: &str) {
        let (wanted, mut said) = (format!("I am {server}"), String::new());
        // A busy machine may be slower than a client is patient.
        for _ in 0..4 {
            said = self.probe(words);
            if said == wanted {
                return;
            }
        }
        panic!("{words:?}: {said}, not {wanted}");
    }

    /// Asserts that nobody answered.
    #[track_caller]
    pub fn is_refused(&self, words: &[&str]) {
        let said = self.probe(words);
        assert!(said.starts_with("refused") && !said.contains("I am"), "{words:?}: {said}");
    }

    /// Starts a probe in the background, which prints to a file.
    pub fn background(&self, words: &[&str], file: &str) {
        self.ask_first(words);
        let line = format!("{PROBE} probe {} > {file} 2>&1", words.join(" "));
        let mut command = Command::shell(line);
        command.detached = true;
        self.rig.wait(async {
            drop(self.rig.backend.spawn(&self.name, &command, &Cancel::new()).await.unwrap());
        });
    }

    /// Runs a shell line in the background.
    pub fn background_line(&self, line: &str) {
        let mut command = Command::shell(line);
        command.detached = true;
        self.rig.wait(async {
            drop(self.rig.backend.spawn(&self.name, &command, &Cancel::new()).await.unwrap());
        });
    }

    /// What the probe prints for an ordinary user.
    pub fn probe_as(&self, user: &str, words: &[&str]) -> String {
        let mut command = Command::argv([PROBE, "probe"].iter().chain(words).copied());
        command.user = Some(user.into());
        let backend = self.rig.backend.as_ref();
        let output = self.rig.wait(exec(backend, &self.name, &command, &Cancel::new())).unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a shell line.
    pub fn sh(&self, line: &str) -> String {
        self.sh_as("root", line)
    }

    /// Runs a shell line for a user.
    pub fn sh_as(&self, user: &str, line: &str) -> String {
        let mut command = Command::shell(line);
        command.user = (user != "root").then(|| user.into());
        let output =
            self.rig.wait(exec(self.rig.backend.as_ref(), &self.name, &command, &Cancel::new()));
        String::from_utf8_lossy(&output.unwrap().stdout).trim().to_owned()
    }

    /// Runs a shell line, where the guest may be gone for a moment.
    pub fn try_sh(&self, line: &str) -> Result<String> {
        let (backend, command) = (self.rig.backend.as_ref(), Command::shell(line));
        let output = self.rig.wait(exec(backend, &self.name, &command, &Cancel::new()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What is in a file of the guest's.
    pub fn file(&self, path: &str) -> String {
        self.sh(&format!("cat {path}"))
    }

    /// Its process 1, as the host sees it.
    pub fn init(&self) -> i32 {
        let marker = 900_000 + self.rig.serial.fetch_add(1, Ordering::Relaxed);
        self.sh(&format!("sleep {marker}.{} > /dev/null 2>&1 &", std::process::id()));
        let wanted = format!("sleep\0{marker}.{}\0", std::process::id());
        let command = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let found = || processes().into_iter().find(|pid| command(*pid).is_ok_and(|c| c == wanted));
        eventually("it runs", || found().is_some());
        let parent = |pid: i32| -> i32 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let mut init = found().unwrap();
        while comm(init) != "sandscript-init" {
            init = parent(init);
            assert!(init > 1);
        }
        init
    }

    pub fn set(&self, policy: &Policy) {
        self.rig.wait(self.rig.backend.set_policy(&self.name, policy, &Cancel::new())).unwrap();
    }

    pub fn allow(&self, rule: &str) {
        let rule: Rule = rule.parse().unwrap();
        self.rig.wait(self.rig.backend.allow(&self.name, &rule, &Cancel::new())).unwrap();
    }

    pub fn deny(&self, rule: &str) {
        let rule: Rule = rule.parse().unwrap();
        self.rig.wait(self.rig.backend.deny(&self.name, &rule, &Cancel::new())).unwrap();
    }

    pub fn log(&self) -> EgressLog {
        self.rig.wait(self.rig.backend.egress_log(&self.name, &Cancel::new())).unwrap()
    }

    pub fn stop(&self) {
        let options = StopOptions { force: true, ..StopOptions::default() };
        self.rig.wait(self.rig.backend.stop(&self.name, options, &Cancel::new())).unwrap();
    }

    pub fn start(&self) {
        self.rig.wait(self.rig.backend.start(&self.name, &Cancel::new())).unwrap();
    }

    pub fn snapshot(&self, label: &str) {
        let spec = SnapshotSpec::new(label);
        self.rig.wait(self.rig.backend.snapshot(&self.name, &spec, &Cancel::new())).unwrap();
    }

    pub fn restore(&self, label: &str) {
        let cancel = Cancel::new();
        let call = self.rig.backend.restore(&self.name, label, Restore::default(), &cancel);
        self.rig.wait(call).unwrap();
    }

    pub fn clone_of(&self) -> Sandbox<'a> {
        let name = self.rig.name();
        let backend = self.rig.backend.as_ref();
        let spec = CloneSpec::new(&name);
        self.rig.wait(Backend::clone(backend, &self.name, &spec, &Cancel::new())).unwrap();
        Sandbox { rig: self.rig, name }
    }
}
