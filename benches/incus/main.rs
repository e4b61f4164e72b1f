//! sandscript against the Incus client, on one daemon of its own, in turns: medians as a Markdown table.
//!
//! `cargo bench --bench incus`, or with `-- execs clones` only these of its parts.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../peers/facts.rs"]
mod facts;
#[path = "../../tests/incus/rig/mod.rs"]
mod rig;
mod scale;
#[path = "../peers/table.rs"]
mod table;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{self as domain, Backend, Cancel, CloneSpec, Policy, SnapshotSpec, Spec};
use sandscript::transport::{Http, Place};
use sandscript::{Host, Source};
use serde_json::{Value, json};

use table::{Table, ms, ratio};

/// How many cells the matrix has.
const CELLS: usize = 20;

struct Bench {
    daemon: rig::Daemon,
    backend: Arc<IncusBackend>,
    folder: std::path::PathBuf,
    cancel: Cancel,
}

fn main() {
    if let Some(why) = rig::lacks() {
        println!("skip: {why}");
        return;
    }
    let temp = tempfile::Builder::new().prefix("sandscript-bench-").tempdir_in("/var/tmp").unwrap();
    let daemon = rig::Daemon::start(temp.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut table = Table::default();
    runtime.block_on(async {
        let config = IncusConfig {
            socket: Some(daemon.socket()),
            image: Some("small".into()),
            ..IncusConfig::default()
        };
        let backend = Arc::new(IncusBackend::open(config).await.unwrap());
        let bench =
            Bench { daemon, backend, folder: temp.path().to_owned(), cancel: Cancel::new() };
        bench.backend.create(&Spec::new("b"), &bench.cancel).await.unwrap();
        let chosen: Vec<String> =
            std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|one| one == part);
        if wanted("execs") {
            bench.execs(&mut table).await;
        }
        if wanted("snapshots") {
            bench.snapshots(&mut table).await;
        }
        if wanted("clones") {
            bench.clones(&mut table).await;
        }
        if wanted("push") {
            bench.push(&mut table);
        }
        if wanted("matrix") {
            bench.matrix(&mut table).await;
        }
        if wanted("list") {
            bench.list(&mut table).await;
        }
        // Only where it is asked for: it takes minutes.
        if chosen.iter().any(|one| one == "scale") {
            let daemon = &bench.daemon;
            scale::scale(daemon.socket(), &bench.folder).await.unwrap();
        }
    });
    table.note(
        "raw requests make no machine-id and no host name, and wait for no command but `true`",
    );
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

/// An operation of the server's from its request to its end.
async fn done(http: &Http, method: Method, path: &str, body: Value) {
    let body = Bytes::from(body.to_string());
    let answer = http.send(&method, path, &[], &body).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let path = format!("{}/wait", answer["operation"].as_str().unwrap());
    let done = http.send(&Method::GET, &path, &[], &Bytes::new()).await.unwrap();
    let done: Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!(done["metadata"]["status_code"], 200, "{done}");
}

impl Drop for Bench {
    /// Ends the process that keeps the backend open between commands.
    fn drop(&mut self) {
        let sockets = std::fs::read_dir(self.folder.join("sandscript")).into_iter().flatten();
        for socket in sockets.flatten() {
            let Ok(stream) = std::os::unix::net::UnixStream::connect(socket.path()) else {
                continue;
            };
            if let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) {
                let _ = rustix::process::kill_process(peer.pid, rustix::process::Signal::TERM);
            }
        }
    }
}

impl Bench {
    /// How long a program takes that must succeed.
    fn program(&self, program: &str, args: &[&str]) -> Duration {
        let start = Instant::now();
        let output = Command::new(program)
            .args(args)
            .current_dir(&self.folder)
            .env("INCUS_SOCKET", self.daemon.socket())
            .env("INCUS_CONF", self.daemon.client())
            .env("HOME", &self.folder)
            .env("SANDSCRIPT_BACKEND", "incus")
            .env("SANDSCRIPT_GC_EVERY", "never")
            .env("XDG_RUNTIME_DIR", &self.folder)
            .env_remove("SANDSCRIPT_HOST")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let took = start.elapsed();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        took
    }

    fn ours(&self, args: &[&str]) -> Duration {
        self.program(env!("CARGO_BIN_EXE_sandscript"), args)
    }

    fn theirs(&self, args: &[&str]) -> Duration {
        self.program("/usr/bin/incus", args)
    }

