//! Sandboxes that wait for the cells of later runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sandscript::backend::fake::{Effect, Fault, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, Error, POOL_LABEL, SnapshotSpec, State, exec};
use sandscript::workflow::{
    CellTemplate, Event, MatrixReport, MatrixSpec, Outcome, Source, run_matrix,
};

use crate::cells::{body, numbers};
use crate::support::Run;

/// The names of the sandboxes that the cells had.
async fn run(run: &Run, spec: MatrixSpec) -> (MatrixReport, BTreeSet<String>) {
    let names = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&names);
    let body = body(move |cell| {
        let seen = Arc::clone(&seen);
        async move {
            cell.exec(&Command::shell("echo $MARK > /root/used")).await?;
            seen.lock().unwrap().insert(cell.sandbox.clone());
            Ok(())
        }
    });
    let report = run_matrix(&run.ctx, spec, body).await.unwrap();
    assert!(report.cells.iter().all(|cell| cell.outcome == Outcome::Passed), "{report:?}");
    let names = names.lock().unwrap().clone();
    (report, names)
}

/// Those that wait.
async fn waiting(run: &Run) -> BTreeSet<String> {
    let all = run.fake.list(&Cancel::new()).await.unwrap();
    let pool = all.into_iter().filter(|info| info.labels.contains_key(POOL_LABEL));
    pool.map(|info| {
        assert_eq!((info.state, info.owner), (State::Running, None), "{}", info.name);
        info.name
    })
    .collect()
}

async fn source(run: &Run, label: &str) -> MatrixSpec {
    let cancel = Cancel::new();
    if !run.names().await.contains(&"source".to_owned()) {
        run.fake.create(&sandscript::sandbox::Spec::new("source"), &cancel).await.unwrap();
    }
    run.fake.snapshot("source", &SnapshotSpec::new(label), &cancel).await.unwrap();
    let source = Source::Snapshot { sandbox: "source".into(), label: Some(label.into()) };
    MatrixSpec { source, pool: 2, ..numbers(4) }
}

#[tokio::test]
async fn the_next_run_takes_them_and_makes_new_ones() {
    let first = Run::new();
    let spec = source(&first, "s").await;
    let (_, used) = run(&first, spec.clone()).await;
    assert_eq!(used.len(), 4);
    let ready = waiting(&first).await;
    assert_eq!(ready.len(), 2, "{ready:?}");
    assert!(ready.is_disjoint(&used));

    let second = Run::on(first.fake.clone(), "run-b");
    let clones = first.fake.count(Verb::Clone);
    let (report, used) = run(&second, spec.clone()).await;
    assert!(ready.is_subset(&used), "{used:?}");
    assert_eq!(first.fake.count(Verb::Clone), clones + 4, "two cells, and two that wait");
    let again = waiting(&second).await;
    assert_eq!((again.len(), again.is_disjoint(&used)), (2, true));
    assert_eq!(report.cells.len(), 4);
    // Nothing else is left.
    let names: BTreeSet<String> = second.names().await.into_iter().collect();
    assert_eq!(names, again.into_iter().chain(["source".to_owned()]).collect());
}

#[tokio::test]
async fn what_was_made_for_something_else_is_left() {
    let first = Run::new();
    let spec = source(&first, "s").await;
    run(&first, spec.clone()).await;
    let ready = waiting(&first).await;
    let another = Run::on(first.fake.clone(), "run-b");
    let env = CellTemplate { env: [("MARK".into(), "x".into())].into(), ..spec.cell.clone() };
    let (_, used) = run(&another, MatrixSpec { cell: env, ..spec.clone() }).await;
    assert!(used.is_disjoint(&ready));
    assert_eq!(waiting(&another).await.len(), 4);
    // A snapshot of the same name that was taken later.
    first.fake.delete_snapshot("source", "s", &Cancel::new()).await.unwrap();
    let anew = source(&first, "s").await;
    let (_, used) = run(&another, anew).await;
    assert!(used.is_disjoint(&ready), "{used:?}");
}

#[tokio::test]
async fn one_that_is_gone_or_taken_is_passed_over() {
    let first = Run::new();
    let spec = source(&first, "s").await;
    run(&first, spec.clone()).await;
    let ready: Vec<String> = waiting(&first).await.into_iter().collect();
    let faster = Effect::Error(Error::internal("somebody was faster"));
    first.fake.inject(Fault::new(Verb::Adopt, faster).nth(1));
    let (_, used) = run(&first, spec).await;
    assert_eq!(used.iter().filter(|name| ready.contains(name)).count(), 1);
}

#[tokio::test]
async fn a_failed_refill_is_a_warning() {
    let mut first = Run::new();
    let spec = MatrixSpec { parallel: Some(4), ..source(&first, "s").await };
    let full = Effect::Error(Error::internal("no room"));
    first.fake.inject(Fault::new(Verb::Clone, full).with("pool-"));
    run(&first, spec).await;
    let warned = first.told().into_iter().any(|event| {
        matches!(event, Event::Warning { message, .. } if message.contains("made ahead") && message.contains("no room"))
    });
    assert!(warned);
}

#[tokio::test]
async fn they_are_fresh_and_expire() {
    let first = Run::new();
    let spec = source(&first, "s").await;
    run(&first, spec).await;
    let ready = waiting(&first).await;
    let cancel = Cancel::new();
    assert!(first.fake.gc(false, &cancel).await.unwrap().sandboxes.is_empty());
    let one = ready.first().unwrap();
    let output = exec(&*first.fake, one, &Command::shell("cat /root/used"), &cancel).await.unwrap();
    assert!(!output.exit.ok(), "it is fresh");
    let now = SystemTime::now();
    for name in &ready {
        let expires = first.fake.get(name, &cancel).await.unwrap().expires.unwrap();
        let waits = expires.duration_since(now).unwrap();
        assert!(
            waits > Duration::from_secs(3000) && waits <= Duration::from_secs(3600),
            "{waits:?}"
        );
    }
}
