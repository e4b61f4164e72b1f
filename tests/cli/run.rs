//! `sandscript run`: what it prints, where, and its exit codes.

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

fn run(script: &str, args: &[&str]) -> Run {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", script);
    environment.run(["run", "x.rhai"].iter().chain(args))
}

#[test]
fn an_empty_script() {
    assert_snapshot!(run("", &[]), @"exit code 0");
}

#[test]
fn data_goes_to_stdout_and_all_else_to_stderr() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.rhai",
        "print(\"data\"); matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { cell.sandbox.run(\"echo no\"); });",
    );
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "data\n"), "{run}");
    assert!(run.stderr.contains("matrix m"), "{run}");
    assert!(!run.stderr.contains("│ no"), "{run}");
    let run = environment.run(["run", "x.rhai", "--verbose"]);
    assert!(run.stderr.contains("a=1 │ no"), "{run}");
    let run = environment.run(["run", "x.rhai", "--quiet"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "data\n", ""));
}

#[test]
fn a_missing_script() {
    assert_snapshot!(TestEnvironment::fake().run(["run", "nope.rhai"]), @"
    exit code 2
    -- stderr
    error: file 'nope.rhai' not found
    ");
}

#[test]
fn an_unknown_language() {
    let environment = TestEnvironment::fake();
    environment.write("x.py", "print()");
    assert_snapshot!(environment.run(["run", "x.py"]), @"
    exit code 2
    -- stderr
    error: 'x.py' is in no language that is known here
    hint: a script's name ends in .lua or .rhai
    ");
}

#[test]
fn a_syntax_error() {
    assert_snapshot!(run("let x = 1;\nlet y = (x + ;\n", &[]), @"
    exit code 3
    -- stderr
    error: unexpected ';'
      --> x.rhai:2:14
       |
     2 | let y = (x + ;
       |              ^
    ");
}

#[test]
fn an_unknown_function() {
    assert_snapshot!(run("let box = sandbxo(\"a\");\n", &[]), @r#"
    exit code 3
    -- stderr
    error: there is no function 'sandbxo'
      --> x.rhai:1:11
       |
     1 | let box = sandbxo("a");
       |           ^^^^^^^
    hint: did you mean 'sandbox'?
    "#);
}

#[test]
fn an_unknown_option() {
    assert_snapshot!(run("let box = sandbox(\"a\", #{\n    memmory: \"1GiB\",\n});\n", &[]), @r#"
    exit code 3
    -- stderr
    error: unknown option 'memmory' of sandbox()
      --> x.rhai:2:5
       |
     2 |     memmory: "1GiB",
       |     ^^^^^^^
    hint: did you mean 'memory'?
    "#);
}

#[test]
fn a_wrong_type() {
    assert_snapshot!(run("sandbox(\"a\").read(3);\n", &[]), @r#"
    exit code 3
    -- stderr
    error: 'path' of Sandbox.read() must be a string, got int 3
      --> x.rhai:1:14
       |
     1 | sandbox("a").read(3);
       |              ^^^^
    hint: it is Sandbox.read(path: string, options?: map) -> string
    "#);
}

#[test]
fn an_error_that_nobody_caught() {
    assert_snapshot!(run("fn inner() { throw \"no luck\"; }\ninner();\n", &[]), @r#"
    exit code 3
    -- stderr
    error: no luck
      --> x.rhai:1:14
       |
     1 | fn inner() { throw "no luck"; }
       |              ^^^^^
      in inner(), called at x.rhai:2:1
    "#);
}

#[test]
fn an_assertion() {
    assert_snapshot!(run("assert(1 > 2, \"one is not two\");\n", &[]), @r#"
    exit code 1
    -- stderr
    error: one is not two
      the assertion does not hold
      --> x.rhai:1:1
       |
     1 | assert(1 > 2, "one is not two");
       | ^^^^^^
    "#);
}

#[test]
fn a_command_that_fails() {
    assert_snapshot!(run("sandbox(\"a\").run(\"echo oops >&2; exit 7\");\n", &[]), @r#"
    exit code 1
    -- stderr
    error: 'echo oops >&2; exit 7' failed: exit code 7
      oops
      --> x.rhai:1:14
       |
     1 | sandbox("a").run("echo oops >&2; exit 7");
       |              ^^^
    hint: exec() gives the result instead of an error
    "#);
}

#[test]
fn something_unsupported() {
    assert_snapshot!(run("sandbox(\"a\", #{ egress: \"unrestricted\" });\n", &[]), @r#"
    exit code 11
    -- stderr
    error: egress-unrestricted is not supported by backend 'fake' here
      --> x.rhai:1:1
       |
     1 | sandbox("a", #{ egress: "unrestricted" });
       | ^^^^^^^
    hint: the fake backend has no network
    "#);
}

#[test]
fn out_of_time() {
    assert_snapshot!(run("loop { }\n", &["--timeout", "100ms"]), @"
    exit code 12
    -- stderr
    error: the run took longer than 100ms
      --> x.rhai:1:6
       |
     1 | loop { }
       |      ^
    hint: allow it more with --timeout
    ");
}

#[test]
fn parameters_and_arguments() {
    let script =
        "print(param(\"image\", \"host\")); print(param(\"count\", 1) + 1); print(args());";
    let run = run(script, &["--set", "image=a=b", "--set", "count=41", "--", "-x", "y z"]);
    assert_eq!(run.stdout, "a=b\n42\n[\"-x\", \"y z\"]\n", "{run}");
}

#[test]
fn a_parameter_that_the_script_does_not_have() {
    let misspelt = ["--set", "imgae=x"];
    assert_snapshot!(run("print(1); param(\"image\", \"\");", &misspelt), @"
    exit code 2
    -- stderr
    error: the script has no parameter 'imgae' (--set imgae=…)
    hint: did you mean 'image'?
    ");
    assert_snapshot!(run("if false { param(\"a\", 1); param(\"b\", 1); }", &misspelt), @"
    exit code 2
    -- stderr
    error: the script has no parameter 'imgae' (--set imgae=…)
    hint: there are: a, b
    ");
    assert_snapshot!(run("print(1);", &misspelt), @"
    exit code 2
    -- stderr
    error: the script has no parameter 'imgae' (--set imgae=…)
    hint: the script has no parameters
    ");
}

#[test]
fn a_parameter_that_is_never_asked_for() {
    assert_snapshot!(run("let name = \"image\"; param(name, \"\");", &["--set", "imgae=x"]), @"
    exit code 0
    -- stderr
    warning: the script never asked for 'imgae' (--set imgae=…)
    ");
}

#[test]
fn a_parameter_that_must_be_given() {
    assert_snapshot!(run("param(\"image\", (), \"what to start from\");\n", &[]), @r#"
    exit code 2
    -- stderr
    error: the script needs parameter 'image' (what to start from)
      --> x.rhai:1:1
       |
     1 | param("image", (), "what to start from");
       | ^^^^^
    hint: give it with --set image=VALUE
    "#);
}

#[test]
fn parameters_of_modules_are_known() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "import \"lib/util\" as util; print(util::count());");
    environment.write("lib/util.rhai", "fn count() { param(\"count\", 1, \"how many\") }");
    let run = environment.run(["run", "x.rhai", "--set", "count=3"]);
    assert_eq!(run.stdout, "3\n", "{run}");
    assert_snapshot!(environment.run(["run", "x.rhai", "--set", "cout=3"]), @"
    exit code 2
    -- stderr
    error: the script has no parameter 'cout' (--set cout=…)
    hint: did you mean 'count'?
    ");
    assert!(environment.ok(["run", "x.rhai", "--help"]).contains("  count  how many"));
}

#[test]
fn a_script_tells_its_parameters() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.rhai",
        "// Builds the thing.\n//\n//   sandscript run x.rhai\n\nlet image = param(\"image\", backend().default_image, \
         \"what the base starts from\");\nlet fast = param(\"fast\", false);\nlet jobs = param(\"jobs\", 4, \
         \"how many at once\");\nlet names = param(\"names\", [\"a\", \"b\"]);\nlet key = param(\"key\", (), \"whose\");\nthrow \"not run\";\n",
    );
    assert_snapshot!(environment.run(["run", "x.rhai", "--help"]), @r#"
    exit code 0
    -- stdout
    Builds the thing.

      sandscript run x.rhai

    Usage: sandscript run x.rhai [--set NAME=VALUE]… [OPTIONS] [-- ARGS]…

    Parameters:
      image  what the base starts from [default: backend().default_image]
      fast   [true or false; default: false]
      jobs   how many at once [a whole number; default: 4]
      names  [a list: a,b,c; default: ["a", "b"]]
      key    whose [must be given]

    The options are those of every script: sandscript run --help
    "#);
    assert_eq!(
        environment.ok(["run", "-h", "x.rhai"]),
        environment.ok(["run", "x.rhai", "--help"])
    );
    assert_snapshot!(environment.run(["run", "--help", "nope.rhai"]), @"
    exit code 2
    -- stderr
    error: file 'nope.rhai' not found
    ");
    environment.write("y.rhai", "let name = \"x\"; param(name);");
    assert_snapshot!(environment.run(["run", "y.rhai", "--help"]), @"
    exit code 0
    -- stdout
    Usage: sandscript run y.rhai [--set NAME=VALUE]… [OPTIONS] [-- ARGS]…

    There may be more: not all of them can be told without running it.

    The options are those of every script: sandscript run --help
    ");
    assert!(environment.ok(["run", "--help"]).starts_with("Run a script"));
    environment.write("z.rhai", "print(args());");
    assert_eq!(environment.ok(["run", "z.rhai", "--", "--help"]), "[\"--help\"]\n");
}

#[test]
fn a_parameter_of_another_type() {
    assert_snapshot!(run("param(\"count\", 1);\n", &["--set", "count=many"]), @"
    exit code 2
    -- stderr
    error: parameter 'count' must be a whole number, got 'many'
    hint: its default is 1
    ");
}

#[test]
fn a_parameter_of_another_type_than_a_computed_default() {
    assert_snapshot!(run("param(\"count\", 1 + 1);\n", &["--set", "count=many"]), @r#"
    exit code 2
    -- stderr
    error: parameter 'count' must be a whole number, got 'many'
      --> x.rhai:1:1
       |
     1 | param("count", 1 + 1);
       | ^^^^^
    hint: its default is 2
    "#);
}

const MATRIX: &str = "matrix(\"m\", #{ axes: #{ a: [1, 2], b: [\"x\", \"y\"] } }, |cell| {
    cell.sandbox.run(`echo ${cell.id}; test ${cell.a}${cell.b} != 2y`);
});
";

#[test]
fn cells_are_listed_and_selected() {
    assert_snapshot!(run(MATRIX, &["--list"]), @"
    exit code 0
    -- stdout
    a=1,b=x
    a=1,b=y
    a=2,b=x
    a=2,b=y
    ");
    let one = run(MATRIX, &["--filter", "a=1,b=y"]);
    assert_eq!(one.code, Some(0), "{one}");
    assert!(one.stderr.contains("1 of 4 cells"), "{one}");
    assert_snapshot!(run(MATRIX, &["--filter", "a=3"]), @"
    exit code 4
    -- stderr
    matrix m the filter selects none of its 4 cells
    ");
}

#[test]
fn a_cell_that_fails_shows_its_output() {
    let run = run(MATRIX, &["--jobs", "1"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("  ✗ a=2,b=y  failed\n    │ a=2,b=y\n"), "{run}");
    assert!(run.stderr.contains("(at x.rhai:2:18)"), "{run}");
    assert!(run.stderr.contains("3 passed, 1 failed"), "{run}");
}

#[test]
fn events_as_json_lines() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", MATRIX);
    let run = environment.run(["run", "x.rhai", "--report", "jsonl=events.jsonl", "-q"]);
    assert_eq!(run.code, Some(1), "{run}");
    let text = std::fs::read_to_string(environment.path("project/events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ended = |outcome: &str| {
        events.iter().filter(|e| e["type"] == "cell_ended" && e["outcome"] == outcome).count()
    };
    assert_eq!((ended("passed"), ended("failed")), (3, 1));
    assert_eq!(events.first().unwrap()["type"], "run_started");
    assert_eq!(events.last().unwrap()["type"], "run_ended");
    assert_eq!(events.last().unwrap()["code"], 1);
    assert!(events.iter().all(|event| event["v"] == 1 && event["run"] == events[0]["run"]));
}

#[test]
fn a_report_of_no_known_kind() {
    assert_snapshot!(run("", &["--report", "jsnol=x"]), @"
    exit code 2
    -- stderr
    error: invalid value 'jsnol=x' for '--report <KIND=PATH>': 'jsnol' is no kind of report; did you mean 'jsonl'?

    For more information, try '--help'.
    ");
}

#[test]
fn kept_sandboxes_are_named_last() {
    assert_snapshot!(run("sandbox(\"mine\", #{ keep: true }); sandbox(\"other\");", &[]), @"
    exit code 0
    -- stderr
    kept: mine (the script keeps it)
    ");
    let run = run("sandbox(\"other\");", &["--keep"]);
    assert!(run.stderr.contains("other"), "{run}");
}
