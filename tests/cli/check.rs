//! `sandscript check`: what it prints, and its exit codes.

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

/// Five different mistakes, each of which a run would meet alone.
const FIVE: &str = r#"import "std/git" as tools;

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
const FIVE_IN_LUA: &str = r#"local tools = require("std.git")

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

/// Five mistakes, the second of which hides nothing of the others.
const FIVE_WITH_SYNTAX: &str = r#"import "std/git" as tools;

let image = param("image", backend(.default_image);
let box = sandbxo("web");
let other = sandbox("web", #{ memmory: "1GiB", from: image });
other.read();
"#;

const FIVE_WITH_SYNTAX_IN_LUA: &str = r#"local tools = require("std.git")

local image = param("image", backend(.default_image)
local box = sandbxo("web")
local other = sandbox("web", { memmory = "1GiB", from = image })
other:read()
"#;

fn check(script: &str, args: &[&str]) -> Run {
    check_in("rhai", script, args)
}

fn check_in(end: &str, script: &str, args: &[&str]) -> Run {
    let environment = TestEnvironment::fake();
    let name = format!("x.{end}");
    environment.write(&name, script);
    environment.run(["check", &name].iter().chain(args))
}

#[test]
fn all_mistakes_of_a_file_are_told() {
    assert_snapshot!(check(FIVE, &[]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.rhai:1:1
       |
     1 | import "std/git" as tools;
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
    assert_snapshot!(check_in("lua", FIVE_IN_LUA, &[]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.lua:1:7
       |
     1 | local tools = require("std.git")
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

#[test]
fn modules_and_what_they_have() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.rhai",
        r#"import "std/atp" as atp;
import "std/apt" as apt;
import "lib/util" as util;
import "lib/utli" as other;

let box = sandbox("web");
apt::instal(box, ["make"]);
apt::install(box);
util::grete(box);
util::greet();
util::secret();
print(util::SIZ + util::SIZE);
util::greet(box);
git::clone(box);
"#,
    );
    environment.write(
        "lib/util.rhai",
        r#"import "lib/deep" as deep;
export const SIZE = 1;
fn greet(box) { box.rnu("echo"); deep::act(box) }
private fn secret() {}
"#,
    );
    environment.write("lib/deep.rhai", "fn act(box) { sanbox(); }\n");
    assert_snapshot!(environment.run(["check", "x.rhai"]), @r#"
    exit code 3
    -- stdout
    error[unknown-module]: there is no module 'std/atp'
      --> x.rhai:1:1
       |
     1 | import "std/atp" as atp;
       | ^^^^^^
      hint: did you mean 'std/apt'?

    error[unknown-module]: there is no module 'lib/utli'
      --> x.rhai:4:1
       |
     4 | import "lib/utli" as other;
       | ^^^^^^
      hint: did you mean "lib/util"?

    error[unknown-function]: module 'std/apt' has no function 'instal'
      --> x.rhai:7:6
       |
     7 | apt::instal(box, ["make"]);
       |      ^^^^^^
      hint: did you mean 'install'?

    error[wrong-arity]: apt::install() takes 2 or 3 arguments, got 1
      --> x.rhai:8:6
       |
     8 | apt::install(box);
       |      ^^^^^^^

    error[unknown-function]: module 'lib/util' has no function 'grete'
      --> x.rhai:9:7
       |
     9 | util::grete(box);
       |       ^^^^^
      hint: did you mean 'greet'?

    error[wrong-arity]: util::greet() takes 1 argument, got 0
      --> x.rhai:10:7
        |
     10 | util::greet();
        |       ^^^^^

    error[unknown-function]: 'secret' is private in module 'lib/util'
      --> x.rhai:11:7
        |
     11 | util::secret();
        |       ^^^^^^

    error[unknown-field]: module 'lib/util' exports no 'SIZ'
      --> x.rhai:12:13
        |
     12 | print(util::SIZ + util::SIZE);
        |             ^^^
      hint: did you mean 'SIZE'?

    error[unknown-module]: no module is imported as 'git'
      --> x.rhai:14:6
        |
     14 | git::clone(box);
        |      ^^^^^
      hint: import it first: import "std/git" as git;

    error[unknown-function]: nothing has a function 'rnu'
      --> lib/util.rhai:3:21
       |
     3 | fn greet(box) { box.rnu("echo"); deep::act(box) }
       |                     ^^^
      hint: did you mean 'run'?

    error[unknown-function]: there is no function 'sanbox'
      --> lib/deep.rhai:1:15
       |
     1 | fn act(box) { sanbox(); }
       |               ^^^^^^
      hint: did you mean 'sandbox'?

    -- stderr
    3 scripts, 11 mistakes
    "#);
}

#[test]
fn modules_and_what_they_have_in_lua() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.lua",
        r#"local atp = require("std.atp")
local apt = require("std.apt")
local util = require("lib.util")
local other = require("lib.utli")

local box = sandbox("web")
apt.instal(box, { "make" })
apt.install(box)
apt.install(box, { "make" }, {}, 1)
print(apt.INSTAL, apt.INSTALL)
util.grete(box)
util.greet(box)
require("std.git").clon(box)
"#,
    );
    environment.write(
        "lib/util.lua",
        r#"local deep = require("lib.deep")
local util = { SIZE = 1 }
function util.greet(box) deep.act(box) end
return util
"#,
    );
    environment.write("lib/deep.lua", "return { act = function(box) sanbox() end }\n");
    assert_snapshot!(environment.run(["check", "x.lua"]), @r#"
    exit code 3
    -- stdout
    error[unknown-module]: there is no module 'std.atp'
      --> x.lua:1:7
       |
     1 | local atp = require("std.atp")
       |       ^^^
      hint: did you mean 'std.apt'?

    error[unknown-module]: there is no module 'lib.utli'
      --> x.lua:4:7
       |
     4 | local other = require("lib.utli")
       |       ^^^^^
      hint: did you mean "lib.util"?

    error[unknown-function]: module 'std.apt' has no function 'instal'
      --> x.lua:7:5
       |
     7 | apt.instal(box, { "make" })
       |     ^^^^^^
      hint: did you mean 'install'?

    error[wrong-arity]: apt.install() takes 2 or 3 arguments, got 1
      --> x.lua:8:5
       |
     8 | apt.install(box)
       |     ^^^^^^^

    error[wrong-arity]: apt.install() takes 2 or 3 arguments, got 4
      --> x.lua:9:5
       |
     9 | apt.install(box, { "make" }, {}, 1)
       |     ^^^^^^^

    error[unknown-field]: module 'std.apt' has no 'INSTAL'
      --> x.lua:10:11
        |
     10 | print(apt.INSTAL, apt.INSTALL)
        |           ^^^^^^
      hint: did you mean 'INSTALL'?

    error[unknown-function]: module 'lib.util' has no function 'grete'
      --> x.lua:11:6
        |
     11 | util.grete(box)
        |      ^^^^^
      hint: did you mean 'greet'?

    error[unknown-function]: module 'std.git' has no function 'clon'
      --> x.lua:13:20
        |
     13 | require("std.git").clon(box)
        |                    ^^^^
      hint: did you mean 'clone'?

    error[unknown-function]: there is no function 'sanbox'
      --> lib/deep.lua:1:30
       |
     1 | return { act = function(box) sanbox() end }
       |                              ^^^^^^
      hint: did you mean 'sandbox'?

    -- stderr
    3 scripts, 9 mistakes
    "#);
}

#[test]
fn a_module_of_a_folder_is_checked_once_and_from_the_script_above_it() {
    let environment = TestEnvironment::fake();
    environment.write("scripts/a.rhai", "import \"lib/one\" as one;\none::act();\n");
    environment.write("scripts/b.rhai", "import \"lib/one\" as one;\none::act();\n");
    environment.write(
        "scripts/lib/one.rhai",
        "import \"lib/two\" as two;\nfn act() { two::act(); sanbox() }\n",
    );
    environment.write("scripts/lib/two.rhai", "fn act() {}\n");
    assert_snapshot!(environment.run(["check"]), @"
    exit code 3
    -- stdout
    error[unknown-function]: there is no function 'sanbox'
      --> scripts/lib/one.rhai:2:24
       |
     2 | fn act() { two::act(); sanbox() }
       |                        ^^^^^^
      hint: did you mean 'sandbox'?

    -- stderr
    4 scripts, 1 mistake
    ");
    assert_snapshot!(environment.run(["check", "scripts/lib"]), @"
    exit code 3
    -- stdout
    error[unknown-function]: there is no function 'sanbox'
      --> scripts/lib/one.rhai:2:24
       |
     2 | fn act() { two::act(); sanbox() }
       |                        ^^^^^^
      hint: did you mean 'sandbox'?

    -- stderr
    2 scripts, 1 mistake
    ");
    assert_snapshot!(environment.run(["check", "scripts/a.rhai", "--format", "json"]), @r#"
    exit code 3
    -- stdout
    {
      "files": [
        "scripts/a.rhai",
        "scripts/lib/one.rhai",
        "scripts/lib/two.rhai"
      ],
      "findings": [
        {
          "code": "unknown-function",
          "column": 24,
          "file": "scripts/lib/one.rhai",
          "hint": "did you mean 'sandbox'?",
          "line": 2,
          "message": "there is no function 'sanbox'",
          "source": "fn act() { two::act(); sanbox() }"
        }
      ],
      "v": 1
    }
    "#);
}

#[test]
fn modules_outside_the_project() {
    let environment = TestEnvironment::fake();
    let outside = environment.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("far.rhai"), "fn act() {}\n").unwrap();
    environment.write("x.rhai", "import \"far\" as far;\nfar::act();\n");
    let link = environment.path("project/far.rhai");
    std::os::unix::fs::symlink(outside.join("far.rhai"), link).unwrap();
    let run = environment.run(["check", "x.rhai"]);
    assert_eq!(run.code, Some(3), "{run}");
    assert!(run.stdout.contains("lies outside the project folder"), "{run}");
    let allow = outside.display().to_string();
    let run = environment.run(["check", "x.rhai", "--allow-path", &allow]);
    assert_eq!(run.code, Some(0), "{run}");
}

#[test]
fn a_syntax_error_hides_no_other_mistake() {
    assert_snapshot!(check(FIVE_WITH_SYNTAX, &[]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.rhai:1:1
       |
     1 | import "std/git" as tools;
       | ^^^^^^
      hint: use it, or leave the line out

    error[syntax]: unexpected '.'
      --> x.rhai:3:36
       |
     3 | let image = param("image", backend(.default_image);
       |                                    ^

    error[unknown-function]: there is no function 'sandbxo'
      --> x.rhai:4:11
       |
     4 | let box = sandbxo("web");
       |           ^^^^^^^
      hint: did you mean 'sandbox'?

    error[unknown-option]: unknown option 'memmory' of sandbox()
      --> x.rhai:5:31
       |
     5 | let other = sandbox("web", #{ memmory: "1GiB", from: image });
       |                               ^^^^^^^
      hint: did you mean 'memory'?

    error[wrong-arity]: Sandbox.read() takes 1 or 2 arguments, got 0
      --> x.rhai:6:7
       |
     6 | other.read();
       |       ^^^^
      hint: it is Sandbox.read(path: string, options?: map) -> string

    -- stderr
    1 script, 5 mistakes
    "#);
    assert_snapshot!(check_in("lua", FIVE_WITH_SYNTAX_IN_LUA, &[]), @r#"
    exit code 3
    -- stdout
    error[unused-import]: the import 'tools' is never used
      --> x.lua:1:7
       |
     1 | local tools = require("std.git")
       |       ^^^^^
      hint: use it, or leave the line out

    error[syntax]: unexpected symbol near '.'
      --> x.lua:3:38
       |
     3 | local image = param("image", backend(.default_image)
       |                                      ^

    error[unknown-function]: there is no function 'sandbxo'
      --> x.lua:4:13
       |
     4 | local box = sandbxo("web")
       |             ^^^^^^^
      hint: did you mean 'sandbox'?

    error[unknown-option]: unknown option 'memmory' of sandbox()
      --> x.lua:5:32
       |
     5 | local other = sandbox("web", { memmory = "1GiB", from = image })
       |                                ^^^^^^^
      hint: did you mean 'memory'?

    error[wrong-arity]: Sandbox.read() takes 1 or 2 arguments, got 0
      --> x.lua:6:7
       |
     6 | other:read()
       |       ^^^^
      hint: it is Sandbox.read(path: string, options?: map) -> string

    -- stderr
    1 script, 5 mistakes
    "#);
}

#[test]
fn modules_that_import_each_other() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "import \"lib/a\" as a;\na::f();\n");
    environment.write("lib/a.rhai", "import \"lib/b\" as b;\nfn f() { b::f() }\n");
    environment.write("lib/b.rhai", "import \"lib/c\" as c;\nfn f() { c::f() }\n");
    environment.write("lib/c.rhai", "import \"lib/a\" as a;\nfn f() { a::f() }\n");
    environment.write("self.rhai", "import \"self\" as own;\nown::f();\nfn f() {}\n");
    assert_snapshot!(environment.run(["check", "x.rhai"]), @r#"
    exit code 3
    -- stdout
    error[import-cycle]: modules import each other in a circle: lib/a → lib/b → lib/c → lib/a
      --> lib/a.rhai:1:1
       |
     1 | import "lib/b" as b;
       | ^^^^^^
      hint: put what both need into a module of its own

    -- stderr
    4 scripts, 1 mistake
    "#);
    assert_snapshot!(environment.run(["check", "self.rhai"]), @r#"
    exit code 3
    -- stdout
    error[import-cycle]: 'self' imports itself
      --> self.rhai:1:1
       |
     1 | import "self" as own;
       | ^^^^^^
      hint: put what both need into a module of its own

    -- stderr
    1 script, 1 mistake
    "#);
    environment.write("x.lua", "require('lib.a').f()\n");
    environment
        .write("lib/a.lua", "local b = require('lib.b')\nreturn { f = function() b.f() end }\n");
    environment
        .write("lib/b.lua", "local a = require('lib.a')\nreturn { f = function() a.f() end }\n");
    // What is only required when it is used is no circle.
    environment.write("late.lua", "require('lib.late').f()\n");
    environment.write("lib/late.lua", "return { f = function() return require('late') end }\n");
    assert_snapshot!(environment.run(["check", "x.lua"]), @"
    exit code 3
    -- stdout
    error[import-cycle]: modules import each other in a circle: lib.a → lib.b → lib.a
      --> lib/a.lua:1:7
       |
     1 | local b = require('lib.b')
       |       ^
      hint: put what both need into a module of its own

    -- stderr
    3 scripts, 1 mistake
    ");
    assert_eq!(environment.run(["check", "late.lua"]).code, Some(0));
    // Of a whole project each circle is told once.
    let run = environment.run(["check"]);
    assert_eq!(run.stdout.matches("import-cycle").count(), 3, "{run}");
}

#[test]
fn numbers_of_arguments_of_modules_in_lua() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.lua",
        r#"local util = require("lib.util")
local box = sandbox("web")
util.greet(box, "hello", 3)
util.greet()
util.plain(1, 2)
util.any(1, 2, 3)
util:method()
util:method(1, 2)
util.greet(box, table.unpack({}))
print(pcall(util.greet))
"#,
    );
    environment.write(
        "lib/util.lua",
        r#"local util = {}
function util.greet(box, word) box:run("echo " .. word) end
function util.plain(x) return x end
function util.any(...) return ... end
function util:method(x) return self.plain(x) end
return util
"#,
    );
    assert_snapshot!(environment.run(["check", "x.lua"]), @r#"
    exit code 3
    -- stdout
    error[wrong-arity]: util.greet() takes 1 or 2 arguments, got 3
      --> x.lua:3:6
       |
     3 | util.greet(box, "hello", 3)
       |      ^^^^^

    error[wrong-arity]: util.greet() takes 1 or 2 arguments, got 0
      --> x.lua:4:6
       |
     4 | util.greet()
       |      ^^^^^

    error[wrong-arity]: util.plain() takes at most 1 argument, got 2
      --> x.lua:5:6
       |
     5 | util.plain(1, 2)
       |      ^^^^^

    error[wrong-arity]: util:method() takes at most 1 argument, got 2
      --> x.lua:8:6
       |
     8 | util:method(1, 2)
       |      ^^^^^^

    -- stderr
    2 scripts, 4 mistakes
    "#);
}
