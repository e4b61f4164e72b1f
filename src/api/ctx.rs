//! What a script function knows about the run it is called in.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::lazy::Building;
use super::memory::{Reading, Trace, Writing};
use super::{Budget, ErrorKind, Host, Result, ScriptError};
use crate::sandbox::{self, Backend, Cancel, format_duration};
use crate::transfer::PackOptions;
use crate::workflow::{Event, Level, RunContext};

/// What a handler works with. Cheap to clone.
#[derive(Clone)]
pub struct Ctx {
    /// The run's host.
    pub host: Arc<Host>,
    /// Ends the body that calls.
    pub stop: Arc<Stop>,
    /// The cell of a matrix that the body belongs to.
    pub cell: Option<Arc<str>>,
    /// How many bodies wait for this one.
    pub(super) depth: usize,
    /// What a cell made.
    pub(super) made: Option<Arc<Mutex<Made>>>,
    /// Where what a cell reads is written down.
    pub(super) trace: Option<Arc<Trace>>,
    /// What a cell says of itself.
    pub(super) says: Option<Arc<Says>>,
    /// The base that is built by the body.
    pub(super) building: Option<Arc<Building>>,
    /// Where the end of what a base printed goes that could not be built.
    pub(super) tail: Option<Arc<Mutex<String>>>,
}

/// Sandboxes, and whose backend they are on.
type Made = Vec<(Arc<Host>, String)>;

/// What a cell says of itself, whatever its script catches.
#[derive(Debug, Default)]
pub(super) struct Says {
    /// Why there is nothing to do in it.
    pub skip: OnceLock<String>,
    /// Why it is expected to fail.
    pub expect_fail: OnceLock<String>,
}

/// How deep bodies may call bodies through the host.
const DEPTH: usize = 16;

impl Ctx {
    /// The backend that sandboxes are made on.
    pub fn backend(&self) -> &dyn Backend {
        &*self.host.run.backend
    }

    /// The token that backend calls take.
    pub fn cancel(&self) -> &Cancel {
        &self.stop.cancel
    }

    /// The run as the workflow knows it, ended by what ends this body.
    pub fn run(&self) -> RunContext {
        RunContext { cancel: self.stop.cancel.clone(), ..self.host.run.clone() }
    }

    /// Prints a line of the script.
    pub fn print(&self, text: &str) {
        match &self.host.print {
            Some(print) => print(&self.host.run.events.mask().text(text)),
            None => self.host.run.events.send(Event::Print {
                text: text.to_owned(),
                cell: self.cell.as_deref().map(str::to_owned),
            }),
        }
    }

