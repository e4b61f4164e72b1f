//! Attempts: retries, time limits, what comes after a body, and a backend that goes away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, Error};
use sandscript::workflow::{
    Broken, CellBody, CellContext, CellOwn, Event, Failure, Machine, MatrixReport, MatrixSpec,
    Order, Outcome, Retries, exit, run_matrix,
};

use crate::cells::{body, commands, numbers, outcomes, spec};
use crate::support::{Run, until};

fn retries(count: usize) -> Retries {
    Retries { count, backoff: Duration::from_millis(1) }
}

/// Fails in cell `n` up to attempt `n`, in a sandbox that must be a fresh one.
fn late() -> Arc<dyn CellBody> {
    body(|cell: CellContext| async move {
        let once = "test ! -e /tmp/used && echo used > /tmp/used && echo so far";
        let output = cell.exec(&Command::shell(once)).await?;
        assert!(output.exit.ok(), "the sandbox is a used one");
        match cell.cell.get("n").unwrap().to_string().parse::<usize>().unwrap() >= cell.attempt {
            true => Err(Failure::new(format!("attempt {}", cell.attempt))),
            false => Ok(()),
        }
    })
}

#[tokio::test]
async fn one_that_passes_later_is_flaky_and_kept_apart() {
    let mut run = Run::new();
    let spec = MatrixSpec { retries: retries(2), ..numbers(4) };
    let report = run_matrix(&run.ctx, spec, late()).await.unwrap();
    use Outcome::{Failed, Flaky, Passed};
    assert_eq!(outcomes(&report), [Passed, Flaky, Flaky, Failed]);
    let attempts: Vec<usize> = report.cells.iter().map(|cell| cell.attempts).collect();
    assert_eq!(attempts, [1, 2, 3, 3]);
    let counts = report.counts();
    assert_eq!((counts.passed, counts.flaky, counts.failed), (1, 2, 1));
    let said = report.cells[2].failure.as_ref().unwrap().to_string();
    assert_eq!(said, "it passed at attempt 3; the one before: attempt 2");
    assert_eq!(report.cells[2].tail, "so far\n", "what the failed attempt printed");
    assert_eq!(exit::of_matrix(&report), exit::FAILED);
    assert_eq!(run.names().await, [""; 0]);
    let told = run.told();
    let again = |event: &&Event| matches!(event, Event::CellRetry { .. });
    assert_eq!(told.iter().filter(again).count(), 1 + 2 + 2);

    let spec = MatrixSpec { retries: retries(2), ..numbers(3) };
    let report = run_matrix(&run.ctx, spec, late()).await.unwrap();
    assert!(report.ok());
    assert_eq!(exit::of_matrix(&report), exit::OK);
}

#[tokio::test]
async fn a_cancel_during_a_pause_leaves_a_failed_cell_failed() {
    let mut run = Run::new();
    let long = Retries { count: 3, backoff: Duration::from_secs(50) };
    let spec = MatrixSpec { retries: long, ..spec(&["exit 3"]) };
    let (report, ()) = tokio::join!(run_matrix(&run.ctx, spec, commands()), async {
        until("the first delete", async || run.fake.count(Verb::Delete) == 1).await;
        run.ctx.cancel.cancel();
    });
    let report = report.unwrap();
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    assert_eq!(report.cells[0].attempts, 1);
    assert!(run.told().iter().any(|event| matches!(event, Event::CellRetry { .. })));
}

