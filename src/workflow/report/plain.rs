//! Lines for people where nothing can move: logs, pipes, CI.

use std::io;

use super::super::{Event, Record};
use super::narrator::Narrator;
use super::{Out, Report, Style};

/// Writes a line for everything that begins and ends, and the table at the end.
pub struct Plain {
    out: Out,
    prints: Option<Out>,
    narrator: Narrator,
}

impl Plain {
    /// A report that writes to `out`. What scripts print goes to `prints` where that is given, so
    /// that it can be piped into another program.
    pub fn new(out: Out, style: Style, prints: Option<Out>) -> Self {
        Plain { out, prints, narrator: Narrator::new(style, 100, true) }
    }
}

impl Report for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if let (Event::Print { text, .. }, Some(prints)) = (&record.event, &mut self.prints) {
            writeln!(prints, "{text}")?;
            return prints.flush();
        }
        let lines = self.narrator.tell(&record.event);
        write(&mut self.out, lines)
    }

    fn finish(&mut self) -> io::Result<()> {
        let lines = self.narrator.end();
        write(&mut self.out, lines)
    }
}

/// All lines in one write, so that lines of other programs don't come between.
fn write(out: &mut Out, lines: Vec<String>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}
