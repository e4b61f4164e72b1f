//! Modules of a project and of the standard library, as scripts import them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use sandscript::api::Host;
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};
use tempfile::TempDir;

/// A project folder with these files.
fn project(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::Builder::new().prefix("sandscript-modules-").tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join("project").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// Runs a script of the project: what it prints, and its error. The folder is shown as `$P`.
async fn run(folder: &TempDir, script: &str) -> (String, Vec<String>) {
    let project = folder.path().join("project").canonicalize().unwrap();
    let shown = |path: &Path| path.display().to_string().replace(project.to_str().unwrap(), "$P");
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&printed);
    let host = Host::builder(Arc::new(FakeBackend::new()))
        .project(&project)
        .print(move |line| *sink.lock().unwrap() += &format!("{line}\n"))
        .build()
        .unwrap();
    let source = Source::read(project.join(script)).unwrap();
    let outcome = lang::run(&source, &host).await;
    let mut out = std::mem::take(&mut *printed.lock().unwrap());
    if let Err(error) = &outcome.result {
        out += &error.render();
    }
    let out = out.replace(folder.path().canonicalize().unwrap().to_str().unwrap(), "$T");
    (out.replace("$T/project", "$P"), outcome.modules.iter().map(|file| shown(file)).collect())
}

macro_rules! cases {
    ($($name:ident: [$($file:literal: $text:expr),* $(,)?];)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let folder = project(&[$(($file, $text)),*]);
            let all = [$($file),*];
            let main = if all.contains(&"main.lua") { "main.lua" } else { "main.rhai" };
            let (out, _) = run(&folder, main).await;
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(concat!("module_", stringify!($name)), out);
            });
        })*
    };
}

