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
    3:38 wrong-arity: Sandbox.write() takes 2 or 3 arguments, got 1 (it is Sandbox.write(path: string, content: string | bytes, options?: map))
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
    9:17 wrong-type: 'content' of Sandbox.write() must be a string or bytes, got int 3 (it is Sandbox.write(path: string, content: string | bytes, options?: map))
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
