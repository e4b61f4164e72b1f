//! sandscript against its peers: medians of interleaved runs, as a Markdown table.
//!
//! `cargo bench --bench peers`; with `-- --write` the table goes into `docs/performance.md`, or
//! `docs/performance-user.md` as an ordinary user; with `-- --watch` only `watch`, with `-- --repl` only
//! the repl, with `-- --languages` only the languages, with `-- --engine` only the engine is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod engine;
mod facts;
mod languages;
mod library;
mod peers;
mod table;
mod tool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandscript::backend;
use sandscript::sandbox::{Backend, Cancel};

use table::Table;

/// What every measurement works with.
pub struct Bench {
    /// The backend, on a store of its own.
    pub backend: Arc<dyn Backend>,
    /// Never cancelled.
    pub cancel: Cancel,
    /// The store, for the program.
    pub store: std::path::PathBuf,
    /// A folder to work in.
    pub folder: std::path::PathBuf,
}

fn main() {
    backend::local::init();
    let asked = |flag: &str| std::env::args().any(|arg| arg == flag);
    let write = asked("--write");
    let temp = tempfile::Builder::new().prefix("sandscript-bench-").tempdir_in("/var/tmp").unwrap();
    let store = temp.path().join("store");
    let mut table = Table::default();
    // One alone, while it is worked on.
    if !asked("--watch") && !asked("--repl") && !asked("--engine") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(languages::languages(&mut table));
    }
    if !asked("--languages") {
        // With one thread, a call does not pay for being handed from one to the other.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config =
                backend::Config { store: Some(store.clone()), ..backend::Config::default() };
            let bench = Bench {
                backend: backend::open("local", &config).await.unwrap(),
                cancel: Cancel::new(),
                store,
                folder: temp.path().to_owned(),
            };
            if asked("--engine") {
                return engines(&bench, &mut table).await;
            }
            if asked("--repl") {
                return tool::prompt(&bench, &mut table);
            }
            if asked("--watch") {
                return tool::watch(&bench, &mut table);
            }
            library::launch(&bench, &mut table).await;
            library::snapshots(&bench, &mut table).await;
            library::frozen(&bench, &mut table).await;
            library::idle(&bench, &mut table).await;
            tool::start(&bench, &mut table);
            tool::prompt(&bench, &mut table);
            tool::watch(&bench, &mut table);
            tool::matrix(&bench, &mut table);
            engines(&bench, &mut table).await;
        });
    }
    let text = format!("{}\n{table}", facts::facts());
    println!("{text}");
    if write {
        let name = match rustix::process::geteuid().is_root() {
            true => "performance.md",
            false => "performance-user.md",
        };
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        std::fs::write(file, format!("{}{text}", include_str!("head.md"))).unwrap();
    }
}

/// What matrices cost beyond their sandboxes.
async fn engines(bench: &Bench, table: &mut Table) {
    engine::overhead(bench, table).await;
    engine::many(bench, table);
    engine::interrupt(bench, table);
    engine::output(bench, table);
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How long `work` took.
pub fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// How long `work` took.
pub async fn timed_async<T>(work: impl Future<Output = T>) -> Duration {
    let start = Instant::now();
    work.await;
    start.elapsed()
}
