//! Consumers of events. Each writes to what it is given and decides nothing.

mod github;
mod html;
mod jsonl;
mod junit;
mod narrator;
mod plain;
#[cfg(test)]
mod sample;
mod story;
mod style;
mod summary;
#[cfg(feature = "cli")]
mod terminal;
mod trace;

pub use github::GitHub;
pub use html::Html;
pub use jsonl::JsonLines;
pub use junit::Junit;
pub use plain::Plain;
pub use style::{Style, clean, shown};
#[cfg(feature = "cli")]
pub use terminal::{Size, Terminal};
pub use trace::Trace;

use std::io;
use std::sync::Arc;

use super::{Event, Mask, Record};

/// Of which cells people are shown what they printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Of all, while they print it.
    All,
    /// The end of it, of those that failed.
    #[default]
    Failed,
    /// Of none.
    None,
}

/// Where a report writes.
pub type Out = Box<dyn io::Write + Send>;

/// A consumer of events. Fed by [`super::Dispatcher`], one event after the other.
pub trait Report: Send {
    /// Its name, for messages about it.
    fn name(&self) -> &'static str;

    /// Comes first. `mask` knows what must not be shown, as soon as the run knows it; events don't
    /// have it in them.
    fn begin(&mut self, _mask: &Arc<Mask>) {}

    /// Takes an event.
    fn record(&mut self, record: &Record) -> io::Result<()>;

    /// Whether it moves on its own, and so wants [`Report::tick`].
    fn moves(&self) -> bool {
        false
    }

    /// Some time went by.
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// No event comes any more.
    fn finish(&mut self) -> io::Result<()>;
}

/// What a script was run for: what it prints, and the cells that were asked for. It goes where
/// another program may read it.
fn data(event: &Event) -> Option<String> {
    match event {
        Event::Print { text, .. } => Some(text.clone()),
        Event::CellList { cells, .. } => {
            Some(cells.iter().map(|cell| cell.id.as_str()).collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}
