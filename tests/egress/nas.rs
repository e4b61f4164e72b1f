//! The same on simulated releases of a NAS: containers that boot a whole system, and keep to rules themselves.
//! Making one takes seconds, so that a release has two, which the tests take in turns.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use nas_sim::{Options, Release, Sim};
use sandscript::backend::truenas::{TrueNasBackend, TrueNasConfig};
use sandscript::sandbox::{Backend, Cancel, CloneSpec, Error, Mount, Policy, Result, Setup, Spec};
use sandscript::transport::jsonrpc::{Address, Login, NasConfig};
use sandscript::transport::{Fingerprint, Trust};
use serde_json::{Value, json};

use crate::rig::{Rig, Sandbox, eventually};
use crate::{Test, attempt, daemon, guest};

/// The folder of the NAS that guests have the probe from.
const PROBE: &str = "/mnt/tank/probe";
/// An address that the NAS has besides those in its containers' network.
const ADDRESS: &str = "203.0.113.1";

/// Those of other guests, but for what is different here.
fn tests() -> Vec<Test> {
    let others = [
        // It makes a dozen.
        "a_log_is_not_another_sandboxes",
        // These change how a guest boots.
        "attack_a_clones_first_packets",
        "attack_reboot_from_inside",
    ];
    let all = guest::tests().into_iter().filter(|(name, _)| !others.contains(name));
    all.chain(OWN.iter().copied()).collect()
}

const OWN: &[Test] = &[
    ("a_socket_past_the_network_is_not_held", past_the_network),
    ("attack_the_nas_itself", nas_itself),
    ("attack_reboot_from_inside", reboot),
    ("attack_a_clones_first_packets", first_packets),
];

/// A release's tests, one after another.
pub struct Column {
    release: Release,
    rig: Mutex<Option<Arc<Rig>>>,
}

impl Column {
    /// What runs on it.
    fn run(&self, test: fn(&Rig)) -> std::result::Result<(), Failed> {
        let mut rig = self.rig.lock().unwrap_or_else(PoisonError::into_inner);
        if rig.is_none() {
            let opened = Rig::open_nas(self.release).map_err(|error| error.to_string())?;
            *rig = Some(Arc::new(opened));
        }
        let Some(rig) = rig.as_ref() else { return Ok(()) };
        attempt(rig, test)
    }
}

/// The releases, and all their tests: each test on all of them before the next.
pub fn columns() -> (Vec<Arc<Column>>, Vec<Trial>) {
    let column = |release: &Release| Arc::new(Column { release: *release, rig: Mutex::new(None) });
    let columns: Vec<Arc<Column>> = Release::ALL.iter().map(column).collect();
    let trial = |(name, test): &Test, column: &Arc<Column>| {
        let (column, test) = (Arc::clone(column), *test);
        let name = format!("truenas/{}::{name}", column.release.name());
        Trial::test(name, move || column.run(test))
    };
    let all = tests();
    let all = all.iter().flat_map(|test| columns.iter().map(|one| trial(test, one)));
    let trials = all.collect();
    (columns, trials)
}

