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

#[cfg(test)]
mod tests {
    use super::super::sample::{Full, Paper, feed, run};
    use super::*;

    #[test]
    fn every_line_reads_back() {
        let paper = Paper::default();
        let mut report = JsonLines::new(Box::new(paper.clone()));
        feed(&mut report, run()).unwrap();
        report.finish().unwrap();
        let text = paper.text();
        let read = |line| serde_json::from_str::<Record>(line).unwrap().event;
        let events: Vec<_> = text.lines().map(read).collect();
        assert_eq!(events, run());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut report = JsonLines::new(Box::new(Full));
        feed(&mut report, run()).unwrap();
        assert_eq!(report.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
