//! The sandbox verbs on this machine, one call after the other.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::environment::{TestEnvironment, program};
use crate::terminal::{Terminal, tmux_is_there};

#[test]
fn a_life() {
    let Some(environment) = TestEnvironment::local() else { return };
    let exec = |script: &str| environment.ok(["exec", "web", "--", "sh", "-c", script]);
    environment.ok(["create", "web", "--label", "team=infra", "--env", "GREETING=hello you"]);
    assert_eq!(exec("echo $GREETING > /root/a; cat /root/a"), "hello you\n");
    environment.ok(["snapshot", "create", "web", "one"]);
    exec("echo two > /root/a");
    environment.ok(["snapshot", "create", "web", "two"]);
    exec("rm /root/a");
    environment.ok(["snapshot", "restore", "web", "one"]);
    assert_eq!(exec("cat /root/a"), "hello you\n");
    environment.ok(["snapshot", "restore", "web", "two"]);
    assert_eq!(exec("cat /root/a"), "two\n");

    environment.ok(["clone", "web", "twin", "--label", "one"]);
    assert_eq!(environment.ok(["exec", "twin", "--", "cat", "/root/a"]), "hello you\n");
    assert_eq!(
        environment.ok(["exec", "twin", "--", "cat", "/proc/sys/kernel/hostname"]),
        "twin\n"
    );

    let names = |args: &[&str]| -> Vec<String> {
        let answer = environment.ok(["list", "--format", "json"].iter().chain(args));
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let all = answer.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["twin", "web"]);
    assert_eq!(names(&["--label", "team=infra"]), ["web"]);

    environment.ok(["stop", "web"]);
    environment.ok(["stop", "web", "--force"]);
    let run = environment.run(["exec", "web", "--", "true"]);
    assert_eq!(run.code, Some(125), "{run}");
    assert_eq!(
        run.stderr,
        "error: sandbox 'web' is not running\nhint: start it first: sandscript start web\n"
    );
    environment.ok(["start", "web"]);
    assert_eq!(exec("cat /root/a"), "two\n");

    let shown = environment.ok(["show", "web", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["snapshots"][0]["label"], "one");
    assert_eq!(shown["snapshots"][1]["label"], "two");
    environment.ok(["snapshot", "delete", "web", "one"]);
    assert!(!environment.ok(["snapshot", "list", "web"]).contains("one"));
    assert!(environment.ok(["show", "web"]).contains("snapshots     two ("));

    let run = environment.run(["create", "web"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("error: sandbox 'web' exists already\nhint: choose"), "{run}");
    let run = environment.run(["show", "wev"]);
    assert!(run.stderr.contains("hint: did you mean 'web'?"), "{run}");

    environment.ok(["delete", "web", "twin", "--yes"]);
    assert!(names(&[]).is_empty());
}

#[test]
fn exec_passes_streams_and_codes_through() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "a"]);
    let sh = |script: &str| environment.run(["exec", "a", "--", "sh", "-c", script]);
    let run = sh("echo out; echo err >&2; exit 42");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(42), "out\n", "err\n"));
    assert_eq!(sh("kill -9 $$").code, Some(137));
    assert_eq!(environment.run(["exec", "a", "--", "nope"]).code, Some(127));
    assert_eq!(environment.run(["exec", "a", "--", "/etc/hostname"]).code, Some(126));

    let words = ["", "a b", "*", "'", "\"", "$HOME", "line\nbreak", "ünï", "-x", "--"];
    let printf = ["exec", "a", "--", "printf", "[%s]"];
    let run = environment.run(printf.iter().chain(&words));
    assert_eq!(run.stdout, words.map(|word| format!("[{word}]")).concat(), "{run}");

    let input: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte % 251) as u8).collect();
    let mut child = environment.command(["exec", "a", "-i", "--", "cat"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = input.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes).unwrap());
    assert!(child.wait_with_output().unwrap().stdout == input);
    writer.join().unwrap();
    // Without -i there is nothing to read.
    assert_eq!(environment.run_with(["exec", "a", "--", "cat"], b"x").stdout, "");

    let run =
        environment.run(["exec", "a", "--format", "json", "--", "sh", "-c", "echo x; exit 127"]);
    assert_eq!(run.code, Some(127));
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&answer["code"], &answer["stdout"]), (&127.into(), &"x\n".into()));
    assert!(answer["duration"].as_f64().unwrap() < 10.0);
}

