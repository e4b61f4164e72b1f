//! Ten thousand cells on fifty members, in a clock that only counts: the arithmetic of docs/scale.md.

use std::sync::Arc;
use std::time::Duration;

use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, SnapshotSpec, Spec};
use sandscript::workflow::{MatrixSpec, Source, run_matrix};
use tokio::time::Instant;

use crate::cells::{body, numbers};
use crate::support::Run;

const CELLS: i64 = 10_000;
const MEMBERS: usize = 50;
const CPUS: usize = 8;
/// What the steps of a cell took on a real server; see docs/scale.md.
const CLONE: Duration = Duration::from_millis(236);
const COMMAND: Duration = Duration::from_millis(15);
const DELETE: Duration = Duration::from_millis(640);

/// How long so many cells take that work so long each.
async fn takes(work: Duration) -> (Duration, FakeBackend) {
    let names: Vec<String> = (0..MEMBERS).map(|at| format!("m{at}")).collect();
    let fake = FakeBackend::builder().cluster(names.iter().map(String::as_str), CPUS).build();
    let cancel = Cancel::new();
    fake.create(&Spec::new("source"), &cancel).await.unwrap();
    fake.snapshot("source", &SnapshotSpec::new("s"), &cancel).await.unwrap();
    for (verb, time) in [(Verb::Clone, CLONE), (Verb::Spawn, COMMAND), (Verb::Delete, DELETE)] {
        fake.inject(Fault::new(verb, Effect::Delay(time)));
    }
    let fake = Arc::new(fake);
    let run = Run::on(fake.clone(), "r1");
    let source = Source::Snapshot { sandbox: "source".into(), label: Some("s".into()) };
    let spec = MatrixSpec { source, parallel: None, ..numbers(CELLS) };
    let started = Instant::now();
    let body = body(move |cell| async move {
        cell.exec(&Command::argv(["true"])).await?;
        tokio::time::sleep(work).await;
        Ok(())
    });
    let report = run_matrix(&run.ctx, spec, body).await.unwrap();
    assert_eq!(report.counts().passed, CELLS as usize);
    let took = started.elapsed();
    drop(run);
    (took, Arc::try_unwrap(fake).ok().unwrap())
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_cells() {
    let slots = (MEMBERS * CPUS * 2) as u32;
    let rounds = (CELLS as u32).div_ceil(slots);
    for work in [Duration::from_secs(1), Duration::from_secs(60)] {
        let (took, fake) = takes(work).await;
        // Each slot makes a sandbox, and works,
        // one after the other, unless one of the eighth more that are made ahead is ready.
        let least = (COMMAND + work) * rounds;
        let most = (CLONE + COMMAND + work) * rounds + DELETE + CLONE;
        assert!(took >= least && took <= most, "{least:?} <= {took:?} <= {most:?}");
        // Nothing is asked more often for there being more cells.
        let calls = fake.calls().len();
        let each = calls as f64 / CELLS as f64;
        assert!(each < 6.0, "{each} calls for a cell");
        println!("{work:?} of work: {took:?}, {each:.2} calls for a cell");
    }
}
