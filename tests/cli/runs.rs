//! What is kept of runs, and running only what is left.

use insta::assert_snapshot;
use serde_json::Value;

use crate::environment::TestEnvironment;

const SOME: &str = r#"matrix("m", #{ axes: #{ n: [0, 1, 2, 3, 4, 5] } }, |cell| {
    cell.sandbox.run(`echo out ${cell.n}; echo err ${cell.n} >&2`);
    let broken = param("broken", "").split(",");
    if broken.contains("" + cell.n) { fail("broken"); }
});"#;

fn ran(environment: &TestEnvironment, args: &[&str]) -> (Option<i32>, Vec<String>) {
    let run =
        environment.run(["run", "x.rhai", "--report", "jsonl=events.jsonl"].iter().chain(args));
    let text = std::fs::read_to_string(environment.path("project/events.jsonl")).unwrap();
    let mut ids = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["type"] == "cell_started" {
            ids.push(event["cell"].as_str().unwrap().to_owned());
        }
    }
    ids.sort();
    let _ = std::fs::remove_file(environment.path("project/events.jsonl"));
    (run.code, ids)
}

#[test]
fn only_what_is_left_runs_again() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SOME);
    assert_snapshot!(environment.run(["run", "x.rhai", "--failed"]), @"
    exit code 4
    -- stderr
    error: no run of this script is recorded here yet
    hint: run it without --failed
    ");
    let all = ["n=0", "n=1", "n=2", "n=3", "n=4", "n=5"];
    assert_eq!(
        ran(&environment, &["--set", "broken=1,3,4"]),
        (Some(1), all.map(String::from).into())
    );
    let some = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    // One of them is set right; the others are carried over.
    assert_eq!(
        ran(&environment, &["--failed", "--set", "broken=3,4"]),
        (Some(1), some(&["n=1", "n=3", "n=4"]))
    );
    // A run of something else changes nothing about them.
    assert_eq!(
        ran(&environment, &["--filter", "n=0", "--set", "broken="]),
        (Some(0), some(&["n=0"]))
    );
    assert_eq!(
        ran(&environment, &["--failed", "--filter", "n=3", "--set", "broken="]),
        (Some(0), some(&["n=3"]))
    );
    assert_eq!(ran(&environment, &["--failed", "--set", "broken="]), (Some(0), some(&["n=4"])));
    assert_snapshot!(environment.run(["run", "x.rhai", "--failed"]), @"
    exit code 4
    -- stderr
    error: every cell ended well when it ran last: nothing is left to run again
    hint: run it without --failed
    ");
    // In another project, or of another script, it is another past.
    environment.write("y.rhai", SOME);
    assert_eq!(environment.run(["run", "y.rhai", "--failed"]).code, Some(4));
}

#[test]
fn what_a_cell_printed_is_kept_with_its_streams_apart() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SOME);
    environment.ok(["run", "x.rhai", "--set", "broken="]);
    let shown = environment.run(["runs", "show", "latest", "--cell", "n=3"]);
    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("out 3\n", "err 3\n"));
    assert_snapshot!(environment.run(["runs", "show", "latest", "--cell", "n=9"]).stderr.replace(|c: char| c.is_ascii_digit(), "N").lines().last().unwrap(), @"hint: did you mean 'n=N'?");
    let shown: Value =
        serde_json::from_str(&environment.ok(["runs", "show", "latest", "--format", "json"]))
            .unwrap();
    assert_eq!((shown["state"].as_str(), shown["code"].as_u64()), (Some("ended"), Some(0)));
    assert_eq!(shown["cells"].as_array().unwrap().len(), 6);
    assert_snapshot!(environment.run(["runs", "show", "nope"]), @"
    exit code 1
    -- stderr
    error: run 'nope' not found
    hint: 'sandscript runs list' shows those that are kept
    ");
    let replayed = environment.run(["runs", "replay", "latest", "--show", "all"]);
    assert!(replayed.stderr.contains("n=3 │ out 3"), "{replayed}");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_a_warning() {
    let environment = TestEnvironment::fake().env("XDG_STATE_HOME", "/proc/nowhere");
    environment.write("x.rhai", SOME);
    let run = environment.run(["run", "x.rhai", "--set", "broken="]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stderr.contains("the run is not recorded: /proc/nowhere/sandscript: "), "{run}");
}

#[test]
fn a_list_of_runs() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SOME);
    assert_eq!(environment.run(["runs", "list"]).stderr, "no run is recorded here yet\n");
    assert_eq!(environment.run(["run", "x.rhai", "--set", "broken=1"]).code, Some(1));
    environment.ok(["run", "x.rhai", "--set", "broken="]);
    environment.ok(["run", "x.rhai", "--list"]);
    let list = environment.ok(["runs", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "a list is no run: {list}");
    assert!(lines[1].contains(" ok ") && lines[1].ends_with("6 passed"), "{list}");
    assert!(
        lines[2].contains(" exit code 1 ") && lines[2].ends_with("5 passed, 1 failed"),
        "{list}"
    );
}

#[test]
fn what_people_are_shown_of_what_cells_print() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SOME);
    let shown = |show: &str| {
        let run = environment.run(["run", "x.rhai", "--set", "broken=1", "--show", show]);
        assert_eq!(run.code, Some(1), "{run}");
        run.stderr
    };
    let (all, failed, none) = (shown("all"), shown("failed"), shown("none"));
    assert!(all.contains("n=0 │ out 0") && all.contains("n=1 │ err 1"), "{all}");
    assert!(!failed.contains("out 0") && failed.contains("│ out 1"), "{failed}");
    assert!(
        !none.contains("out 0") && !none.contains("out 1") && none.contains("broken"),
        "{none}"
    );
}

#[test]
fn artifacts_are_copied_out() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.rhai",
        r#"matrix("m", #{ axes: #{ n: [1, 2] }, artifacts: ["/tmp/log", "/tmp/out", "/tmp/missing"] }, |cell| {
            cell.sandbox.write("/tmp/log", "log of " + cell.n);
            cell.sandbox.mkdir("/tmp/out/deep");
            cell.sandbox.write("/tmp/out/deep/f", "deep");
            if cell.n == 2 { fail("broken"); }
        });"#,
    );
    let run = environment.run(["run", "x.rhai", "--artifacts", "got"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("artifacts: $T/project/got/m/n=2"), "{run}");
    let read =
        |path: &str| std::fs::read_to_string(environment.path("project/got/m").join(path)).unwrap();
    assert_eq!(read("n=1/log"), "log of 1");
    assert_eq!(read("n=2/out/deep/f"), "deep");
    // Without a folder they are in the record.
    assert_eq!(environment.run(["run", "x.rhai"]).code, Some(1));
    let runs = environment.path("home/.local/state/sandscript/runs");
    let found = std::fs::read_dir(runs)
        .unwrap()
        .flatten()
        .any(|run| run.path().join("artifacts/m/n=1/log").exists());
    assert!(found);
}
