//! Caches of bases and cells: in no key, in no snapshot, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
use sandscript::sandbox::{
    Backend, CacheMount, Cancel, Capability, Command, Error, Spec, StopOptions,
};
use sandscript::workflow::{
    BaseBuilder, BaseHandle, BaseOptions, CellContext, CellTemplate, Event, Failure, MatrixSpec,
    OnFail, Outcome, Retries, run_matrix,
};

use crate::cells::{body, commands, numbers, outcomes, spec};
use crate::support::{Run, until};

fn pip() -> CacheMount {
    CacheMount::new("pip", "/cache")
}

fn with_pip(spec: MatrixSpec) -> MatrixSpec {
    let cell = CellTemplate { caches: vec![pip()], ..CellTemplate::default() };
    MatrixSpec { cell, ..spec }
}

/// A base whose steps before `at` do without the cache.
async fn build(run: &Run, steps: &[&str], at: usize) -> Result<BaseHandle, Failure> {
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await?;
    for (number, step) in steps.iter().enumerate() {
        if number == at {
            builder.cache(pip()).await?;
        }
        builder.run(Command::shell(*step)).await?;
    }
    if at >= steps.len() {
        builder.cache(pip()).await?;
    }
    builder.finish().await
}

/// Takes the cache, and gives it back after this time.
async fn hold(fake: &Arc<FakeBackend>, name: &str) {
    let spec = Spec { caches: vec![pip()], ..Spec::new(name) };
    fake.create(&spec, &Cancel::new()).await.unwrap();
}