cases! {
    functions: [
        "main.rhai": "import \"lib/util\" as util;\nprint(util::double(21));\nprint(util::LIMIT);\n\
            fn inside() { util::double(1) }\nprint(inside());",
        "lib/util.rhai": "const FACTOR = 2;\nconst LIMIT = 9;\nexport LIMIT;\nlet hidden = 1;\n\
            fn double(x) { helper(x) * global::FACTOR }\nprivate fn helper(x) { x }",
    ];
    same_names_stay_apart: [
        "main.rhai": "import \"a\" as a;\nimport \"b\" as b;\nfn who() { \"main\" }\n\
            let mine = || who();\nprint(a::apply(mine));\nprint(b::apply(mine));\n\
            let from_a = a::closure();\nprint(from_a.call());\nprint(b::apply(from_a));\n\
            print(b::apply(a::closure()));\nprint(b::apply(b::closure()));\nprint([1].map(a::adder(5)));\n\
            print(a::map().deep[0].call());",
        "a.rhai": "fn who() { \"a\" }\nfn apply(f) { f.call() }\nfn closure() { || who() }\n\
            fn adder(n) { |x| x + n }\nfn map() { #{ deep: [|| who()] } }",
        "b.rhai": "fn who() { \"b\" }\nfn apply(f) { f.call() }\nfn closure() { || who() }",
    ];
    bodies_from_modules: [
        "main.rhai": "import \"lib/jobs\" as jobs;\nlet b = jobs::make();\n\
            let report = matrix(\"m\", #{ from: b, axes: #{ n: [1, 2] } }, jobs::body());\n\
            matrix(\"n\", #{ from: b, axes: #{ n: [3] } }, |cell| jobs::work(cell));\n\
            print(report.passed);",
        "lib/jobs.rhai": "import \"lib/names\" as names;\nconst WORD = \"made\";\n\
            fn make() { base(\"x\", |b| { b.run(`echo ${global::WORD} ${names::of(0)}`); }) }\n\
            fn body() { |cell| work(cell) }\n\
            fn work(cell) { let out = cell.sandbox.run(`echo ${names::of(cell.n)}`).stdout; if out != names::of(cell.n) + \"\\n\" { throw out; } }",
        "lib/names.rhai": "fn of(n) { `cell${n}` }",
    ];
    project_folder: [
        "main.rhai": "import \"scripts/deep\" as deep;\nprint(deep::name());",
        "scripts/deep.rhai": "import \"lib/common\" as common;\nfn name() { common::NAME }",
        "lib/common.rhai": "export const NAME = \"shared\";",
    ];
    error_in_function: [
        "main.rhai": "import \"lib/util\" as util;\n\nfn outer(box) {\n    util::build(box, 3);\n}\nouter(sandbox(\"a\"));",
        "lib/util.rhai": "fn build(box, code) {\n    step(box, code);\n}\n\nprivate fn step(box, code) {\n    box.run(`exit ${code}`);\n}",
    ];
    error_in_closure: [
        "main.rhai": "import \"lib/util\" as util;\nutil::each([1, 0], |n| {\n    print(1 / n);\n});",
        "lib/util.rhai": "fn each(items, f) {\n    for item in items {\n        f.call(item);\n    }\n}",
    ];
    error_in_cell: [
        "main.rhai": "import \"lib/util\" as util;\nbase(\"x\", util::steps());",
        "lib/util.rhai": "fn steps() {\n    |b| {\n        b.run(\"exit 3\");\n    }\n}",
    ];
    error_at_import: [
        "main.rhai": "import \"lib/util\" as util;",
        "lib/util.rhai": "import \"lib/deeper\" as deeper;",
        "lib/deeper.rhai": "let x = 1;\nprint(x + y());",
    ];
    syntax_error_far: [
        "main.rhai": "import \"a\" as a;",
        "a.rhai": "\nimport \"b\" as b;",
        "b.rhai": "let x = ;",
    ];
    syntax_error: [
        "main.rhai": "print(1);\nimport \"lib/util\" as util;",
        "lib/util.rhai": "fn a() {\n    let = 5;\n}",
    ];
    thrown_values_are_caught_as_they_are: [
        "main.rhai": "import \"lib/util\" as util;\ntry { util::fail(); } catch (e) { print(e.kind); }\nutil::fail();",
        "lib/util.rhai": "fn fail() {\n    throw #{ message: \"no luck\", kind: 7 };\n}",
    ];
    unknown_function: [
        "main.rhai": "import \"lib/util\" as util;\nutil::duoble(1);",
        "lib/util.rhai": "fn double(x) { x }",
    ];
    private_function: [
        "main.rhai": "import \"lib/util\" as util;\nutil::secret();",
        "lib/util.rhai": "private fn secret() { 1 }",
    ];
    argument_count: [
        "main.rhai": "import \"lib/util\" as util;\nutil::double(1, 2, 3);",
        "lib/util.rhai": "fn double(x) { x }\nfn double(x, y) { x }",
    ];
    closure_takes_more: [
        "main.rhai": "import \"lib/util\" as util;\nutil::apply(|a, b, c| a);",
        "lib/util.rhai": "fn apply(f) { f.call(1) }",
    ];
    own_functions_are_suggested: [
        "main.rhai": "import \"lib/util\" as util;\nutil::start();",
        "lib/util.rhai": "fn helper() { 1 }\nfn start() {\n    helpr()\n}",
    ];
    unknown_variable: [
        "main.rhai": "import \"lib/util\" as util;\nprint(util::LIMITS);",
        "lib/util.rhai": "export const LIMIT = 9;",
    ];
    not_imported: ["main.rhai": "apt::install(sandbox(), [\"gcc\"]);"];
    alias_misspelt: [
        "main.rhai": "import \"lib/util\" as util;\nfn f() { utli::double(1) }",
        "lib/util.rhai": "fn double(x) { x }",
    ];
    missing: ["main.rhai": "let x = 1;\nimport \"lib/util\" as util;"];
    missing_near: ["main.rhai": "import \"lib/utli\" as util;", "lib/util.rhai": ""];
    missing_elsewhere: ["main.rhai": "import \"util\" as util;", "lib/util.rhai": ""];
    missing_standard: ["main.rhai": "import \"std/rerty\" as retry;"];
    missing_prefix: ["main.rhai": "import \"retry\" as retry;"];
    missing_in_module: [
        "main.rhai": "import \"lib/util\" as util;",
        "lib/util.rhai": "\nimport \"util2\" as two;",
    ];
    other_language: ["main.rhai": "import \"lib/util\" as util;", "lib/util.lua": ""];
    with_ending: ["main.rhai": "import \"lib/util.rhai\" as util;", "lib/util.rhai": ""];
    parent: ["main.rhai": "import \"../util\" as util;"];
    parent_inside: ["main.rhai": "import \"lib/../util\" as util;", "util.rhai": "", "lib/x": ""];
    absolute: ["main.rhai": "import \"/etc/passwd\" as x;"];
    empty: ["main.rhai": "import \"\" as x;"];
    folder: ["main.rhai": "import \"lib\" as x;", "lib.rhai/x": ""];
    itself: ["main.rhai": "import \"main\" as x;"];
    circle: [
        "main.rhai": "import \"a\" as a;",
        "a.rhai": "import \"b\" as b;",
        "b.rhai": "import \"c\" as c;",
        "c.rhai": "\n\nimport \"a\" as a;",
    ];
    returns_early: ["main.rhai": "import \"a\" as a;", "a.rhai": "fn f() { 1 }\nreturn 5;"];
    computed_name: [
        "main.rhai": "for name in [\"a\", \"b\"] { import `lib/${name}` as it; print(it::name()); }",
        "lib/a.rhai": "fn name() { \"a\" }",
        "lib/b.rhai": "fn name() { \"b\" }",
    ];
    runs_once: [
        "main.rhai": "import \"a\" as a;\nimport \"b\" as b;\nimport \"./a\" as again;",
        "a.rhai": "print(\"a runs\");",
        "b.rhai": "import \"a\" as a;\nprint(\"b runs\");",
    ];
    not_text: ["main.rhai": "import \"a\" as a;", "a.rhai": "x"];
}

