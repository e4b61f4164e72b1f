//! Matrices: how cells end, and what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sandscript::backend::fake::{Effect, Fault, Verb};
use sandscript::sandbox::{
    Backend, Cancel, Carried, Command, Denied, EgressLog, Error, Limits, Policy, Protocol, Reason,
};
use sandscript::workflow::{
    CellContext, CellTemplate, Event, Failure, MatrixSpec, Outcome, Source, exit, run_matrix,
};

use crate::cells::{body, commands, numbers, outcomes, spec};
use crate::support::{Run, until};

#[tokio::test]
async fn every_cell_has_its_own_clone_of_the_base() {
    let mut run = Run::new();
    let base = run.build("b", &["echo base > /tmp/f"]).await.unwrap();
    run.told();
    let spec = MatrixSpec {
        source: base.into(),
        ..spec(&["cat /tmp/f; echo mine > /tmp/f", "cat /tmp/f; echo x > /tmp/f", "cat /nope"])
    };
    let report = run_matrix(&run.ctx, spec, commands()).await.unwrap();
    assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Passed, Outcome::Failed]);
    assert!(!report.ok());
    assert_eq!(exit::of_matrix(&report), exit::FAILED);
    assert!(report.cells[2].tail.contains("/nope"), "{}", report.cells[2].tail);
    assert_eq!(run.names().await.len(), 1, "only the base is left");

    let told = run.told();
    let count = |want: fn(&Event) -> bool| told.iter().filter(|event| want(event)).count();
    assert_eq!(count(|e| matches!(e, Event::MatrixStarted { parallel: 2, total: 3, .. })), 1);
    assert_eq!(count(|e| matches!(e, Event::CellStarted { .. })), 3);
    assert_eq!(count(|e| matches!(e, Event::CellOutput { text, .. } if text == "base\n")), 2);
    assert_eq!(count(|e| matches!(e, Event::CellEnded { .. })), 3);
    assert!(matches!(told.last(), Some(Event::MatrixEnded { counts, .. }) if counts.total() == 3));
}

#[tokio::test]
async fn cells_from_an_image_and_from_a_snapshot() {
    let run = Run::new();
    let cell = CellTemplate {
        limits: Some(Limits { memory: Some(64 << 20), ..Limits::default() }),
        env: [("WHO".to_string(), "cell".to_string())].into(),
        ..CellTemplate::default()
    };
    let base = run.build("b", &["true"]).await.unwrap();
    let label = Some(base.label.clone());
    for source in [
        Source::default(),
        Source::image("fake"),
        Source::Snapshot { sandbox: base.sandbox.clone(), label },
        Source::Snapshot { sandbox: base.sandbox.clone(), label: None },
    ] {
        let spec = MatrixSpec { source, cell: cell.clone(), ..spec(&["test $WHO = cell"]) };
        let body = body(|cell: CellContext| async move {
            let info = cell.run.backend.get(&cell.sandbox, cell.cancel()).await?;
            assert_eq!(info.limits.memory, Some(64 << 20));
            assert_eq!(info.labels["sandscript.kind"], "cell");
            assert_eq!(info.owner.unwrap().run, "run-a");
            let output = cell.exec(&Command::shell("test $WHO = cell")).await?;
            assert!(output.exit.ok());
            Ok(())
        });
        let report = run_matrix(&run.ctx, spec, body).await.unwrap();
        assert!(report.ok(), "{:?}", report.cells[0].failure);
    }
    assert_eq!(run.names().await.len(), 1);
}

