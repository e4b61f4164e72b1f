//! The table of results.

use std::fmt;
use std::time::Duration;

/// Rows in the order in which they were measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 4]>,
    notes: Vec<String>,
}

impl Table {
    /// A row: what, how long, compared with what, the goal.
    pub fn row(
        &mut self,
        what: impl Into<String>,
        value: impl Into<String>,
        compared: impl Into<String>,
        goal: impl Into<String>,
    ) {
        let row = [what.into(), value.into(), compared.into(), goal.into()];
        eprintln!("{}: {}  {}", row[0], row[1], row[2]);
        self.rows.push(row);
    }

    /// A line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median | compared | goal |\n|---|---|---|---|")?;
        for [what, value, compared, goal] in &self.rows {
            writeln!(f, "| {what} | {value} | {compared} | {goal} |")?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

/// `1.23 ms`.
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// `0.84 × bwrap`.
pub fn ratio(time: Duration, peer: Duration, name: &str) -> String {
    format!("{:.2} × {name}", time.as_secs_f64() / peer.as_secs_f64())
}
