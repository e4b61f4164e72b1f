//! Cancel and deadline end a script whatever it does, and nothing it made is left.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandscript::api::{ErrorKind, Host, HostBuilder, Leftovers};
use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
use sandscript::lang::{self, Outcome, Source};
use sandscript::sandbox::{Backend, Cancel, Error};

fn host(backend: &Arc<FakeBackend>) -> HostBuilder {
    Host::builder(Arc::clone(backend) as Arc<dyn Backend>).print(|_| ())
}

async fn run(host: HostBuilder, text: &str) -> Outcome {
    run_file(host, "x.rhai", text).await
}

async fn run_file(host: HostBuilder, file: &str, text: &str) -> Outcome {
    lang::run(&Source::new(file, text), &host.build().unwrap()).await
}

async fn names(backend: &FakeBackend) -> Vec<String> {
    let all = backend.list(&Cancel::new()).await.unwrap();
    all.into_iter().map(|info| info.name).collect()
}

const EVASIONS: &[&str] = &[
    "loop { }",
    "loop { try { loop { } } catch { } }",
    "loop { try { sleep(60); } catch { } }",
    "try { sleep(60); } catch { } print(\"went on\");",
    "fn f() { try { sleep(60); } catch { f(); } } f();",
    "let f = || { loop { try { sleep(1); } catch { } } }; f.call();",
    "let p = sandbox(\"a\").spawn(\"sleep 60\"); loop { try { p.wait(); } catch { } }",
    "sandbox(\"a\").run(\"sleep 60\");",
    "base(\"b\", |b| { try { b.run(\"sleep 60\"); } catch { } });",
    "base(\"b\", |b| { loop { try { sleep(1); } catch { } } });",
    "matrix(\"m\", #{ axes: #{ n: [1, 2] } }, |cell| { loop { try { sleep(1); } catch { } } });",
    "let a = []; for i in 0..1000000 { a.push(i); } loop { a.sort(); }",
    "[1].map(|x| { loop { } });",
    "loop { try { [1].filter(|x| { loop { try { sleep(1); } catch { } } }); } catch { } }",
    "loop { try { [2, 1].sort(|a, b| { loop { } }); } catch { } }",
    "loop { try { [1, 2].reduce(|a, b| { loop { try { loop { } } catch { } } }); } catch { } }",
    "loop { try { throw #{ a: || { loop { } } }; } catch (e) { e.a.call(); } }",
    "for i in 0..9223372036854775807 { }",
    "let m = #{ act: || { loop { try { this.x; sleep(1); } catch { } } } }; m.act();",
    "sandbox(\"a\").spawn(\"echo x\").on_output(|line, stream| { loop { } }); loop { try { sleep(1); } catch { } }",
    // Inside of Rhai's own functions nothing can be interrupted.
    "loop { try { let s = \"x\"; s.pad(3000000, \"x\"); } catch { } }",
    "let s = \"a\"; while s.len() < 200000 { s += s; } loop { try { s.replace(\"a\", \"bb\"); s.split(\"a\"); } catch { } }",
];

