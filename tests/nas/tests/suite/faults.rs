//! Faults on demand, transcripts, load, what is left behind, and a client that others wrote.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nas_sim::{Options, Release};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::client::{Client, LIMIT};
use crate::rig::{self, RUNTIME, small, test};

pub fn tests() -> Vec<Trial> {
    let mut all = vec![
        test("faults::on_calls", || Box::pin(on_calls())),
        test("faults::control_socket", || Box::pin(control())),
        test("faults::transcript", || Box::pin(transcript())),
        test("faults::pool_and_clock", || Box::pin(pool_and_clock())),
        test("load::calls_and_jobs", || Box::pin(load())),
        rig::rooted("load::fifty_containers".into(), fifty),
        rig::rooted("leftovers::after_sigkill".into(), leftovers),
    ];
    for release in Release::ALL {
        all.push(rig::rooted(format!("aiotruenas::{release:?}"), move || foreign(release)));
    }
    all
}

async fn on_calls() {
    let set = small(Release::V25_10, |o| {
        o.faults.fails.push(nas_sim::rule("system.info=EBUSY:2").unwrap());
        o.faults.latency = Duration::from_millis(100);
        o.faults.jitter = Duration::from_millis(10);
        o.faults.drop_at.push("cronjob.query".into());
    })
    .await;
    let mut client = Client::root(&set.sim).await;
    for _ in 0..2 {
        assert_eq!(client.fails("system.info", json!([])).await["data"]["error"], 16);
    }
    let started = Instant::now();
    client.ok("system.info", json!([])).await;
    assert!(started.elapsed() >= Duration::from_millis(100));
    client.start("cronjob.query", json!([])).await;
    assert_eq!(client.closed().await, 1006);
    set.sim.control("clear").await.unwrap();
    set.sim.control("drop-after 3").await.unwrap();
    let mut client = Client::root(&set.sim).await;
    client.ok("system.version", json!([])).await;
    client.ok("system.version", json!([])).await;
    client.start("system.version", json!([])).await;
    assert_eq!(client.closed().await, 1006);
    assert!(set.sim.control("no-such-fault").await.is_err());
    let set = small(Release::V25_10, |o: &mut Options| {
        o.faults.restart_every = Some(Duration::from_millis(700))
    })
    .await;
    let mut client = Client::root(&set.sim).await;
    assert_eq!(client.closed().await, 1001);
}

