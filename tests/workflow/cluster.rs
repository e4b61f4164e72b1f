//! Matrices on a cluster: where cells go, how many at once, and members that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandscript::backend::fake::{FakeBackend, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, Error, MemberState, SnapshotSpec, Spec};
use sandscript::workflow::{
    CellContext, CellOwn, CellTemplate, Event, Failure, MatrixSpec, Outcome, Source, run_matrix,
};

use crate::cells::{body, numbers};
use crate::support::Run;
use tokio::time::Instant;

fn cluster() -> Arc<FakeBackend> {
    Arc::new(FakeBackend::builder().cluster(["a", "b"], 2).build())
}

async fn member(cell: &CellContext) -> Result<String, Failure> {
    let info = cell.run.backend.get(&cell.sandbox, cell.cancel()).await?;
    Ok(info.member.unwrap_or_default())
}

#[tokio::test]
async fn as_many_at_once_as_the_members_have_room_for() {
    let fake = cluster();
    let parallel = async |target: Option<&str>| {
        let mut run = Run::on(fake.clone(), "r1");
        let target = target.map(|target| target.parse().unwrap());
        let spec = MatrixSpec {
            cell: CellTemplate { target, ..CellTemplate::default() },
            parallel: None,
            ..numbers(2)
        };
        run_matrix(&run.ctx, spec, body(|_| async { Ok(()) })).await.unwrap();
        run.told().into_iter().find_map(|event| match event {
            Event::MatrixStarted { parallel, .. } => Some(parallel),
            _ => None,
        })
    };
    assert_eq!(parallel(None).await, Some(8));
    assert_eq!(parallel(Some("@first")).await, Some(4));
    fake.set_load("b", 2.6);
    assert_eq!(parallel(None).await, Some(5));
    assert_eq!(parallel(Some("b")).await, Some(1));
    fake.set_member("b", MemberState::Evacuated);
    assert_eq!(parallel(None).await, Some(4));
}

/// Where single cells may be counts, and not only where all of them may.
#[tokio::test]
async fn as_many_at_once_as_the_cells_own_members_have_room_for() {
    let fake = cluster();
    let parallel = async |targets: &[&str]| {
        let mut run = Run::on(fake.clone(), "r1");
        let mut spec = MatrixSpec { parallel: None, ..numbers(targets.len() as i64) };
        for (cell, target) in spec.expand().unwrap().iter().zip(targets) {
            let own =
                CellOwn { target: Some(target.parse().unwrap()), weight: 1, ..CellOwn::default() };
            spec.own.insert(cell.id.clone(), own);
        }
        run_matrix(&run.ctx, spec, body(|_| async { Ok(()) })).await.unwrap();
        run.told().into_iter().find_map(|event| match event {
            Event::MatrixStarted { parallel, .. } => Some(parallel),
            _ => None,
        })
    };
    assert_eq!(parallel(&["a", "a"]).await, Some(4));
    assert_eq!(parallel(&["a", "b"]).await, Some(8));
}

/// When half of the cluster has gone, half as many cells run at once.
#[tokio::test(start_paused = true)]
async fn fewer_at_once_when_a_member_has_gone() {
    let fake = cluster();
    let run = Run::on(fake.clone(), "r1");
    let (own, running) = (fake.clone(), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let spec = MatrixSpec { parallel: None, ..numbers(40) };
    let report = run_matrix(
        &run.ctx,
        spec,
        body(move |cell: CellContext| {
            let (fake, running, most) = (own.clone(), Arc::clone(&running), Arc::clone(&seen));
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                // Those that began before it was noticed are over.
                if began.elapsed() > Duration::from_secs(4) {
                    most.fetch_max(now, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                fake.take_away("b");
                running.fetch_sub(1, Ordering::SeqCst);
                cell.exec(&Command::shell("true")).await.map(drop).map_err(Failure::from)
            }
        }),
    )
    .await
    .unwrap();
    assert!(report.cells.iter().all(|cell| cell.outcome == Outcome::Passed), "{report:?}");
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_cell_whose_member_goes_away_begins_again_elsewhere() {
    for from_snapshot in [false, true] {
        let fake = cluster();
        let mut run = Run::on(fake.clone(), "r1");
        let mut spec = MatrixSpec { parallel: Some(6), ..numbers(24) };
        if from_snapshot {
            // It is on the member that goes away, and was made ready for the other one before.
            let cancel = Cancel::new();
            let source = Spec { target: Some("b".parse().unwrap()), ..Spec::new("source") };
            fake.create(&source, &cancel).await.unwrap();
            fake.snapshot("source", &SnapshotSpec::new("s"), &cancel).await.unwrap();
            spec.source = Source::Snapshot { sandbox: "source".into(), label: Some("s".into()) };
        }
        let own = fake.clone();
        let report = run_matrix(
            &run.ctx,
            spec,
            body(move |cell: CellContext| {
                let fake = own.clone();
                async move {
                    let on = member(&cell).await?;
                    let late =
                        cell.cell.get("n").unwrap().to_string().parse::<usize>().unwrap() > 8;
                    if late && on == "b" {
                        fake.take_away("b");
                    }
                    // What a script makes of it may have nothing of the first error.
                    let output = cell.exec(&Command::shell("true")).await;
                    output.map(drop).map_err(|_| Failure::new("it failed"))
                }
            }),
        )
        .await
        .unwrap();
        assert_eq!(fake.count(Verb::Prepare), 1);
        assert!(report.cells.iter().all(|cell| cell.outcome == Outcome::Passed), "{report:?}");
        let moved: Vec<_> = report.cells.iter().filter(|cell| !cell.moved.is_empty()).collect();
        assert!(!moved.is_empty());
        assert!(moved.iter().all(|cell| cell.moved == ["b"] && cell.attempts == 2), "{moved:?}");
        let told = run.told();
        let away = |event: &&Event| matches!(event, Event::CellRetry { away: Some(away), .. } if away == "b");
        assert_eq!(told.iter().filter(away).count(), moved.len());
        let warned = |event: &&Event| matches!(event, Event::Warning { message, .. } if message.contains("could not be deleted"));
        assert!(told.iter().filter(warned).count() >= moved.len());
    }
}

#[tokio::test]
async fn a_cell_moves_only_so_often() {
    let fake = Arc::new(FakeBackend::builder().cluster(["a", "b", "c", "d", "e"], 2).build());
    let run = Run::on(fake.clone(), "r1");
    let own = fake.clone();
    let report = run_matrix(
        &run.ctx,
        numbers(1),
        body(move |cell: CellContext| {
            let fake = own.clone();
            async move {
                let on = member(&cell).await?;
                fake.take_away(&on);
                cell.exec(&Command::shell("true")).await?;
                Ok(())
            }
        }),
    )
    .await
    .unwrap();
    let cell = &report.cells[0];
    assert_eq!((cell.outcome, cell.attempts, cell.moved.len()), (Outcome::Failed, 4, 3));
    assert!(matches!(cell.failure, Some(Failure::Error(Error::MemberAway { .. }))), "{cell:?}");
}
