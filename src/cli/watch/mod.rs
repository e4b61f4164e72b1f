//! `sandscript watch`.

mod backend;
mod files;
mod keys;
mod notifier;
mod screen;
mod turns;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Result;
use super::run::Run;
use super::session::Session;
use turns::Turns;

const EXAMPLES: &str = "\
Examples:
  sandscript watch scripts/test_matrix.rhai
  sandscript watch scripts/test_matrix.rhai --on-busy queue
  sandscript watch build.rhai --filter 'db=sqlite' --clear

Keys: Enter or r runs what changed or failed, f the cells that failed, a all cells, q quits, h helps.
What counts as a change, and when a cell runs again: docs/watch.md";

/// Run a script, and run it again when something that it reads changes
///
/// It runs again when the script, a module that it imports, a file that it pushes or copies, or the
/// project's settings change. Only steps and cells run of which something changed, or that failed.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    #[command(flatten)]
    run: Run,
    /// What a change does while the script runs: stop it and start again, run once more when it
    /// ends, or nothing
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnBusy::Restart)]
    on_busy: OnBusy,
    /// Clear the screen before each run
    #[arg(long)]
    clear: bool,
}

/// What a change does while the script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnBusy {
    Restart,
    Queue,
    Ignore,
}

impl Watch {
    pub fn call(self, session: &Session<'_>) -> Result {
        // A name that is mistyped would be waited for until the end of time.
        self.run.source()?;
        session.work(true, |work| async move { Turns::new(&self, session, work)?.take().await })
    }
}

/// Why the script runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// It is the first time.
    Start,
    /// These changed.
    Changed(Vec<PathBuf>),
    /// A key was pressed: what changed or failed.
    Again,
    /// A key was pressed: the cells that failed.
    Failed,
    /// A key was pressed: all cells.
    All,
    /// The backend is back.
    Back,
}
