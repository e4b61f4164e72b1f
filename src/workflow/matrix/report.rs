//! How a matrix ended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Failure;
use super::Cell;

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its body returned.
    Passed,
    /// Its body failed, or its sandbox could not be made.
    Failed,
    /// Its body took too long.
    TimedOut,
    /// It was stopped, by the user or because another cell failed.
    Cancelled,
    /// It never started, for the same reasons.
    NotRun,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed out",
            Outcome::Cancelled => "cancelled",
            Outcome::NotRun => "not run",
        })
    }
}

/// How many cells ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`Outcome::Passed`].
    pub passed: usize,
    /// [`Outcome::Failed`].
    pub failed: usize,
    /// [`Outcome::TimedOut`].
    pub timed_out: usize,
    /// [`Outcome::Cancelled`].
    pub cancelled: usize,
    /// [`Outcome::NotRun`].
    pub not_run: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed => &mut self.failed,
            Outcome::TimedOut => &mut self.timed_out,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::NotRun => &mut self.not_run,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.passed + self.failed + self.timed_out + self.cancelled + self.not_run
    }
}

impl fmt::Display for Counts {
    /// `10 passed, 1 failed, 1 not run`; what is zero is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.passed, Outcome::Passed),
            (self.failed, Outcome::Failed),
            (self.timed_out, Outcome::TimedOut),
            (self.cancelled, Outcome::Cancelled),
            (self.not_run, Outcome::NotRun),
        ];
        let words: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, outcome)| format!("{count} {outcome}"))
            .collect();
        f.write_str(&words.join(", "))
    }
}

/// How one cell ended.
#[derive(Clone, Debug)]
pub struct CellReport {
    /// The cell.
    pub cell: Cell,
    /// How it ended.
    pub outcome: Outcome,
    /// How long its body took.
    pub duration: Duration,
    /// Why it did not pass.
    pub failure: Option<Failure>,
    /// The end of what its commands printed.
    pub tail: String,
    /// Its sandbox, when it was kept.
    pub kept: Option<String>,
    /// Whether it did not run, because it passed before with all that it depends on as it is now.
    /// Its duration is that of the time before.
    pub unchanged: bool,
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
    /// Whether every selected cell passed. Also when none was selected, which
    /// [`MatrixReport::nothing_selected`] tells apart.
    pub fn ok(&self) -> bool {
        self.cells.iter().all(|cell| cell.outcome == Outcome::Passed)
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

    /// The cells that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &CellReport> {
        self.cells.iter().filter(|cell| cell.outcome != Outcome::Passed)
    }
}
