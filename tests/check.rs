//! The rules of `sandscript check`, each with what it says and what it leaves alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use insta::assert_snapshot;
use sandscript::api::Registry;
use sandscript::lang::{self, Source};

/// What is said about a script, shortly: place, code, message, hint.
fn check(file: &str, text: &str) -> String {
    lang::check(&Source::new(file, text), &Registry::standard())
        .iter()
        .map(|finding| {
            let error = &finding.error;
            let at = error.position.as_ref().map(|at| format!("{}:{}", at.line, at.column));
            let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{} {}: {}{hint}\n", at.unwrap_or_default(), finding.code, error.message)
        })
        .collect()
}

fn rhai(text: &str) -> String {
    check("x.rhai", text)
}

#[test]
fn what_may_be_right_is_left_alone() {
    for text in [
        "let b = sandbox(\"a\"); fn f(x) { x } f(b); b.run(\"x\"); [1].map(|x| f(x));",
        "let o = #{ cpu: 1 }; sandbox(\"a\", o); sandbox(o);",
        "let x = env(\"X\"); x.trim(); x.anything;",
        "let f = |x| x + 1; f.call(1); let m = #{ act: |x| x }; m.act(1);",
        "let x = sandbox(); x = 1; x.whatever;",
        "for line in sandbox().spawn(\"x\").lines() { print(line.to_upper()); }",
        "let n = 1; let c = || { n += 1; let d = || n; d.call() }; c.call();",
        "let m = #{ axes: #{ a: [1] } }; matrix(\"m\", m, |cell| print(cell.a));",
        "let v = [1]; matrix(\"m\", #{ axes: #{ a: v } }, |cell| print(cell.a));",
        "switch 1 { 1 => print(\"x\"), _ => { let y = 2; print(y) } }",
        "try { open(\"x\"); } catch (e) { print(e.message); }",
        "try { throw #{ a: 1 }; } catch (e) { print(e.a); }",
        "fn f() { this.x } let m = #{ x: 1 }; m.f();",
        "let a = [[1]]; print(a[0][0]); a[0].push(2); let s = sandbox(); [s][0].run(\"x\");",
        "import \"x\" as x; x::act(1); fn f() { x::act(2) } f();",
        "import \"x\" as x; print(x::SIZE);",
        "import \"x\" as x; x::y::act(1); print(x::y::Z); global::act;",
        "import \"std/apt\" as apt; let apt = #{ act: || 1 }; apt.act(); apt::install(1, 2);",
        "let apt = 1; import \"std/apt\" as apt; print(apt.x); apt::install(1, 2, 3); apt::INSTALL;",
        "import \"x\";",
        "let i = 0; while i < 3 { i += 1; if i == 2 { continue; } } loop { break; }",
        "let text = `a ${1 + 1} b`; print(text.len()); print(\"a\" in [\"a\"]); print(1..3);",
        "sandbox(\"a\", #{ env: #{ A: 1, B: true, C: \"x\" }, memory: 1024, cpu: 0.5 });",
        "json_stringify(#{ any: 1 }); print(param(\"x\", 1) + 1); log(#{ a: 1 });",
        "let b = base(\"b\", |b| { b.run(\"x\"); b.env(\"A\", 1); }); print(b.hits);",
        "sandbox().spawn(\"x\").on_output(|line, stream| print(line));",
        "let n = (); let x = n ?? 3; print(x); let y = 5; { let y = 6; print(y); }",
        "const A = 1; print(A); fn g() { global::A } g();",
    ] {
        assert_eq!(rhai(text), "", "{text}");
    }
}