const EVASIONS_LUA: &[&str] = &[
    "while true do end",
    "::again:: goto again",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(sleep, 60) end",
    "pcall(sleep, 60) print('went on')",
    "local function f() pcall(sleep, 60) return f() end f()",
    "local function f() pcall(f) return pcall(f) end while true do f() end",
    "while true do xpcall(sleep, function() end, 60) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "while true do xpcall(error, function(e) while true do pcall(sleep, 1) end end) end",
    "local f = coroutine.wrap(function() while true do pcall(sleep, 60) end end) f()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "while true do pcall(coroutine.wrap(function() sleep(60) end)) end",
    "while true do local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function()      while true do end end }) coroutine.yield() end) coroutine.resume(co) coroutine.close(co) end",
    "local function f() local x <close> = setmetatable({}, { __close = function() pcall(f) end }) while true do end end f()",
    "local x <close> = setmetatable({}, { __close = function() while true do pcall(sleep, 1) end end }) sleep(60)",
    "local function deep(n) local x <close> = setmetatable({}, { __close = function() while true do end end })      if n > 0 then deep(n - 1) end while true do end end deep(10000)",
    "local t = {} for i = 1, 1000 do t[i] = i end while true do table.sort(t, function(a, b) return a < b end) end",
    "local t = { 2, 1 } table.sort(t, function() while true do end end)",
    "while true do pcall(table.sort, { 2, 1 }, function() while true do end end) end",
    "while true do string.gsub('aaa', 'a', function() while true do end end) end",
    "local t = setmetatable({}, { __index = function() while true do end end }) while true do pcall(function() return t.x end) end",
    "local t = setmetatable({}, { __tostring = function() while true do end end }) while true do pcall(print, t) end",
    "for _ in function() return 1 end do end",
    "load('while true do end')()",
    "while true do pcall(load, 'x =') end",
    // Inside of Lua's own functions nothing can be interrupted.
    "string.find(string.rep('a', 25), string.rep('a?', 25) .. string.rep('a', 25) .. 'b')",
    "while true do pcall(string.find, string.rep('a', 25), string.rep('a?', 25) .. string.rep('a', 25) .. 'b') end",
    "local t = {} for i = 1, 3000000 do t[i] = (i * 7919) % 3000017 end while true do table.sort(t) t[1] = 5 end",
    "local p = sandbox('a'):spawn('sleep 60') while true do pcall(p.wait, p) end",
    "sandbox('a'):run('sleep 60')",
    "local box <close> = sandbox('a') box:run('sleep 60')",
    "base('b', function(b) pcall(b.run, b, 'sleep 60') end)",
    "base('b', function(b) while true do pcall(sleep, 1) end end)",
    "matrix('m', { axes = { n = { 1, 2 } } }, function(cell) while true do pcall(sleep, 1) end end)",
    "matrix('m', { axes = { n = { 1, 2 } } }, function(cell) while true do pcall(function() while true do end end) end end)",
    "local p = sandbox('a'):spawn('echo x') p:on_output(function() while true do end end) while true do pcall(p.wait, p) end",
    "while true do pcall(error, setmetatable({}, { __tostring = function() while true do end end })) end",
];

