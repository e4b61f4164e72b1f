//! Runs that are killed, cells that don't stop, and much output, on this machine's own backend.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::environment::TestEnvironment;

const THIRTY: &str = r#"
let tools = base("tools", |b| b.run("echo tools > /opt/tools"));
let rows = []; for n in 0..30 { rows.push(n); }
matrix("thirty", #{ from: tools, axes: #{ n: rows }, parallel: 4 }, |cell| {
    cell.sandbox.run("cat /opt/tools; sleep 0.05");
    if cell.n % 7 == 3 { fail("broken"); }
});
"#;

/// Names of the sandboxes that are there; bases only when `bases`.
fn names(environment: &TestEnvironment, bases: bool) -> BTreeSet<String> {
    let all: Value = serde_json::from_str(&environment.ok(["list", "--format", "json"])).unwrap();
    let all = all.as_array().unwrap().clone();
    let wanted = |one: &Value| bases || one["labels"]["sandscript.kind"] != "base";
    all.iter()
        .filter(|one| wanted(one))
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until it holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} never held");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_killed_at_any_point_leaves_nothing_after_gc() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", THIRTY);
    environment.write("live.rhai", "let box = sandbox(\"alive\"); sleep(\"600s\");");
    environment.ok(["create", "mine"]);
    let mut live = environment.command(["run", "live.rhai"]).spawn().unwrap();
    until("the living run's sandbox", || names(&environment, false).contains("alive"));

    let start = Instant::now();
    let whole = environment.run(["run", "x.rhai", "--on-fail", "clean"]);
    assert_eq!(whole.code, Some(1), "{whole}");
    let span = start.elapsed();
    let seed = std::process::id();
    for point in 0..20u32 {
        let digest = blake3::hash(format!("{seed} {point}").as_bytes());
        let part = f64::from(digest.as_bytes()[0]) / 256.0;
        let mut run = environment.command(["run", "x.rhai", "--on-fail", "clean"]).spawn().unwrap();
        std::thread::sleep(span.mul_f64(part));
        kill(&mut run);
        if point % 5 == 0 {
            // A dry run says so and takes nothing.
            let before = names(&environment, true);
            environment.ok(["gc"]);
            assert_eq!(names(&environment, true), before, "seed {seed}, point {point}");
        }
        environment.ok(["gc", "--yes"]);
        let left = names(&environment, false);
        let wanted = ["alive", "mine"].map(String::from).into();
        assert_eq!(left, wanted, "seed {seed}, point {point}");
    }
    // The living one lives, what was built is whole, and a run goes through.
    assert_eq!(environment.run(["exec", "alive", "--", "true"]).code, Some(0));
    let last = environment.run(["run", "x.rhai", "--on-fail", "clean"]);
    assert!(last.code == Some(1) && last.stderr.contains("26 passed, 4 failed"), "{last}");
    kill(&mut live);
    // Whoever runs next clears up.
    environment.write("next.rhai", "print(\"next\");");
    environment.ok(["run", "next.rhai"]);
    until("the clearing up", || names(&environment, false) == ["mine"].map(String::from).into());
}

#[test]
fn a_cell_that_ignores_sigterm_is_stopped_all_the_same() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write(
        "x.rhai",
        r#"matrix("m", #{ axes: #{ n: [1, 2] }, timeout: "400ms" }, |cell| {
            cell.sandbox.run("trap '' TERM INT HUP; echo deaf; while :; do sleep 1; done");
        });"#,
    );
    let run = environment.run(["run", "x.rhai", "--on-fail", "clean"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("2 timed out") && run.stderr.contains("│ deaf"), "{run}");
    assert_eq!(names(&environment, true), BTreeSet::new());
}

#[test]
fn two_runs_of_one_matrix_at_once_each_have_their_own() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", THIRTY);
    let both = [(); 2].map(|()| environment.command(["run", "x.rhai"]).spawn().unwrap());
    for child in both {
        let run = environment.finish(child);
        assert_eq!(run.code, Some(1), "{run}");
        assert!(run.stderr.contains("26 passed, 4 failed"), "{run}");
        assert!(!run.stderr.contains("warning"), "{run}");
    }
    let runs: Value =
        serde_json::from_str(&environment.ok(["runs", "list", "--format", "json"])).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 2);
}