#[tokio::test]
async fn no_more_than_parallel_bodies_and_a_few_more_sandboxes() {
    let run = Run::new();
    let now = Arc::new(AtomicUsize::new(0));
    let (most, boxes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body = {
        let (most, boxes) = (most.clone(), boxes.clone());
        body(move |cell: CellContext| {
            let (now, most, boxes) = (now.clone(), most.clone(), boxes.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                let all = cell.run.backend.list(cell.cancel()).await?.len();
                boxes.fetch_max(all, Ordering::SeqCst);
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    let spec = MatrixSpec { parallel: Some(3), ..numbers(40) };
    assert!(run_matrix(&run.ctx, spec, body).await.unwrap().ok());
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let boxes = boxes.load(Ordering::SeqCst);
    assert!((4..=9).contains(&boxes), "{boxes} sandboxes at once");
}

#[tokio::test]
async fn cells_start_in_order() {
    let run = Run::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let body = {
        let seen = seen.clone();
        body(move |cell: CellContext| {
            seen.lock().unwrap().push(cell.cell.id);
            async { Ok(()) }
        })
    };
    let spec = MatrixSpec { parallel: Some(1), ..numbers(20) };
    run_matrix(&run.ctx, spec, body).await.unwrap();
    let expected: Vec<String> = (0..20).map(|n| format!("n={n}")).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn filter_list_and_nothing_selected() {
    let mut run = Run::new();
    let spec =
        |filter: &str, list| MatrixSpec { filter: filter.parse().unwrap(), list, ..numbers(12) };
    let report =
        run_matrix(&run.ctx, spec("n=1*", false), body(|_| async { Ok(()) })).await.unwrap();
    assert_eq!((report.cells.len(), report.total), (3, 12));
    assert_eq!(exit::of_matrix(&report), exit::OK);

    let report =
        run_matrix(&run.ctx, spec("m=1", false), body(|_| async { Ok(()) })).await.unwrap();
    assert!(report.nothing_selected() && report.ok());
    assert_eq!(exit::of_matrix(&report), exit::NOTHING_SELECTED);

    run.told();
    run.fake.clear_calls();
    let report = run_matrix(&run.ctx, spec("n=1*", true), commands()).await.unwrap();
    assert!(report.listed && !report.nothing_selected());
    assert_eq!(exit::of_matrix(&report), exit::OK);
    assert!(run.fake.calls().is_empty());
    let told = run.told();
    let [Event::CellList { cells, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(cells.len(), 3);
}

#[tokio::test]
async fn a_cell_that_takes_too_long_tells_what_it_printed() {
    let run = Run::new();
    let spec = MatrixSpec {
        timeout: Some(Duration::from_millis(100)),
        ..spec(&["echo so far; sleep 100", "true"])
    };
    let started = Instant::now();
    let report = run_matrix(&run.ctx, spec, commands()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(outcomes(&report), [Outcome::TimedOut, Outcome::Passed]);
    assert_eq!(report.cells[0].tail, "so far\n");
    let message = report.cells[0].failure.as_ref().unwrap().to_string();
    assert_eq!(message, "the cell timed out after 100ms");
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_body_that_does_not_listen_is_dropped() {
    let run = Run::new();
    let spec = MatrixSpec { timeout: Some(Duration::from_millis(20)), ..numbers(1) };
    let deaf = body(|_| async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        Ok(())
    });
    let report = run_matrix(&run.ctx, spec, deaf).await.unwrap();
    assert_eq!(outcomes(&report), [Outcome::TimedOut]);
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_body_that_panics_fails_its_cell_only() {
    let run = Run::new();
    let body = body(|cell: CellContext| async move {
        assert!(cell.cell.id != "n=1", "not {}", cell.cell.id);
        Ok(())
    });
    let report = run_matrix(&run.ctx, numbers(3), body).await.unwrap();
    assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Failed, Outcome::Passed]);
    let message = report.cells[1].failure.as_ref().unwrap().to_string();
    assert_eq!(message, "the cell's body panicked: not n=1");
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn fail_fast_cancels_the_rest() {
    let run = Run::new();
    let mut spec = spec(&["sleep 100", "exit 3", "true", "true ", "true  ", "true   ", "true    "]);
    spec.max_fail = Some(1);
    let report = run_matrix(&run.ctx, spec, commands()).await.unwrap();
    use Outcome::{Cancelled, Failed, NotRun};
    assert_eq!(outcomes(&report)[..2], [Cancelled, Failed]);
    assert_eq!(report.cells.last().unwrap().outcome, NotRun);
    assert_eq!(exit::of_matrix(&report), exit::FAILED);
    assert!(!run.ctx.cancel.is_cancelled(), "the run goes on");
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_cancel_ends_all_and_deletes_all() {
    let mut run = Run::new();
    let started = Instant::now();
    let (report, ()) = tokio::join!(
        run_matrix(&run.ctx, spec(&["sleep 100", "sleep 101", "sleep 102", "true"]), commands()),
        async {
            until("two commands", async || run.fake.count(Verb::Spawn) == 2).await;
            run.ctx.cancel.cancel();
        }
    );
    let report = report.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    use Outcome::{Cancelled, NotRun};
    assert_eq!(outcomes(&report), [Cancelled, Cancelled, NotRun, NotRun]);
    assert_eq!(exit::of_matrix(&report), exit::INTERRUPTED);
    assert_eq!(run.names().await, [""; 0]);
    let ended = run.told().iter().filter(|e| matches!(e, Event::CellEnded { .. })).count();
    assert_eq!(ended, 4);
}

#[tokio::test]
async fn a_create_that_hangs_is_cancelled() {
    let run = Run::new();
    run.fake.inject(Fault::new(Verb::Create, Effect::Hang).nth(2));
    let (report, ()) =
        tokio::join!(run_matrix(&run.ctx, spec(&["true", "id"]), commands()), async {
            until("the end of the first", async || run.fake.count(Verb::Delete) == 1).await;
            run.ctx.cancel.cancel();
        });
    let report = report.unwrap();
    assert!(outcomes(&report).contains(&Outcome::Passed));
    assert!(outcomes(&report).contains(&Outcome::NotRun));
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_dropped_matrix_cleans_up() {
    let run = Run::new();
    let matrix = run_matrix(&run.ctx, spec(&["sleep 100", "sleep 101", "sleep 102"]), commands());
    assert!(tokio::time::timeout(Duration::from_millis(50), matrix).await.is_err());
    until("the cleanup", async || run.names().await.is_empty()).await;
}

#[tokio::test]
async fn a_clone_that_fails_fails_its_cell() {
    let run = Run::new();
    let base = run.build("b", &["true"]).await.unwrap();
    let full = Error::Exhausted { what: "the disk is full".into(), hint: "make room".into() };
    run.fake.inject(Fault::new(Verb::Clone, Effect::Error(full)).nth(3));
    let spec = MatrixSpec { source: base.into(), parallel: Some(1), ..numbers(5) };
    let report = run_matrix(&run.ctx, spec, body(|_| async { Ok(()) })).await.unwrap();
    let counts = report.counts();
    assert_eq!((counts.passed, counts.failed), (4, 1));
    let failure = report.failures().next().unwrap().failure.as_ref().unwrap();
    assert_eq!(
        (failure.to_string().as_str(), failure.hint().as_deref()),
        ("the disk is full", Some("make room"))
    );
    assert_eq!(run.names().await.len(), 1);
}

#[tokio::test]
async fn a_base_that_goes_away_fails_the_cells_that_come_after() {
    let run = Run::new();
    let base = run.build("b", &["true"]).await.unwrap();
    run.fake.delete(&base.sandbox, &Cancel::new()).await.unwrap();
    let spec = MatrixSpec { source: base.into(), ..numbers(2) };
    let report = run_matrix(&run.ctx, spec, body(|_| async { Ok(()) })).await.unwrap();
    assert_eq!(outcomes(&report), [Outcome::Failed; 2]);
    let failure = report.cells[0].failure.as_ref().unwrap();
    assert!(failure.to_string().starts_with("its sandbox could not be made: sandbox 'base-b-"));
}

#[tokio::test]
async fn a_delete_that_fails_is_a_warning() {
    let mut run = Run::new();
    let full = Error::Exhausted { what: "the disk is full".into(), hint: "make room".into() };
    run.fake.inject(Fault::new(Verb::Delete, Effect::Error(full)).nth(1));
    assert!(run_matrix(&run.ctx, numbers(3), body(|_| async { Ok(()) })).await.unwrap().ok());
    let warned = run.told().into_iter().filter_map(|event| match event {
        Event::Warning { message, hint } => Some((message, hint.unwrap())),
        _ => None,
    });
    let warned: Vec<_> = warned.collect();
    assert_eq!(warned.len(), 1);
    assert!(warned[0].0.contains("the disk is full") && warned[0].1.contains("gc"));
    assert_eq!(run.names().await.len(), 1, "gc takes it: it is still owned");
}

#[tokio::test]
async fn keep_keeps_what_did_not_pass() {
    let mut run = Run::new();
    run.ctx.keep = true;
    let report = run_matrix(&run.ctx, spec(&["true", "exit 1"]), commands()).await.unwrap();
    assert_eq!(report.cells[0].kept, None);
    let kept = report.cells[1].kept.clone().unwrap();
    assert_eq!(run.names().await, std::slice::from_ref(&kept));
    assert_eq!(run.fake.get(&kept, &Cancel::new()).await.unwrap().owner, None);
    let told = run.told();
    assert!(
        told.iter().any(|event| matches!(event, Event::SandboxKept { name, .. } if *name == kept))
    );
}

#[tokio::test]
async fn names_are_readable_valid_and_unique() {
    let run = Run::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let body = {
        let seen = seen.clone();
        body(move |cell: CellContext| {
            seen.lock().unwrap().push(cell.sandbox);
            async { Ok(()) }
        })
    };
    let odd = ["", "-O2 -g", "ÄÖ", &"long".repeat(40), "x\ny", "1"];
    for name in ["tests", "", "2nd run!", &"m".repeat(100)] {
        let spec = MatrixSpec { name: name.into(), ..spec(&odd) };
        let report = run_matrix(&run.ctx, spec, body.clone()).await.unwrap();
        assert!(report.ok(), "{:?}", report.cells[0].failure);
    }
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(seen.iter().any(|name| name.starts_with("tests-o2-g-")), "{seen:?}");
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((all, seen.len()), (24, 24));
}

#[tokio::test]
async fn what_is_wrong_with_the_matrix_is_an_error() {
    let run = Run::new();
    let error = run_matrix(&run.ctx, spec(&[]), commands()).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input");
    assert!(run.fake.calls().is_empty());
}

#[tokio::test]
async fn a_cell_says_what_it_was_refused_and_what_it_reached() {
    let mut run = Run::new();
    let denied = Denied {
        first: SystemTime::UNIX_EPOCH,
        last: SystemTime::UNIX_EPOCH,
        count: 3,
        name: Some("pkg.test".into()),
        address: None,
        port: 443,
        protocol: Protocol::Tcp,
        process: None,
        reason: Reason::NotAllowed,
    };
    let carried = Carried { host: "a.test".into(), connections: 1, sent: 7, received: 9 };
    let log = EgressLog { denied: vec![denied], more: 0, carried: vec![carried.clone()] };
    let fake = Arc::clone(&run.fake);
    let body = body(move |cell: CellContext| {
        let (fake, log) = (Arc::clone(&fake), log.clone());
        async move {
            fake.set_egress_log(&cell.sandbox, log)?;
            match cell.cell.values[0].1.to_string().as_str() {
                "good" => Ok(()),
                _ => Err(Failure::new("no")),
            }
        }
    });
    let template = |egress| CellTemplate { egress, ..CellTemplate::default() };
    let open = template(Some(Policy::allowlist(["a.test"]).unwrap()));
    let (more, only) = (r#"["a.test", "pkg.test:443"]"#, r#"["pkg.test:443"]"#);
    for (cell, wanted, rules) in [(open, [3, 3], more), (template(None), [0, 3], only)] {
        let spec = MatrixSpec { cell, ..spec(&["good", "bad"]) };
        let report = run_matrix(&run.ctx, spec, body.clone()).await.unwrap();
        assert_eq!(report.cells.iter().map(|cell| cell.egress.refused).collect::<Vec<_>>(), wanted);
        let told = run.told();
        let bad = told.iter().find_map(|event| match event {
            Event::CellEnded { egress, outcome: Outcome::Failed, .. } => Some(egress),
            _ => None,
        });
        let bad = bad.unwrap();
        assert_eq!(bad.said().unwrap(), "3 connections were refused: pkg.test:443 (3 times)");
        assert_eq!(bad.remedy(None).unwrap(), format!("egress: #{{ allow: {rules} }}"));
        assert_eq!(bad.carried, std::slice::from_ref(&carried));
    }
}