/// All shapes of all languages.
fn evasions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rhai = EVASIONS.iter().map(|text| ("x.rhai", *text));
    rhai.chain(EVASIONS_LUA.iter().map(|text| ("x.lua", *text)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_outlives_its_deadline() {
    for (file, text) in evasions() {
        let backend = Arc::new(FakeBackend::new());
        let limit = Duration::from_millis(150);
        let started = Instant::now();
        let outcome = run_file(host(&backend).timeout(limit), file, text).await;
        let took = started.elapsed();
        let error = outcome.result.expect_err(text);
        assert!(matches!(error.kind, ErrorKind::Timeout), "{text}: {}", error.render());
        assert_eq!(error.message, "the run took longer than 150ms");
        assert!(took >= limit && took < Duration::from_secs(20), "{text}: {took:?}");
        assert_eq!(names(&backend).await, [""; 0], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_outlives_its_cancel() {
    for (file, text) in evasions() {
        let backend = Arc::new(FakeBackend::new());
        let cancel = Cancel::new();
        let running = tokio::spawn(run_file(host(&backend).cancel(cancel.clone()), file, text));
        tokio::time::sleep(Duration::from_millis(60)).await;
        cancel.cancel();
        let outcome = tokio::time::timeout(Duration::from_secs(20), running).await.expect(text);
        let error = outcome.unwrap().result.expect_err(text);
        assert!(matches!(error.kind, ErrorKind::Cancelled), "{text}: {}", error.render());
        assert_eq!(names(&backend).await, [""; 0], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_call_ends_soon_after_the_deadline_and_tells_where() {
    for (file, text) in
        [("x.rhai", "sleep(60);"), ("x.lua", "sleep(60)"), ("x.lua", "pcall(sleep, 60)")]
    {
        let backend = Arc::new(FakeBackend::new());
        let limit = Duration::from_millis(100);
        let started = Instant::now();
        let outcome = run_file(host(&backend).timeout(limit), file, text).await;
        let error = outcome.result.unwrap_err();
        assert_eq!(error.position.as_ref().map(|position| position.line), Some(1), "{text}");
        assert!(started.elapsed() < Duration::from_secs(20), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_script_made_is_deleted_however_it_ends() {
    let rhai = "let a = sandbox(\"a\"); a.snapshot(\"s\"); a.clone(\"s\", #{ name: \"b\" });";
    let rhai_ends =
        ["", "throw 1;", "assert(false);", "a.run(\"exit 1\");", "nope();", "a.delete();"];
    let lua = "local a = sandbox('a') a:snapshot('s') a:clone('s', { name = 'b' })";
    let lua_ends = [
        "",
        "error(1)",
        "assert(false)",
        "a:run('exit 1')",
        "nope()",
        "a:delete()",
        "a = nil",
        "coroutine.wrap(function() local c <close> = sandbox('c') coroutine.yield() end)()",
    ];
    let all = rhai_ends.map(|end| ("x.rhai", rhai, end)).into_iter();
    for (file, make, end) in all.chain(lua_ends.map(|end| ("x.lua", lua, end))) {
        let backend = Arc::new(FakeBackend::new());
        let outcome = run_file(host(&backend), file, &format!("{make} {end}")).await;
        assert_eq!(outcome.leftovers, Leftovers::default(), "{end}");
        assert_eq!(names(&backend).await, [""; 0], "{end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_named() {
    let backend = Arc::new(FakeBackend::new());
    let text = "sandbox(\"a\"); sandbox(\"b\", #{ keep: true }); sandbox(\"c\").keep();";
    let outcome = run(host(&backend), text).await;
    assert_eq!(outcome.leftovers.kept, ["b", "c"]);
    assert_eq!(names(&backend).await, ["b", "c"]);
    let outcome = run(host(&backend).keep(true), "sandbox(\"d\"); delete(\"b\"); throw 1;").await;
    assert!(outcome.result.is_err());
    assert_eq!(outcome.leftovers.kept, ["d"]);
    for info in backend.list(&Cancel::new()).await.unwrap() {
        assert!(info.owner.is_none(), "{}", info.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_stays() {
    let backend = Arc::new(FakeBackend::new());
    run(host(&backend), "sandbox(\"a\", #{ keep: true });").await;
    run(host(&backend), "open(\"a\").run(\"true\");").await;
    assert_eq!(names(&backend).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_deleted_is_told() {
    let backend = Arc::new(FakeBackend::new());
    backend.inject(Fault::new(Verb::Delete, Effect::Error(Error::internal("stuck"))).on("a"));
    let outcome = run(host(&backend), "sandbox(\"a\"); sandbox(\"b\");").await;
    assert!(outcome.result.is_ok());
    assert_eq!(outcome.leftovers.failed, [("a".to_owned(), "stuck".to_owned())]);
    assert_eq!(names(&backend).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_ends_with_the_run() {
    let backend = Arc::new(FakeBackend::new());
    run(host(&backend), "sandbox(\"a\", #{ keep: true });").await;
    let text = "open(\"a\").spawn(\"sleep 0.3; touch /tmp/lived\"); ";
    run(host(&backend), text).await;
    let text = "open(\"a\").spawn(\"sleep 0.3; touch /tmp/detached\", #{ detached: true });";
    run(host(&backend), text).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let text = "let a = open(\"a\"); [a.exists(\"/tmp/lived\"), a.exists(\"/tmp/detached\")]";
    let outcome = run(host(&backend), text).await;
    assert_eq!(outcome.result.unwrap().to_string(), "[false, true]");
}

#[tokio::test]
async fn a_runtime_of_one_thread_is_enough() {
    let rhai = "sleep(0.01); let a = sandbox(\"a\"); let p = a.spawn(\"cat\"); p.write(\"x\"); \
                let report = matrix(\"m\", #{ from: a, axes: #{ n: [1, 2, 3] } }, |cell| { \
                cell.sandbox.run(\"sleep 0.01\"); }); [p.wait().stdout, report.passed]";
    let lua = "sleep(0.01) local a = sandbox('a') local p = a:spawn('cat') p:write('x') \
               local report = matrix('m', { from = a, axes = { n = { 1, 2, 3 } } }, function(cell) \
               cell.sandbox:run('sleep 0.01') end) return { p:wait().stdout, report.passed }";
    for (file, text) in [("x.rhai", rhai), ("x.lua", lua)] {
        let backend = Arc::new(FakeBackend::new());
        let host = host(&backend).timeout(Duration::from_secs(20));
        let outcome = run_file(host, file, text).await;
        assert_eq!(outcome.result.unwrap().to_string(), "[\"x\", 3]");
        assert_eq!(names(&backend).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_deadline_holds_on_a_runtime_of_one_thread() {
    for (file, text) in [("x.rhai", "loop { }"), ("x.lua", "while true do end")] {
        let backend = Arc::new(FakeBackend::new());
        let outcome = run_file(host(&backend).timeout(Duration::from_millis(50)), file, text).await;
        assert!(matches!(outcome.result.unwrap_err().kind, ErrorKind::Timeout), "{text}");
    }
}

/// Runs a script that must end by a limit.
async fn limited(host: HostBuilder, file: &str, text: &str) -> String {
    let run = run_file(host, file, text);
    let outcome = tokio::time::timeout(Duration::from_secs(60), run).await.expect(text);
    let error = outcome.result.expect_err(text);
    assert!(matches!(error.kind, ErrorKind::Limit), "{text}: {}", error.render());
    error.message.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_does_more_operations_than_it_may() {
    for (file, text) in [
        ("x.rhai", "loop { try { loop { } } catch { } }"),
        ("x.rhai", "base(\"b\", |b| loop { });"),
        ("x.rhai", "matrix(\"m\", #{ axes: #{ n: [1, 2] } }, |cell| { loop { } });"),
        ("x.lua", "while true do pcall(function() while true do end end) end"),
        ("x.lua", "base('b', function(b) while true do end end)"),
        ("x.lua", "matrix('m', { axes = { n = { 1, 2 } } }, function(cell) while true do end end)"),
        ("x.lua", "while true do coroutine.wrap(function() for i = 1, 1000 do end end)() end"),
    ] {
        let backend = Arc::new(FakeBackend::new());
        let said = limited(host(&backend).operations(200_000), file, text).await;
        assert_eq!(said, "the script took more than 200000 operations", "{text}");
        assert_eq!(names(&backend).await, [""; 0], "{text}");
    }
    for (file, text) in [("x.rhai", "for i in 0..1000 { }"), ("x.lua", "for i = 1, 1000 do end")] {
        let backend = Arc::new(FakeBackend::new());
        run_file(host(&backend).operations(200_000), file, text).await.result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_takes_more_memory_than_it_may() {
    for (file, text) in [
        (
            "x.rhai",
            "fn f() { let s = \"\"; s.pad(8000000, \"x\"); s += s; s += s; s += s; try { f(); } catch { f(); } } f();",
        ),
        (
            "x.rhai",
            "let all = []; let s = \"x\"; loop { try { all.push(s + 1); s += s; } catch { s = \"x\"; } }",
        ),
        (
            "x.rhai",
            "let all = #{}; let s = \"x\"; loop { try { all[`k${all.len()}`] = s + 1; s += s; } catch { s = \"x\"; } }",
        ),
        (
            "x.rhai",
            "let f = |x| x; let s = \"x\"; loop { try { f = f.curry(s + 1); s += s; } catch { s = \"x\"; } }",
        ),
        ("x.lua", "while true do pcall(string.rep, 'x', 1 << 30) end"),
        (
            "x.lua",
            "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(100000) .. #t end) end",
        ),
        ("x.lua", "local t = {} while true do t[#t + 1] = {} end"),
        ("x.lua", "local s = 'x' while true do s = s .. s end"),
        (
            "x.lua",
            "local t = {} while true do coroutine.resume(coroutine.create(function() t[#t + 1] = ('x'):rep(100000) .. #t end)) end",
        ),
    ] {
        let backend = Arc::new(FakeBackend::new());
        let said = limited(host(&backend).memory(32 << 20), file, text).await;
        assert_eq!(said, "the script uses more than 32.0 MiB of memory", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_a_scope_deletes_what_is_declared_to_close() {
    let text = "do local a <close> = sandbox('a') local b <close> = sandbox('b') b:keep()
                local c <close> = sandbox('c') c:delete()
                local ok = pcall(function() local d <close> = sandbox('d') error('x') end)
                assert(not ok) end
                local names = {} for _, box in ipairs(sandboxes()) do names[#names + 1] = box.name end
                return names";
    let backend = Arc::new(FakeBackend::new());
    let outcome = run_file(host(&backend), "x.lua", text).await;
    assert_eq!(outcome.result.unwrap().to_string(), "[\"b\"]");
    assert_eq!(outcome.leftovers.kept, ["b"]);
}
