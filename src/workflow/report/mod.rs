//! Consumers of events. Each writes to what it is given and decides nothing.

mod jsonl;
mod narrator;
mod plain;
#[cfg(test)]
mod sample;
mod style;
mod summary;
#[cfg(feature = "cli")]
mod terminal;

pub use jsonl::JsonLines;
pub use plain::Plain;
pub use style::Style;
#[cfg(feature = "cli")]
pub use terminal::{Size, Terminal};

use std::io;

use super::Record;

/// Where a report writes.
pub type Out = Box<dyn io::Write + Send>;

/// A consumer of events. Fed by [`super::Dispatcher`], one event after the other.
pub trait Report: Send {
    /// Its name, for messages about it.
    fn name(&self) -> &'static str;

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
