//! `sandscript repl`: modules in a session.

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};
use crate::repl::say_in;

/// A project with modules that work, that are broken, and that import each other, in each language.
fn modules() -> TestEnvironment {
    let environment = TestEnvironment::fake();
    for (name, rhai, lua) in [
        (
            "good",
            "export const X = 5;\nfn double(n) { n * 2 }\nfn fail() { open(\"nope\") }",
            "local good = { X = 5 }\nfunction good.double(n) return n * 2 end\n\
             function good.fail() local box = open(\"nope\") return box end\nreturn good",
        ),
        ("broken", "let x = = 1;", "local x = = 1"),
        ("one", "import \"lib/two\" as two;", "require(\"lib.two\")"),
        ("two", "import \"lib/one\" as one;", "require(\"lib.one\")"),
    ] {
        environment.write(&format!("lib/{name}.rhai"), rhai);
        environment.write(&format!("lib/{name}.lua"), lua);
    }
    environment.write("deep/main.rhai", "import \"near\" as near; let y = near::N;");
    environment.write("deep/near.rhai", "export const N = 7;");
    environment.write("deep/main.lua", "y = require(\"near\").N");
    environment.write("deep/near.lua", "return { N = 7 }");
    environment
}

fn say_lua(environment: &TestEnvironment, lines: &str) -> Run {
    environment.run_with(["repl", "--lang", "lua"], lines.as_bytes())
}

#[test]
fn modules_stay_imported() {
    let environment = modules();
    assert_snapshot!(say_in(&environment, "import \"lib/good\" as good;\ngood::double(4)\nfn f(n) {\n  good::double(n)\n}\n\n\
        f(good::X)\n[1, 2].map(|x| good::double(x))\nimport \"std/shell\" as shell;\nshell::quote(\"a b\")\n:load deep/main.rhai\ny"), @r#"
    exit code 0
    -- stdout
    8
    10
    [2, 4]
    "'a b'"
    7
    -- stderr
    deep/main.rhai is done; new here: near, y
    "#);
    assert_snapshot!(say_lua(&environment, "good = require(\"lib.good\")\ngood.double(4)\nfunction f(n)\n  return good.double(n)\nend\n\
        f(good.X)\nrequire(\"lib.good\") == good\nshell = require(\"std.shell\")\nshell.quote(\"a b\")\n:load deep/main.lua\ny"), @r#"
    exit code 0
    -- stdout
    8
    10
    true
    "'a b'"
    7
    -- stderr
    deep/main.lua is done; new here: y
    "#);
}

#[test]
fn modules_that_are_wrong() {
    let environment = modules();
    let rhai = |line: &str| say_in(&environment, line);
    let lua = |line: &str| say_lua(&environment, line);
    assert_snapshot!(rhai("import \"lib/broken\" as b;"), @"
    exit code 3
    -- stderr
    error: unexpected '='
      --> lib/broken.rhai:1:9
       |
     1 | let x = = 1;
       |         ^
      imported at repl:1:8
    ");
    assert_snapshot!(lua("b = require(\"lib.broken\")"), @"
    exit code 3
    -- stderr
    error: unexpected symbol near '='
      --> lib/broken.lua:1:9
       |
     1 | local x = = 1
       |         ^
      imported at repl:1:5
    ");
    assert_snapshot!(rhai("import \"lib/godo\" as b;"), @r#"
    exit code 3
    -- stderr
    error: there is no module 'lib/godo'
      --> repl:1:9
       |
     1 | import "lib/godo" as b;
       |         ^^^
    hint: did you mean "lib/good"?
    "#);
    assert_snapshot!(lua("b = require(\"lib.godo\")"), @r#"
    exit code 3
    -- stderr
    error: there is no module 'lib.godo'
      --> repl:1:14
       |
     1 | b = require("lib.godo")
       |              ^^^
    hint: did you mean "lib.good"?
    "#);
    assert_snapshot!(rhai("import \"lib/one\" as b;"), @r#"
    exit code 3
    -- stderr
    error: modules import each other in a circle: lib/one → lib/two → lib/one
      --> lib/two.rhai:1:8
       |
     1 | import "lib/one" as one;
       |        ^
      imported at lib/one.rhai:1:8
      imported at repl:1:8
    hint: put what both need into a module of its own
    "#);
    assert_snapshot!(lua("b = require(\"lib.one\")"), @r#"
    exit code 3
    -- stderr
    error: modules import each other in a circle: lib.one → lib.two → lib.one
      --> lib/two.lua:1:1
       |
     1 | require("lib.one")
       | ^^^^^^^
      imported at lib/one.lua:1:1
      imported at repl:1:5
    hint: put what both need into a module of its own
    "#);
    assert_snapshot!(rhai("import \"lib/good\" as g;\ng::fail();"), @r#"
    exit code 3
    -- stderr
    error: sandbox 'nope' not found
      --> lib/good.rhai:3:13
       |
     3 | fn fail() { open("nope") }
       |             ^^^^
      in fail(), called at repl:2:4
    hint: sandbox("nope") makes it
    "#);
    assert_snapshot!(lua("g = require(\"lib.good\")\ng.fail()"), @r#"
    exit code 3
    -- stderr
    error: sandbox 'nope' not found
      --> lib/good.lua:3:34
       |
     3 | function good.fail() local box = open("nope") return box end
       |                                  ^^^^
      in fail(), called at repl:2:3
    hint: sandbox("nope") makes it
    "#);
    assert_snapshot!(rhai("import \"../x\" as b;"), @r#"
    exit code 3
    -- stderr
    error: "../x" is no module's name: '..' leads out
      --> repl:1:9
       |
     1 | import "../x" as b;
       |         ^
    hint: modules are named from the script's folder or the project folder; put the module below one of them
    "#);
    assert_snapshot!(lua("b = require(\"../x\")"), @r#"
    exit code 3
    -- stderr
    error: "../x" is no module's name: '..' leads out
      --> repl:1:14
       |
     1 | b = require("../x")
       |              ^
    hint: modules are named from the script's folder or the project folder; put the module below one of them
    "#);
}

/// What failed to be imported can be mended, and imported then.
#[test]
fn a_module_is_mended_in_a_session() {
    if !crate::terminal::tmux_is_there() {
        return;
    }
    for (end, import, show) in [
        ("rhai", "import \"lib/broken\" as b; b::X", "export const X = 41 + 1;"),
        ("lua", "require(\"lib.broken\").X", "return { X = 41 + 1 }"),
    ] {
        let environment = modules();
        let line = format!(
            "{} repl --backend fake --lang {end}; sleep 60",
            crate::environment::program().display()
        );
        let terminal = crate::terminal::Terminal::open(&environment, &line);
        terminal.wait_for(&format!("{end}>"));
        terminal.line(import);
        terminal.wait_for("lib/broken");
        terminal.wait_for("unexpected");
        environment.write(&format!("lib/broken.{end}"), show);
        terminal.line(import);
        terminal.wait_for("\n42\n");
    }
}
