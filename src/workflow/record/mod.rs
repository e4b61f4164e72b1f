//! Runs as they are kept in the state folder: what happened, what cells printed, how long they took
//! and which of them are still to be set right.
//!
//! `runs/RUN/` holds `run.json` (what a list shows), `events.jsonl` (all events but the output of
//! cells) and `output/` (one file a cell: [`log`]). `history/` holds for each script how its cells
//! ended the last time.

mod history;
mod log;
mod recording;
mod replay;
mod runs;

pub use history::{History, Past};
pub use recording::Recording;
pub use replay::Replay;
pub use runs::{OtherBackend, RunFile, RunState, Runs};
