//! Owns the cells of one matrix.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::sandbox::{Cancel, Capability, Error, Stock};

use super::super::{
    Cell, CellMemory, CellReport, Event, Failure, MatrixSpec, Order, RunContext, Source,
};
use super::CellBody;
use super::cell::One;
use super::lane::{Lane, Lanes};
use super::pool::Pool;

/// Owns the cells of one matrix.
pub(super) struct Executor {
    shared: Arc<Shared>,
    lanes: Lanes,
}

/// What all cells of a matrix share.
pub(super) struct Shared {
    pub ctx: RunContext,
    pub spec: MatrixSpec,
    pub body: Arc<dyn CellBody>,
    /// Cancels this matrix only.
    pub cancel: Cancel,
    /// Part of the names of its sandboxes.
    pub tag: String,
    /// How many cells failed.
    failed: AtomicUsize,
    /// Of how many cells the state they failed in is kept.
    pub kept: AtomicUsize,
    /// Sandboxes that could not be deleted because nobody answered.
    pub lost: Mutex<Vec<(Arc<Lane>, String)>>,
}

impl Executor {
    pub fn new(ctx: &RunContext, spec: MatrixSpec, body: Arc<dyn CellBody>, lanes: Lanes) -> Self {
        static MATRICES: AtomicU64 = AtomicU64::new(0);
        let number = MATRICES.fetch_add(1, Ordering::Relaxed);
        let tag = blake3::hash(format!("{} {} {number}", ctx.run, ctx.owner.host).as_bytes());
        Executor {
            lanes,
            shared: Arc::new(Shared {
                cancel: ctx.cancel.child_token(),
                ctx: ctx.clone(),
                spec,
                body,
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

    /// Lets clusters make ready what the cells are made from, wherever they may come to be.
    async fn prepare(&self, cells: &[Cell]) {
        let spec = &self.shared.spec;
        let mut stocks = BTreeSet::new();
        for cell in cells {
            let lane = self.lanes.of(cell);
            if !self.lanes.all[lane].ctx.backend.capabilities().has(Capability::Cluster) {
                continue;
            }
            let (sandbox, label) = match spec.source(cell) {
                Source::Base(base) => (&base.sandbox, Some(&base.label)),
                Source::Snapshot { sandbox, label } => (sandbox, label.as_ref()),
                Source::Image { image, .. } => {
                    stocks.insert((lane, Stock::Image(image.clone()), spec.target(cell)));
                    continue;
                }
            };
            // What it is now can't be made ready: it is copied for each cell.
            if let Some(label) = label {
                let stock = Stock::Snapshot { sandbox: sandbox.clone(), label: label.clone() };
                stocks.insert((lane, stock, spec.target(cell)));
            }
        }
        for (lane, stock, target) in stocks {
            let backend = &self.lanes.all[lane].ctx.backend;
            match backend.prepare(&stock, target, &self.shared.cancel).await {
                // What is not there, or may not be, the cells say themselves.
                Ok(())
                | Err(Error::Cancelled | Error::NotFound { .. } | Error::InvalidInput { .. }) => {}
                Err(error) => self.shared.ctx.events.send(Event::Warning {
                    message: format!("the cluster could not be made ready: {error}"),
                    hint: error.hint(),
                }),
            }
        }
    }

    pub async fn run(self, cells: Vec<Cell>) -> Vec<CellReport> {
        // When this future is dropped, the cells' own tasks clean up.
        let _guard = self.shared.cancel.clone().drop_guard();
        let (ended, mut reports) = mpsc::unbounded_channel();
        let mut done: Vec<Option<CellReport>> = cells.iter().map(|_| None).collect();
        let spec = &self.shared.spec;
        let order = match spec.order {
            // One after the other takes as long in any order; this one can be followed.
            Order::Longest if self.lanes.parallel == 1 => Order::Given,
            order => order,
        };
        let single = self.lanes.parallel == 1;
        self.prepare(&cells).await;
        // Each backend at its own pace, unless it is one cell after the other.
        let mut queues: Vec<Vec<(usize, Arc<Lane>)>> =
            self.lanes.all.iter().map(|_| Vec::new()).collect();
        for index in order.of(&cells, spec.seed, &spec.times) {
            let lane = self.lanes.of(&cells[index]);
            let queue = if single { 0 } else { lane };
            queues[queue].push((index, Arc::clone(&self.lanes.all[lane])));
        }
        let cells: Arc<[Cell]> = cells.into();
        for queue in queues {
            let (shared, cells) = (Arc::clone(&self.shared), Arc::clone(&cells));
            tokio::spawn(feed(shared, cells, queue, single, ended.clone()));
        }
        let pools = self.lanes.all.iter().filter_map(|lane| {
            let pool = Arc::clone(lane.pool.as_ref()?);
            let (shared, lane) = (Arc::clone(&self.shared), Arc::clone(lane));
            let filling = Arc::clone(&pool);
            Some((pool, tokio::spawn(async move { shared.keep_full(&lane, &filling).await })))
        });
        let pools: Vec<_> = pools.collect();
        // The last sender's drop tells that all deletes are done, too.
        drop(ended);
        while let Some((index, report)) = reports.recv().await {
            done[index] = Some(report);
        }
        pools.iter().for_each(|(pool, _)| pool.close());
        self.shared.delete_lost().await;
        for (_, filled) in pools {
            let _ = filled.await;
        }
        let left = |(cell, report): (&Cell, Option<CellReport>)| {
            report.unwrap_or_else(|| {
                let report = CellReport::not_run(cell.clone());
                self.shared.tell(&report);
                report
            })
        };
        cells.iter().zip(done).map(left).collect()
    }
}

/// Starts cells in this order, each in its lane.
async fn feed(
    shared: Arc<Shared>,
    cells: Arc<[Cell]>,
    queue: Vec<(usize, Arc<Lane>)>,
    single: bool,
    ended: mpsc::UnboundedSender<(usize, CellReport)>,
) {
    for (index, lane) in queue {
        let permits = async {
            let live = Arc::clone(&lane.live).acquire_owned().await.ok();
            (live, Arc::clone(&lane.slots).acquire_owned().await.ok())
        };
        let (live, slot) = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            permits = permits => permits,
        };
        let cell = cells[index].clone();
        let mut turn = lane.turn(shared.weight(&cell));
        if single {
            // In the queue now, so that the order is kept whoever's sandbox is ready first.
            turn.queue().await;
        }
        let shared = Arc::clone(&shared);
        let one = One { shared, lane, cell, index, live, slot, turn };
        let ended = ended.clone();
        tokio::spawn(async move { one.run(&ended).await });
    }
}

impl Shared {
    /// Makes what is to wait for cells, as it is taken.
    async fn keep_full(&self, lane: &Lane, pool: &Pool) {
        let done = tokio::select! {
            done = pool.keep_full(lane.ctx.backend.as_ref(), &self.cancel) => done,
            () = self.cancel.cancelled() => return,
        };
        if let Err(error) = done.or_else(|error| match error {
            Error::Cancelled => Ok(()),
            error => Err(error),
        }) {
            self.ctx.events.send(Event::Warning {
                message: format!("no sandbox could be made ahead for later runs: {error}"),
                hint: error.hint(),
            });
        }
    }

    /// Of how many turns a cell takes the place.
    pub fn weight(&self, cell: &Cell) -> usize {
        self.spec.own.get(&cell.id).map_or(1, |own| own.weight.max(1))
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
            egress: report.egress.clone(),
            moved: report.moved.clone(),
        });
    }
}
