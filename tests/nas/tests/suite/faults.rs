//! Faults on demand, transcripts, and a client that others wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nas_sim::{Options, Release, Sim};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::alone::{self, program};
use crate::client::{Client, LIMIT};
use crate::rig::{self, small, test};
use crate::{containers, traps_25, traps_26};

pub fn tests() -> Vec<Trial> {
    let mut all = vec![
        test("faults::on_calls", || Box::pin(on_calls())),
        test("faults::control_socket", || Box::pin(control())),
        test("faults::flags", || Box::pin(flags())),
        test("faults::transcript", || Box::pin(transcript())),
        test("faults::pool_and_clock", || Box::pin(pool_and_clock())),
        rig::big("faults::late_sshd", Release::V25_10, |s| Box::pin(late_sshd(s))),
        rig::big("faults::slow_dhcp", Release::V26Rc, |s| Box::pin(slow_dhcp(s))),
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

/// All that a simulator is told on its command line is what it does, as its control socket says.
async fn flags() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let flags = "--latency 1 --jitter 2 --fail system.info=EBUSY:3 --drop-after 1000 --drop-at a.b \
        --restart-every 3600000 --dhcp-delay 4 --sshd-delay 5 --busy-deletes 6 --full --skew -7";
    let mut args: Vec<&str> = flags.split_whitespace().collect();
    args.extend(["--control", path.to_str().unwrap()]);
    let sim = alone::with(Release::V25_10, None, &args);
    let stream = loop {
        // It may say where it is before this socket is there.
        match tokio::net::UnixStream::connect(&path).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut stream = tokio::io::BufReader::new(stream);
    stream.write_all(b"status\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status: Value = serde_json::from_str(&line).unwrap();
    let told = json!({
        "latency": 1, "jitter": 2, "fail": ["system.info=EBUSY"], "drop_after": 1000, "drop_once": null, "drop_shell_once": null,
        "drop_at": ["a.b"],
        "restart_every": 3_600_000, "dhcp_delay": 4, "sshd_delay": 5, "busy_deletes": 6, "full": true, "skew": -7,
    });
    assert_eq!(status["faults"], told);
    let mut client = Client::elsewhere(sim.about["address"].as_str().unwrap()).await;
    for _ in 0..3 {
        assert_eq!(client.fails("system.info", json!([])).await["data"]["error"], 16);
    }
    client.ok("system.info", json!([])).await;
    // What is told later holds from then on.
    stream.write_all(b"restart-every 200\n").await.unwrap();
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

/// When a unit of a guest began to start and when it was up, in microseconds since its boot.
async fn started(client: &mut Client, exec: &str, unit: &str) -> (u64, u64) {
    let show = "-p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic";
    let row = client.host(&format!("{exec} systemctl show {show} {unit}")).await;
    let text = row["logs_excerpt"].as_str().unwrap_or_default().to_owned();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{key} in {text:?}"))
    };
    (value("InactiveExitTimestampMonotonic"), value("ActiveEnterTimestampMonotonic"))
}

/// A guest has its address, and its sshd comes two seconds later.
async fn late_sshd(sim: &Sim) {
    let mut client = Client::root(sim).await;
    traps_25::dev(&mut client, false).await;
    sim.control("sshd-delay 2000").await.unwrap();
    client.done("virt.instance.start", json!(["dev"])).await;
    sim.control("sshd-delay 0").await.unwrap();
    containers::sshd(&mut client).await;
    let (began, up) = started(&mut client, "incus exec dev --", "ssh").await;
    assert!(up - began >= 2_000_000, "up after {} µs", up - began);
    // The next start is as quick as ever: nothing waits.
    client.done("virt.instance.stop", json!(["dev", {"force": true}])).await;
    client.done("virt.instance.start", json!(["dev"])).await;
    let row = client.host("incus exec dev -- cat /etc/sshd-delay").await;
    assert_eq!((&row["state"], &row["logs_excerpt"]), (&json!("SUCCESS"), &json!("")));
}

/// A guest asks for its address two seconds late.
async fn slow_dhcp(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let id = traps_26::dev(&mut client, false).await;
    sim.control("dhcp-delay 2000").await.unwrap();
    client.ok("container.start", json!([id])).await;
    sim.control("dhcp-delay 0").await.unwrap();
    let exec = "truenas-nsexec -n dev --";
    let waited = async {
        loop {
            let row = client.host(&format!("{exec} ip -4 -o addr show dev eth0")).await;
            if row["logs_excerpt"].as_str().is_some_and(|t| t.contains("inet ")) {
                return started(&mut client, exec, "networking").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (began, up) = tokio::time::timeout(LIMIT, waited).await.expect("an address");
    assert!(up - began >= 2_000_000, "up after {} µs", up - began);
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
