//! How fast it is, in turns with doing without: with `SANDSCRIPT_EGRESS_SPEED=FILE` the rows of a table
//! go to that file. `benches/run` does it.

use std::time::{Duration, Instant};

use sandscript::sandbox::{Cancel, Policy, Spec};

use crate::Test;
use crate::probe::attempt;
use crate::rig::{Rig, Sandbox};

pub const TESTS: &[Test] = &[("speed", speed)];

const SINK: &str = "203.0.113.10:9000";
const UPSTREAM: &str = "203.0.113.53:53";

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn timed(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let times = (0..count).map(|number| {
        let start = Instant::now();
        work(number);
        start.elapsed()
    });
    median(times.collect())
}

/// What a probe gives in the sandbox and right on the host, in turns: the middle of each.
fn in_turns(sandbox: &Sandbox<'_>, rounds: usize, inside: &[&str], outside: &[&str]) -> (f64, f64) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        with.push(sandbox.probe(inside).parse().unwrap());
        without.push(attempt(outside).unwrap().parse().unwrap());
    }
    (middle(with), middle(without))
}

fn speed(rig: &Rig) {
    let Some(file) = std::env::var_os("SANDSCRIPT_EGRESS_SPEED") else { return };
    let mut rows = String::from("| what | median | compared | goal |\n|---|---|---|---|\n");
    let mut row = |what: &str, median: String, compared: String, goal: &str| {
        rows.push_str(&format!("| {what} | {median} | {compared} | {goal} |\n"));
    };
    let rules: Vec<String> = (0..50).map(|number| format!("*.n{number}.test:443")).collect();
    let fifty = Policy::allowlist(&rules).unwrap();
    let make = |policy: &Policy| {
        let mut spec = Spec::new(rig.name());
        spec.egress = policy.clone();
        // Nothing is made ahead for any of them.
        spec.mounts = rig.probe_mount();
        let start = Instant::now();
        rig.wait(rig.backend.create(&spec, &Cancel::new())).unwrap();
        let took = start.elapsed();
        rig.wait(rig.backend.delete(&spec.name, &Cancel::new())).unwrap();
        took
    };
    let kept = rig.sandbox(&["allowed.test", "*.many.test"]);
    let (mut none, mut with) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        none.push(make(&Policy::None));
        with.push(make(&fifty));
    }
    let (none, with) = (median(none), median(with));
    row(
        "set-up of a policy with 50 rules",
        format!("{:.2} ms", with - none),
        format!("create {with:.2} ms, without egress {none:.2} ms"),
        "≤ 5 ms as root, ≤ 3 ms as an ordinary user",
    );
    let allow = timed(40, |number| kept.allow(&format!("x{number}.test")));
    row("`allow`, one sandbox there", format!("{allow:.2} ms"), String::new(), "≤ 2 ms");

    let open = rig.sandbox(&["203.0.113.10"]);
    let (gate, plain) = in_turns(&open, 15, &["pour", SINK], &["pour", SINK]);
    row(
        "throughput of an address rule",
        format!("{gate:.1} Gbit/s"),
        format!("{:.2} × a plain pair of interfaces, {plain:.1} Gbit/s", gate / plain),
        "≥ 0.5 × a plain pair, ≥ 2 Gbit/s; as root ≥ 0.95 ×",
    );
    let named = ["requests", "203.0.113.10:80", "allowed.test"];
    let (gate, plain) = in_turns(&kept, 7, &named, &named);
    row(
        "a connection and a request to a name: added",
        format!("{:.2} ms", (gate - plain) / 1e3),
        format!("{:.2} ms, without the gate {:.2} ms", gate / 1e3, plain / 1e3),
        "≤ 0.5 ms",
    );
    let mut series = 0;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        // New names each time: none is remembered.
        series += 1;
        let name = format!("s{series}.many.test");
        with.push(kept.probe(&["questions", UPSTREAM, &name]).parse().unwrap());
        without.push(attempt(&["questions", UPSTREAM, &name]).unwrap().parse().unwrap());
    }
    let (gate, plain) = (middle(with), middle(without));
    row(
        "an answer of the resolver that it has to ask for: added",
        format!("{:.2} ms", (gate - plain) / 1e3),
        format!("{:.2} ms, the upstream's own {:.2} ms", gate / 1e3, plain / 1e3),
        "≤ 1 ms",
    );

    let many = ["pours", SINK, "300"];
    let alone = beside(&kept, rig, &[], &named);
    let shared = beside(&kept, rig, &many, &named);
    row(
        "a connection and a request to a name, while another sandbox pours by 300 connections",
        format!("{:.2} ms", shared / 1e3),
        format!("alone {:.2} ms", alone / 1e3),
        "",
    );
    let one = ["pours", SINK, "1"];
    let fair = beside(&open, rig, &one, &["pour", SINK]);
    let shared = beside(&open, rig, &many, &["pour", SINK]);
    row(
        "throughput of one connection, while another sandbox pours by 300",
        format!("{shared:.1} Gbit/s"),
        format!("{:.2} × that beside one that pours by one, {fair:.1} Gbit/s", shared / fair),
        "",
    );

    let start = Instant::now();
    let all: Vec<_> = (0..200).map(|_| rig.sandbox_of(fifty.clone())).collect();
    let took = start.elapsed().as_secs_f64();
    let what = "200 sandboxes with 50 rules each, one after the other";
    row(what, format!("{took:.2} s"), String::new(), "≤ 2 s");
    let allow = timed(40, |number| kept.allow(&format!("y{number}.test")));
    row("`allow`, 201 sandboxes there", format!("{allow:.2} ms"), String::new(), "≤ 2 ms");
    let gate = rig.gates().first().map_or(0, |pid| resident(*pid));
    row(
        "memory of the gate with them",
        format!("{:.1} MiB", gate as f64 / 1024.0),
        String::new(),
        "",
    );
    drop(all);
    std::fs::write(file, rows).unwrap();
}

/// What a probe gives while another sandbox does something.
fn beside(sandbox: &Sandbox<'_>, rig: &Rig, other: &[&str], words: &[&str]) -> f64 {
    let busy = rig.sandbox(&["203.0.113.10"]);
    if !other.is_empty() {
        busy.background(other, "/tmp/busy");
        crate::rig::eventually("it pours", || busy.file("/tmp/busy").contains("pouring"));
        std::thread::sleep(Duration::from_secs(1));
    }
    middle((0..5).map(|_| sandbox.probe(words).parse().unwrap()).collect())
}

fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