fn waits(events: &[Event]) -> Vec<(Option<String>, Option<String>, Option<String>)> {
    let wait = |event: &Event| match event {
        Event::CacheWaiting { cache, cell, base, by, .. } => {
            assert_eq!(cache, "pip");
            Some((cell.clone(), base.clone(), by.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(wait).collect()
}

const STEPS: &[&str] = &["echo 1 > /own; touch /cache/a", "echo 2 >> /own; cp /own /cache/b"];

#[tokio::test]
async fn a_cache_is_in_no_key_and_in_no_snapshot() {
    let run = Run::new();
    let base = build(&run, STEPS, 0).await.unwrap();
    assert_eq!(base.hits, 0);
    assert_eq!(run.read(&base, "/own").await, "1\n2\n");
    let clone = sandscript::sandbox::CloneSpec::of(&base.label, "look");
    Backend::clone(run.fake.as_ref(), &base.sandbox, &clone, &Cancel::new()).await.unwrap();
    let inside = run.fake.read_dir("look", "/cache", &Cancel::new()).await.unwrap();
    assert!(inside.is_empty(), "{inside:?}");
    run.fake.delete("look", &Cancel::new()).await.unwrap();
    let caches = run.fake.caches(&Cancel::new()).await.unwrap();
    assert_eq!((caches[0].name.as_str(), caches[0].busy, caches[0].size), ("pip", false, 4));

    // The same steps with another cache, or an emptied one, are the same steps.
    run.fake.delete_cache("pip", &Cancel::new()).await.unwrap();
    assert_eq!(build(&run, STEPS, 0).await.unwrap().hits, 2);
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.cache(CacheMount { shared: true, ..CacheMount::new("x", "/other") }).await.unwrap();
    for step in STEPS {
        builder.run(Command::shell(*step)).await.unwrap();
    }
    let again = builder.finish().await.unwrap();
    assert_eq!((again.hits, again.label), (2, base.label));
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_cache_can_come_between_two_steps() {
    let run = Run::new();
    let steps = ["mkdir /cache; echo 1 > /own", "cp /own /cache/b", "ls /cache > /seen"];
    for at in [1, 2, 3] {
        let run = Run::on(run.fake.clone(), "run-a");
        let base = build(&run, &steps, at).await.unwrap();
        assert_eq!(base.steps, 3);
        assert_eq!(run.read(&base, "/own").await, "1\n");
        assert_eq!(run.read(&base, "/seen").await, "b\n");
        assert!(run.fake.caches(&Cancel::new()).await.unwrap().iter().all(|cache| !cache.busy));
        run.only_finished_bases().await;
        for name in run.names().await {
            run.fake.delete(&name, &Cancel::new()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_wrong_cache_is_refused_before_anything_is_made() {
    let run = Run::new();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.cache(pip()).await.unwrap();
    for bad in [pip(), CacheMount::new("../x", "/c"), CacheMount::new("y", "c")] {
        let refused = builder.cache(bad).await;
        assert!(matches!(refused, Err(Failure::Error(Error::InvalidInput { .. }))), "{refused:?}");
    }
    builder.abandon().await;
    let fake = FakeBackend::builder().without(Capability::Caches, "there is no disk").build();
    let run = Run::on(Arc::new(fake), "run-a");
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    let refused = builder.cache(pip()).await.unwrap_err();
    assert_eq!(refused.hint().as_deref(), Some("there is no disk"));
    assert_eq!(run.fake.count(Verb::Create), 0);
}

#[tokio::test]
async fn a_base_waits_for_its_cache() {
    let mut run = Run::new();
    hold(&run.fake, "other").await;
    let (base, ()) = tokio::join!(build(&run, STEPS, 0), async {
        until("a second try", async || run.fake.count(Verb::Create) >= 3).await;
        run.fake.delete("other", &Cancel::new()).await.unwrap();
    });
    assert_eq!(base.unwrap().hits, 0);
    let told = waits(&run.told());
    assert_eq!(told, [(None, Some("b".into()), Some("other".into()))], "told once");
}

#[tokio::test]
async fn a_wait_for_a_cache_can_be_cancelled() {
    let mut run = Run::new();
    hold(&run.fake, "other").await;
    let cancel = run.ctx.cancel.clone();
    let (base, ()) = tokio::join!(build(&run, STEPS, 0), async {
        until("the wait", async || run.fake.count(Verb::Create) >= 3).await;
        cancel.cancel();
    });
    assert!(matches!(base, Err(Failure::Error(Error::Cancelled))), "{base:?}");
    run.ctx.cancel = Cancel::new();
    let cancel = run.ctx.cancel.clone();
    let spec = with_pip(numbers(3));
    let matrix = run_matrix(&run.ctx, spec, body(|_| async { Ok(()) }));
    let (report, ()) = tokio::join!(matrix, async {
        until("the wait", async || run.fake.count(Verb::Create) >= 6).await;
        cancel.cancel();
    });
    assert_eq!(outcomes(&report.unwrap()), [Outcome::NotRun; 3]);
    assert_eq!(run.names().await, ["other"]);
}

#[tokio::test]
async fn cells_have_a_cache_one_after_the_other() {
    for parallel in [1, 2, 8] {
        let mut run = Run::new();
        let inside = Arc::new(AtomicUsize::new(0));
        let spec = MatrixSpec { parallel: Some(parallel), ..with_pip(numbers(6)) };
        let body = body(move |cell: CellContext| {
            let inside = Arc::clone(&inside);
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                cell.exec(&Command::shell("echo x >> /cache/log")).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        let report = run_matrix(&run.ctx, spec, body);
        let report = tokio::time::timeout(Duration::from_secs(60), report).await.unwrap().unwrap();
        assert_eq!(outcomes(&report), [Outcome::Passed; 6]);
        let told = waits(&run.told());
        assert!(parallel < 8 || !told.is_empty());
        assert!(told.iter().all(|(cell, base, _)| cell.is_some() && base.is_none()), "{told:?}");
        hold(&run.fake, "look").await;
        let log = run.fake.stat("look", "/cache/log", &Cancel::new()).await.unwrap();
        assert_eq!(log.size, 12, "each has left its line");
    }
}

#[tokio::test]
async fn a_wait_is_not_on_a_cells_time() {
    let run = Run::new();
    hold(&run.fake, "other").await;
    let limit = Duration::from_secs(5);
    let spec = MatrixSpec { timeout: Some(limit), ..with_pip(numbers(1)) };
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let free = async {
        tokio::time::sleep(2 * limit).await;
        let stop = StopOptions { force: true, ..StopOptions::default() };
        run.fake.stop("other", stop, &Cancel::new()).await.unwrap();
    };
    let matrix = run_matrix(&run.ctx, spec, body(|_| async { Ok(()) }));
    let (report, ()) = tokio::join!(matrix, free);
    assert_eq!(outcomes(&report.unwrap()), [Outcome::Passed]);
    assert!(started.elapsed() >= 2 * limit);
}

#[tokio::test]
async fn what_a_failed_cell_had_is_free_again() {
    for on_fail in [OnFail::Clean, OnFail::Keep, OnFail::Shell] {
        for keep in [false, true] {
            let mut run = Run::new();
            (run.ctx.on_fail, run.ctx.keep) = (on_fail, keep);
            let spec = with_pip(spec(&["false", "true", "nope", "echo"]));
            let spec = MatrixSpec {
                parallel: Some(1),
                retries: Retries { count: 1, backoff: Duration::ZERO },
                ..spec
            };
            let report = run_matrix(&run.ctx, spec, commands());
            let report =
                tokio::time::timeout(Duration::from_secs(60), report).await.unwrap().unwrap();
            use Outcome::{Failed, Passed};
            assert_eq!(outcomes(&report), [Failed, Passed, Failed, Passed]);
            let kept = report.cells.iter().filter(|cell| cell.kept.is_some()).count();
            assert_eq!(kept, if keep || on_fail != OnFail::Clean { 2 } else { 0 });
            let caches = run.fake.caches(&Cancel::new()).await.unwrap();
            assert!(!caches[0].busy, "{on_fail:?} {keep}: {caches:?}");
        }
    }
}

#[tokio::test]
async fn a_cell_that_can_t_have_its_cache_fails() {
    let run = Run::new();
    let broken = Error::Transport { message: "gone".into() };
    run.fake.inject(Fault::new(Verb::Create, Effect::Error(broken)).nth(1));
    let report = run_matrix(&run.ctx, with_pip(numbers(2)), body(|_| async { Ok(()) }));
    assert_eq!(outcomes(&report.await.unwrap()), [Outcome::Failed, Outcome::Passed]);
}