    /// Logs a line.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        let cell = self.cell.as_deref().map(str::to_owned);
        self.host.run.events.send(Event::Log { level, text: text.into(), cell });
    }

    /// The context of a script's main body.
    pub(super) fn main(host: Arc<Host>, stop: Arc<Stop>) -> Ctx {
        Ctx {
            host,
            stop,
            cell: None,
            depth: 0,
            made: None,
            trace: None,
            says: None,
            building: None,
            tail: None,
        }
    }

    /// The same for a function that the host calls on behalf of this body.
    pub fn deeper(&self) -> Result<Ctx> {
        if self.depth >= DEPTH {
            return Err(ScriptError::runtime(format!(
                "functions call each other through the host deeper than {DEPTH} levels"
            ))
            .hint("a function that leads to itself must come to an end"));
        }
        Ok(Ctx { depth: self.depth + 1, ..self.clone() })
    }

    /// The same run for a cell on the backend of `host`, which `cancel` ends as well.
    pub(super) fn in_cell(&self, host: &Arc<Host>, cancel: &Cancel, cell: &str) -> Ctx {
        Ctx {
            host: Arc::clone(host),
            stop: Stop::within(&self.stop, cancel),
            cell: Some(cell.into()),
            depth: self.depth,
            made: Some(Arc::default()),
            trace: None,
            says: Some(Arc::default()),
            building: self.building.clone(),
            tail: None,
        }
    }

    /// The context of what cleans up after a cell: only `cancel` ends it, not the end of the run.
    pub(super) fn after_cell(&self, host: &Arc<Host>, cancel: &Cancel, cell: &str) -> Ctx {
        Ctx { stop: Stop::beside(&self.stop, cancel), ..self.in_cell(host, cancel, cell) }
    }

    /// A base could not be built, and this is the end of what it printed.
    pub(super) fn base_failed(&self, tail: &str) {
        if let Some(slot) = &self.tail {
            tail.clone_into(&mut slot.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Remembers that the body made this sandbox: it goes with its cell or with the run.
    pub(super) fn track(&self, name: &str, keep: bool) {
        self.host.track(name, keep);
        if let Some(made) = &self.made {
            let made_here = (Arc::clone(&self.host), name.to_owned());
            made.lock().unwrap_or_else(PoisonError::into_inner).push(made_here);
        }
    }

    /// Deletes what the cell made and did not keep. What fails is left to the end of the run.
    pub(super) async fn leave_cell(&self) {
        let Some(made) = &self.made else { return };
        let made = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
        for (host, name) in made.into_iter().filter(|(host, name)| host.is_live(name)) {
            if host.run.backend.delete(&name, &Cancel::new()).await.is_ok() {
                host.forget(&name);
            }
        }
    }

    /// The body is about to read a host file or tree, or to find that it is missing.
    pub(super) async fn reading(&self, path: &Path, options: &PackOptions) -> Option<Reading> {
        let recorder = self.host.recorder()?;
        Some(recorder.reading(path, options, self.trace.clone()).await)
    }

    /// The body is about to write a host file or tree, until what is returned is dropped.
    pub(super) fn writing(&self, path: &Path) -> Option<Writing> {
        Some(self.host.recorder()?.writing(path, self.trace.clone()))
    }

    /// A domain error, or the stop when that is what caused it.
    pub fn error(&self, error: sandbox::Error) -> ScriptError {
        match self.stop.check() {
            Err(stopped) if matches!(error, sandbox::Error::Cancelled) => stopped,
            _ => error.into(),
        }
    }
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("cell", &self.cell).finish_non_exhaustive()
    }
}

/// A cancel and a deadline that stick: once set, every check fails, and no `try` in a script can
/// eat it.
#[derive(Debug)]
pub struct Stop {
    reason: AtomicU8,
    /// Cancelled when the body must end, for whatever reason.
    pub cancel: Cancel,
    limit: Duration,
    started: Instant,
    parent: Option<Arc<Stop>>,
    /// What all bodies of the run share.
    pub budget: Arc<Budget>,
    watcher: std::sync::OnceLock<tokio::task::AbortHandle>,
}

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const TIMEOUT: u8 = 2;
const OPERATIONS: u8 = 3;
const MEMORY: u8 = 4;

impl Stop {
    /// Stops when `cancel` is cancelled, after `limit`, or when the budget is used up. Needs a
    /// running tokio runtime.
    pub fn new(cancel: &Cancel, limit: Option<Duration>, budget: Budget) -> Arc<Stop> {
        Self::watch(cancel, limit, Arc::new(budget), None)
    }

    /// Stops when `parent` does or `cancel` is cancelled.
    pub fn within(parent: &Arc<Stop>, cancel: &Cancel) -> Arc<Stop> {
        Self::watch(cancel, None, Arc::clone(&parent.budget), Some(Arc::clone(parent)))
    }

    /// Stops when `cancel` is cancelled, or when the budget that it shares with `other` is used up.
    pub fn beside(other: &Arc<Stop>, cancel: &Cancel) -> Arc<Stop> {
        Self::watch(cancel, None, Arc::clone(&other.budget), None)
    }

    fn watch(
        cancel: &Cancel,
        limit: Option<Duration>,
        budget: Arc<Budget>,
        parent: Option<Arc<Stop>>,
    ) -> Arc<Stop> {
        let stop = Arc::new(Stop {
            reason: AtomicU8::new(RUNNING),
            cancel: cancel.child_token(),
            limit: limit.unwrap_or(Duration::MAX),
            started: Instant::now(),
            parent: parent.clone(),
            budget,
            watcher: std::sync::OnceLock::new(),
        });
        let (weak, own) = (Arc::downgrade(&stop), stop.cancel.clone());
        let above = parent.map(|parent| parent.cancel.clone());
        let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
        let task = tokio::spawn(async move {
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let above = async {
                match above {
                    Some(above) => above.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let reason = tokio::select! {
                () = own.cancelled() => CANCELLED,
                () = above => CANCELLED,
                () = over => TIMEOUT,
            };
            if let Some(stop) = weak.upgrade() {
                stop.set(reason);
            }
        });
        let _ = stop.watcher.set(task.abort_handle());
        stop
    }

    fn set(&self, reason: u8) {
        let _ = self.reason.compare_exchange(RUNNING, reason, Ordering::Relaxed, Ordering::Relaxed);
        self.cancel.cancel();
    }

    /// Takes note of operations that the body did; ends the run when it may do no more.
    pub fn spend(&self, operations: u64) {
        if !self.budget.spend(operations) {
            self.exceed(OPERATIONS);
        }
    }

    /// Ends the run when the process has grown by more than its scripts may take.
    pub fn weigh(&self) {
        if self.budget.outgrown() {
            self.out_of_memory();
        }
    }

    /// Ends the run: its scripts take more memory than they may.
    pub fn out_of_memory(&self) {
        self.exceed(MEMORY);
    }

    fn exceed(&self, reason: u8) {
        if let Some(parent) = &self.parent {
            parent.exceed(reason);
        }
        self.set(reason);
    }

    /// Whether the body must end. One relaxed load.
    pub fn stopped(&self) -> bool {
        self.reason.load(Ordering::Relaxed) != RUNNING
    }

    /// Ok while the body may go on.
    pub fn check(&self) -> Result<()> {
        if self.stopped() || self.cancel.is_cancelled() { Err(self.error()) } else { Ok(()) }
    }

    /// Why the body must end.
    pub fn error(&self) -> ScriptError {
        match self.reason.load(Ordering::Relaxed) {
            OPERATIONS => return self.budget.too_many_operations(),
            MEMORY => return self.budget.too_much_memory(),
            _ => {}
        }
        // The token may be cancelled a moment before the watcher has said why.
        if self.reason.load(Ordering::Relaxed) == TIMEOUT || self.started.elapsed() >= self.limit {
            return ScriptError::new(
                ErrorKind::Timeout,
                format!("the run took longer than {}", format_duration(self.limit)),
            )
            .hint("allow it more with --timeout");
        }
        match &self.parent {
            Some(parent) if parent.stopped() => parent.error(),
            _ => ScriptError::new(ErrorKind::Cancelled, "the run was cancelled"),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(task) = self.watcher.get() {
            task.abort();
        }
    }
}