// The same in Lua.
cases! {
    lua_functions: [
        "main.lua": "local util = require(\"lib.util\")\nprint(util.double(21))\nprint(util.LIMIT)\n\
            print(require(\"lib/util\") == util)\nbase(\"x\", util.steps())\n\
            matrix(\"m\", { axes = { n = { 1, 2, 3 } } }, function(cell) util.double(cell.n) end)",
        "lib/util.lua": "local names = require(\"names\")\nprint(\"runs once\")\n\
            local function helper(x) return x end\n\
            return { double = function(x) return helper(x) * 2 end, LIMIT = names.limit,\n\
            steps = function() return function(b) b:run(\"true\") end end }",
        "names.lua": "sleep(0.01)\nreturn { limit = 9 }",
    ];
    lua_error_in_function: [
        "main.lua": "local util = require(\"lib.util\")\n\nlocal function outer(box)\n  util.build(box, 3)\nend\nouter(sandbox(\"a\"))",
        "lib/util.lua": "local util = {}\nlocal function step(box, code)\n  box:run(\"exit \" .. code)\nend\nfunction util.build(box, code)\n  step(box, code)\nend\nreturn util",
    ];
    lua_error_at_import: [
        "main.lua": "local util = require(\"lib.util\")",
        "lib/util.lua": "local deeper = require(\"lib.deeper\")",
        "lib/deeper.lua": "local x = 1\nprint(x + y())",
    ];
    lua_syntax_error: ["main.lua": "local a = require(\"a\")", "a.lua": "\nlocal = 5"];
    lua_missing: ["main.lua": "local x = 1\nlocal util = require(\"lib.util\")"];
    lua_missing_near: ["main.lua": "local util = require(\"lib.utli\")", "lib/util.lua": ""];
    lua_missing_standard: ["main.lua": "local retry = require(\"std.rerty\")"];
    lua_parent: ["main.lua": "require(\"../util\")"];
    lua_absolute: ["main.lua": "require(\"/etc/passwd\")"];
    lua_no_name: ["main.lua": "require(5)"];
    lua_itself: ["main.lua": "require(\"main\")"];
    lua_circle: [
        "main.lua": "require(\"a\")",
        "a.lua": "require(\"b\")",
        "b.lua": "\nrequire(\"a\")",
    ];
    lua_standard_option: ["main.lua": "local retry = require(\"std.retry\")\nretry.run({\n  attemts = 5,\n}, function() end)"];
    lua_standard_function: ["main.lua": "local retry = require(\"std.retry\")\nretry.rnu(function() end)"];
    lua_standard_fails: ["main.lua": "local retry = require(\"std.retry\")\nlocal function wait()\n  retry.wait_for({ timeout = 0 }, function() return false end)\nend\nwait()"];
    lua_error_in_closure: [
        "main.lua": "local retry = require(\"std.retry\")\nretry.run({ attempts = 2, delay = 0 }, function()\n  sandbox():run(\"exit 3\")\nend)",
    ];
}