    async fn exec(&self, name: &str) {
        let command = domain::Command::argv(["true"]);
        let output =
            domain::exec(self.backend.as_ref(), name, &command, &self.cancel).await.unwrap();
        assert!(output.exit.ok());
    }

    async fn execs(&self, table: &mut Table) {
        let (mut ours, mut theirs, mut library) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..31 {
            ours.push(self.ours(&["exec", "b", "--", "true"]));
            theirs.push(self.theirs(&["exec", "b", "--", "true"]));
            library.push(timed(self.exec("b")).await);
        }
        let (ours, theirs, library) = (median(ours), median(theirs), median(library));
        table.row(
            "`exec true`, whole process",
            ms(ours),
            ratio(ours, theirs, "`incus exec`"),
            "≤ 0.6 × `incus exec`",
        );
        table.row("`exec true`, library", ms(library), ratio(library, theirs, "`incus exec`"), "");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.push(
                timed(async {
                    for _ in 0..100 {
                        self.exec("b").await;
                    }
                })
                .await,
            );
            theirs.push((0..100).map(|_| self.theirs(&["exec", "b", "--", "true"])).sum());
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.row(
            "100 × `exec true`, one session",
            ms(ours),
            ratio(ours, theirs, "`incus exec`"),
            "≤ 0.35 × `incus exec`",
        );
    }

    async fn snapshots(&self, table: &mut Table) {
        let (mut ours, mut theirs, mut library) = (Vec::new(), Vec::new(), Vec::new());
        let http = Arc::new(Http::new(Place::Unix(self.daemon.socket())));
        let mut raw = Vec::new();
        for round in 0..15 {
            let label = |who: &str| format!("{who}{round}");
            let body = json!({"name": label("r")});
            raw.push(timed(done(&http, Method::POST, "/1.0/instances/b/snapshots", body)).await);
            ours.push(self.ours(&["snapshot", "create", "b", &label("o")]));
            theirs.push(self.theirs(&["snapshot", "create", "b", &label("t")]));
            let spec = SnapshotSpec::new(label("l"));
            library.push(timed(self.backend.snapshot("b", &spec, &self.cancel)).await);
        }
        let (ours, theirs, library) = (median(ours), median(theirs), median(library));
        let goal = "≤ 0.9 × `incus snapshot create`";
        let peer = "`incus snapshot create`";
        let raw = median(raw);
        table.row(
            "snapshot by a raw request, of no one moment",
            ms(raw),
            ratio(raw, theirs, peer),
            "",
        );
        table.row(
            "snapshot of a running sandbox, whole process",
            ms(ours),
            ratio(ours, theirs, peer),
            goal,
        );
        table.row(
            "snapshot of a running sandbox, library",
            ms(library),
            ratio(library, theirs, peer),
            goal,
        );
    }

