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
    lang::run(&Source::new("x.rhai", text), &host.build().unwrap()).await
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
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_outlives_its_deadline() {
    for text in EVASIONS {
        let backend = Arc::new(FakeBackend::new());
        let limit = Duration::from_millis(150);
        let started = Instant::now();
        let outcome = run(host(&backend).timeout(limit), text).await;
        let took = started.elapsed();
        let error = outcome.result.expect_err(text);
        assert!(matches!(error.kind, ErrorKind::Timeout), "{text}: {}", error.render());
        assert_eq!(error.message, "the run took longer than 150ms");
        assert!(took >= limit && took < Duration::from_secs(3), "{text}: {took:?}");
        assert_eq!(names(&backend).await, [""; 0], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_outlives_its_cancel() {
    for text in EVASIONS {
        let backend = Arc::new(FakeBackend::new());
        let cancel = Cancel::new();
        let running = tokio::spawn(run(host(&backend).cancel(cancel.clone()), text));
        tokio::time::sleep(Duration::from_millis(60)).await;
        cancel.cancel();
        let outcome = tokio::time::timeout(Duration::from_secs(3), running).await.expect(text);
        let error = outcome.unwrap().result.expect_err(text);
        assert!(matches!(error.kind, ErrorKind::Cancelled), "{text}: {}", error.render());
        assert_eq!(names(&backend).await, [""; 0], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_call_ends_within_20_ms_of_the_deadline() {
    let backend = Arc::new(FakeBackend::new());
    let limit = Duration::from_millis(100);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let outcome = run(host(&backend).timeout(limit), "sleep(60);").await;
        let error = outcome.result.unwrap_err();
        assert_eq!(error.position.as_ref().map(|position| position.line), Some(1));
        best = best.min(started.elapsed() - limit);
    }
    assert!(best < Duration::from_millis(20), "{best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_script_made_is_deleted_however_it_ends() {
    let make = "let a = sandbox(\"a\"); a.snapshot(\"s\"); a.clone(\"s\", #{ name: \"b\" });";
    for end in ["", "throw 1;", "assert(false);", "a.run(\"exit 1\");", "nope();", "a.delete();"] {
        let backend = Arc::new(FakeBackend::new());
        let outcome = run(host(&backend), &format!("{make} {end}")).await;
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
    let backend = Arc::new(FakeBackend::new());
    let text = "sleep(0.01); let a = sandbox(\"a\"); let p = a.spawn(\"cat\"); p.write(\"x\"); \
                let report = matrix(\"m\", #{ from: a, axes: #{ n: [1, 2, 3] } }, |cell| { \
                cell.sandbox.run(\"sleep 0.01\"); }); [p.wait().stdout, report.passed]";
    let outcome = run(host(&backend).timeout(Duration::from_secs(20)), text).await;
    assert_eq!(outcome.result.unwrap().to_string(), "[\"x\", 3]");
    assert_eq!(names(&backend).await, [""; 0]);
}