#[test]
fn exec_ends_on_time_and_on_signals() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "a"]);
    let start = Instant::now();
    let run = environment.run(["exec", "a", "--timeout", "200ms", "--", "sleep", "60"]);
    assert_eq!(run.code, Some(125), "{run}");
    assert_eq!(run.stderr, "error: 'sleep 60' timed out after 200ms\n");

    let args = ["exec", "a", "--", "sh", "-c", "echo ready; sleep 61"];
    let mut child = environment.command(args).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(environment.finish(child).code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(20));
    let left =
        environment.ok(["exec", "a", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(!left.contains("sleep 6"), "{left}");
}

#[test]
fn a_background_process_lives_on() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "a"]);
    let start = Instant::now();
    environment.ok(["exec", "a", "--", "sh", "-c", "sleep 62 & echo started"]);
    assert!(start.elapsed() < Duration::from_secs(20));
    let there =
        environment.ok(["exec", "a", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(there.contains("sleep 62"), "{there}");
}

#[test]
fn limits_that_are_not_there_are_refused() {
    let Some(environment) = TestEnvironment::local() else { return };
    for (capability, option, value) in [
        ("limit-memory", "--memory", "64MiB"),
        ("limit-pids", "--pids", "50"),
        ("limit-cpu", "--cpu", "1"),
    ] {
        let run = environment.run(["create", "a", option, value]);
        if environment.has(capability) {
            assert_eq!(run.code, Some(0), "{run}");
            environment.ok(["delete", "a", "--yes"]);
        } else {
            assert_eq!(run.code, Some(11), "{run}");
            assert!(run.stderr.contains("hint: "), "{run}");
        }
    }
}

#[test]
fn what_a_script_made_is_gone_after_ctrl_c() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment
        .write("x.rhai", "let box = sandbox(\"left\"); print(\"ready\"); box.run(\"sleep 60\");");
    let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let run = environment.finish(child);
    assert_eq!(run.code, Some(130), "{run}");
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}

#[test]
fn a_snapshot_keeps_the_marks_of_the_root_itself() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "a"]);
    let run = |name: &str, line: &str| environment.ok(["exec", name, "--", "sh", "-c", line]);
    run("a", "touch /etc/written; chmod 750 /etc; touch -d 2001-02-03 / /etc");
    let marked =
        run("a", "setfattr -n user.mark -v here / 2>/dev/null && echo yes; true") == "yes\n";
    environment.ok(["snapshot", "create", "a", "s"]);
    environment.ok(["clone", "a", "b", "--label", "s"]);
    for name in ["a", "b"] {
        let told = run(name, "stat -c '%n %a' /etc; stat -c '%n %.10y' /");
        assert_eq!(told, "/etc 750\n/ 2001-02-03\n", "{name}");
        if marked {
            assert_eq!(run(name, "getfattr --only-values -n user.mark / 2>/dev/null"), "here");
        }
    }
}

#[test]
fn gc_takes_what_a_killed_run_left() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "mine"]);
    environment.write("x.rhai", "let box = sandbox(\"left\"); print(\"ready\"); sleep(\"60s\");");
    let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let run = environment.run(["gc"]);
    assert!(!run.stdout.contains("left"), "the run lives: {run}");
    child.kill().unwrap();
    child.wait().unwrap();
    let run = environment.run(["gc"]);
    assert_eq!(run.code, Some(0), "{run}");
    let row = run.stdout.lines().nth(1).unwrap_or_default();
    assert!(row.starts_with("left ") && row.ends_with(" is dead"), "{run}");
    assert!(run.stderr.contains("would delete 1 sandbox"), "{run}");
    let run = environment.run(["gc", "--yes", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(answer["sandboxes"], serde_json::json!(["left"]));
    let names = environment.ok(["list", "--format", "json"]);
    assert!(names.contains("\"mine\"") && !names.contains("\"left\""), "{names}");
}

#[test]
fn a_shell_in_a_terminal() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !tmux_is_there() {
        return;
    }
    environment.ok(["create", "a"]);
    let line = format!(
        "trap : INT; SANDSCRIPT_STORE={} {} exec a -it -- sh; echo \"exit code $?\"; stty -a | grep -c -w -e '-icanon'; sleep 60",
        environment.path("store").display(),
        program().display()
    );
    let terminal = Terminal::open(&environment, &line);
    terminal.wait_for("#");
    terminal.line("stty size; tty; echo $TERM");
    terminal.wait_for("24 80");
    terminal.wait_for("/dev/pts/");
    // Ctrl-C goes to the guest.
    terminal.line("sleep 63");
    std::thread::sleep(Duration::from_millis(200));
    terminal.keys("C-c");
    terminal.line("echo code $?");
    terminal.wait_for("code 130");
    terminal.resize(100, 30);
    terminal.wait_until(|terminal| {
        terminal.line("stty size");
        std::thread::sleep(Duration::from_millis(100));
        terminal.screen().contains("30 100")
    });
    terminal.line("exit 9");
    // The terminal is as it was: no line of stty says -icanon.
    terminal.wait_for("exit code 9\n0");
}
