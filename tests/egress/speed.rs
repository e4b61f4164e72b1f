//! How long it takes, printed: `SANDSCRIPT_EGRESS_SPEED=1 cargo test --release --test egress speed`.

use std::time::{Duration, Instant};

use sandscript::sandbox::{Backend, Cancel, Policy, Spec};

use crate::Test;
use crate::probe::pour;
use crate::rig::Rig;

pub const TESTS: &[Test] = &[("speed", speed)];

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed(count: usize, mut work: impl FnMut(usize)) -> Duration {
    let times = (0..count).map(|number| {
        let start = Instant::now();
        work(number);
        start.elapsed()
    });
    median(times.collect())
}

fn speed(rig: &Rig) {
    if std::env::var_os("SANDSCRIPT_EGRESS_SPEED").is_none() {
        return;
    }
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
    let kept = rig.sandbox(&["allowed.test"]);
    let open = rig.sandbox(&["203.0.113.10"]);
    if std::env::var_os("ONLY").is_some() {
        for _ in 0..6 {
            println!("gate {}", open.probe(&["pour", "203.0.113.10:9000"]));
        }
        return;
    }
    let none = median((0..40).map(|_| make(&Policy::None)).collect());
    let with = median((0..40).map(|_| make(&fifty)).collect());
    println!("create: none {none:?}, 50 rules {with:?}, more by {:?}", with.saturating_sub(none));
    println!("allow, 1 sandbox: {:?}", timed(40, |n| kept.allow(&format!("x{n}.test"))));
    let open = rig.sandbox(&["203.0.113.10"]);
    let nat = rig.sandbox_of(Policy::Unrestricted);
    if std::env::var_os("ONLY").is_some() {
        for _ in 0..6 {
            println!("gate {}", open.probe(&["pour", "203.0.113.10:9000"]));
        }
        return;
    }
    for _ in 0..12 {
        println!(
            "veth {}, gate {}, nat {}",
            pour("203.0.113.10:9000").unwrap(),
            open.probe(&["pour", "203.0.113.10:9000"]),
            nat.probe(&["pour", "203.0.113.10:9000"])
        );
    }
    let get = ["many", "203.0.113.10:80", "allowed.test", "200"];
    println!("guest, a request through the gate: {}", kept.probe(&get));
    let start = Instant::now();
    let all: Vec<_> = (0..200).map(|_| rig.sandbox_of(fifty.clone())).collect();
    println!("200 sandboxes with 50 rules, one after the other: {:?}", start.elapsed());
    println!("allow, 200 sandboxes: {:?}", timed(40, |n| kept.allow(&format!("y{n}.test"))));
    println!("the gate: {} KiB", rig.gates().first().map_or(0, |pid| resident(*pid)));
    drop(all);
}

fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
