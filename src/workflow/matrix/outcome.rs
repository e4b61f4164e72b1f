//! How a cell can end, and how many ended how.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its body returned, at the first attempt.
    Passed,
    /// An attempt failed, and a later one passed.
    Flaky,
    /// Its body said that there is nothing to do in it.
    Skipped,
    /// Its body failed, as it said it would.
    ExpectedFailure,
    /// Its body failed, or its sandbox could not be made.
    Failed,
    /// Its body took too long.
    TimedOut,
    /// It was stopped, by the user or because other cells failed.
    Cancelled,
    /// It never started, for the same reasons.
    NotRun,
}

impl Outcome {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Outcome; 8] = [
        Outcome::Passed,
        Outcome::Flaky,
        Outcome::ExpectedFailure,
        Outcome::Skipped,
        Outcome::Failed,
        Outcome::TimedOut,
        Outcome::Cancelled,
        Outcome::NotRun,
    ];

    /// Whether it is a reason to be content.
    pub fn ok(self) -> bool {
        matches!(
            self,
            Outcome::Passed | Outcome::Flaky | Outcome::Skipped | Outcome::ExpectedFailure
        )
    }

    /// Whether something went wrong in it, as opposed to never having come to an end.
    pub fn failed(self) -> bool {
        matches!(self, Outcome::Failed | Outcome::TimedOut)
    }

    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Flaky => "flaky",
            Outcome::Skipped => "skipped",
            Outcome::ExpectedFailure => "expected_failure",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Cancelled => "cancelled",
            Outcome::NotRun => "not_run",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::ExpectedFailure => "expected failure",
            Outcome::TimedOut => "timed out",
            Outcome::NotRun => "not run",
            other => other.word(),
        })
    }
}

/// How many cells ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// [`Outcome::Passed`].
    pub passed: usize,
    /// [`Outcome::Flaky`].
    pub flaky: usize,
    /// [`Outcome::ExpectedFailure`].
    pub expected_failure: usize,
    /// [`Outcome::Skipped`].
    pub skipped: usize,
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
        *self.place(outcome) += 1;
    }

    /// How many ended like this.
    pub fn of(&self, outcome: Outcome) -> usize {
        *self.clone().place(outcome)
    }

    /// All of them.
    pub fn total(&self) -> usize {
        Outcome::ALL.into_iter().map(|outcome| self.of(outcome)).sum()
    }

    /// Those that are a reason to be content.
    pub fn ok(&self) -> usize {
        Outcome::ALL.into_iter().filter(|o| o.ok()).map(|outcome| self.of(outcome)).sum()
    }

    fn place(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Flaky => &mut self.flaky,
            Outcome::ExpectedFailure => &mut self.expected_failure,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed => &mut self.failed,
            Outcome::TimedOut => &mut self.timed_out,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::NotRun => &mut self.not_run,
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        let mut sum = Counts::default();
        for counts in all {
            for outcome in Outcome::ALL {
                *sum.place(outcome) += counts.of(outcome);
            }
        }
        sum
    }
}

impl fmt::Display for Counts {
    /// `10 passed, 1 failed, 1 not run`; what is zero is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = Outcome::ALL
            .into_iter()
            .map(|outcome| (self.of(outcome), outcome))
            .filter(|(count, _)| *count > 0)
            .map(|(count, outcome)| match outcome {
                Outcome::ExpectedFailure => format!("{count} failed as expected"),
                _ => format!("{count} {outcome}"),
            })
            .collect();
        f.write_str(&words.join(", "))
    }
}