    async fn clones(&self, table: &mut Table) {
        self.backend.snapshot("b", &SnapshotSpec::new("s"), &self.cancel).await.unwrap();
        let (mut ours, mut theirs, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..9 {
            whole.push(
                self.ours(&["clone", "b", "three", "--label", "s"])
                    + self.ours(&["exec", "three", "--", "true"]),
            );
            self.ours(&["delete", "--yes", "three"]);
            let clone = async {
                let spec = CloneSpec::of("s", "one");
                Backend::clone(self.backend.as_ref(), "b", &spec, &self.cancel).await.unwrap();
                self.exec("one").await;
            };
            ours.push(timed(clone).await);
            self.backend.delete("one", &self.cancel).await.unwrap();
            let copy = ["copy", "b/s", "two"];
            theirs.push(
                self.theirs(&copy)
                    + self.theirs(&["start", "two"])
                    + self.theirs(&["exec", "two", "--", "true"]),
            );
            self.theirs(&["delete", "--force", "two"]);
        }
        let (ours, theirs, whole) = (median(ours), median(theirs), median(whole));
        table.row(
            "clone of a snapshot, start and first `exec true`, two whole processes",
            ms(whole),
            ratio(whole, theirs, "`incus copy`, `start`, `exec`"),
            "≤ 0.9 × `incus copy`, `start`, `exec`",
        );
        table.row(
            "clone of a snapshot, start and first `exec true`, library",
            ms(ours),
            ratio(ours, theirs, "`incus copy`, `start`, `exec`"),
            "≤ 0.9 × `incus copy`, `start`, `exec`",
        );
    }

    /// 500 files of 100 KiB.
    fn push(&self, table: &mut Table) {
        let tree = self.folder.join("tree");
        for at in 0..500usize {
            let folder = tree.join((at % 10).to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let bytes: Vec<u8> = (0..100 << 10).map(|n: usize| (n * 31 + at * 7) as u8).collect();
            std::fs::write(folder.join(at.to_string()), bytes).unwrap();
        }
        let script = "open(\"b\").push(\"tree\", \"/root/ours\");\n";
        std::fs::write(self.folder.join("push.rhai"), script).unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            ours.push(self.ours(&["run", "push.rhai"]));
            theirs.push(self.theirs(&["file", "push", "-r", "-q", "tree", "b/root/theirs/", "-p"]));
            self.theirs(&["exec", "b", "--", "rm", "-rf", "/root/ours", "/root/theirs"]);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.row(
            "push of 50 MB in 500 files, whole process",
            ms(ours),
            ratio(ours, theirs, "`incus file push -r`"),
            "≤ 0.7 × `incus file push -r`",
        );
    }

    /// The same machines, by requests that do nothing else.
    async fn raw(&self, http: &Arc<Http>, at: usize) {
        let name = format!("raw{at}");
        let run = async |method: Method, path: String, body: Value| {
            done(http, method, &path, body).await;
        };
        let source = json!({"type": "copy", "source": "b/s", "instance_only": true});
        let body = json!({"name": name, "source": source, "start": true});
        run(Method::POST, "/1.0/instances".into(), body).await;
        let body = json!({"command": ["true"], "wait-for-websocket": false});
        run(Method::POST, format!("/1.0/instances/{name}/exec"), body).await;
        let body = json!({"action": "stop", "force": true, "timeout": -1});
        run(Method::PUT, format!("/1.0/instances/{name}/state"), body).await;
        run(Method::DELETE, format!("/1.0/instances/{name}"), Value::Null).await;
    }

    async fn matrix(&self, table: &mut Table) {
        let parallel = self.backend.capabilities().parallelism;
        if !self
            .backend
            .snapshots("b", &self.cancel)
            .await
            .unwrap()
            .iter()
            .any(|one| one.label == "s")
        {
            self.backend.snapshot("b", &SnapshotSpec::new("s"), &self.cancel).await.unwrap();
        }
        let script = format!(
            "let n = []; for i in 0..{CELLS} {{ n.push(i); }}
            matrix(\"m\", #{{ from: open(\"b\"), axes: #{{ n: n }}, parallel: {parallel} }}, |cell| {{ cell.sandbox.run([\"true\"]); }});"
        );
        let source = Source::new("m.rhai", script.as_str());
        let http = Arc::new(Http::new(Place::Unix(self.daemon.socket())));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let backend: Arc<dyn Backend> = self.backend.clone();
            let host = Host::builder(backend).project(&self.folder).build().unwrap();
            ours.push(
                timed(async {
                    sandscript::run(&source, &host).await.result.unwrap();
                })
                .await,
            );
            let gate = Arc::new(tokio::sync::Semaphore::new(parallel));
            let all = (0..CELLS).map(|at| async move { at });
            theirs.push(
                timed(async {
                    let each = all.map(|at| {
                        let (gate, http) = (Arc::clone(&gate), Arc::clone(&http));
                        async move {
                            let _turn = gate.acquire_owned().await.unwrap();
                            self.raw(&http, at.await).await;
                        }
                    });
                    futures_util::future::join_all(each).await;
                })
                .await,
            );
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.row(
            format!("matrix of {CELLS} cells that run `true`, {parallel} at once"),
            ms(ours),
            ratio(ours, theirs, "the same operations by raw requests"),
            "≤ 1.15 × raw requests",
        );
    }

    async fn list(&self, table: &mut Table) {
        let mut spec = Spec::new("");
        (spec.bare, spec.egress) = (true, Policy::None);
        for at in 0..99 {
            spec.name = format!("n{at}");
            self.backend.create(&spec, &self.cancel).await.unwrap();
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..11 {
            ours.push(self.ours(&["list", "--format", "json"]));
            theirs.push(self.theirs(&["list", "--format", "json"]));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.row(
            "list of 100, whole process",
            ms(ours),
            ratio(ours, theirs, "`incus list`"),
            "≤ 1.0 × `incus list`",
        );
    }
}
