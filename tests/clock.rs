//! A clock that is set while a run goes on: what is measured does not go by it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandscript::backend::fake::FakeBackend;
use sandscript::sandbox::{Backend, Cancel, Command, Error, Owner, set_wall_clock};
use sandscript::workflow::record::{RunFile, Runs};
use sandscript::workflow::report::{GitHub, Html, JsonLines, Junit, Plain, Report, Style, Trace};
use sandscript::workflow::{
    AxisValue, BaseBuilder, BaseOptions, CellBody, CellContext, Counts, Dispatcher, Event, Failure,
    MatrixSpec, Outcome, Retries, RunContext, run_matrix,
};

const DAY: i64 = 24 * 3600;
/// Longer than anything here takes, and much shorter than a jump.
const LONG: f64 = 120.0;

/// Cells that set the clock while others run.
struct Jumps;

#[async_trait]
impl CellBody for Jumps {
    async fn run(&self, cell: CellContext) -> Result<(), Failure> {
        let what = cell.cell.get("what").unwrap().to_string();
        match what.as_str() {
            "ahead" => set_wall_clock(3 * DAY),
            "back" => set_wall_clock(-3 * DAY),
            "hangs" => tokio::time::sleep(Duration::from_secs(3600)).await,
            "flaky" if cell.attempt == 1 => {
                set_wall_clock(-DAY);
                return Err(Failure::new("the first time"));
            }
            _ => {}
        }
        cell.exec(&Command::shell("echo printed; sleep 0.05")).await?;
        // Nobody takes what a living run owns.
        let found = cell.run.backend.gc(true, cell.cancel()).await?;
        assert!(found.sandboxes.is_empty(), "{found:?}");
        Ok(())
    }
}

fn reports(folder: &Path) -> Vec<Box<dyn Report>> {
    let out = |name: &str| Box::new(File::create(folder.join(name)).unwrap());
    let file = RunFile {
        v: 1,
        run: "run-a".into(),
        script: "x.rhai".into(),
        project: folder.into(),
        backend: "fake".into(),
        began: jiff::Timestamp::now(),
        code: None,
        seconds: None,
        counts: Counts::default(),
        others: Vec::new(),
    };
    vec![
        Box::new(JsonLines::new(out("jsonl"))),
        Box::new(Junit::new(out("junit"))),
        Box::new(Html::new(out("html"))),
        Box::new(Trace::new(out("trace"))),
        Box::new(GitHub::new(out("github"), Some(out("summary")))),
        Box::new(Plain::new(out("plain"), Style::default(), None)),
        Box::new(Runs::at(folder).begin(file, folder.join("history.json")).unwrap()),
    ]
}

