//! sandscript against OpenSSH's client on one guest of a simulated NAS, in turns: medians as a Markdown
//! table. And what pipelining is worth on the wire to the NAS.
//!
//! `cargo bench --bench truenas`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../peers/facts.rs"]
mod facts;
#[path = "../../tests/incus/rig/mod.rs"]
mod rig;
#[path = "../peers/table.rs"]
mod table;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nas_sim::{Options, Release, Sim};
use sandscript::backend::truenas::{SshConfig, TrueNasBackend, TrueNasConfig, Ways};
use sandscript::sandbox::{self as domain, Backend, Cancel, Policy, Spec};
use sandscript::transport::jsonrpc::{Address, Client, Login, NasConfig};
use sandscript::transport::{Fingerprint, KeySource, Trust};
use sandscript::{Host, Source};
use serde_json::json;

use table::{Table, ms, ratio};

/// How many calls are made of each kind.
const PINGS: usize = 2000;

fn main() -> ExitCode {
    // The simulated host's own commands are this program by other names.
    let argv: Vec<String> = std::env::args().collect();
    let name = argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if nas_sim::tool::NAMES.contains(&name) {
        return (nas_sim::tool::run(name, &argv[1..]) as u8).into();
    }
    if let Some(why) = rig::lacks() {
        println!("skip: {why}");
        return ExitCode::SUCCESS;
    }
    let temp = tempfile::Builder::new().prefix("sandscript-bench-").tempdir_in("/var/tmp").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut table = Table::default();
    runtime.block_on(async {
        let mut options = Options::new(Release::V25_10, temp.path().join("nas"));
        options.rootfs = Some(rig::rootfs().unwrap());
        let sim = Sim::start(options, &std::env::current_exe().unwrap()).await.unwrap();
        pings(&sim, &mut table).await;
        execs(&sim, temp.path(), &mut table).await;
    });
    table.note("one simulated NAS of 25.10 on this machine, one guest, the guest's own sshd");
    println!("{}\n{table}", facts::facts());
    ExitCode::SUCCESS
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

fn config(sim: &Sim) -> NasConfig {
    let trust = Trust::Fingerprint(Fingerprint::parse(&sim.fingerprint).unwrap());
    let login = Login::ApiKey { user: "root".into(), key: sim.keys[0].clone() };
    NasConfig::new(Address::parse(&sim.address.to_string()).unwrap(), trust, login)
}

/// A backend that goes this way, with the key and the memory of a folder.
async fn by(sim: &Sim, ways: Ways, folder: &Path) -> Arc<TrueNasBackend> {
    let mut all = TrueNasConfig::new(config(sim));
    all.ways = ways;
    let key = KeySource::Made(folder.join("id_ed25519"));
    all.ssh = Some(SshConfig { key, known: Some(folder.join("known")), jump: None });
    Arc::new(TrueNasBackend::open(all).await.unwrap())
}

async fn pings(sim: &Sim, table: &mut Table) {
    let client = Client::open(config(sim)).await.unwrap();
    let ping = || async { client.read("core.ping", json!([])).await.unwrap() };
    let (mut together, mut single) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let all = futures_util::stream::iter(0..PINGS).map(|_| ping()).buffer_unordered(64);
        together.push(timed(all.for_each(|_| async {})).await);
        single.push(
            timed(async {
                for _ in 0..PINGS {
                    ping().await;
                }
            })
            .await,
        );
    }
    let (together, single) = (median(together), median(single));
    let faster = single.as_secs_f64() / together.as_secs_f64();
    table.row(
        format!("{PINGS} × `core.ping`, one connection"),
        ms(together),
        format!("{faster:.1} × as fast as one at a time"),
        "≥ 5 × as fast as one at a time",
    );
}

async fn exec(backend: &TrueNasBackend) {
    let command = domain::Command::argv(["true"]);
    let output = domain::exec(backend, "b", &command, &Cancel::new()).await.unwrap();
    assert!(output.exit.ok());
}

async fn execs(sim: &Sim, folder: &Path, table: &mut Table) {
    let backend = by(sim, Ways::Ssh, folder).await;
    let shell = by(sim, Ways::Shell, folder).await;
    let spec = Spec { egress: Policy::Unrestricted, ..Spec::new("b") };
    backend.create(&spec, &Cancel::new()).await.unwrap();
    exec(&backend).await;
    exec(&shell).await;
    let place = backend.get("b", &Cancel::new()).await.unwrap().exec.unwrap();
    let place = place.strip_prefix("ssh ").unwrap().to_owned();
    let (key, control) = (folder.join("id_ed25519"), folder.join("control"));
    let ssh = |more: &[&str]| {
        let start = Instant::now();
        let status = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"])
            .arg(&key)
            .args(more)
            .args([place.as_str(), "true"])
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "ssh {more:?}");
        start.elapsed()
    };
    let path = format!("ControlPath={}", control.display());
    let through = ["-o", path.as_str(), "-o", "ControlMaster=auto", "-o", "ControlPersist=600"];
    ssh(&through);
    let (mut ours, mut typed, mut fresh, mut master) = (vec![], vec![], vec![], vec![]);
    for _ in 0..31 {
        ours.push(timed(exec(&backend)).await);
        typed.push(timed(exec(&shell)).await);
        fresh.push(ssh(&[]));
        master.push(ssh(&through));
    }
    let (ours, typed, fresh, master) = (median(ours), median(typed), median(fresh), median(master));
    for (what, took) in [("SSH", ours), ("the NAS's shell", typed)] {
        table.row(
            format!("warm `exec true` by {what}"),
            ms(took),
            ratio(took, fresh, "`ssh host true`"),
            "≤ 10 ms, ≤ 0.06 × `ssh host true`",
        );
        table.row(
            "the same",
            ms(took),
            ratio(took, master, "ControlMaster"),
            "≤ 1.0 × ControlMaster",
        );
    }
    for (what, backend) in [("SSH", backend.clone()), ("the NAS's shell", shell.clone())] {
        let host = Host::builder(backend.clone())
            .project(folder)
            .cache(folder.join("cache"))
            .print(|_| {})
            .build()
            .unwrap();
        let text = "let b = open(\"b\"); for i in 0..100 { b.run([\"true\"]); }";
        let mut all = Vec::new();
        for _ in 0..3 {
            let run = async {
                sandscript::lang::run(&Source::new("a.rhai", text), &host).await.result.unwrap();
            };
            all.push(timed(run).await);
        }
        let all = median(all);
        table.row(
            format!("100 × `exec true` in one script by {what}"),
            ms(all),
            ratio(all, fresh * 100, "`ssh host true`"),
            "≤ 1500 ms",
        );
    }
    let _ = Command::new("ssh")
        .args(["-O", "exit", "-o", &path, &place])
        .stderr(Stdio::null())
        .status();
    backend.delete("b", &Cancel::new()).await.unwrap();
}
