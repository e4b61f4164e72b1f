//! `sandscript check`: what it prints, and its exit codes.

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

/// Five different mistakes, each of which a run would meet alone.
const FIVE: &str = r#"import "tools" as tools;

let box = sandbxo("web");
let other = sandbox("web", #{ memmory: "1GiB" });
other.read();
matrix("tests", #{
    axes: #{ db: ["sqlite", "postgres"] },
    include: [#{ db: "sqlite" }],
}, |cell| {
    cell.sandbox.run("test");
});
"#;

/// The same in Lua.
const FIVE_IN_LUA: &str = r#"local tools = require("tools")

local box = sandbxo("web")
local other = sandbox("web", { memmory = "1GiB" })
other:read()
matrix("tests", {
    axes = { db = { "sqlite", "postgres" } },
    include = { { db = "sqlite" } },
}, function(cell)
    cell.sandbox:run("test")
end)
"#;

fn check(script: &str, args: &[&str]) -> Run {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", script);
    environment.run(["check", "x.rhai"].iter().chain(args))
}

#[test]
fn all_mistakes_of_a_file_are_told() {
    assert_snapshot!(check(FIVE, &[]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.rhai:1:1
       |
     1 | import "tools" as tools;
       | ^^^^^^
      hint: use it, or leave the line out

    error[unknown-function]: there is no function 'sandbxo'
      --> x.rhai:3:11
       |
     3 | let box = sandbxo("web");
       |           ^^^^^^^
      hint: did you mean 'sandbox'?

    error[unknown-option]: unknown option 'memmory' of sandbox()
      --> x.rhai:4:31
       |
     4 | let other = sandbox("web", #{ memmory: "1GiB" });
       |                               ^^^^^^^
      hint: did you mean 'memory'?

    error[wrong-arity]: Sandbox.read() takes 1 or 2 arguments, got 0
      --> x.rhai:5:7
       |
     5 | other.read();
       |       ^^^^
      hint: it is Sandbox.read(path: string, options?: map) -> string

    error[unreachable-include]: this include changes no cell
      --> x.rhai:8:15
       |
     8 |     include: [#{ db: "sqlite" }],
       |               ^
      hint: the axes or a later include have it already: leave it out

    -- stderr
    1 script, 5 mistakes
    "#);
}

#[test]
fn all_mistakes_of_a_file_are_told_in_lua() {
    let environment = TestEnvironment::fake();
    environment.write("x.lua", FIVE_IN_LUA);
    assert_snapshot!(environment.run(["check", "x.lua"]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.lua:1:7
       |
     1 | local tools = require("tools")
       |       ^^^^^
      hint: use it, or leave the line out

    error[unknown-function]: there is no function 'sandbxo'
      --> x.lua:3:13
       |
     3 | local box = sandbxo("web")
       |             ^^^^^^^
      hint: did you mean 'sandbox'?

    error[unknown-option]: unknown option 'memmory' of sandbox()
      --> x.lua:4:32
       |
     4 | local other = sandbox("web", { memmory = "1GiB" })
       |                                ^^^^^^^
      hint: did you mean 'memory'?

    error[wrong-arity]: Sandbox.read() takes 1 or 2 arguments, got 0
      --> x.lua:5:7
       |
     5 | other:read()
       |       ^^^^
      hint: it is Sandbox.read(path: string, options?: map) -> string

    error[unreachable-include]: this include changes no cell
      --> x.lua:8:17
       |
     8 |     include = { { db = "sqlite" } },
       |                 ^
      hint: the axes or a later include have it already: leave it out

    -- stderr
    1 script, 5 mistakes
    "#);
}

#[test]
fn as_json() {
    let run = check("print(1);\nopen();\n", &["--format", "json"]);
    assert_snapshot!(run, @r#"
    exit code 3
    -- stdout
    {
      "files": [
        "x.rhai"
      ],
      "findings": [
        {
          "code": "wrong-arity",
          "column": 1,
          "file": "x.rhai",
          "hint": "it is open(name: string) -> Sandbox",
          "line": 2,
          "message": "open() takes 1 argument, got 0",
          "source": "open();"
        }
      ],
      "v": 1
    }
    "#);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["findings"][0]["line"], 2);
}

#[test]
fn as_annotations() {
    assert_snapshot!(check(FIVE, &["--format", "github"]), @"
    exit code 3
    -- stdout
    ::error file=x.rhai,line=1,col=1,title=sandscript unused-import::the import 'tools' is never used%0Ause it, or leave the line out
    ::error file=x.rhai,line=3,col=11,title=sandscript unknown-function::there is no function 'sandbxo'%0Adid you mean 'sandbox'?
    ::error file=x.rhai,line=4,col=31,title=sandscript unknown-option::unknown option 'memmory' of sandbox()%0Adid you mean 'memory'?
    ::error file=x.rhai,line=5,col=7,title=sandscript wrong-arity::Sandbox.read() takes 1 or 2 arguments, got 0%0Ait is Sandbox.read(path: string, options?: map) -> string
    ::error file=x.rhai,line=8,col=15,title=sandscript unreachable-include::this include changes no cell%0Athe axes or a later include have it already: leave it out
    -- stderr
    1 script, 5 mistakes
    ");
}

#[test]
fn nothing_wrong() {
    assert_snapshot!(check("print(1);\n", &[]), @"
    exit code 0
    -- stderr
    1 script, nothing wrong
    ");
    assert_snapshot!(check("", &["--format", "json"]), @r#"
    exit code 0
    -- stdout
    {
      "files": [
        "x.rhai"
      ],
      "findings": [],
      "v": 1
    }
    "#);
}

#[test]
fn a_folder_is_searched() {
    let environment = TestEnvironment::fake();
    environment.write("a.rhai", "sanbox();\n");
    environment.write("deep/b.rhai", "print(x);\n");
    environment.write("stubs/sandscript.d.rhai", "module static;\n");
    environment.write("generated/c.rhai", "nothing();\n");
    environment.write(".gitignore", "generated\n");
    environment.write("notes.txt", "no script");
    assert_snapshot!(environment.run(["check"]), @"
    exit code 3
    -- stdout
    error[unknown-function]: there is no function 'sanbox'
      --> a.rhai:1:1
       |
     1 | sanbox();
       | ^^^^^^
      hint: did you mean 'sandbox'?

    error[unknown-variable]: there is no variable 'x'
      --> deep/b.rhai:1:7
       |
     1 | print(x);
       |       ^
      hint: declare it with: let x = …;

    -- stderr
    2 scripts, 2 mistakes
    ");
    assert_snapshot!(environment.run(["check", "deep", "--quiet"]), @"
    exit code 3
    -- stdout
    error[unknown-variable]: there is no variable 'x'
      --> deep/b.rhai:1:7
       |
     1 | print(x);
       |       ^
      hint: declare it with: let x = …;
    ");
}

#[test]
fn files_that_are_not_there_or_no_scripts() {
    let environment = TestEnvironment::fake();
    environment.write("x.py", "");
    assert_snapshot!(environment.run(["check", "nope.rhai"]), @"
    exit code 2
    -- stderr
    error: 'nope.rhai' can't be read: No such file or directory (os error 2)
    ");
    assert_snapshot!(environment.run(["check", "x.py"]), @"
    exit code 2
    -- stderr
    error: 'x.py' is in no language that is known here
    hint: a script's name ends in .lua or .rhai
    ");
    std::fs::write(environment.path("project/bad.rhai"), b"\xff").unwrap();
    assert_snapshot!(environment.run(["check", "bad.rhai"]), @"
    exit code 3
    -- stdout
    error[syntax]: 'bad.rhai' is not UTF-8 text: line 1 holds other bytes
      hint: save it as UTF-8

    -- stderr
    1 script, 1 mistake
    ");
}