/// Ends the simulators.
pub fn end(columns: Vec<Arc<Column>>) {
    for column in columns {
        drop(column.rig.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Is a simulator of a release as long as somebody listens, and says where it is.
pub fn serve(release: &str) -> ExitCode {
    let folder = tempfile::Builder::new().prefix("sandscript-egress-").tempdir().unwrap();
    let release = Release::ALL.into_iter().find(|one| one.name() == release).unwrap();
    let mut options = Options::new(release, folder.path().join("nas"));
    options.addresses = vec![format!("{ADDRESS}/24")];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = runtime.block_on(async {
        options.rootfs = Some(daemon::rootfs()?);
        Sim::start(options, &std::env::current_exe().unwrap()).await
    });
    match &started {
        Ok(nas) => println!("{}", nas.describe()),
        Err(why) => println!("{}", json!({"error": why})),
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    drop(started);
    ExitCode::SUCCESS
}

/// A simulator in a process of its own, where it has the programs that it needs.
pub struct Nas {
    child: Child,
    said: Value,
    /// Guests that nobody works with.
    idle: Mutex<Vec<String>>,
    /// All that tests take in turns.
    all: Mutex<BTreeSet<String>>,
}

impl Drop for Nas {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::internal(what.to_string())
}

impl Nas {
    /// Starts one.
    pub fn start(release: Release) -> Result<Nas> {
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .env("SANDSCRIPT_TEST_ROLE", "nas")
            .env("SANDSCRIPT_TEST_RELEASE", release.name())
            .env("PATH", std::env::var_os("SANDSCRIPT_TEST_PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        let nas = Nas { child, said, idle: Mutex::default(), all: Mutex::default() };
        match nas.said["url"].is_string() {
            true => Ok(nas),
            false => Err(failed(format!("no NAS: {line}"))),
        }
    }

    fn text(&self, key: &str) -> &str {
        self.said[key].as_str().unwrap_or_default()
    }

    /// A backend on it.
    pub async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let trust = Fingerprint::parse(self.text("fingerprint")).ok_or_else(|| failed("none"))?;
        let login = Login::ApiKey { user: "root".into(), key: self.text("api_key").into() };
        let address = Address::parse(self.text("address"))?;
        let config = NasConfig::new(address, Trust::Fingerprint(trust), login);
        let config = TrueNasConfig { mounts: vec![PROBE.into()], ..TrueNasConfig::new(config) };
        Ok(Arc::new(TrueNasBackend::open(config).await?))
    }

    /// Puts the probe where guests have it from.
    pub fn bring(&self, probe: &Path) -> Result<()> {
        let folder = PathBuf::from(format!("{}{PROBE}", self.text("root")));
        fs::create_dir_all(&folder).map_err(failed)?;
        fs::copy(probe, folder.join("probe")).map(drop).map_err(failed)
    }

    /// A guest that nobody works with, with this policy: a new one when there is none.
    pub async fn guest(&self, backend: &dyn Backend, spec: Spec) -> Result<String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(name) = idle {
            backend.set_policy(&name, &spec.egress, &Cancel::new()).await?;
            return Ok(name);
        }
        let mount = Mount { source: PROBE.into(), target: "/srv/probe".into(), readonly: false };
        let setup = Setup { dns: vec![[203, 0, 113, 53].into()], ..Setup::default() };
        let spec = Spec { mounts: vec![mount], setup, ..spec };
        let name = spec.name.clone();
        backend.create(&spec, &Cancel::new()).await?;
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Ok(name)
    }

    /// Whether tests take it in turns.
    pub fn is_shared(&self, name: &str) -> bool {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Somebody else may have it now, who finds nothing of what was before: no process, no log, no name that
    /// was told.
    pub fn give_back(&self, sandbox: &Sandbox<'_>) {
        let clean = "for p in /proc/[0-9]*; do case $(readlink $p/exe) in */probe) kill -9 ${p#/proc/};; esac; done; \
            for p in /proc/[0-9]*; do grep -qs ^sandscript-guard $p/cmdline && kill -9 ${p#/proc/}; done; \
            rm -rf /etc/sandscript/log* /etc/sandscript/socket /tmp/*; perl /etc/sandscript/guard start >/dev/null; \
            test -e /etc/systemd/system/boot-tries.service || echo clean";
        if sandbox.try_sh(clean).is_ok_and(|said| said == "clean") {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox.name.clone());
        } else {
            self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&sandbox.name);
        }
    }

    /// The address by which its containers leave.
    fn gateway(&self) -> &str {
        self.text("gateway")
    }
}

/// By every address that it has, the one in its containers' network, too, which it does not list with the others.
fn nas_itself(rig: &Rig) {
    let Some(nas) = rig.nas() else { return };
    let service = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            let _ = stream.write_all(b"I am the NAS");
            let _ = stream.read(&mut [0]);
        }
    });
    let gateway = nas.gateway();
    let sandbox = rig.sandbox(&["*", "0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24"]);
    for address in [gateway, ADDRESS] {
        sandbox.is_refused(&["banner", &format!("{address}:{port}")]);
    }
    sandbox.reaches(&["get", "10.66.0.5:80", "x"], "10.66.0.5");
    sandbox.reaches(&["get", "203.0.113.20:80", "x"], "203.0.113.20");
    sandbox.allow(gateway);
    assert_eq!(sandbox.probe(&["banner", &format!("{gateway}:{port}")]), "I am the NAS");
}