/// The most memory that a process has had, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn a_hundred_megabytes_are_kept_in_order_and_not_in_memory() {
    let Some(environment) = TestEnvironment::local() else { return };
    let run = |last: usize| {
        let script = format!(
            r#"matrix("m", #{{ axes: #{{ n: [1] }} }}, |cell| {{
                cell.sandbox.run("seq 1 {last}", #{{ max_output: "64KiB" }});
            }});"#
        );
        environment.write("x.rhai", &script);
        let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            most = most.max(peak(child.id()).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(5));
        }
        let run = environment.finish(child);
        assert_eq!(run.code, Some(0), "{run}");
        most
    };
    let little = run(10);
    // 104,888,896 bytes.
    let last = 12_749_875;
    let much = run(last);
    assert!(much < little + (32 << 10), "{much} KiB, and {little} KiB with nothing to print");
    let kept = environment.path("kept");
    let shown = environment
        .command(["runs", "show", "latest", "--cell", "n=1"])
        .stdout(std::fs::File::create(&kept).unwrap())
        .status()
        .unwrap();
    assert!(shown.success());
    let same = format!("seq 1 {last} | cmp - {}", kept.display());
    let same = std::process::Command::new("sh").args(["-c", &same]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    assert!(std::fs::metadata(&kept).unwrap().len() > 100_000_000);
}

/// Where a user may make namespaces, a file system of 256 KiB can be had.
#[test]
fn a_disk_that_fills_up_costs_the_record_and_the_reports_and_not_the_run() {
    let environment = TestEnvironment::fake();
    let mount = "mount -t tmpfs -o size=256k none \"$0\"";
    let inside = |rest: &str, folder: &std::path::Path| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("{mount} && {rest}")).arg(folder);
        command
    };
    let small = environment.path("small");
    std::fs::create_dir(&small).unwrap();
    if !inside("true", &small).output().is_ok_and(|done| done.status.success()) {
        return crate::environment::skip("no small file system can be mounted");
    }
    let script = r#"matrix("m", #{ axes: #{ n: [1, 2] }, parallel: 1 }, |cell| {
        let text = "0123456789abcdef\n";
        for n in 0..15 { text += text; }
        cell.sandbox.write("/big", text);
        cell.sandbox.run("cat /big");
        if cell.n == 2 { fail("broken"); }
    });
    print("went on");"#;
    environment.write("x.rhai", script);
    let line =
        "exec \"$1\" run x.rhai --report jsonl=\"$0/events.jsonl\" --report junit=\"$0/junit.xml\"";
    let command = environment.command(["run"]);
    let program = crate::environment::program();
    let mut small_disk = inside(line, &small);
    small_disk.arg(&program).current_dir(environment.path("project")).env_clear();
    for (name, value) in command.get_envs() {
        small_disk.env(name, value.unwrap_or_default());
    }
    small_disk.env("XDG_STATE_HOME", small.join("state"));
    small_disk.stdin(std::process::Stdio::null());
    small_disk.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = environment.finish(small_disk.spawn().unwrap());
    // What the cells say decides, not what could be written about them.
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "went on\n"), "{run}");
    assert!(run.stderr.contains("1 passed, 1 failed"), "{run}");
    for report in ["record", "jsonl"] {
        let warning = format!("the {report} report is not complete: No space left on device");
        assert!(run.stderr.contains(&warning), "{run}");
    }
}

#[test]
fn all_of_a_long_output_is_kept_in_order() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write(
        "x.rhai",
        r#"matrix("m", #{ axes: #{ n: [1] } }, |cell| {
            cell.sandbox.run("seq 1 1000000; echo done >&2", #{ max_output: "1MiB" });
        });"#,
    );
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(0), "{run}");
    let kept = environment.run(["runs", "show", "latest", "--cell", "n=1"]);
    assert_eq!((kept.code, kept.stderr.as_str()), (Some(0), "done\n"));
    let wanted: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(kept.stdout == wanted, "{} bytes of {}", kept.stdout.len(), wanted.len());
}