#[tokio::test]
async fn a_clock_that_jumps_changes_no_duration_no_timeout_and_no_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(FakeBackend::new());
    let backend: Arc<dyn Backend> = fake.clone();
    let dispatcher = Dispatcher::start("run-a", reports(folder.path()));
    let events = dispatcher.sink();
    let owner = Owner::new("run-a", "here");
    let ctx = RunContext::new(backend, owner, events.clone(), folder.path());
    events.send(Event::RunStarted { script: Some("x.rhai".into()), backend: "fake".into() });
    let started = std::time::Instant::now();

    let mut builder = BaseBuilder::open(&ctx, "b", BaseOptions::default()).await.unwrap();
    for ahead in [2 * DAY, -2 * DAY, 0] {
        builder.run(Command::shell(format!("echo {ahead}; sleep 0.02"))).await.unwrap();
        set_wall_clock(ahead);
    }
    let base = builder.finish().await.unwrap();
    assert!(base.duration.as_secs_f64() < LONG, "{base:?}");
    let words = ["plain", "ahead", "hangs", "back", "flaky", "last"];
    let spec = MatrixSpec {
        name: "tests".into(),
        source: base.into(),
        axes: vec![("what".into(), words.map(AxisValue::from).into())],
        parallel: Some(2),
        timeout: Some(Duration::from_secs(3)),
        retries: Retries { count: 1, backoff: Duration::from_millis(20) },
        ..MatrixSpec::default()
    };
    let report = run_matrix(&ctx, spec, Arc::new(Jumps)).await.unwrap();
    let outcome = |what: &str| match what {
        "hangs" => Outcome::TimedOut,
        "flaky" => Outcome::Flaky,
        _ => Outcome::Passed,
    };
    let whole = started.elapsed();
    for cell in &report.cells {
        let what = cell.cell.get("what").unwrap().to_string();
        assert_eq!(cell.outcome, outcome(&what), "{what}: {:?}", cell.failure);
        assert!(cell.duration <= whole, "{what}: {:?}", cell.duration);
        if what == "hangs" {
            assert!(cell.duration >= Duration::from_secs(3), "{:?}", cell.duration);
        }
    }
    assert!(report.duration <= whole, "{:?}", report.duration);
    events.send(Event::RunEnded { code: 1, duration: whole });
    let failed = dispatcher.finish().await;
    assert!(failed.is_empty(), "{failed:?}");
    set_wall_clock(0);

    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let mut before = 0.0;
    for line in read("jsonl").lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let t = event["t"].as_f64().unwrap();
        assert!((before..LONG).contains(&t), "{before}: {line}");
        before = t;
        if let Some(duration) = event["duration"].as_f64() {
            assert!(duration < LONG, "{line}");
        }
    }
    for time in read("junit").split(" time=\"").skip(1) {
        let time: f64 = time.split('"').next().unwrap().parse().unwrap();
        assert!(time < LONG, "{time}");
    }
    let trace: serde_json::Value = serde_json::from_str(&read("trace")).unwrap();
    let trace = trace["traceEvents"].as_array().unwrap_or_else(|| trace.as_array().unwrap());
    for event in trace {
        for field in ["ts", "dur"] {
            let micros = event[field].as_f64().unwrap_or_default();
            assert!((0.0..LONG * 1e6).contains(&micros), "{event}");
        }
    }
    for name in ["html", "plain", "summary"] {
        let text = read(name);
        assert!(!text.contains("-1s") && !text.contains("86400"), "{name}: {text}");
    }
    let runs = Runs::at(folder.path()).list();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].seconds.unwrap() <= whole.as_secs_f64() + 0.001, "{:?}", runs[0]);
    // What is kept for a week is kept, whatever the clock said meanwhile.
    let left = fake.gc(false, &Cancel::new()).await.unwrap();
    assert!(left.sandboxes.is_empty(), "{left:?}");

    #[cfg(feature = "local")]
    snapshots_stay_in_order(folder.path()).await;
}

/// On this machine: also where the clock goes back between two of them.
#[cfg(feature = "local")]
async fn snapshots_stay_in_order(folder: &Path) {
    use sandscript::backend::local::{LocalBackend, LocalConfig};
    use sandscript::sandbox::{SnapshotSpec, Spec, exec, wall_clock};
    let store = folder.join("store");
    let config = LocalConfig {
        store: store.clone(),
        helper: Some(env!("CARGO_BIN_EXE_sandscript").into()),
        ..LocalConfig::default()
    };
    let cancel = Cancel::new();
    let backend = LocalBackend::open(config).unwrap();
    let spec = Spec {
        owner: Some(Owner::new("run-a", "here")),
        expires: wall_clock().checked_add(Duration::from_secs(7 * 24 * 3600)),
        ..Spec::new("clock")
    };
    match backend.create(&spec, &cancel).await {
        Ok(_) => {}
        // As the command line's tests do: where no sandbox can be made, others say so.
        Err(error) if std::env::var("CI").as_deref() != Ok("true") => {
            return eprintln!("skip: backend local: {error}");
        }
        Err(error) => panic!("{error}"),
    }
    for (label, ahead) in [("first", DAY), ("second", -DAY), ("third", 0)] {
        set_wall_clock(ahead);
        backend.snapshot("clock", &SnapshotSpec::new(label), &cancel).await.unwrap();
        // As the kernel would have written it.
        let snapshots = File::open(store.join("boxes/clock/snapshots")).unwrap();
        let changed = snapshots.metadata().unwrap().modified().unwrap();
        snapshots.set_modified(changed.max(wall_clock())).unwrap();
        let mut command = Command::argv(["sleep", "600"]);
        command.timeout = Some(Duration::from_millis(100));
        let ended = exec(&backend, "clock", &command, &cancel).await;
        assert!(matches!(ended, Err(Error::Timeout { .. })), "{ended:?}");
        assert!(backend.gc(false, &cancel).await.unwrap().sandboxes.is_empty());
    }
    set_wall_clock(0);
    let labels: Vec<String> = backend
        .snapshots("clock", &cancel)
        .await
        .unwrap()
        .into_iter()
        .map(|snapshot| snapshot.label)
        .collect();
    assert_eq!(labels, ["first", "second", "third"]);
    backend.delete("clock", &cancel).await.unwrap();
}