/// What docs/egress.md says of vsock: no network namespace holds it, and a NAS has no filter that would.
fn past_the_network(rig: &Rig) {
    let sandbox = rig.sandbox(&[]);
    let line = "perl -e 'print socket(my $s, 40, 1, 0) ? q(open) : q(refused)'";
    let family = rustix::net::AddressFamily::from_raw(40);
    let here = match rustix::net::socket(family, rustix::net::SocketType::STREAM, None) {
        Ok(_) => "open",
        Err(_) => "refused",
    };
    for user in ["root", "nobody"] {
        assert_eq!(sandbox.sh_as(user, line), here, "{user}");
    }
}

/// Tries from early in each boot on to reach what only the source may.
pub fn try_at_boot(sandbox: &Sandbox<'_>) {
    let said = sandbox.sh("cat > /root/boot.sh <<'END'\n\
        rm -f /root/tried\n\
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
        /srv/probe/probe probe get 203.0.113.20:80 x; sleep 0.1; done > /root/tries 2>&1\n\
        mv /root/tries /root/tried\n\
        END\n\
        printf '[Unit]\\nDefaultDependencies=no\\n[Service]\\nExecStart=/bin/sh /root/boot.sh\\n[Install]\\nWantedBy=sysinit.target\\n' \
        > /etc/systemd/system/boot-tries.service; systemctl -q enable boot-tries.service && echo on");
    assert_eq!(said, "on");
}

/// What came of that since the last boot.
pub fn has_not_come_out(sandbox: &Sandbox<'_>) {
    let tried = || sandbox.try_sh("cat /root/tried").unwrap_or_default();
    eventually("it has tried", || tried().lines().count() >= 20);
    let said = tried();
    assert!(said.contains("refused") && !said.contains("I am"), "{said}");
}

/// A guest that restarts by itself keeps to what it has from its first process on.
fn reboot(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    try_at_boot(&sandbox);
    sandbox.sh("touch /run/before");
    sandbox.background_line("sleep 0.3; systemctl reboot --force --force");
    eventually("it has restarted", || {
        sandbox.try_sh("test -e /run/before || echo new").is_ok_and(|said| said == "new")
    });
    has_not_come_out(&sandbox);
    let allowed = ["get", "203.0.113.10:80", "allowed.test"];
    eventually("it is served again", || sandbox.probe(&allowed) == "I am 203.0.113.10");
    sandbox.is_refused(&["get", "203.0.113.20:80", "x"]);
}

/// Nothing gets out of a clone, or after a restore, that only the source may.
pub fn first_packets(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.20"]);
    try_at_boot(&sandbox);
    sandbox.snapshot("eager");
    for policy in [Policy::allowlist(["allowed.test"]).unwrap(), Policy::None] {
        let mut spec = CloneSpec::new(rig.name());
        spec.egress = Some(policy);
        let backend = rig.backend.as_ref();
        rig.wait(Backend::clone(backend, &sandbox.name, &spec, &Cancel::new())).unwrap();
        has_not_come_out(&Sandbox { rig, name: spec.name });
    }
    // As it was when more was allowed, but with what is allowed now.
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    sandbox.restore("eager");
    has_not_come_out(&sandbox);
}
