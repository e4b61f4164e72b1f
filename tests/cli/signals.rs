//! Ctrl-C: once stops and cleans up, twice kills, three times leaves at once.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::environment::{Run, TestEnvironment};

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Starts the script, waits for its first line, and returns it with the rest of its output to come.
fn started(environment: &TestEnvironment, script: &str) -> Child {
    environment.write("x.rhai", script);
    let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn ended_by(environment: &TestEnvironment, script: &str, signals: &[&str]) -> (Run, Duration) {
    let child = started(environment, script);
    let start = Instant::now();
    for name in signals {
        signal(&child, name);
        std::thread::sleep(Duration::from_millis(50));
    }
    (environment.finish(child), start.elapsed())
}

const WAITING: &str = "let box = sandbox(\"a\"); print(\"ready\"); sleep(\"60s\");";

#[test]
fn one_signal_stops_the_run() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (run, took) = ended_by(&TestEnvironment::fake(), WAITING, &[name]);
        assert_eq!(run.code, Some(code), "{run}");
        assert!(run.stderr.contains("stopping and cleaning up"), "{run}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_script_cannot_catch_it() {
    let script = "print(\"ready\"); loop { try { sleep(\"60s\"); } catch { } }";
    let (run, took) = ended_by(&TestEnvironment::fake(), script, &["INT"]);
    assert_eq!(run.code, Some(130), "{run}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_busy_script_stops_too() {
    let (run, took) = ended_by(&TestEnvironment::fake(), "print(\"ready\"); loop { }", &["INT"]);
    assert_eq!(run.code, Some(130), "{run}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn two_signals_kill_and_clean_up() {
    let Some(environment) = TestEnvironment::local() else { return };
    let cells = "print(\"ready\"); matrix(\"m\", #{ axes: #{ n: [1, 2, 3, 4, 5, 6, 7, 8] }, parallel: 8 }, |cell| {
        cell.sandbox.run(\"sleep 60\");
    });";
    let child = started(&environment, cells);
    let until = Instant::now() + Duration::from_secs(20);
    let boxes = || std::fs::read_dir(environment.path("store/boxes")).map_or(0, |all| all.count());
    while boxes() < 8 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..2 {
        signal(&child, "INT");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = environment.finish(child);
    assert_eq!(run.code, Some(130), "{run}");
    assert_eq!(boxes(), 0, "{run}");
}

#[test]
fn three_signals_leave_at_once() {
    let (run, took) = ended_by(&TestEnvironment::fake(), WAITING, &["INT", "INT", "INT"]);
    assert_eq!(run.code, Some(130), "{run}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