#[test]
fn functions() {
    assert_snapshot!(rhai("let box = sandbox();
sanbox();
run(\"make\");
box.runn();
box.snapshto(1);
env(\"A\").snapshto(1);
fn f(x) { x }
f();
fn g() { nothing(); let c = || also_nothing(); }
cell.x();
"), @"
    2:1 unknown-function: there is no function 'sanbox' (did you mean 'sandbox'?)
    3:1 unknown-function: run() is a function of Sandbox (call it on one: sandbox.run(…))
    4:5 unknown-function: Sandbox has no function 'runn' (did you mean 'run'?)
    5:5 unknown-function: Sandbox has no function 'snapshto' (did you mean 'snapshot'?)
    6:10 unknown-function: nothing has a function 'snapshto' (did you mean 'snapshot'?)
    8:1 wrong-arity: f() is called with the wrong number of arguments (the script's own f() takes 1)
    9:10 unknown-function: there is no function 'nothing'
    9:32 unknown-function: there is no function 'also_nothing'
    10:1 unknown-variable: there is no variable 'cell' (declare it with: let cell = …;)
    10:6 unknown-function: nothing has a function 'x'
    ");
}

#[test]
fn numbers_of_arguments() {
    assert_snapshot!(rhai("open();
sandbox(\"a\", #{}, 3, 4);
let box = sandbox(); box.read(); box.write(\"/a\");
matrix(\"m\", #{ axes: #{ a: [1] } });
param();
env(\"A\").set_nothing(); env(\"A\").on_output();
"), @"
    1:1 wrong-arity: open() takes 1 argument, got 0 (it is open(name: string) -> Sandbox)
    2:1 wrong-arity: sandbox() takes 0 to 2 arguments, got 4 (it is sandbox(name?: string, options?: map) -> Sandbox)
    3:26 wrong-arity: Sandbox.read() takes 1 or 2 arguments, got 0 (it is Sandbox.read(path: string, options?: map) -> string)
    3:38 wrong-arity: Sandbox.write() takes 2 or 3 arguments, got 1 (it is Sandbox.write(path: string, content: string | bytes | Secret, options?: map))
    4:1 wrong-arity: matrix() needs 'body': a function that takes one argument (cell) (it is matrix(name: string, options?: map, body: fn(cell: Cell)) -> map)
    5:1 wrong-arity: param() takes 1 to 3 arguments, got 0 (it is param(name: string, default?: any, doc?: string) -> any)
    6:10 unknown-function: nothing has a function 'set_nothing'
    6:34 wrong-arity: Process.on_output() takes 1 argument, got 0 (it is Process.on_output(callback: fn(line: string, stream: string)))
    ");
}

#[test]
fn options_and_types() {
    assert_snapshot!(rhai("let box = sandbox(\"a\", #{
    memmory: \"1GiB\",
    memory: \"1x\", disk: true,
    name: \"b\",
    mounts: [#{ source: \"a\", taget: \"/a\" }],
});
box.run(\"x\", #{ timeout: \"soon\", zzz: 1 });
box.run(3);
box.write(\"/a\", 3);
box.read(\"/a\", 3);
assert(\"yes\");
box.run([\"a\", 3]);
log(\"x\", #{ level: \"loud\" });
base(\"b\", 3);
"), @r#"
    2:5 unknown-option: unknown option 'memmory' of sandbox() (did you mean 'memory'?)
    3:13 wrong-type: option 'memory' of sandbox(): '1x' is not a size (write it as "512MiB", "2GB" or a number of bytes)
    3:19 wrong-type: option 'disk' of sandbox() must be a size such as "512MiB", or a number of bytes, got bool true
    4:5 unknown-option: unknown option 'name' of sandbox() ('name' is an argument: sandbox(name?: string, options?: map) -> Sandbox)
    5:30 unknown-option: unknown key 'taget' of a mount (did you mean 'target'?)
    7:26 wrong-type: option 'timeout' of Sandbox.run(): 'soon' is not a duration (write it as "30s", "10m", "1h30m" or "250ms")
    7:34 unknown-option: unknown option 'zzz' of Sandbox.run() (there are: cwd, env, login, max_output, stdin, timeout, tty, user)
    8:9 wrong-type: 'command' of Sandbox.run() must be a command: a string for the shell, or a list of strings such as ["ls", "-l"], got int 3 (it is Sandbox.run(command: string | list<string>, options?: map) -> Result)
    9:17 wrong-type: 'content' of Sandbox.write() must be a string or bytes, or a Secret, got int 3 (it is Sandbox.write(path: string, content: string | bytes | Secret, options?: map))
    10:16 wrong-type: the options of Sandbox.read() must be a map, got int 3 (it is Sandbox.read(path: string, options?: map) -> string)
    11:8 wrong-type: 'condition' of assert() must be true or false, got string "yes" (it is assert(condition: bool, message?: any))
    12:9 wrong-type: 'command' of Sandbox.run() must be a command: a string for the shell, or a list of strings such as ["ls", "-l"], got list ["a", 3] (it is Sandbox.run(command: string | list<string>, options?: map) -> Result)
    13:13 wrong-type: option 'level' of log() must be "debug" or "info" or "warn" or "error", got string "loud"
    14:11 wrong-type: 'steps' of base() must be a function that takes one argument (b), got int 3 (it is base(name: string, options?: map, steps: fn(b: Builder)) -> Base)
    "#);
}

#[test]
fn properties() {
    assert_snapshot!(rhai("let box = sandbox();
print(box.nam);
print(box.run);
print(box.run(\"x\").stdot);
print(box.name());
for one in sandboxes() { print(one.staet); }
print(open(\"a\").clone().nmae);
matrix(\"m\", #{ axes: #{ level: [1, 2] } }, |cell| { print(cell.leval); cell.sandbox.runn(); });
"), @"
    2:11 unknown-field: Sandbox has no property 'nam' (did you mean 'name'?)
    3:11 unknown-field: 'run' of Sandbox is a function (call it: .run(…))
    4:20 unknown-field: Result has no property 'stdot' (did you mean 'stdout'?)
    5:11 unknown-function: 'name' of Sandbox is a property, not a function (leave the parentheses out: .name)
    6:36 unknown-field: Sandbox has no property 'staet' (did you mean 'state'?)
    7:25 unknown-field: Sandbox has no property 'nmae' (did you mean 'name'?)
    8:64 unknown-field: Cell has no property 'leval' (did you mean 'level'?)
    8:85 unknown-function: Sandbox has no function 'runn' (did you mean 'run'?)
    ");
}

#[test]
fn variables() {
    assert_snapshot!(rhai("let count = 1;
print(coutn);
fn f() { count }
f();
print(sandbox);
let c = || missing + 1;
for x in [1] { print(x); }
print(x);
b = 3;
"), @"
    2:7 unknown-variable: there is no variable 'coutn' (did you mean 'count'?)
    3:10 unknown-variable: there is no variable 'count' (a function sees no variables around it: hand it over as an argument)
    5:7 unknown-variable: there is no variable 'sandbox' ('sandbox' is a function: call it with parentheses)
    6:12 unknown-variable: there is no variable 'missing' (declare it with: let missing = …;)
    8:7 unknown-variable: there is no variable 'x' (declare it with: let x = …;)
    9:1 unknown-variable: there is no variable 'b' (declare it with: let b = …;)
    ");
}

#[test]
fn imports() {
    assert_snapshot!(rhai("import \"a\" as a;
import \"b\" as b;
print(b::X);
if true { import \"c\" as c; }
"), @"
    1:1 unused-import: the import 'a' is never used (use it, or leave the line out)
    4:11 unused-import: the import 'c' is never used (use it, or leave the line out)
    ");
}

#[test]
fn modules() {
    assert_snapshot!(rhai("import \"std/atp\" as atp;
import \"std/apt\" as apt;
apt::instal(1, 2);
apt::install(1);
fn f() { apt::nothing(); print(apt::INSTAL) }
print(apt::install);
git::clone(1);
import \"../x\" as x;
"), @r#"
    1:1 unknown-module: there is no module 'std/atp' (did you mean 'std/apt'?)
    3:6 unknown-function: module 'std/apt' has no function 'instal' (did you mean 'install'?)
    4:6 wrong-arity: apt::install() takes 2 or 3 arguments, got 1
    5:15 unknown-function: module 'std/apt' has no function 'nothing' (there are: add_source, install, remove, update, version)
    5:37 unknown-field: module 'std/apt' exports no 'INSTAL' (did you mean 'INSTALL'?)
    6:12 unknown-field: module 'std/apt' exports no 'install' (it is a function: call it with apt::install(…))
    7:6 unknown-module: no module is imported as 'git' (import it first: import "std/git" as git;)
    8:1 unused-import: the import 'x' is never used (use it, or leave the line out)
    "#);
    assert_snapshot!(lua("local apt = require(\"std.apt\")
apt.instal(1, 2)
apt.install(1)
apt.install(1, 2, 3, 4)
print(apt.INSTAL)
apt:nothing()
require(\"std.gti\").clone(1)
"), @"
    2:5 unknown-function: module 'std.apt' has no function 'instal' (did you mean 'install'?)
    3:5 wrong-arity: apt.install() takes 2 or 3 arguments, got 1
    4:5 wrong-arity: apt.install() takes 2 or 3 arguments, got 4
    5:11 unknown-field: module 'std.apt' has no 'INSTAL' (did you mean 'INSTALL'?)
    6:5 unknown-function: module 'std.apt' has no function 'nothing' (there are: add_source, install, remove, update, version)
    7:1 unknown-module: there is no module 'std.gti' (did you mean 'std.git'?)
    ");
}

#[test]
fn all_of_the_standard_library_is_known() {
    for module in lang::stdlib::names() {
        let used = rhai(&format!("import \"std/{module}\" as m; m::nothing_like_it();"));
        assert!(used.contains("has no function 'nothing_like_it'"), "{module}: {used}");
        let used = lua(&format!("require('std.{module}').nothing_like_it()"));
        assert!(used.contains("has no function 'nothing_like_it'"), "{module}: {used}");
        // Both languages take the same numbers of arguments.
        let text = lang::stdlib::text(module, "lua").unwrap();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("function ") else { continue };
            let (name, rest) = rest.split_once('(').unwrap();
            let name = name.rsplit('.').next().unwrap();
            let count = rest.split(')').next().unwrap().split(',').count();
            let call = |count: usize| {
                let args = vec!["1"; count].join(", ");
                lua(&format!("require('std.{module}').{name}({args})"))
            };
            assert_eq!(call(count), "", "{module} {name}");
            assert!(call(count + 1).contains("wrong-arity"), "{module} {name}");
        }
    }
}

#[test]
fn includes() {
    assert_snapshot!(rhai("matrix(\"m\", #{
    axes: #{ db: [\"sqlite\", \"postgres\"], locale: [\"C\"] },
    include: [
        #{ db: \"sqlite\" },
        #{ db: \"sqlite\", fast: true },
        #{ fast: false },
        #{ db: \"mysql\" },
        #{ fast: true },
    ],
}, |cell| print(cell.fast));
matrix(\"m\", #{ axes: #{ db: [1] }, exclude: [#{ dv: 1 }] }, |cell| ());
matrix(\"m\", #{ axes: #{ db: [] } }, |cell| ());
matrix(\"m\", #{ axes: #{ db: [1] }, include: [#{ db: 2 }, #{ db: 2 }] }, |cell| ());
"), @"
    4:9 unreachable-include: this include changes no cell (the axes or a later include have it already: leave it out)
    5:9 unreachable-include: this include changes no cell (the axes or a later include have it already: leave it out)
    6:9 unreachable-include: this include changes no cell (the axes or a later include have it already: leave it out)
    11:36 unreachable-include: 'dv' is not an axis (did you mean 'db'?)
    12:16 unreachable-include: axis 'db' has no values (give it one value at least, or leave the axis out)
    13:1 unreachable-include: the matrix has the cell 'db=2' twice (give each value of an axis once, and include no combination that is there already)
    ");
}

#[test]
fn many_mistakes_are_not_told_without_end() {
    let text = "nothing();\n".repeat(1000);
    assert_eq!(rhai(&text).lines().count(), 200);
}

fn lua(text: &str) -> String {
    check("x.lua", text)
}

#[test]
fn what_may_be_right_in_lua_is_left_alone() {
    for text in [
        "local b <close> = sandbox('a'); local function f(x) return x end; f(b); b:run('x')",
        "local o = { cpu = 1 }; sandbox('a', o); sandbox(o); sandbox { cpu = 1 }",
        "local x = env('X'); x:upper(); print(#x, x .. 'y', x:gsub('a', 'b'))",
        "local ok, e = pcall(open, 'x'); print(ok, e.message)",
        "local ok, e = pcall(function() error({ a = 1 }) end); print(e.a)",
        "for i = 1, 3 do print(i) end; for k, v in pairs({ a = 1 }) do print(k, v) end",
        "for line in sandbox():spawn('x'):lines() do print(line) end",
        "for _, one in ipairs(sandboxes()) do print(one.name) end",
        "total = 0; local function add(n) total = total + n end; add(1); print(total)",
        "local t = { go = function(x) return x end }; t.go(1); t:go(1); t.other = 1; print(t[1])",
        "function helper(a, b) return a end; helper(1); helper(1, 2); print(helper)",
        "local function any(a, ...) return a, ... end; any(); any(1, 2, 3); print(any(any()))",
        "local f = print; if 1 then f = function(a) return a end end; f(1, 2)",
        "local function f(a) a = a or {}; return a.x end; f(); local g = f; g(1); f(f(1))",
        "local M = {}; function M.one(x) return x end; function M:two() return self.x end; M.one(1)",
        "local m = require('lib.util'); m.act(); print(require('other').x)",
        "local a = require('std.apt'); a.extra = print; a.extra(); a.install(table.unpack({}))",
        "local a = require('std.apt'); pcall(a.install, 1); for _, a in ipairs({}) do a.x() end",
        "repeat local done = true until done; while false do break end",
        "goto out; ::out:: print(string.format('%d', 3), math.max(1, 2), os.time())",
        "matrix('m', { axes = { a = { 1 } } }, function(cell) print(cell.a, cell.id) end)",
        "local v = { 1 }; matrix('m', { axes = { a = v } }, function(cell) print(cell.a) end)",
        "sandbox('a', { env = { A = 1, ['B-C'] = 'x' }, memory = 1024 })",
        "local box = sandbox(); box.run(box, 'x'); local run = 3; print(run)",
        "open(table.unpack({ 'x' })); print(select('#', 1, 2), ... )",
        "#!/usr/bin/env sandscript\nprint(0x10, 1e3, [[long]], 'a\\x41')",
        "local a <const>, b = 1; print(a, b, -1, not true, 7 // 2, 1 << 2, ~0)",
        "json_stringify({}); log({ a = 1 }); print(param('x', 1) + 1)",
    ] {
        assert_eq!(lua(text), "", "{text}");
    }
}

#[test]
fn mistakes_in_lua() {
    assert_snapshot!(lua("local apt = require(\"apt\")
local box = sandbxo(\"web\")
local other = sandbox(\"web\", { memmory = \"1GiB\", memory = \"1x\" })
other:read()
other.run(\"make\")
print(other:run(\"make\").stdot, other.run)
print(coutn, io.read, os.getenv(\"HOME\"))
dofile(\"x\")
matrix(\"tests\", {
    axes = { db = { \"sqlite\", \"postgres\" } },
    include = { { db = \"sqlite\" } },
}, function(cell)
    cell.sandbox:runn(\"test\")
    print(cell.dv)
end)
run(\"x\")
for _, one in ipairs(sandboxes()) do print(one.nmae) end
"), @r#"
    1:7 unused-import: the import 'apt' is never used (use it, or leave the line out)
    2:13 unknown-function: there is no function 'sandbxo' (did you mean 'sandbox'?)
    3:32 unknown-option: unknown option 'memmory' of sandbox() (did you mean 'memory'?)
    3:59 wrong-type: option 'memory' of sandbox(): '1x' is not a size (write it as "512MiB", "2GB" or a number of bytes)
    4:7 wrong-arity: Sandbox.read() takes 1 or 2 arguments, got 0 (it is Sandbox.read(path: string, options?: map) -> string)
    5:7 unknown-function: 'run' of Sandbox is called with a dot (call it with a colon: :run(…))
    6:25 unknown-field: Result has no property 'stdot' (did you mean 'stdout'?)
    7:7 unknown-variable: there is no variable 'coutn' (declare it with: local coutn = …)
    7:14 unknown-variable: scripts have no 'io' (a script reaches files through a sandbox: box:read(), box:write(), box:push())
    7:26 unknown-function: scripts have no 'os.getenv' (env() reads the environment)
    8:1 unknown-function: scripts have no 'dofile' (a script can't run files of the host)
    11:17 unreachable-include: this include changes no cell (the axes or a later include have it already: leave it out)
    13:18 unknown-function: Sandbox has no function 'runn' (did you mean 'run'?)
    14:16 unknown-field: Cell has no property 'dv' (did you mean 'db'?)
    16:1 unknown-function: run() is a function of Sandbox (call it on one: sandbox:run(…))
    17:48 unknown-field: Sandbox has no property 'nmae' (did you mean 'name'?)
    "#);
}

#[test]
fn more_than_one_syntax_error_in_lua() {
    assert_snapshot!(lua("local x = = 1
print(x)

local function f()
    return +
end

if x then
    sanbox()
"), @"
    1:9 syntax: unexpected symbol near '='
    5:5 syntax: expected `end` to close function body block
    9:5 unknown-function: there is no function 'sanbox' (did you mean 'sandbox'?)
    10:1 syntax: expected `end` to conclude `if`
    ");
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = format!("print({}1{})", "(".repeat(10_000), ")".repeat(10_000));
    assert!(lua(&deep).contains("syntax"), "{}", lua(&deep));
    assert!(rhai(&deep).contains("syntax"), "{}", rhai(&deep));
    let blocks = "do ".repeat(10_000);
    assert!(lua(&blocks).contains("syntax"), "{}", lua(&blocks));
    let less = format!("print({}1{})", "(".repeat(38), ")".repeat(38));
    assert_eq!(lua(&less), "");
    let long = format!("print(1{})", " + 1".repeat(2_000));
    assert_eq!(lua(&long), "");
    let large = format!("print(1{})", " + 1".repeat(500_000));
    assert_eq!(lua(&large), "");
}

#[test]
fn numbers_of_arguments_of_functions_in_lua() {
    assert_snapshot!(lua("local function greet(box, word, often) box:run(word) end
greet()
greet(1, 2, 3, 4)
greet(1, 2, 3, table.unpack({}))
local twice = function(x) return x end
twice(1, 2)
local none = function() end
none(1)
"), @"
    2:1 wrong-arity: greet() is called with the wrong number of arguments (the script's own greet() takes 1 to 3)
    3:1 wrong-arity: greet() is called with the wrong number of arguments (the script's own greet() takes 1 to 3)
    6:1 wrong-arity: twice() is called with the wrong number of arguments (the script's own twice() takes at most 1)
    8:1 wrong-arity: none() is called with the wrong number of arguments (the script's own none() takes 0)
    ");
}

#[test]
fn the_rest_of_a_script_that_is_broken() {
    for broken in [
        "let = 5;",
        "let x = (1 + ;",
        "let x = 1 +;",
        "let m = #{ a: 1 b: 2 };",
        "print(\"abc);",
        "print(`abc);",
        "foo bar;",
        "for in x {}",
        "fn f(x y) { x }",
        "fn f(x) { x } fn f(y) { y }",
        "if a b { print(1); } else { print(2); }",
        "matrix(\"m\" #{ axes: 1 }, |cell| { cell.id; });",
        "switch 1 { 1 => print(1) 2 => { print(2); } }",
        "const A = 1; A = 2;",
        "break;",
        "print(1));",
        "}",
        "let a = 1",
        "let a = [1, 2",
        "let a = f(1, #{ b: 2",
        "let a = #{ b: (1 }",
        "let a = '",
        "local x = 1",
        "x ++;",
        "if x then print(1) end",
    ] {
        let found = rhai(&format!("let box = sandbox();\n{broken}\nlet b = box.runn();\n"));
        let lines: Vec<&str> = found.lines().collect();
        let [syntax, rest] = lines.as_slice() else { panic!("{broken}: {found}") };
        assert!(syntax.contains(" syntax: "), "{broken}: {found}");
        assert!(
            rest.starts_with("3:13 unknown-function: Sandbox has no function 'runn'"),
            "{broken}: {found}"
        );
    }
    for broken in ["if true { print(1);", "fn f(x) { print(x);", "matrix(\"m\", #{}, |c| {"] {
        let found = rhai(&format!("{broken}\nsandbox().runn();\n"));
        assert!(found.contains("2:11 unknown-function: "), "{broken}: {found}");
        assert!(found.contains("(the '{' in line 1 is never closed)"), "{broken}: {found}");
    }
}

#[test]
fn more_than_one_syntax_error() {
    assert_snapshot!(rhai("let x = = 1;
print(x);

fn f() {
    return +;
}

let a = 1
let b = sanbox()
if x {
    openn(\"a\");
"), @"
    1:9 syntax: unexpected '='
    5:13 syntax: unexpected ';'
    9:1 syntax: expecting ';' to terminate this statement
    9:9 unknown-function: there is no function 'sanbox' (did you mean 'sandbox'?)
    10:1 syntax: expecting ';' to terminate this statement
    11:5 unknown-function: there is no function 'openn' (did you mean 'open'?)
    12:1 syntax: expecting '}' to terminate this block (the '{' in line 10 is never closed)
    ");
}

/// However a script is cut off, its checks end.
#[test]
fn scripts_that_are_cut_off() {
    for (end, name) in [("rhai", "scripts/test_matrix.rhai"), ("lua", "scripts/test_matrix.lua")] {
        let text = std::fs::read_to_string(name).unwrap();
        for (at, _) in text.char_indices().step_by(23) {
            for cut in [
                text[..at].to_owned(),
                text[at..].to_owned(),
                format!("{}@{}", &text[..at], &text[at..]),
            ] {
                let found = check(&format!("x.{end}"), &cut);
                assert!(found.lines().count() < 40, "{cut}\n{found}");
            }
        }
    }
}
