//! How a matrix ended.

use std::path::PathBuf;
use std::time::Duration;

use super::super::{CellEgress, Failure, Machine, Usage};
use super::{Cell, Counts, Outcome};

/// How one cell ended.
#[derive(Clone, Debug)]
pub struct CellReport {
    /// The cell.
    pub cell: Cell,
    /// How it ended.
    pub outcome: Outcome,
    /// How long its body took, at the last attempt.
    pub duration: Duration,
    /// Why it did not pass, or why it is flaky, skipped or expected to fail.
    pub failure: Option<Failure>,
    /// The end of what its commands printed; empty when it passed.
    pub tail: String,
    /// Its sandbox, when it was kept.
    pub kept: Option<String>,
    /// Where it ran, when that is not what the run began with.
    pub machine: Option<Machine>,
    /// Whether it did not run, because it passed before with all that it depends on as it is now.
    /// Its duration is that of the time before.
    pub unchanged: bool,
    /// How often it was tried; 0 when it was not run.
    pub attempts: usize,
    /// What `sandscript enter` takes to open a shell in the state it failed in.
    pub enter: Option<String>,
    /// What its sandbox took of the machine, at the last attempt.
    pub usage: Usage,
    /// The folder its artifacts were copied to.
    pub artifacts: Option<PathBuf>,
    /// What it was refused and what it reached, at the last attempt.
    pub egress: CellEgress,
    /// The members of a cluster that went away while it was on them: it began again elsewhere each
    /// time, beside the attempts that it may have.
    pub moved: Vec<String>,
}

impl CellReport {
    /// A cell that never started.
    pub(crate) fn not_run(cell: Cell) -> Self {
        CellReport {
            cell,
            outcome: Outcome::NotRun,
            duration: Duration::ZERO,
            failure: None,
            tail: String::new(),
            kept: None,
            machine: None,
            unchanged: false,
            attempts: 0,
            enter: None,
            usage: Usage::default(),
            artifacts: None,
            egress: CellEgress::default(),
            moved: Vec::new(),
        }
    }

    /// A cell that need not run again.
    pub(crate) fn unchanged(cell: Cell, duration: Duration) -> Self {
        let not_run = CellReport::not_run(cell);
        CellReport { outcome: Outcome::Passed, duration, unchanged: true, attempts: 1, ..not_run }
    }
}

/// How a matrix ended.
#[derive(Clone, Debug, Default)]
pub struct MatrixReport {
    /// The matrix.
    pub name: String,
    /// Its selected cells, in order.
    pub cells: Vec<CellReport>,
    /// How many cells the matrix has, selected or not.
    pub total: usize,
    /// Whether the cells were listed and not run; there are no reports of them then.
    pub listed: bool,
    /// From the first clone to the last end.
    pub duration: Duration,
}

impl MatrixReport {
    /// Whether every selected cell ended well. Also when none was selected, which
    /// [`MatrixReport::nothing_selected`] tells apart.
    pub fn ok(&self) -> bool {
        self.cells.iter().all(|cell| cell.outcome.ok())
    }

    /// Whether the filter selected no cell.
    pub fn nothing_selected(&self) -> bool {
        self.cells.is_empty() && !self.listed
    }

    /// How many ended how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.cells.iter().for_each(|cell| counts.add(cell.outcome));
        counts
    }

    /// The cells that did not end well.
    pub fn failures(&self) -> impl Iterator<Item = &CellReport> {
        self.cells.iter().filter(|cell| !cell.outcome.ok())
    }
}
