//! What is remembered from one run of a script to the next, in one process.
//!
//! A [`Memory`] outlives runs; each run has a [`Recorder`] of its own on it. The recorder writes down
//! which host files the run read, for whoever wants to run it again when they change, and what each
//! cell of a matrix depended on. A cell that passed and whose dependencies are all as they were need
//! not run again.
//!
//! What a cell depends on is of two kinds. Its *key* is what is known before it runs: the script's text,
//! parameters and arguments, everything that the host had told the script's main body until then, the matrix,
//! the cell's values, and what its sandbox is made from. Its *reads* are found while it runs: what it
//! pushed, the images and variables it asked for. A cell that touches anything else, such as
//! a sandbox of the main body, the time, or a host folder that is mounted, runs every time.
//! The guest's own sources of change, clock and network, are in neither, as they are in no step's key.

mod cells;
mod outputs;
mod recorder;
mod trace;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use cells::Cells;
pub use recorder::{Input, Recorder};
pub(super) use recorder::{Reading, Writing};
pub(super) use trace::Trace;

use crate::transfer::{Digests, Manifest};
use outputs::Outputs;
use trace::Read;

/// How many runs a cell may be missing from before it is forgotten.
const RUNS: u64 = 50;

/// What is remembered between runs.
#[derive(Debug, Default)]
pub struct Memory {
    digests: Digests,
    outputs: Outputs,
    cells: Mutex<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    run: u64,
    /// By the digest of the key.
    cells: HashMap<String, Cell>,
}

/// A cell that passed.
#[derive(Clone, Debug)]
struct Cell {
    reads: Vec<Read>,
    /// The files of the script, and what was in them.
    sources: Arc<Vec<(PathBuf, blake3::Hash)>>,
    duration: Duration,
    /// The last run that it was part of.
    run: u64,
}

impl Memory {
    /// What a host tree holds now, without what runs made in it themselves. Blocking.
    pub fn look(&self, input: &Input) -> Manifest {
        self.clean(Manifest::of(&input.path, &input.options, &self.digests))
    }

    /// A tree as it was seen, without what runs have made in it by now.
    pub fn clean(&self, manifest: Manifest) -> Manifest {
        self.outputs.clean(manifest)
    }

    /// What lies at or below this path is written by whoever runs scripts, and is never an input.
    pub fn leave_out(&self, path: &Path) {
        self.outputs.leave_out(path);
    }

    /// Forgets all cells.
    pub fn forget_cells(&self) {
        self.passed().cells.clear();
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        let mut passed = self.passed();
        passed.run += 1;
        let oldest = passed.run.saturating_sub(RUNS);
        passed.cells.retain(|_, cell| cell.run >= oldest);
    }

    fn find(&self, key: &str) -> Option<Cell> {
        let mut passed = self.passed();
        let run = passed.run;
        let cell = passed.cells.get_mut(key)?;
        cell.run = run;
        Some(cell.clone())
    }

    fn remember(&self, key: String, mut cell: Cell) {
        let mut passed = self.passed();
        cell.run = passed.run;
        passed.cells.insert(key, cell);
    }

    fn forget(&self, key: &str) {
        self.passed().cells.remove(key);
    }
}
