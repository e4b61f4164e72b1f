//! A failed cell is a place one can enter.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;
use crate::terminal::{Terminal, tmux_is_there};

const BROKEN: &str = r#"matrix("m", #{ axes: #{ n: [1, 2, 3] }, env: #{ WHO: "the cell" } }, |cell| {
    cell.sandbox.run(`echo state ${cell.n} > /root/state`);
    if cell.n == 2 { cell.sandbox.run("exit 7"); }
});"#;

#[test]
fn the_printed_command_opens_the_state_it_failed_in() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", BROKEN);
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(1), "{run}");
    let line = run.stderr.lines().find(|line| line.contains("sandscript enter ")).unwrap();
    let place = line.split_once("sandscript enter ").unwrap().1.trim().to_owned();
    assert!(place.ends_with("/n=2"), "{place}");
    let enter =
        |place: &str, argv: &[&str]| environment.run(["enter", place, "--"].iter().chain(argv));
    let inside =
        enter(&place, &["sh", "-c", "cat /root/state; echo $WHO; echo changed > /root/state"]);
    assert_eq!((inside.code, inside.stdout.as_str()), (Some(0), "state 2\nthe cell\n"), "{inside}");
    // It is a clone that was entered: the state stays, and nothing but it is left.
    assert_eq!(enter("latest/n=2", &["cat", "/root/state"]).stdout, "state 2\n");
    assert_eq!(enter(&place, &["sh", "-c", "exit 9"]).code, Some(9));
    let left = environment.ok(["list", "--format", "json"]);
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["state"], "stopped");
    // A living gc does not take it before it expires.
    environment.ok(["gc", "--yes"]);
    assert_eq!(enter(&place, &["cat", "/root/state"]).stdout, "state 2\n");

    if tmux_is_there() {
        let store = environment.path("store").display().to_string();
        let program = crate::environment::program();
        let line = format!(
            "trap : INT; SANDSCRIPT_STORE={store} {} enter {place}; echo \"exit code $?\"; sleep 60",
            program.display()
        );
        let terminal = Terminal::open(&environment, &line);
        terminal.wait_until(|terminal| terminal.screen().contains(['#', '$']));
        terminal.line("cat /root/state; tty");
        terminal.wait_for("state 2");
        terminal.wait_for("/dev/");
        terminal.line("exit 3");
        terminal.wait_for("exit code 3");
    }
}

/// In turn for each failed cell, in its own sandbox; then the run ends as it would have.
#[test]
fn a_shell_opens_in_each_failed_cell() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !tmux_is_there() {
        return;
    }
    let script = r#"matrix("m", #{ axes: #{ n: [1, 2, 3] }, parallel: 1, order: "given", caches: CACHES }, |cell| {
        cell.sandbox.run(`echo state ${cell.n} > /root/state`);
        if cell.n != 2 { cell.sandbox.run("exit 7"); }
    });"#;
    for (name, caches) in [("plain", "#{}"), ("cached", r#"#{ pip: "/c" }"#)] {
        environment.write("x.rhai", &script.replace("CACHES", caches));
        let line = format!(
            "trap : INT; SANDSCRIPT_STORE={} {} run x.rhai --on-fail shell; echo \"exit code $?\"; sleep 60",
            environment.path("store").display(),
            crate::environment::program().display()
        );
        let terminal = Terminal::open_at(&environment, name, &line);
        for cell in [1, 3] {
            terminal.wait_for(&format!("a shell in cell n={cell}"));
            terminal.line("echo in $(cat /root/state), ready");
            terminal.wait_for(&format!("in state {cell}, ready"));
            terminal.line("exit 5");
        }
        terminal.wait_for("exit code 1");
        let left = environment.ok(["list", "--format", "json"]);
        assert_eq!(left.trim(), "[]", "{name}: a sandbox is left");
    }
    environment.ok(["cache", "rm", "--all", "--yes"]);
}

#[test]
fn nothing_is_kept_where_nobody_looks() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", BROKEN);
    for (name, args) in [("clean", vec!["--on-fail", "clean"]), ("ci", vec![])] {
        let mut command = environment.command(["run", "x.rhai"].iter().chain(&args));
        if name == "ci" {
            command.env("CI", "true");
        }
        let run = environment.finish(command.spawn().unwrap());
        assert_eq!(run.code, Some(1), "{run}");
        assert!(!run.stderr.contains("sandscript enter"), "{run}");
        assert_eq!(environment.ok(["list", "--format", "json"]).trim(), "[]");
    }
}

#[test]
fn what_cannot_be_entered() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["enter", "n=2"]), @"
    exit code 2
    -- stderr
    error: 'n=2' is not a run and a cell
    hint: write it as RUN/CELL, such as latest/db=postgres
    ");
    assert_snapshot!(environment.run(["enter", "r1/n=2"]), @"
    exit code 2
    -- stderr
    error: no state of cell 'n=2' of run r1 is kept
    hint: run it again with --on-fail keep
    ");
    environment.write("x.rhai", BROKEN);
    assert_snapshot!(environment.run(["run", "x.rhai", "--on-fail", "shell"]), @"
    exit code 2
    -- stderr
    error: --on-fail shell needs a terminal
    hint: use --on-fail keep; 'sandscript enter' opens a shell later
    ");
}