async fn control() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let set = small(Release::V25_04, |o| o.control = Some(path.clone())).await;
    let say = async |command: &str| {
        let stream = loop {
            match tokio::net::UnixStream::connect(&path).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let mut stream = tokio::io::BufReader::new(stream);
        stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(say("fail system.version=EAGAIN").await, json!({"ok": true}));
    assert_eq!(say("status").await["faults"]["fail"], json!(["system.version=EAGAIN"]));
    let mut client = Client::root(&set.sim).await;
    assert_eq!(client.fails("system.version", json!([])).await["data"]["error"], 11);
    assert!(say("fail x").await["error"].is_string());
    say("expire 1").await;
    let login =
        json!([{"mechanism": "API_KEY_PLAIN", "username": "root", "api_key": set.sim.keys[0]}]);
    let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
    assert_eq!(client.ok("auth.login_ex", login).await["response_type"], "EXPIRED");
}

async fn transcript() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let set = small(Release::V26Rc, |o| o.transcript = Some(path.clone())).await;
    let mut client = Client::root(&set.sim).await;
    client.ok("system.version", json!([])).await;
    drop(Client::root(&set.sim).await);
    let text = std::fs::read_to_string(path.join("26-rc_1.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[2],
        json!({"dir": "c2s", "frame": {"jsonrpc": "2.0", "id": 2, "method": "system.version", "params": []}})
    );
    assert_eq!(
        lines[3],
        json!({"dir": "s2c", "frame": {"jsonrpc": "2.0", "id": 2, "result": "TrueNAS-26.0.0-RC.1"}})
    );
    assert!(path.join("26-rc_2.jsonl").exists());
}

async fn pool_and_clock() {
    let set = small(Release::V25_10, |o| {
        o.faults.full = true;
        o.faults.busy_deletes = 2;
        o.faults.skew = 3_600_000;
    })
    .await;
    let mut client = Client::root(&set.sim).await;
    let create = json!([{"dataset": "tank", "name": "a"}]);
    assert_eq!(client.fails("pool.snapshot.create", create.clone()).await["data"]["error"], 28);
    set.sim.control("full off").await.unwrap();
    client.ok("pool.snapshot.create", create).await;
    for _ in 0..2 {
        assert_eq!(
            client.fails("pool.snapshot.delete", json!(["tank@a"])).await["data"]["error"],
            16
        );
    }
    client.ok("pool.snapshot.delete", json!(["tank@a"])).await;
    let there = client.ok("system.info", json!([])).await["datetime"]["$date"].as_i64().unwrap();
    let here =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
            as i64;
    assert!((there - here - 3_600_000).abs() < 60_000);
}

/// A simulator as a program of its own.
struct Program {
    child: Child,
    about: Value,
    state: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn program(release: Release, rootfs: Option<&Path>) -> Program {
    let state = tempfile::tempdir().unwrap().keep();
    let mut command = Command::new(rig::program());
    // What is free is given back to one place, so that growth is growth.
    command.env("MALLOC_ARENA_MAX", "1");
    command.args(["--check-results", "--release", release.name(), "--state"]).arg(&state);
    if let Some(rootfs) = rootfs {
        command.arg("--rootfs").arg(rootfs);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Program { child, about: serde_json::from_str(&line).unwrap_or_default(), state }
}

/// Resident memory in KiB.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Ten connections at once, and a day's worth of jobs: one every 20 seconds.
async fn load() {
    let started = Instant::now();
    let set = small(Release::V25_10, |_| {}).await;
    Client::root(&set.sim).await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "first reply after {:?}",
        started.elapsed()
    );
    drop(set);
    let sim = program(Release::V25_10, None);
    let address = sim.about["address"].as_str().unwrap();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::elsewhere(address).await);
    }
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let started = Instant::now();
        let all = clients.iter_mut().map(|client| async move {
            for _ in 0..100 {
                client.ok("core.ping", json!([])).await;
            }
        });
        futures_util::future::join_all(all).await;
        best = best.max(1000.0 / started.elapsed().as_secs_f64());
    }
    assert!(best > 200.0, "{best} calls a second");
    let mut client = Client::elsewhere(address).await;
    client.ok("core.subscribe", json!(["core.get_jobs"])).await;
    // What is remembered is a thousand jobs: memory grows until then, and whoever loses some with
    // each job grows on.
    let mut marks = Vec::new();
    for n in 1..=4320 {
        let job = client.ok("core.bulk", json!(["core.ping", [[]]])).await;
        client.events.clear();
        if n % 480 == 0 {
            client.wait(&job).await;
            marks.push(memory(sim.child.id()));
        }
    }
    let rows = client.ok("core.get_jobs", json!([[], {"count": true}])).await;
    assert!(rows.as_i64().unwrap() <= 1000, "{rows} jobs are remembered");
    let later = marks.windows(2).skip(3).map(|m| m[1].saturating_sub(m[0]));
    let least = later.min().unwrap_or(0);
    assert!(least < 128, "memory grows by {least} KiB and more with 480 jobs: {marks:?}");
}

