//! What a script of somebody else's may not do: reach files of this machine outside the project, by
//! whatever way, or run anything but the text that it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::sync::Arc;

use sandscript::api::Host;
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};

/// Outside, and links of the project that lead there.
fn project() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("sandscript-confined-").tempdir().unwrap();
    let project = folder.path().join("project");
    std::fs::create_dir(&project).unwrap();
    for (name, text) in [
        ("secret.txt", "SECRET"),
        ("out.lua", "return 'SECRET'"),
        ("out.rhai", "export const X = \"SECRET\";"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    symlink("..", project.join("up")).unwrap();
    symlink("../secret.txt", project.join("link.txt")).unwrap();
    symlink("../out.lua", project.join("link.lua")).unwrap();
    symlink("../out.rhai", project.join("link.rhai")).unwrap();
    folder
}

/// Ways out with what is said about each, as Rhai and as Lua; none where the language has no such
/// way.
const WAYS: &[(Option<&str>, Option<&str>, &str)] = &[
    // Modules.
    (
        Some("import \"link\" as x; x::X"),
        Some("require('link')"),
        "lies outside the project folder",
    ),
    (
        Some("import \"up/out\" as x; x::X"),
        Some("require('up/out')"),
        "lies outside the project folder",
    ),
    (Some("import \"../out\" as x; x::X"), Some("require('../out')"), "'..' leads out"),
    (
        Some("let p = \"../out\"; import p as x; x::X"),
        Some("pcall(require, '../out') require('../' .. 'out')"),
        "'..' leads out",
    ),
    (Some("import \"%/out\" as x; x::X"), Some("require('%/out')"), "it begins with '/'"),
    (
        Some("import \"std/../../out\" as x; x::X"),
        Some("require('std/../../out')"),
        "there is no module",
    ),
    // Files that go in.
    (
        Some("sandbox().push(\"../secret.txt\", \"/x\")"),
        Some("sandbox():push('../secret.txt', '/x')"),
        "lies outside the project folder",
    ),
    (
        Some("sandbox().push(\"link.txt\", \"/x\")"),
        Some("sandbox():push('link.txt', '/x')"),
        "lies outside the project folder",
    ),
    (
        Some("sandbox().push(\"up/secret.txt\", \"/x\")"),
        Some("sandbox():push('up/secret.txt', '/x')"),
        "lies outside the project folder",
    ),
    (
        Some("sandbox().push(\"%/secret.txt\", \"/x\")"),
        Some("sandbox():push('%/secret.txt', '/x')"),
        "lies outside the project folder",
    ),
    (
        Some("base(\"b\", |b| b.copy(\"../secret.txt\", \"/x\"))"),
        Some("base('b', function(b) b:copy('../secret.txt', '/x') end)"),
        "lies outside the project folder",
    ),
    (
        Some("base(\"b\", |b| b.copy(\"link.txt\", \"/x\"))"),
        Some("base('b', function(b) b:copy('link.txt', '/x') end)"),
        "lies outside the project folder",
    ),
    (
        Some("sandbox(#{ mounts: [#{ source: \"..\", target: \"/m\" }] })"),
        Some("sandbox({ mounts = { { source = '..', target = '/m' } } })"),
        "lies outside the project folder",
    ),
    (
        Some("sandbox(#{ mounts: [#{ source: \"up\", target: \"/m\" }] })"),
        Some("sandbox({ mounts = { { source = 'up', target = '/m' } } })"),
        "lies outside the project folder",
    ),
    // Files that come out.
    (
        Some("let b = sandbox(); b.write(\"/a\", \"x\"); b.pull(\"/a\", \"../secret.txt\")"),
        Some("local b = sandbox() b:write('/a', 'x') b:pull('/a', '../secret.txt')"),
        "lies outside the project folder",
    ),
    (
        Some("let b = sandbox(); b.write(\"/a\", \"x\"); b.pull(\"/a\", \"up/new\")"),
        Some("local b = sandbox() b:write('/a', 'x') b:pull('/a', 'up/new')"),
        "lies outside the project folder",
    ),
    (
        Some("let b = sandbox(); b.write(\"/a\", \"x\"); b.pull(\"/a\", \"link.txt\")"),
        Some("local b = sandbox() b:write('/a', 'x') b:pull('/a', 'link.txt')"),
        "lies outside the project folder",
    ),
    // Text and machine code that is run.
    (Some("eval(\"1\")"), Some("error(select(2, load('\\27Lua')))"), ""),
    (Some("let f = Fn(\"eval\"); f.call(\"1\")"), Some("string.dump(function() end)"), ""),
    (None, Some("load(function() return '\\27Lua' end, 'x', 'b')()"), ""),
    (None, Some("io.open('../secret.txt')"), "scripts have no 'io'"),
    (None, Some("dofile('../out.lua')"), "scripts have no 'dofile'"),
    (None, Some("loadfile('../out.lua')"), "scripts have no 'loadfile'"),
    (None, Some("package.loadlib('x', 'y')"), "scripts have no 'package'"),
    (None, Some("debug.getregistry()"), "scripts have no 'debug'"),
    (None, Some("os.execute('true')"), "os has no function 'execute'"),
    (None, Some("os.rename('link.txt', 'x')"), "os has no function 'rename'"),
    (None, Some("os.remove('link.txt')"), "os has no function 'remove'"),
    (None, Some("setmetatable(_G, nil)"), "cannot change a protected metatable"),
    (None, Some("getmetatable(_G).__index = print"), ""),
    (None, Some("getmetatable(sandbox()).__index = print"), ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_leads_out_of_the_project() {
    for (rhai, lua, says) in WAYS {
        for (file, text) in [("x.rhai", rhai), ("x.lua", lua)] {
            let Some(text) = text else { continue };
            let folder = project();
            let outside = folder.path().canonicalize().unwrap();
            let text = text.replace('%', outside.to_str().unwrap());
            let name = outside.join("project").join(file).display().to_string();
            let host = Host::builder(Arc::new(FakeBackend::new()))
                .project(outside.join("project"))
                .print(|_| ())
                .build()
                .unwrap();
            let outcome = lang::run(&Source::new(name, text.as_str()), &host).await;
            let Err(error) = outcome.result else { panic!("{text} works: {:?}", outcome.result) };
            let told = error.render();
            assert!(told.contains(says) && !told.contains("SECRET"), "{text}: {told}");
            assert!(!told.contains("[sandscript]"), "{text}: {told}");
            let secret = std::fs::read_to_string(outside.join("secret.txt")).unwrap();
            assert_eq!(secret, "SECRET", "{text}");
            let mut all: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().collect();
            all.retain(|entry| entry.file_name() == "new");
            assert!(all.is_empty(), "{text}");
        }
    }
}
