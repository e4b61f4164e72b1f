//! One JSON object a line for every event.

use std::io;

use super::super::Record;
use super::{Out, Report};

/// Writes every [`Record`] as one line of JSON; the field `v` is [`super::super::SCHEMA`].
pub struct JsonLines {
    out: io::BufWriter<Out>,
}

impl JsonLines {
    /// A report that writes to `out`.
    pub fn new(out: Out) -> Self {
        JsonLines { out: io::BufWriter::new(out) }
    }
}

impl Report for JsonLines {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        use io::Write;
        serde_json::to_writer(&mut self.out, record)?;
        self.out.write_all(b"\n")
    }

    fn moves(&self) -> bool {
        true
    }

    /// Whoever follows the lines sees them soon, and a matrix of many cells costs few writes.
    fn tick(&mut self) -> io::Result<()> {
        io::Write::flush(&mut self.out)
    }

    fn finish(&mut self) -> io::Result<()> {
        io::Write::flush(&mut self.out)
    }
}
