//! Load: many calls, many jobs, many containers.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nas_sim::Release;
use serde_json::{Value, json};

use crate::alone::program;
use crate::client::{Client, LIMIT};
use crate::rig::{self, RUNTIME, small, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("load::calls_and_jobs", || Box::pin(load())),
        rig::rooted("load::fifty_containers".into(), fifty),
    ]
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
