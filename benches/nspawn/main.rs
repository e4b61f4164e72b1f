//! sandscript's machines against `systemd-nspawn`, `nsenter` and the programs of the file system, in turns: medians
//! as a Markdown table.
//!
//! `cargo bench --bench nspawn`, or with `-- boots execs` only these of its parts.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../peers/facts.rs"]
mod facts;
#[path = "../../tests/nspawn/rig.rs"]
mod rig;
#[path = "../peers/table.rs"]
mod table;

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandscript::backend::nspawn::{NspawnBackend, NspawnConfig};
use sandscript::sandbox::{
    self as domain, Backend, Cancel, CloneSpec, SnapshotSpec, Spec, StopOptions,
};

use table::{Table, ms, ratio};

struct Bench {
    backend: NspawnBackend,
    store: PathBuf,
    cancel: Cancel,
}

fn main() {
    // What starts machines is this program by another name.
    sandscript::backend::local::init();
    if let Some(why) = rig::lacks() {
        println!("skip: {why}");
        return;
    }
    let temp = tempfile::Builder::new().prefix("sandscript-bench-").tempdir_in("/var/tmp").unwrap();
    let image = rig::image().unwrap();
    let disk = rig::Disk::mount(temp.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut table = Table::default();
    runtime.block_on(async {
        let store = disk.path().join("store");
        let config = NspawnConfig {
            store: Some(store.clone()),
            image: Some(image.display().to_string()),
            ..NspawnConfig::default()
        };
        let backend = NspawnBackend::open(config).await.unwrap();
        let bench = Bench { backend, store, cancel: Cancel::new() };
        bench.backend.create(&Spec::new("b"), &bench.cancel).await.unwrap();
        let chosen: Vec<String> =
            std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|one| one == part);
        if wanted("execs") {
            bench.execs(&mut table).await;
        }
        if wanted("copies") {
            bench.copies(&mut table).await;
        }
        if wanted("boots") {
            bench.boots(&mut table).await;
        }
        bench.backend.delete("b", &bench.cancel).await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    table.note("the store is on btrfs on a loop device; the image is a small Debian with systemd");
    println!("{}\n{table}", facts::facts());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let start = Instant::now();
    work.await;
    start.elapsed()
}

/// How long a program takes that must succeed.
fn program(argv: &[&str]) -> Duration {
    let start = Instant::now();
    let output = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).output().unwrap();
    let took = start.elapsed();
    assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// Becomes a program in cgroups of its own, as soon as it is told to: a machine without would share them.
const JOIN: &str = r#"
for h in /sys/fs/cgroup /sys/fs/cgroup/{systemd,memory,pids,cpu,cpuacct,devices,unified}; do
  [ -e "$h/cgroup.procs" ] || continue
  mkdir -p "$h/$0" && echo $$ >"$h/$0/cgroup.procs"
done
read -r go
exec "$@"
"#;
/// Removes them.
const LEAVE: &str = r#"
for h in /sys/fs/cgroup /sys/fs/cgroup/{systemd,memory,pids,cpu,cpuacct,devices,unified}; do
  [ ! -e "$h/$0" ] || find "$h/$0" -depth -type d -exec rmdir {} \;
done
"#;

/// How long `systemd-nspawn` takes until a machine says that it is ready; it is ended at once then.
fn booted(tree: &Path, base: u64, folder: &Path) -> Duration {
    let path = folder.join("notify");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let group = format!("sandscript-bench-{}", std::process::id());
    let mut child = Command::new("bash")
        .args(["-c", JOIN, &group, "systemd-nspawn"])
        .args(["--boot", "--quiet", "--keep-unit", "--register=no", "--notify-ready=yes"])
        .args(["--private-network", "--settings=no", "--resolv-conf=off", "--timezone=off"])
        .args(["--link-journal=no", "--console=read-only", "--machine=peer"])
        .arg(format!("--private-users={base}:65536"))
        .arg(format!("--directory={}", tree.display()))
        .env("NOTIFY_SOCKET", &path)
        .env("SYSTEMD_NSPAWN_LOCK", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut word = child.stdin.take().unwrap();
    let start = Instant::now();
    word.write_all(b"go\n").unwrap();
    let (mut leader, mut buffer) = (None, [0; 4096]);
    let took = loop {
        let count = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let pid = text.lines().find_map(|line| line.strip_prefix("X_NSPAWN_LEADER_PID="));
        leader = leader.or(pid.and_then(|pid| pid.parse().ok()));
        if text.lines().any(|line| line == "READY=1") {
            break start.elapsed();
        }
    };
    let leader = leader.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(leader, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
    let _ = Command::new("bash").args(["-c", LEAVE, &group]).stderr(Stdio::null()).status();
    took
}

impl Bench {
    async fn exec(&self, name: &str) {
        let command = domain::Command::argv(["true"]);
        let output = domain::exec(&self.backend, name, &command, &self.cancel).await.unwrap();
        assert!(output.exit.ok());
    }

    /// What the store's own files say of a machine.
    fn known(&self, name: &str, file: &str, key: &str) -> u64 {
        let path = self.store.join("machines").join(name).join(file);
        let text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        text[key].as_u64().unwrap()
    }

    async fn execs(&self, table: &mut Table) {
        let leader = self.known("b", "run.json", "leader").to_string();
        let enter = ["nsenter", "-t", &leader, "-m", "-u", "-i", "-n", "-p", "-U", "--", "true"];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.exec("b").await;
        for _ in 0..61 {
            ours.push(timed(self.exec("b")).await);
            theirs.push(program(&enter));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let compared = ratio(ours, theirs, "`nsenter`");
        table.row("`exec true`, library", ms(ours), compared, "≤ 1.3 × `nsenter`");
    }

    async fn copies(&self, table: &mut Table) {
        let (mut snapshots, mut clones, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        self.backend.snapshot("b", &SnapshotSpec::new("s"), &self.cancel).await.unwrap();
        let tree = self.store.join("machines/b/tree");
        for round in 0..21 {
            let spec = SnapshotSpec::new(format!("l{round}"));
            snapshots.push(timed(self.backend.snapshot("b", &spec, &self.cancel)).await);
            let spec = CloneSpec { bare: true, ..CloneSpec::of("s", "one") };
            clones.push(timed(Backend::clone(&self.backend, "b", &spec, &self.cancel)).await);
            self.backend.delete("one", &self.cancel).await.unwrap();
            let copy = self.store.join("copy").display().to_string();
            let from = tree.display().to_string();
            theirs.push(program(&["btrfs", "subvolume", "snapshot", &from, &copy]));
            program(&["btrfs", "subvolume", "delete", &copy]);
        }
        let (snapshot, clone) = (median(snapshots), median(clones));
        let (theirs, peer) = (median(theirs), "`btrfs subvolume snapshot`");
        table.row("clone, not started", ms(clone), ratio(clone, theirs, peer), "≤ 8 ms");
        table.row(
            "snapshot of a running machine",
            ms(snapshot),
            ratio(snapshot, theirs, peer),
            "≤ 15 ms",
        );
    }

    async fn boots(&self, table: &mut Table) {
        let cancel = &self.cancel;
        let force = StopOptions { force: true, ..StopOptions::default() };
        self.backend.stop("b", StopOptions::default(), cancel).await.unwrap();
        let tree = self.store.join("machines/b/tree");
        let base = self.known("b", "machine.json", "base");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut stops, mut kills) = (Vec::new(), Vec::new());
        for round in 0..14 {
            theirs.push(booted(&tree, base, self.store.parent().unwrap()));
            let boot = async {
                self.backend.start("b", cancel).await.unwrap();
                self.exec("b").await;
            };
            ours.push(timed(boot).await);
            match round % 2 {
                0 => {
                    let stop = self.backend.stop("b", StopOptions::default(), cancel);
                    stops.push(timed(stop).await);
                }
                _ => kills.push(timed(self.backend.stop("b", force, cancel)).await),
            }
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let compared = ratio(ours, theirs, "`systemd-nspawn -b` to its READY");
        table.row("boot to first `exec true`", ms(ours), compared, "≤ 1.15 × `systemd-nspawn -b`");
        table.row("stop, in order", ms(median(stops)), "", "≤ 200 ms");
        table.row("stop by force", ms(median(kills)), "", "≤ 200 ms");
    }
}
