//! Runs the cells of a matrix: clones ahead, runs the bodies side by side, deletes behind.

mod artifacts;
mod attempt;
mod cell;
mod executor;
mod lane;
mod pool;
mod sandbox;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::sandbox::{Cancel, Command, Output, Result};

use super::{
    Cell, CellInfo, Event, Failure, MatrixReport, MatrixSpec, OutputSink, RunContext, exec,
};
use executor::Executor;
use lane::Lanes;
pub(super) use sandbox::slug;

/// The label of the snapshot of the state that a cell failed in.
pub const FAILED_LABEL: &str = "failed";

/// What is done in each cell.
#[async_trait]
pub trait CellBody: Send + Sync {
    /// Runs one cell. It should end soon after [`CellContext::cancel`] is cancelled; one that does
    /// not is dropped. The cell's sandbox is deleted by the runner, however this ends.
    async fn run(&self, cell: CellContext) -> Result<(), Failure>;

    /// Whether there is something to do after each attempt.
    fn tears_down(&self) -> bool {
        false
    }

    /// Cleans up after an attempt, however it ended and also when the run was cancelled: the
    /// context's cancel is one of its own. A failure of it fails a cell that had not failed yet.
    async fn teardown(&self, _cell: CellContext) -> Result<(), Failure> {
        Ok(())
    }
}

/// A cell as its body sees it.
#[derive(Clone, Debug)]
pub struct CellContext {
    /// The run, with this cell's own cancel token and backend.
    pub run: RunContext,
    /// The matrix.
    pub matrix: String,
    /// The cell and its values.
    pub cell: Cell,
    /// Which attempt this is, from 1.
    pub attempt: usize,
    /// Name of its sandbox, which is running.
    pub sandbox: String,
    /// Where its commands' output goes.
    pub output: OutputSink,
}

impl CellContext {
    /// Cancelled when the cell has to end: on timeout, fail-fast, or the end of the run.
    pub fn cancel(&self) -> &Cancel {
        &self.run.cancel
    }

    /// Runs a command in the cell's sandbox, its output going to the cell's.
    pub async fn exec(&self, command: &Command) -> Result<Output> {
        exec(self.run.backend.as_ref(), &self.sandbox, command, &self.output, &self.run.cancel)
            .await
    }
}

/// Runs every selected cell of the matrix and tells how each ended.
///
/// An error is about the matrix itself, before any cell ran; what goes wrong in a cell is in its
/// report. When this returns, every sandbox it made is deleted, or kept and told so. Dropping the
/// future cancels the cells, which then clean up on their own.
pub async fn run_matrix(
    ctx: &RunContext,
    spec: MatrixSpec,
    body: Arc<dyn CellBody>,
) -> Result<MatrixReport> {
    let all = spec.expand()?;
    let total = all.len();
    let cells = spec.choose(all);
    let infos = cells.iter().map(|c| CellInfo { id: c.id.clone(), values: c.values.clone() });
    let infos: Vec<CellInfo> = infos.collect();
    let name = spec.name.clone();
    if spec.list {
        ctx.events.send(Event::CellList { matrix: name.clone(), cells: infos });
        return Ok(MatrixReport { name, total, listed: true, ..MatrixReport::default() });
    }
    if let Some(limits) = &spec.cell.limits {
        limits.check()?;
    }
    let lanes = Lanes::new(ctx, &spec, &cells).await;
    let started = Instant::now();
    ctx.events.send(Event::MatrixStarted {
        matrix: name.clone(),
        cells: infos,
        total,
        parallel: lanes.parallel,
        order: spec.order,
        seed: spec.seed,
    });
    let memory = spec.memory.clone();
    let executor = Executor::new(ctx, spec, body, lanes);
    let cells = match memory {
        Some(memory) => executor.run_changed(cells, memory.as_ref()).await,
        None => executor.run(cells).await,
    };
    let report = MatrixReport {
        name: name.clone(),
        cells,
        total,
        listed: false,
        duration: started.elapsed(),
    };
    let (counts, duration) = (report.counts(), report.duration);
    ctx.events.send(Event::MatrixEnded { matrix: name, counts, duration });
    Ok(report)
}
