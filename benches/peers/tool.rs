//! What the program takes as a whole.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::table::{Table, ms};
use super::{Bench, median, timed};

pub fn tool(bench: &Bench, args: &[&str]) -> Child {
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

/// The most memory that a process has had, in KiB; 0 when it is gone.
pub fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or_default()
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

/// From the start of the repl to its prompt, on a terminal.
pub fn prompt(bench: &Bench, table: &mut Table) {
    use std::io::Read;
    let mut times = Vec::new();
    for language in ["rhai", "lua"].repeat(15) {
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let open = || {
            std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap()
        };
        let start = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sandscript"))
            .args(["repl", "--lang", language])
            .current_dir(&bench.folder)
            .env("SANDSCRIPT_STORE", &bench.store)
            .env("XDG_STATE_HOME", &bench.folder)
            .env("TERM", "xterm")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let mut screen = std::fs::File::from(master);
        let (mut said, mut part) = (String::new(), [0; 4096]);
        let prompt = format!("{language}>");
        while !said.contains(&prompt) {
            let read = screen.read(&mut part).unwrap();
            said.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        times.push(start.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    table.row("`sandscript repl`: from the start to the prompt", ms(median(times)), "", "≤ 30 ms");
}

/// From a save to the next run, and a base of 50 steps of which nothing changed.
pub fn watch(bench: &Bench, table: &mut Table) {
    const RUNS: usize = 20;
    const STEPS: usize = 50;
    let script = |number: usize| {
        let steps: String = (0..STEPS).map(|n| format!("b.run([\"true\", \"{n}\"]);")).collect();
        format!("base(\"many\", #{{}}, |b| {{ {steps} }}); // {number}")
    };
    let file = bench.folder.join("watch.rhai");
    let events = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(bench.folder.join("watch.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let of = |kind: &'static str| events().into_iter().filter(move |event| event["type"] == kind);
    std::fs::write(&file, script(0)).unwrap();
    let mut child = tool(bench, &["watch", "watch.rhai", "--report", "jsonl=watch.jsonl"]);
    let mut saved = Vec::new();
    for number in 1..=RUNS {
        while of("run_ended").count() < number {
            assert!(child.try_wait().unwrap().is_none(), "watch ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Whatever it does after a run is done by now.
        std::thread::sleep(Duration::from_millis(100));
        saved.push(SystemTime::now());
        std::fs::write(&file, script(number)).unwrap();
    }
    while of("run_ended").count() <= RUNS {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    child.wait().unwrap();
    let started = of("run_started").skip(1).zip(saved).map(|(event, saved)| {
        let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
        SystemTime::from(at).duration_since(saved).unwrap()
    });
    let ready = of("base_ready").skip(1).map(|event| {
        assert_eq!(event["hits"], STEPS, "{event}");
        Duration::from_secs_f64(event["duration"].as_f64().unwrap())
    });
    table.row(
        "`watch`: from a save to the first event of the next run",
        ms(median(started.collect())),
        "50 ms of it waiting for quiet",
        "≤ 80 ms",
    );
    table.row(
        "a base of 50 steps, all of them cached",
        ms(median(ready.collect())),
        "",
        "≤ 100 ms",
    );
}

/// 200 cells that run `true`.
pub fn matrix(bench: &Bench, table: &mut Table) {
    let script = "let n = []; for i in 0..200 { n.push(i); }
        matrix(\"m\", #{ axes: #{ n: n } }, |cell| { cell.sandbox.run([\"true\"]); });";
    std::fs::write(bench.folder.join("matrix.rhai"), script).unwrap();
    let mut stick = super::peers::Yardstick::new();
    let mut times = Vec::new();
    let mut most = 0;
    for _ in 0..5 {
        let mut child = tool(bench, &["run", "matrix.rhai", "--report", "jsonl=events.jsonl"]);
        while child.try_wait().unwrap().is_none() {
            most = most.max(peak(child.id()));
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
        (0..3).for_each(|_| stick.turn());
    }
    let time = median(times);
    let rate = 200.0 / time.as_secs_f64();
    let (compared, goal) = stick.compare(time / 200, (100.0 / 3.0_f64).round() / 10.0);
    table.row(
        "matrix of 200 cells that run `true`",
        ms(time),
        format!("{rate:.0} cells a second; {compared} a cell"),
        format!("≥ 300 a second; {goal} a cell"),
    );
    table.row(
        "peak memory of the tool in that matrix",
        format!("{:.1} MiB", most as f64 / 1024.0),
        "",
        "≤ 64 MiB",
    );
}
