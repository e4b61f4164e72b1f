//! What the library's calls take.

use std::time::Duration;

use sandscript::sandbox::{Backend, CloneSpec, Command, SnapshotSpec, Spec, exec, format_size};

use super::peers::{Yardstick, peers};
use super::table::{Table, ms, ratio};
use super::{Bench, median, timed_async};

const ROUNDS: usize = 40;

impl Bench {
    async fn sandbox(&self, name: &str) {
        self.backend.create(&Spec::new(name), &self.cancel).await.unwrap();
    }

    async fn run(&self, name: &str, script: &str) {
        let output =
            exec(self.backend.as_ref(), name, &Command::shell(script), &self.cancel).await.unwrap();
        assert!(output.exit.ok(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn exec_true(&self, name: &str) {
        let command = Command::argv(["true"]);
        assert!(exec(self.backend.as_ref(), name, &command, &self.cancel).await.unwrap().exit.ok());
    }

    async fn delete(&self, name: &str) {
        self.backend.delete(name, &self.cancel).await.unwrap();
    }

    async fn snapshot(&self, name: &str, label: &str) -> Duration {
        let spec = SnapshotSpec::new(label);
        self.backend.snapshot(name, &spec, &self.cancel).await.unwrap().frozen
    }

    /// Lets the kernel take down what was deleted before: nobody is to pay for another's clean-up.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    async fn clone_of(&self, source: &str, label: &str, name: &str) {
        let spec = CloneSpec { bare: true, ..CloneSpec::of(label, name) };
        Backend::clone(self.backend.as_ref(), source, &spec, &self.cancel).await.unwrap();
    }
}

/// Launch and exec, in turns with the peers.
pub async fn launch(bench: &Bench, table: &mut Table) {
    let mut notes = Vec::new();
    let mut all = peers(&bench.folder, &mut |note| notes.push(note));
    bench.sandbox("bench-exec").await;
    bench.exec_true("bench-exec").await;
    let mut launches = Vec::new();
    let mut execs = Vec::new();
    let mut others = vec![Vec::new(); all.len()];
    for _ in 0..ROUNDS {
        bench.settle().await;
        launches.push(
            timed_async(async {
                bench.sandbox("bench-launch").await;
                bench.exec_true("bench-launch").await;
                bench.delete("bench-launch").await;
            })
            .await,
        );
        bench.settle().await;
        execs.push(timed_async(bench.exec_true("bench-exec")).await);
        for (peer, times) in all.iter_mut().zip(&mut others) {
            bench.settle().await;
            times.push(peer.time());
        }
    }
    bench.delete("bench-exec").await;
    let others: Vec<Duration> = others.into_iter().map(median).collect();
    let bwrap = all.iter().position(|peer| peer.name.starts_with("bwrap")).map(|at| others[at]);
    let against = |time: Duration| bwrap.map_or(String::new(), |peer| ratio(time, peer, "bwrap"));
    let (launch, exec) = (median(launches), median(execs));
    table.row(
        "create + exec `true` + delete, library",
        ms(launch),
        against(launch),
        "≤ 1.0 × bwrap",
    );
    table.row(
        "exec `true` in a running sandbox, library",
        ms(exec),
        against(exec),
        "≤ 0.4 × bwrap",
    );
    for (peer, time) in all.iter().zip(others) {
        table.row(format!("`{}`, whole process", peer.name), ms(time), "", "");
    }
    notes.into_iter().for_each(|note| table.note(note));
}

/// Snapshot and clone of an idle sandbox: neither may depend on the size or, much, on the layers.
pub async fn snapshots(bench: &Bench, table: &mut Table) {
    let sizes: [(&str, u64); 2] = [("bench-small", 10 << 20), ("bench-large", 2 << 30)];
    for (name, size) in sizes {
        bench.sandbox(name).await;
        let blocks = size >> 20;
        bench
            .run(name, &format!("dd if=/dev/zero of=/root/data bs=1M count={blocks} 2>/dev/null"))
            .await;
        bench.snapshot(name, "data").await;
    }
    let mut stick = Yardstick::new();
    let mut times = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for round in 0..15 {
        for ((name, _), (snapshots, clones)) in sizes.iter().zip(&mut times) {
            bench.run(name, "echo more >> /root/log").await;
            let label = format!("s{round}");
            bench.settle().await;
            snapshots.push(timed_async(bench.snapshot(name, &label)).await);
            let twin = format!("{name}-twin");
            clones.push(timed_async(bench.clone_of(name, &label, &twin)).await);
            bench.delete(&twin).await;
            bench.settle().await;
            stick.turn();
        }
    }
    for ((name, size), (snapshots, clones)) in sizes.into_iter().zip(times) {
        let size = format_size(size);
        let what = [("snapshot, idle", snapshots), ("clone (not started)", clones)];
        for (what, times) in what {
            let time = median(times);
            let (compared, goal) = stick.compare(time, 2.0);
            table.row(format!("{what}, {size} of data"), ms(time), compared, goal);
        }
        bench.delete(name).await;
    }
    bench.sandbox("bench-deep").await;
    let mut stick = Yardstick::new();
    let (mut snapshots, mut clones) = (Vec::new(), Vec::new());
    for layer in 0..110 {
        bench.run("bench-deep", &format!("echo {layer} > /root/file{layer}")).await;
        let label = format!("s{layer}");
        bench.settle().await;
        let took = timed_async(bench.snapshot("bench-deep", &label)).await;
        if layer >= 95 {
            snapshots.push(took);
            clones.push(timed_async(bench.clone_of("bench-deep", &label, "bench-deep-twin")).await);
            bench.delete("bench-deep-twin").await;
            bench.settle().await;
            stick.turn();
        }
    }
    bench.delete("bench-deep").await;
    for (what, times) in [("snapshot, idle", snapshots), ("clone (not started)", clones)] {
        let time = median(times);
        let (compared, goal) = stick.compare(time, 4.0);
        table.row(format!("{what}, after 100 snapshots"), ms(time), compared, goal);
    }
}

/// How long a busy guest stands still for a snapshot.
pub async fn frozen(bench: &Bench, table: &mut Table) {
    for (what, fill, count, unit, goal) in [
        (
            "32 MiB in one file",
            "dd if=/dev/zero of=/root/data bs=1M count=32 2>/dev/null",
            32,
            "MiB",
            2.0,
        ),
        (
            "2000 files of 1 KiB",
            "mkdir /root/d; i=0; while [ $i -lt 2000 ]; do head -c 1024 /dev/zero > /root/d/$i; i=$((i+1)); done",
            2000,
            "file",
            0.03,
        ),
    ] {
        let mut stick = Yardstick::new();
        let mut times = Vec::new();
        for round in 0..5 {
            let name = format!("bench-busy{round}");
            bench.sandbox(&name).await;
            bench.run(&name, fill).await;
            bench.run(&name, "sleep 1000 >/dev/null 2>&1 &").await;
            bench.settle().await;
            times.push(bench.snapshot(&name, "live").await);
            bench.delete(&name).await;
            bench.settle().await;
            stick.turn();
        }
        let time = median(times);
        let each = time.as_secs_f64() * 1e3 / f64::from(count);
        let (compared, target) = stick.compare(time, goal * f64::from(count));
        table.row(
            format!("snapshot with a process running, {what}: stood still"),
            ms(time),
            format!("{each:.3} ms per {unit}; {compared}"),
            format!("≤ {goal} ms per {unit}; {target}"),
        );
    }
}

/// Memory of sandboxes in which nothing runs but init.
pub async fn idle(bench: &Bench, table: &mut Table) {
    const COUNT: usize = 500;
    let before = available();
    for index in 0..COUNT {
        bench.sandbox(&format!("bench-idle-{index}")).await;
    }
    let after = available();
    let mut pss = 0;
    let mut inits = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("comm").trim() != "sandscript-init" {
            continue;
        }
        inits += 1;
        pss += read("smaps_rollup")
            .lines()
            .find_map(|line| {
                line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
            })
            .unwrap_or_default();
    }
    let each = |kib: u64| format!("{:.0} KiB each", kib as f64 / COUNT as f64);
    table.row(
        format!("{COUNT} idle sandboxes: PSS of their {inits} processes"),
        each(pss),
        format!("{} of the machine's memory, kernel included", each(before.saturating_sub(after))),
        "≤ 1 MiB each",
    );
    for index in 0..COUNT {
        bench.delete(&format!("bench-idle-{index}")).await;
    }
}

/// `MemAvailable`, in KiB.
fn available() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.trim().parse().ok()
        })
        .unwrap_or_default()
}
