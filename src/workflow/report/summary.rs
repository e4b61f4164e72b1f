//! The table at the end of a matrix.

use std::time::Duration;

use crate::sandbox::format_duration;

use super::super::{CellInfo, Counts, Outcome};
use super::style::{Style, clean, fit, mark, pad, plural};

/// More passed cells than this are counted, not listed.
const LISTED: usize = 40;
/// How much of the end of a failed cell's output is shown.
const TAIL_LINES: usize = 20;

/// How a cell ended, as its event told.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub outcome: Outcome,
    pub duration: Duration,
    pub message: Option<String>,
    pub hint: Option<String>,
    pub tail: String,
}

/// A matrix that is over.
pub(super) struct Summary<'a> {
    pub name: &'a str,
    /// In order; a cell whose end was never told is missing.
    pub cells: Vec<(&'a CellInfo, &'a Ended)>,
    pub counts: Counts,
    pub duration: Duration,
}

impl Summary<'_> {
    /// The table, the failures with the end of their output, and the counts.
    pub fn lines(&self, style: Style, width: usize) -> Vec<String> {
        if self.cells.is_empty() {
            return Vec::new();
        }
        let mut lines = self.table(style, width);
        for (cell, ended) in &self.cells {
            if matches!(ended.outcome, Outcome::Failed | Outcome::TimedOut) {
                lines.push(String::new());
                lines.extend(failure(&cell.id, ended, style));
            }
        }
        lines.push(String::new());
        lines.push(self.count(style));
        lines
    }

    fn table(&self, style: Style, width: usize) -> Vec<String> {
        let quiet = self.cells.len() > LISTED;
        let shown: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, ended)| !quiet || ended.outcome != Outcome::Passed)
            .collect();
        if shown.is_empty() {
            return Vec::new();
        }
        let (head, rows) = columns(&shown.iter().map(|(cell, _)| *cell).collect::<Vec<_>>(), width);
        let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
        for row in &rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        let join = |texts: &[String]| {
            let padded: Vec<String> =
                texts.iter().zip(&widths).map(|(text, width)| pad(text, *width)).collect();
            padded.join("  ")
        };
        let title = format!("    {}  {}  time", join(&head), pad("result", 9));
        let mut lines = vec![String::new(), style.dim(&title)];
        for ((_, ended), row) in shown.iter().zip(&rows) {
            let outcome = ended.outcome;
            let result = pad(&outcome.to_string(), 9);
            let time = match outcome {
                Outcome::NotRun => String::new(),
                _ => format!("  {}", format_duration(ended.duration)),
            };
            lines.push(format!(
                "  {} {}  {}{time}",
                style.outcome(outcome, mark(outcome)),
                join(row),
                style.outcome(outcome, result.trim_end()) + &result[result.trim_end().len()..],
            ));
            if let Some(last) = lines.last_mut() {
                last.truncate(last.trim_end().len());
            }
        }
        lines
    }

    fn count(&self, style: Style) -> String {
        let counts = self.counts.to_string();
        let good = self.counts.passed == self.counts.total();
        let counts = if good { style.good(&counts) } else { style.bad(&counts) };
        let cells = plural(self.cells.len(), "cell");
        let time = format_duration(self.duration);
        format!("{} {cells}: {counts} in {time}", style.bold(&format!("matrix {}", self.name)))
    }
}

/// A column for each axis where that fits, else one for the id.
fn columns(cells: &[&CellInfo], width: usize) -> (Vec<String>, Vec<Vec<String>>) {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in cells.iter().flat_map(|cell| &cell.values) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let value = |cell: &CellInfo, name: &String| {
        let value = cell.values.iter().find(|(axis, _)| axis == name);
        value.map(|(_, value)| clean(&value.to_string()).replace('\n', " ")).unwrap_or_default()
    };
    let row = |cell: &&CellInfo| names.iter().map(|name| value(cell, name)).collect();
    let rows: Vec<Vec<String>> = cells.iter().map(row).collect();
    let wide = |at: usize| {
        let widest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        widest.max(names[at].chars().count()) + 2
    };
    let total: usize = (0..names.len()).map(wide).sum();
    // The sign, the result and the time want their place, too.
    let place = width.saturating_sub(4 + 11 + 8);
    if total <= place {
        return (names, rows);
    }
    let ids = cells.iter().map(|cell| vec![fit(&cell.id, place.max(20))]);
    (vec!["cell".into()], ids.collect())
}

/// A cell that did not pass: its id, the end of its output, and why.
fn failure(id: &str, ended: &Ended, style: Style) -> Vec<String> {
    let head = format!("{} {}", mark(ended.outcome), id);
    let mut lines = vec![format!("  {}  {}", style.bad(&head), ended.outcome)];
    lines.extend(tail(&ended.tail, style));
    lines.extend(why(ended.message.as_deref(), ended.hint.as_deref(), style));
    lines
}

/// The last lines of an output, set off by a bar.
pub(super) fn tail(text: &str, style: Style) -> Vec<String> {
    let text = clean(text);
    let all: Vec<&str> = text.lines().collect();
    let hidden = all.len().saturating_sub(TAIL_LINES);
    let mut lines = Vec::new();
    if hidden > 0 {
        let what = format!("    … {} before", plural(hidden, "line"));
        lines.push(style.dim(&what));
    }
    let bar = style.dim("│");
    lines.extend(all[hidden..].iter().map(|line| format!("    {bar} {line}").trim_end().into()));
    lines
}

/// What went wrong, and what to do.
pub(super) fn why(message: Option<&str>, hint: Option<&str>, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    for line in message.unwrap_or_default().lines() {
        lines.push(format!("    {}", clean(line)));
    }
    if let Some(hint) = hint {
        lines.push(format!("    {} {}", style.dim("hint:"), clean(hint)));
    }
    lines
}
