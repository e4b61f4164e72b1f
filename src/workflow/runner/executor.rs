//! Owns the cells of one matrix.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::sandbox::Cancel;

use super::super::{Cell, CellMemory, CellReport, Event, Failure, MatrixSpec, Order, RunContext};
use super::CellBody;
use super::cell::One;

/// Owns the cells of one matrix.
pub(super) struct Executor {
    shared: Arc<Shared>,
    /// How many sandboxes are in use or made ahead.
    live: Arc<Semaphore>,
    /// How many there are at all: these, and those being deleted.
    slots: Arc<Semaphore>,
}

/// What all cells of a matrix share.
pub(super) struct Shared {
    pub ctx: RunContext,
    pub spec: MatrixSpec,
    pub body: Arc<dyn CellBody>,
    /// How many bodies run at once. Fair, so that cells start in order.
    pub bodies: Arc<Semaphore>,
    /// How many turns there are.
    parallel: usize,
    /// Cancels this matrix only.
    pub cancel: Cancel,
    /// Part of the names of its sandboxes.
    pub tag: String,
    /// How many cells failed.
    failed: AtomicUsize,
    /// Of how many cells the state they failed in is kept.
    pub kept: AtomicUsize,
    /// Sandboxes that could not be deleted because nobody answered.
    pub lost: Mutex<Vec<String>>,
}

impl Executor {
    pub fn new(
        ctx: &RunContext,
        spec: MatrixSpec,
        body: Arc<dyn CellBody>,
        parallel: usize,
    ) -> Self {
        static MATRICES: AtomicU64 = AtomicU64::new(0);
        let number = MATRICES.fetch_add(1, Ordering::Relaxed);
        let tag = blake3::hash(format!("{} {} {number}", ctx.run, ctx.owner.host).as_bytes());
        let ahead = parallel.clamp(1, 4);
        Executor {
            live: Arc::new(Semaphore::new(parallel + ahead)),
            slots: Arc::new(Semaphore::new(2 * parallel + ahead)),
            shared: Arc::new(Shared {
                cancel: ctx.cancel.child_token(),
                ctx: ctx.clone(),
                spec,
                body,
                bodies: Arc::new(Semaphore::new(parallel)),
                parallel,
                tag: tag.to_hex()[..6].to_string(),
                failed: AtomicUsize::new(0),
                kept: AtomicUsize::new(0),
                lost: Mutex::default(),
            }),
        }
    }

    /// Runs only the cells that can't be taken as they were before.
    pub async fn run_changed(self, cells: Vec<Cell>, memory: &dyn CellMemory) -> Vec<CellReport> {
        let mut known = Vec::with_capacity(cells.len());
        for cell in &cells {
            let duration = memory.unchanged(cell).await;
            let report = duration.map(|duration| CellReport::unchanged(cell.clone(), duration));
            report.iter().for_each(|report| self.shared.tell(report));
            known.push(report);
        }
        let left = cells.into_iter().zip(&known).filter(|(_, known)| known.is_none());
        let left: Vec<Cell> = left.map(|(cell, _)| cell).collect();
        let mut ran = self.run(left).await.into_iter();
        known.into_iter().filter_map(|known| known.or_else(|| ran.next())).collect()
    }

    pub async fn run(self, cells: Vec<Cell>) -> Vec<CellReport> {
        // When this future is dropped, the cells' own tasks clean up.
        let _guard = self.shared.cancel.clone().drop_guard();
        let (ended, mut reports) = mpsc::unbounded_channel();
        let mut done: Vec<Option<CellReport>> = cells.iter().map(|_| None).collect();
        let spec = &self.shared.spec;
        let single = self.shared.bodies.available_permits() == 1;
        let order = match spec.order {
            // One after the other takes as long in any order; this one can be followed.
            Order::Longest if single => Order::Given,
            order => order,
        };
        for index in order.of(&cells, spec.seed, &spec.times) {
            let permits = async {
                let live = Arc::clone(&self.live).acquire_owned().await.ok();
                (live, Arc::clone(&self.slots).acquire_owned().await.ok())
            };
            let (live, slot) = tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => break,
                permits = permits => permits,
            };
            let shared = Arc::clone(&self.shared);
            let mut turn = shared.turn(&cells[index]);
            if single {
                // In the queue now, so that the order is kept whoever's sandbox is ready first.
                turn.queue().await;
            }
            let one = One { shared, cell: cells[index].clone(), index, live, slot, turn };
            // The last sender's drop tells that all deletes are done, too.
            let ended = ended.clone();
            tokio::spawn(async move { one.run(&ended).await });
            while let Ok((index, report)) = reports.try_recv() {
                done[index] = Some(report);
            }
        }
        drop(ended);
        while let Some((index, report)) = reports.recv().await {
            done[index] = Some(report);
        }
        self.shared.delete_lost().await;
        let left = |(cell, report): (Cell, Option<CellReport>)| {
            report.unwrap_or_else(|| {
                let report = CellReport::not_run(cell);
                self.shared.tell(&report);
                report
            })
        };
        cells.into_iter().zip(done).map(left).collect()
    }
}

/// A place in the queue for a turn.
pub(super) struct Turn {
    waiting: Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>,
    given: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Takes the place, and does not wait.
    async fn queue(&mut self) {
        let now = std::future::poll_fn(|cx| Poll::Ready(self.waiting.as_mut().poll(cx))).await;
        if let Poll::Ready(given) = now {
            self.given = given;
        }
    }

    /// Waits for the turn.
    pub async fn wait(mut self) -> Option<OwnedSemaphorePermit> {
        match self.given.take() {
            Some(given) => Some(given),
            None => self.waiting.await,
        }
    }
}

impl Shared {
    /// A turn to run a body.
    pub fn turn(&self, cell: &Cell) -> Turn {
        let bodies = Arc::clone(&self.bodies);
        let weight = self.spec.own.get(&cell.id).map_or(1, |own| own.weight.max(1));
        // A cell that is too heavy for the whole matrix runs alone.
        let weight = u32::try_from(weight.min(self.parallel)).unwrap_or(u32::MAX);
        let waiting = Box::pin(async move { bodies.acquire_many_owned(weight).await.ok() });
        Turn { waiting, given: None }
    }

    /// Notes that a cell failed for good; ends the matrix when it may have no more of them.
    pub fn count_failure(&self) {
        let failed = self.failed.fetch_add(1, Ordering::SeqCst) + 1;
        if self.spec.max_fail.is_some_and(|most| failed >= most) {
            self.cancel.cancel();
        }
    }

    pub fn tell(&self, report: &CellReport) {
        self.ctx.events.send(Event::CellEnded {
            matrix: self.spec.name.clone(),
            cell: report.cell.id.clone(),
            outcome: report.outcome,
            duration: report.duration,
            message: report.failure.as_ref().map(Failure::to_string),
            hint: report.failure.as_ref().and_then(Failure::hint),
            tail: report.tail.clone(),
            unchanged: report.unchanged,
            attempts: report.attempts,
            place: report.failure.as_ref().and_then(|failure| failure.place().cloned()),
            enter: report.enter.clone(),
            usage: report.usage,
            artifacts: report.artifacts.as_ref().map(|folder| folder.display().to_string()),
        });
    }
}