// The standard library shows no inside of its own.
cases! {
    retry: [
        "main.rhai": "import \"std/retry\" as retry;\nlet n = 0;\n\
            print(retry::run(#{ delay: 0 }, |attempt| { n += 1; if n < 3 { throw \"no\"; } `${attempt} ${n}` }));\n\
            retry::wait_for(|| { n += 1; n > 5 });\nprint(n);\n\
            try { retry::wait_for(#{ timeout: 0, what: \"luck\" }, || false); } catch (e) { print(e.message); }\n\
            let calls = 0;\ntry { retry::run(#{ attempts: 9, delay: \"1s\", timeout: \"500ms\" }, || { calls += 1; throw #{ kind: 3 }; }); }\n\
            catch (e) { print(e.kind); print(calls); }\n\
            retry::run(#{ attempts: 2, delay: 0 }, || {\n    sandbox().run(\"exit 3\");\n});",
    ];
    standard_option: ["main.rhai": "import \"std/retry\" as retry;\nretry::run(#{\n    attemts: 5,\n}, || 1);"];
    standard_argument: ["main.rhai": "import \"std/retry\" as retry;\nfn f() {\n    retry::run(#{ delay: \"soon\" }, || 1);\n}\nf();"];
    standard_count: ["main.rhai": "import \"std/retry\" as retry;\nretry::run();"];
    standard_not_imported: ["main.rhai": "retry::run(|| 1);"];
    standard_fails: ["main.rhai": "import \"std/retry\" as retry;\nretry::wait_for(#{ timeout: 0 }, || false);"];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_lead_out() {
    let folder = project(&[("main.rhai", "import \"lib/util\" as util;"), ("lib/x", "")]);
    let outside = folder.path().join("outside.rhai");
    std::fs::write(&outside, "print(\"secret\");").unwrap();
    let project = folder.path().join("project");
    std::os::unix::fs::symlink(&outside, project.join("lib/util.rhai")).unwrap();
    let (out, _) = run(&folder, "main.rhai").await;
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!("module_link_to_a_file", out); });

    std::fs::remove_file(project.join("lib/util.rhai")).unwrap();
    std::fs::remove_dir_all(project.join("lib")).unwrap();
    std::fs::rename(&outside, folder.path().join("util.rhai")).unwrap();
    std::os::unix::fs::symlink("..", project.join("lib")).unwrap();
    let (out, _) = run(&folder, "main.rhai").await;
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!("module_link_to_a_folder", out); });

    // One that stays inside is fine.
    std::fs::remove_file(project.join("lib")).unwrap();
    std::fs::create_dir_all(project.join("lib")).unwrap();
    std::fs::write(project.join("real.rhai"), "print(\"fine\");").unwrap();
    std::os::unix::fs::symlink("../real.rhai", project.join("lib/util.rhai")).unwrap();
    assert_eq!(run(&folder, "main.rhai").await.0, "fine\n");

    std::fs::remove_file(project.join("lib/util.rhai")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        project.join("lib/util.rhai"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    let (out, _) = run(&folder, "main.rhai").await;
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!("module_that_is_a_pipe", out); });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_knows_the_files() {
    let folder = project(&[
        (
            "scripts/main.rhai",
            "import \"a\" as a;\nimport \"std/retry\" as retry;\nimport \"lost\" as lost;",
        ),
        ("scripts/a.rhai", "import \"lib/b\" as b;"),
        ("lib/b.rhai", ""),
    ]);
    let (_, files) = run(&folder, "scripts/main.rhai").await;
    let all = [
        "$P/lib/b.rhai",
        "$P/lost.rhai",
        "$P/scripts/a.rhai",
        "$P/scripts/lib/b.rhai",
        "$P/scripts/lost.rhai",
    ];
    assert_eq!(files, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_import_the_same() {
    let folder = project(&[
        (
            "main.rhai",
            "let cells = [];\nfor n in 0..20 { cells.push(n); }\n\
             matrix(\"m\", #{ axes: #{ n: cells }, parallel: 20 }, |cell| {\n\
             import \"lib/util\" as util;\nassert_eq(util::double(cell.n), cell.n * 2);\n});\nprint(\"done\");",
        ),
        ("lib/util.rhai", "import \"lib/more\" as more;\nfn double(n) { more::twice(n) }"),
        ("lib/more.rhai", "sleep(0.01);\nfn twice(n) { n + n }"),
    ]);
    assert_eq!(run(&folder, "main.rhai").await.0, "done\n");
}
