//! What the engine adds to what its sandboxes take.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandscript::sandbox::Spec;
use sandscript::{Host, Source};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::table::{Table, ms, ratio};
use super::tool::{peak, tool};
use super::{Bench, median, timed, timed_async};

/// Cells of the matrix whose overhead is measured.
const CELLS: u32 = 200;

/// A matrix of cells that do nothing, against the same sandboxes made and deleted by the library.
pub async fn overhead(bench: &Bench, table: &mut Table) {
    let parallel = bench.backend.capabilities().parallelism;
    let script = format!(
        "let n = []; for i in 0..{CELLS} {{ n.push(i); }} matrix(\"m\", #{{ axes: #{{ n: n }} }}, |cell| {{}});"
    );
    let source = Source::new("x.rhai", script.as_str());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..7 {
        let host =
            Host::builder(Arc::clone(&bench.backend)).project(&bench.folder).build().unwrap();
        sandscript::run(&source, &host).await.result.unwrap();
        with.push(host.take_reports()[0].duration);
        tokio::time::sleep(Duration::from_millis(300)).await;
        without.push(timed_async(plain(bench, parallel, round)).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (with, without) = (median(with), median(without));
    let each = with.saturating_sub(without) / CELLS;
    table.row(
        format!("engine, for each of {CELLS} cells that do nothing"),
        ms(each),
        format!("matrix {}, its sandboxes alone {}", ms(with), ms(without)),
        "≤ 1 ms",
    );
}

/// As many sandboxes as the matrix makes, as many at once.
async fn plain(bench: &Bench, parallel: usize, round: usize) {
    let gate = Arc::new(Semaphore::new(parallel + parallel.clamp(1, 4)));
    let mut tasks = JoinSet::new();
    for index in 0..CELLS {
        let turn = Arc::clone(&gate).acquire_owned().await;
        let (backend, cancel) = (Arc::clone(&bench.backend), bench.cancel.clone());
        tasks.spawn(async move {
            let name = format!("bench-plain-{round}-{index}");
            backend.create(&Spec::new(&name), &cancel).await.unwrap();
            backend.delete(&name, &cancel).await.unwrap();
            drop(turn);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Many cells, in memory.
pub fn many(bench: &Bench, table: &mut Table) {
    let script = "let n = []; for i in 0..100 { n.push(i); }
        matrix(\"m\", #{ axes: #{ a: n, b: n }, parallel: 8 }, |cell| { cell.sandbox.run(\"echo x\"); });";
    std::fs::write(bench.folder.join("many.rhai"), script).unwrap();
    let lists = (0..5).map(|_| {
        let args = ["run", "many.rhai", "--list", "--backend", "fake"];
        timed(|| assert!(tool(bench, &args).wait().unwrap().success()))
    });
    let lists = median(lists.collect());
    table.row("10,000 cells listed, whole process", ms(lists), "", "≤ 1 s");
    let start = Instant::now();
    let (memory, code) = watched(tool(bench, &["run", "many.rhai", "--backend", "fake"]));
    assert_eq!(code, Some(0));
    table.row(
        "10,000 cells run in memory: peak memory",
        format!("{:.1} MiB", memory as f64 / 1024.0),
        format!("in {:.1} s", start.elapsed().as_secs_f64()),
        "≤ 128 MiB",
    );
}

/// The most memory it had, in KiB, and its exit code.
fn watched(mut child: Child) -> (u64, Option<i32>) {
    let mut most = 0;
    loop {
        most = most.max(peak(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            return (most, status.code());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// From Ctrl-C to the prompt, with 50 cells at work.
pub fn interrupt(bench: &Bench, table: &mut Table) {
    let script = "let n = []; for i in 0..50 { n.push(i); }
        matrix(\"m\", #{ axes: #{ n: n }, parallel: 50 }, |cell| { cell.sandbox.run(\"echo at work; sleep 1000\"); });";
    std::fs::write(bench.folder.join("interrupt.rhai"), script).unwrap();
    let file = bench.folder.join("interrupt.jsonl");
    let mut times = Vec::new();
    for _ in 0..7 {
        let _ = std::fs::remove_file(&file);
        let mut child =
            tool(bench, &["run", "interrupt.rhai", "--report", "jsonl=interrupt.jsonl"]);
        let at_work = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.matches("\"cell_output\"").count()
        };
        while at_work() < 50 {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = child.id().to_string();
        times.push(timed(|| {
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
            child.wait().unwrap();
        }));
    }
    table.row("Ctrl-C to the prompt, 50 cells running", ms(median(times)), "", "≤ 300 ms");
}

/// A cell that prints 100 MB, in turns with the same printed into `cat` into a file.
pub fn output(bench: &Bench, table: &mut Table) {
    let script = "let b = base(\"big\", |b| { b.run(\"seq 1 12749875 > /root/big\"); });
        matrix(\"m\", #{ from: b, axes: #{ n: [1] } }, |cell| {
            cell.sandbox.run(\"cat /root/big\", #{ max_output: \"64KiB\" });
        });";
    std::fs::write(bench.folder.join("output.rhai"), script).unwrap();
    let (big, copy) = (bench.folder.join("big"), bench.folder.join("big.copy"));
    let file = std::fs::File::create(&big).unwrap();
    assert!(Command::new("seq").args(["1", "12749875"]).stdout(file).status().unwrap().success());
    let (mut cells, mut cats) = (Vec::new(), Vec::new());
    let mut most = 0;
    for round in 0..7 {
        let args = ["run", "output.rhai", "--report", "trace=output.json"];
        let (memory, code) = watched(tool(bench, &args));
        assert_eq!(code, Some(0));
        let text = std::fs::read_to_string(bench.folder.join("output.json")).unwrap();
        let cell = took(&serde_json::from_str(&text).unwrap());
        let _ = std::fs::remove_file(&copy);
        // What prints is told from what keeps it, as in the cell: `cat` alone has the kernel copy the
        // file, and nothing is printed.
        let cat = timed(|| {
            let line = format!("cat {} | cat > {}", big.display(), copy.display());
            assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
        });
        // The first one fills caches, and builds the base.
        if round > 0 {
            cells.push(cell);
            cats.push(cat);
            most = most.max(memory);
        }
    }
    let (cell, cat) = (median(cells), median(cats));
    table.row(
        "a cell that prints 100 MB, kept on disk",
        ms(cell),
        format!(
            "{}; {:.1} MiB of memory",
            ratio(cell, cat, "the same through `cat` into a file"),
            most as f64 / 1024.0
        ),
        "≤ 1.5 × the same through `cat` into a file",
    );
}

/// How long the cell took, from a Chrome trace.
fn took(trace: &Value) -> Duration {
    let events = trace["traceEvents"].as_array().or_else(|| trace.as_array()).unwrap();
    let cell = events.iter().find(|event| {
        event["name"].as_str().is_some_and(|name| name.contains("n=1")) && event["dur"].is_number()
    });
    Duration::from_secs_f64(cell.unwrap()["dur"].as_f64().unwrap() / 1e6)
}