#[tokio::test]
async fn no_more_than_so_many_fail() {
    let run = Run::new();
    let spec = MatrixSpec { max_fail: Some(3), parallel: Some(1), ..numbers(20) };
    let broken = body(|_| async { Err(Failure::new("no")) });
    let report = run_matrix(&run.ctx, spec, broken).await.unwrap();
    let counts = report.counts();
    assert_eq!((counts.failed, counts.not_run), (3, 17));
    assert_eq!(exit::of_matrix(&report), exit::FAILED);
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn one_that_takes_long_is_told_with_what_it_printed_since() {
    let mut run = Run::new();
    let spec = MatrixSpec {
        timeout: Some(Duration::from_millis(500)),
        warn: Some(Duration::from_millis(150)),
        ..spec(&["echo so far; sleep 100"])
    };
    let report = run_matrix(&run.ctx, spec, commands()).await.unwrap();
    assert_eq!(outcomes(&report), [Outcome::TimedOut]);
    let slow = |event: Event| match event {
        Event::CellSlow { duration, limit, tail, .. } => Some((duration, limit, tail)),
        _ => None,
    };
    let slow: Vec<_> = run.told().into_iter().filter_map(slow).collect();
    assert!(!slow.is_empty());
    assert_eq!(slow[0].0, Duration::from_millis(150));
    assert_eq!(slow[0].1, Some(Duration::from_millis(500)));
    let since: String = slow.into_iter().map(|(_, _, tail)| tail).collect();
    assert!(["so far\n", ""].contains(&since.as_str()), "{since}");
}

#[tokio::test]
async fn the_longest_start_first() {
    let run = Run::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let spec = |parallel, order| {
        let times = HashMap::from([
            ("n=0".to_string(), Duration::from_secs(1)),
            ("n=1".to_string(), Duration::from_secs(3)),
            ("n=2".to_string(), Duration::from_secs(2)),
        ]);
        MatrixSpec { times: Arc::new(times), order, parallel: Some(parallel), ..numbers(4) }
    };
    let note = {
        let seen = seen.clone();
        body(move |cell: CellContext| {
            seen.lock().unwrap().push(cell.sandbox.rsplit('-').next().unwrap().to_string());
            async { Ok(()) }
        })
    };
    let one = spec(1, Order::Longest);
    let report = run_matrix(&run.ctx, one, note.clone()).await.unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), ["0", "1", "2", "3"]);
    let ids: Vec<&str> = report.cells.iter().map(|cell| cell.cell.id.as_str()).collect();
    run_matrix(&run.ctx, spec(2, Order::Longest), note).await.unwrap();
    let started = std::mem::take(&mut *seen.lock().unwrap());
    assert!(started[..2].contains(&"3".to_string()), "the unknown one first: {started:?}");
    assert_eq!(ids, ["n=0", "n=1", "n=2", "n=3"], "reports are in the matrix's order");
}

/// A body that passes or fails, and a teardown that throws, hangs or panics.
struct Both {
    body: &'static str,
    teardown: &'static str,
    torn: AtomicUsize,
}

#[async_trait]
impl CellBody for Both {
    async fn run(&self, cell: CellContext) -> Result<(), Failure> {
        match self.body {
            "fails" => Err(Failure::new("the body failed")),
            "waits" => {
                cell.cancel().cancelled().await;
                Err(Error::Cancelled.into())
            }
            _ => Ok(()),
        }
    }

    fn tears_down(&self) -> bool {
        true
    }

    async fn teardown(&self, cell: CellContext) -> Result<(), Failure> {
        let output = cell.exec(&Command::argv(["true"])).await?;
        assert!(output.exit.ok(), "the sandbox is still there");
        self.torn.fetch_add(1, Ordering::SeqCst);
        match self.teardown {
            "throws" => Err(Failure::new("thrown")),
            "panics" => panic!("on purpose"),
            _ => Ok(()),
        }
    }
}

