//! What the program takes as a whole.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::table::{Table, ms};
use super::{Bench, median, timed};

fn tool(bench: &Bench, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sandscript"))
        .args(args)
        .current_dir(&bench.folder)
        .env("SANDSCRIPT_STORE", &bench.store)
        .env_remove("SANDSCRIPT_BACKEND")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `--help` and an empty script.
pub fn start(bench: &Bench, table: &mut Table) {
    std::fs::write(bench.folder.join("empty.rhai"), "").unwrap();
    let run = |args: &[&str]| timed(|| assert!(tool(bench, args).wait().unwrap().success()));
    let (mut helps, mut scripts) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        helps.push(run(&["--help"]));
        scripts.push(run(&["run", "empty.rhai"]));
    }
    table.row("`sandscript --help`, whole process", ms(median(helps)), "", "≤ 10 ms");
    table.row(
        "`sandscript run` of an empty script, whole process",
        ms(median(scripts)),
        "",
        "≤ 10 ms",
    );
}

/// 200 cells that run `true`.
pub fn matrix(bench: &Bench, table: &mut Table) {
    let script = "let n = []; for i in 0..200 { n.push(i); }
        matrix(\"m\", #{ axes: #{ n: n } }, |cell| { cell.sandbox.run([\"true\"]); });";
    std::fs::write(bench.folder.join("matrix.rhai"), script).unwrap();
    let mut times = Vec::new();
    let mut peak = 0;
    for _ in 0..5 {
        let mut child = tool(bench, &["run", "matrix.rhai", "--report", "jsonl=events.jsonl"]);
        let status = format!("/proc/{}/status", child.id());
        while child.try_wait().unwrap().is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib =
                line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(5));
        }
        let events = std::fs::read_to_string(bench.folder.join("events.jsonl")).unwrap();
        let ended = events
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|event| event["type"] == "matrix_ended")
            .unwrap();
        assert_eq!(ended["counts"]["passed"], 200, "{ended}");
        times.push(Duration::from_secs_f64(ended["duration"].as_f64().unwrap()));
    }
    let time = median(times);
    let rate = 200.0 / time.as_secs_f64();
    table.row(
        "matrix of 200 cells that run `true`",
        ms(time),
        format!("{rate:.0} cells a second"),
        "≥ 300 a second",
    );
    table.row(
        "peak memory of the tool in that matrix",
        format!("{:.1} MiB", peak as f64 / 1024.0),
        "",
        "≤ 64 MiB",
    );
}