/// A simulator that is killed leaves nothing that the next start does not remove.
fn leftovers() -> Result<(), Failed> {
    let rootfs = match rig::needs() {
        Ok(rootfs) => rootfs,
        Err(why) => return why,
    };
    let mut first = program(Release::V25_10, Some(&rootfs));
    let bridge = first.about["bridge"].as_str().ok_or("it did not start")?.to_owned();
    let net = |name: &str| Path::new("/sys/class/net").join(name).exists();
    assert!(net(&bridge));
    let root = first.about["root"].as_str().unwrap_or_default().to_owned();
    let keeper: u32 = root.split('/').nth(2).and_then(|p| p.parse().ok()).ok_or("no process")?;
    RUNTIME.block_on(async {
        let state = first.state.clone();
        let disk = state.join("disk.img");
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        // Everything in its namespaces goes by itself.
        for _ in 0..400 {
            if !Path::new(&format!("/proc/{keeper}")).exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert!(!Path::new(&format!("/proc/{keeper}")).exists(), "its processes go on");
        let attached =
            || !Command::new("losetup").arg("-j").arg(&disk).output().unwrap().stdout.is_empty();
        for _ in 0..400 {
            if !attached() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert!(!attached(), "its disk is still attached");
    });
    drop(first);
    let second = program(Release::V26Rc, Some(&rootfs));
    let again = second.about["bridge"].as_str().unwrap_or_default().to_owned();
    assert!(!again.is_empty());
    assert!(again == bridge || !net(&bridge), "{bridge} is still there");
    // A decent end leaves nothing at all.
    let pid = second.child.id().to_string();
    let mut second = second;
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    second.child.wait().unwrap();
    assert!(!net(&again), "{again} is still there");
    assert!(!Path::new("/sys/fs/cgroup/pids").join(&again).exists());
    Ok(())
}

/// `aiotruenas` logs in, lists, creates, snapshots, rolls back, clones, starts, stops, deletes.
fn foreign(release: Release) -> Result<(), Failed> {
    let rootfs = match rig::needs() {
        Ok(rootfs) => rootfs,
        Err(why) => return why,
    };
    let python = match python() {
        Ok(python) => python,
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => return Err(why.into()),
        Err(why) => {
            eprintln!("skip: {why}");
            return Ok(());
        }
    };
    let sim = program(release, Some(&rootfs));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/foreign.py");
    let output = Command::new(python).arg(script).arg(sim.about.to_string()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(text.into()) }
}

/// A Python that has the client, made once.
fn python() -> Result<PathBuf, String> {
    std::fs::create_dir_all(rig::cache()).map_err(|e| e.to_string())?;
    let folder = rig::cache().join("venv");
    let python = folder.join("bin/python");
    static MADE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MADE.lock();
    let has = |python: &Path| {
        Command::new(python)
            .args(["-c", "import aiotruenas"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if has(&python) {
        return Ok(python);
    }
    let run = |program: &Path, args: &[&str]| {
        Command::new(program).args(args).output().map_err(|e| e.to_string()).and_then(|o| {
            match o.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&o.stderr).into_owned()),
            }
        })
    };
    run(Path::new("python3"), &["-m", "venv", &folder.to_string_lossy()])?;
    // It asks for 3.13, and runs on what Debian has.
    run(
        &python,
        &["-m", "pip", "--quiet", "install", "--ignore-requires-python", "aiotruenas==1.7.0"],
    )?;
    Ok(python)
}

/// What root may watch files with: a guest's systemd takes some of it, and 128 do not reach for
/// fifty.
struct Watches(Option<String>);

const WATCHES: &str = "/proc/sys/fs/inotify/max_user_instances";

impl Watches {
    fn raise() -> Self {
        let before = std::fs::read_to_string(WATCHES).unwrap_or_default();
        let enough = before.trim().parse::<u32>().is_ok_and(|n| n >= 1024);
        if !enough {
            std::fs::write(WATCHES, "1024").unwrap();
        }
        Self((!enough).then_some(before))
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(WATCHES, before.trim());
        }
    }
}

/// Fifty containers that run, listed with their addresses.
fn fifty() -> Result<(), Failed> {
    let rootfs = match rig::needs() {
        Ok(rootfs) => rootfs,
        Err(why) => return why,
    };
    let _room = Watches::raise();
    RUNTIME.block_on(async {
        // One of its own: what runs goes with it, which is quicker than fifty deletes.
        let set = small(Release::V25_10, |o| o.rootfs = Some(rootfs)).await;
        let mut client = Client::root(&set.sim).await;
        let started = Instant::now();
        let mut jobs = Vec::new();
        for n in 0..50 {
            let create = json!([{"name": format!("many{n}"), "image": "debian/12"}]);
            jobs.push(client.ok("virt.instance.create", create).await);
        }
        for job in &jobs {
            // They are started side by side: the last one waits for all.
            let row = client.patient(job, 4).await;
            assert_eq!(row["state"], "SUCCESS", "{}", row["error"]);
        }
        let made = started.elapsed();
        let (rows, took) = loop {
            let asked = Instant::now();
            let rows = client.ok("virt.instance.query", json!([])).await;
            let took = asked.elapsed();
            let rows = rows.as_array().cloned().unwrap_or_default();
            let up = |r: &Value| r["status"] == "RUNNING" && r["aliases"][0]["address"].is_string();
            let count = rows.iter().filter(|r| up(r)).count();
            if count == 50 {
                break (rows, took);
            }
            assert!(started.elapsed() < 5 * LIMIT, "{count} run and have an address");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let addresses: std::collections::BTreeSet<_> =
            rows.iter().map(|r| r["aliases"][0]["address"].to_string()).collect();
        assert_eq!(addresses.len(), 50);
        let all = started.elapsed();
        eprintln!(
            "fifty: started after {made:?}, with addresses after {all:?}, listed in {took:?}"
        );
    });
    Ok(())
}