async fn both(run: &Run, body: &'static str, teardown: &'static str) -> (MatrixReport, usize) {
    let both = Arc::new(Both { body, teardown, torn: AtomicUsize::new(0) });
    let report = run_matrix(&run.ctx, numbers(2), both.clone()).await.unwrap();
    assert_eq!(run.names().await, [""; 0]);
    (report, both.torn.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_teardown_that_throws_fails_a_cell_that_had_passed() {
    let mut run = Run::new();
    let (report, torn) = both(&run, "passes", "fine").await;
    assert!(report.ok() && torn == 2);
    let (report, torn) = both(&run, "passes", "throws").await;
    assert_eq!((outcomes(&report), torn), (vec![Outcome::Failed; 2], 2));
    let said = report.cells[0].failure.as_ref().unwrap().to_string();
    assert_eq!(said, "the teardown failed: thrown");
    let (report, _) = both(&run, "passes", "panics").await;
    let said = report.cells[0].failure.as_ref().unwrap().to_string();
    assert!(said.contains("on purpose"), "{said}");

    // Of a cell that failed, it does not hide why.
    run.told();
    let (report, torn) = both(&run, "fails", "throws").await;
    assert_eq!(report.cells[0].failure.as_ref().unwrap().to_string(), "the body failed");
    assert_eq!(torn, 2);
    let warned = |event: &&Event| matches!(event, Event::Warning { message, .. } if message.contains("failed, too: thrown"));
    assert_eq!(run.told().iter().filter(warned).count(), 2);
}

#[tokio::test]
async fn a_cancelled_cell_is_torn_down_too() {
    let run = Run::new();
    let waiting = Arc::new(Both { body: "waits", teardown: "", torn: AtomicUsize::new(0) });
    let (report, ()) = tokio::join!(run_matrix(&run.ctx, numbers(2), waiting.clone()), async {
        until("two sandboxes", async || run.names().await.len() == 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        run.ctx.cancel.cancel();
    });
    assert_eq!(report.unwrap().counts().cancelled, 2);
    assert_eq!(waiting.torn.load(Ordering::SeqCst), 2);
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_backend_that_dies_and_comes_back_costs_an_attempt_and_leaves_nothing() {
    let mut run = Run::new();
    let base = run.build("b", &["true"]).await.unwrap();
    run.told();
    let gone = || Effect::Error(Error::Transport { message: "the connection broke".into() });
    let spec = |count| MatrixSpec {
        source: base.clone().into(),
        retries: Retries { count, backoff: Duration::from_millis(40) },
        parallel: Some(3),
        ..numbers(20)
    };
    let dying = |fake: Arc<sandscript::backend::fake::FakeBackend>| {
        let ran = Arc::new(AtomicUsize::new(0));
        body(move |cell: CellContext| {
            let (fake, ran) = (fake.clone(), ran.clone());
            async move {
                if ran.fetch_add(1, Ordering::SeqCst) == 5 {
                    for verb in [Verb::Clone, Verb::Spawn, Verb::Delete, Verb::Get] {
                        fake.inject(Fault::new(verb, gone()));
                    }
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(400)).await;
                        fake.clear_faults();
                    });
                }
                let output = cell.exec(&Command::argv(["true"])).await?;
                assert!(output.exit.ok());
                Ok(())
            }
        })
    };
    // With a single retry, all pass in the end: none is tried again before the backend is back.
    let report = run_matrix(&run.ctx, spec(1), dying(run.fake.clone())).await.unwrap();
    assert!(report.ok(), "{}", report.counts());
    assert!(report.counts().flaky > 0);
    assert_eq!(run.names().await.len(), 1, "only the base is left");
    // Without them, what was hit failed, and says why; the rest passed.
    let report = run_matrix(&run.ctx, spec(0), dying(run.fake.clone())).await.unwrap();
    assert!(report.counts().failed > 0 && report.counts().passed > 0, "{}", report.counts());
    for cell in report.failures() {
        let said = cell.failure.as_ref().unwrap().to_string();
        assert!(said.contains("the connection broke"), "{said}");
    }
    until("all deletes", async || run.names().await.len() == 1).await;
}

#[tokio::test]
async fn a_backend_that_stays_away_is_told_of() {
    let mut run = Run::new();
    let gone = Error::Transport { message: "the connection broke".into() };
    run.fake.inject(Fault::new(Verb::Delete, Effect::Error(gone)));
    let fine = body(|_| async { Ok(()) });
    assert!(run_matrix(&run.ctx, numbers(2), fine).await.unwrap().ok());
    let warned = |event: Event| match event {
        Event::Warning { message, hint } => Some((message, hint.unwrap())),
        _ => None,
    };
    let warned: Vec<_> = run.told().into_iter().filter_map(warned).collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned[0].0.contains("the connection broke") && warned[0].1.contains("gc"));
    run.fake.clear_faults();
    run.fake.end_run("run-a");
    run.fake.gc(false, &Cancel::new()).await.unwrap();
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn two_runs_of_one_matrix_at_once_do_not_meet() {
    let run = Run::new();
    let other = Run::on(run.fake.clone(), "run-b");
    let base = run.build("b", &["echo base > /tmp/f"]).await.unwrap();
    let one = |_: ()| MatrixSpec {
        source: base.clone().into(),
        ..spec(&["cat /tmp/f", "echo x > /tmp/f", "true", "test -e /tmp/f"])
    };
    let (first, second) = tokio::join!(
        run_matrix(&run.ctx, one(()), commands()),
        run_matrix(&other.ctx, one(()), commands())
    );
    assert!(first.unwrap().ok() && second.unwrap().ok());
    assert_eq!(run.names().await.len(), 1, "only the base is left");
}

#[tokio::test]
async fn a_heavy_cell_takes_the_place_of_others() {
    let run = Run::new();
    let now = Arc::new(AtomicUsize::new(0));
    let body = {
        let now = now.clone();
        body(move |cell: CellContext| {
            let now = now.clone();
            async move {
                let weight = if cell.cell.id == "n=3" { 4 } else { 1 };
                let before = now.fetch_add(weight, Ordering::SeqCst);
                assert!(before + weight <= 4, "{before} and {weight}");
                tokio::time::sleep(Duration::from_millis(3)).await;
                now.fetch_sub(weight, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    // Too heavy for the matrix: it runs alone.
    let own = CellOwn { weight: 9, ..CellOwn::default() };
    let own = HashMap::from([("n=3".to_string(), own)]);
    let spec = MatrixSpec { parallel: Some(4), own, ..numbers(12) };
    let report = run_matrix(&run.ctx, spec, body).await.unwrap();
    assert!(report.ok(), "{:?}", report.failures().next().map(|cell| &cell.failure));
}

#[tokio::test]
async fn each_backend_has_its_own_measure_and_all_together_one() {
    let small = FakeBackend::builder().parallelism(2).build();
    let run = Run::on(Arc::new(small), "run-a");
    let wide = Arc::new(FakeBackend::builder().parallelism(5).build());
    let other = Machine { name: "wide".into(), backend: wide.clone() };
    // Cells from 20 on are on the other backend; number 25 takes the place of all that may run there.
    let own = |number: usize| {
        let weight = if number == 25 { 9 } else { 1 };
        let own = CellOwn { machine: Some(other.clone()), weight, ..CellOwn::default() };
        (format!("n={number}"), own)
    };
    for (parallel, most) in [(None, 7), (Some(3), 3), (Some(1), 1)] {
        let running: Arc<[AtomicUsize; 2]> = Arc::default();
        let body = {
            let running = running.clone();
            body(move |cell: CellContext| {
                let running = running.clone();
                async move {
                    let number: usize = cell.cell.get("n").unwrap().to_string().parse().unwrap();
                    let on = usize::from(number >= 20);
                    let place = cell.run.place.as_deref();
                    assert_eq!(place, (on == 1).then_some("wide"));
                    let weight = if number == 25 { 5 } else { 1 };
                    let here = running[on].fetch_add(weight, Ordering::SeqCst) + weight;
                    assert!(here <= [2, 5][on], "{here} on {on}");
                    let all = || running.iter().map(|at| at.load(Ordering::SeqCst)).sum::<usize>();
                    assert!(all() <= most || number == 25, "{} of {most}", all());
                    cell.exec(&Command::shell("true")).await?;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    running[on].fetch_sub(weight, Ordering::SeqCst);
                    Ok(())
                }
            })
        };
        let own: HashMap<String, CellOwn> = (20..40).map(own).collect();
        let spec = MatrixSpec { parallel, own, ..numbers(40) };
        let report = run_matrix(&run.ctx, spec, body).await.unwrap();
        assert!(report.ok(), "{:?}", report.failures().next().map(|cell| &cell.failure));
        let machines = report.cells.iter().filter(|cell| cell.machine.is_some()).count();
        assert_eq!((report.cells.len(), machines), (40, 20));
        assert_eq!(run.names().await, [""; 0]);
        assert_eq!(wide.list(&Cancel::new()).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_cell_without_a_base_fails_and_the_others_run() {
    let mut run = Run::new();
    let broken = Broken { failure: Failure::new("no base"), tail: "what it printed\n".into() };
    let own = CellOwn { broken: Some(broken), ..CellOwn::default() };
    let own = HashMap::from([("n=2".to_string(), own)]);
    let spec = MatrixSpec { own, retries: retries(3), ..numbers(3) };
    let report = run_matrix(&run.ctx, spec, body(|_| async { Ok(()) })).await.unwrap();
    let cell = report.failures().next().unwrap();
    assert_eq!((cell.cell.id.as_str(), cell.tail.as_str()), ("n=2", "what it printed\n"));
    assert_eq!((report.counts().passed, report.counts().failed), (2, 1));
    let told = run.told();
    assert!(!told.iter().any(|event| matches!(event, Event::CellRetry { .. })));
}
