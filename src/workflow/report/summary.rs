//! The table at the end of a matrix.

use std::time::Duration;

use crate::sandbox::format_duration;

use super::super::{CellInfo, Counts, Outcome};
use super::Show;
use super::style::{Style, clean, fit, mark, pad, plural, shown};

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
    pub unchanged: bool,
    pub attempts: usize,
    pub enter: Option<String>,
    pub artifacts: Option<String>,
    /// What it was refused, and the line that would allow it.
    pub refused: Option<(String, Option<String>)>,
}

/// A matrix that is over.
pub(super) struct Summary<'a> {
    pub name: &'a str,
    /// In order; a cell whose end was never told is missing.
    pub cells: Vec<(&'a CellInfo, &'a Ended)>,
    pub counts: Counts,
    pub duration: Duration,
    pub show: Show,
}

impl Summary<'_> {
    /// The table, the failures with the end of their output, and the counts.
    pub fn lines(&self, style: Style, width: usize) -> Vec<String> {
        if self.cells.is_empty() {
            return Vec::new();
        }
        let mut lines = self.table(style, width);
        for (cell, ended) in &self.cells {
            if ended.outcome.failed() {
                lines.push(String::new());
                lines.extend(failure(&cell.id, ended, self.show, style));
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
        let longest = shown.iter().map(|(_, ended)| ended.outcome.to_string().len()).max();
        let wide = longest.unwrap_or(0).max(9);
        let title = format!("    {}  {}  time", join(&head), pad("result", wide));
        let mut lines = vec![String::new(), style.dim(&title)];
        for ((_, ended), row) in shown.iter().zip(&rows) {
            let outcome = ended.outcome;
            if ended.unchanged {
                let line = format!("  {} {}  unchanged", mark(outcome), join(row));
                lines.push(style.dim(&line));
                continue;
            }
            let result = pad(&outcome.to_string(), wide);
            let time = match outcome {
                Outcome::NotRun => String::new(),
                _ => format!("  {}", format_duration(ended.duration)),
            };
            let told =
                matches!(outcome, Outcome::Flaky | Outcome::Skipped | Outcome::ExpectedFailure);
            let why = match &ended.message {
                Some(message) if told => {
                    let first = clean(message.lines().next().unwrap_or_default());
                    style.dim(&format!("  {first}"))
                }
                _ => String::new(),
            };
            lines.push(format!(
                "  {} {}  {}{time}{why}",
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
        let mut counts = self.counts.to_string();
        let unchanged = self.cells.iter().filter(|(_, ended)| ended.unchanged).count();
        if unchanged > 0 {
            counts = counts.replacen("passed", &format!("passed ({unchanged} unchanged)"), 1);
        }
        let good = self.counts.ok() == self.counts.total();
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
fn failure(id: &str, ended: &Ended, show: Show, style: Style) -> Vec<String> {
    let head = format!("{} {}", mark(ended.outcome), id);
    let attempts = match ended.attempts {
        0 | 1 => String::new(),
        count => format!(" ({count} attempts)"),
    };
    let mut lines = vec![format!("  {}  {}{attempts}", style.bad(&head), ended.outcome)];
    // With all of it shown already, the end need not be said again.
    if show == Show::Failed {
        lines.extend(tail(&ended.tail, style));
    }
    lines.extend(why(ended.message.as_deref(), ended.hint.as_deref(), style));
    if let Some((said, remedy)) = &ended.refused {
        lines.push(format!("    {}", clean(said)));
        if let Some(remedy) = remedy {
            lines.push(format!("    {} {}", style.dim("to allow it:"), clean(remedy)));
        }
    }
    if let Some(folder) = &ended.artifacts {
        lines.push(format!("    {} {folder}", style.dim("artifacts:")));
    }
    if let Some(enter) = &ended.enter {
        lines.push(format!("    {} sandscript enter {enter}", style.dim("enter:")));
    }
    lines
}

/// The last lines of an output, set off by a bar.
pub(super) fn tail(text: &str, style: Style) -> Vec<String> {
    let text = shown(text, style);
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

#[cfg(test)]
mod tests {
    use super::super::super::AxisValue;
    use super::super::sample::ms;
    use super::*;

    fn cell(pairs: &[(&str, &str)]) -> CellInfo {
        let pair = |(name, value): &(&str, &str)| (name.to_string(), AxisValue::from(*value));
        let values: Vec<_> = pairs.iter().map(pair).collect();
        CellInfo { id: super::super::super::cell_id(&values), values }
    }

    fn lines(cells: &[(CellInfo, Outcome)], width: usize) -> String {
        let ended = |outcome: &Outcome| Ended {
            outcome: *outcome,
            duration: ms(65_000),
            message: None,
            hint: Some("look at it".into()),
            tail: String::new(),
            unchanged: false,
            attempts: 1,
            enter: None,
            artifacts: None,
            refused: None,
        };
        let ended: Vec<Ended> = cells.iter().map(|(_, outcome)| ended(outcome)).collect();
        let mut counts = Counts::default();
        cells.iter().for_each(|(_, outcome)| counts.add(*outcome));
        let cells = cells.iter().zip(&ended).map(|((cell, _), ended)| (cell, ended)).collect();
        let summary = Summary { name: "m", cells, counts, duration: ms(1500), show: Show::Failed };
        summary.lines(Style::default(), width).join("\n")
    }

    #[test]
    fn many_cells_are_counted() {
        let mut cells: Vec<_> =
            (0..200).map(|n| (cell(&[("n", &n.to_string())]), Outcome::Passed)).collect();
        insta::assert_snapshot!(lines(&cells, 80), @r#"
        matrix m 200 cells: 200 passed in 1.5s
        "#);
        cells[7].1 = Outcome::Failed;
        cells[9].1 = Outcome::Cancelled;
        insta::assert_snapshot!(lines(&cells, 80), @r#"
            n  result     time
          ✗ 7  failed     1m 5s
          ! 9  cancelled  1m 5s

          ✗ n=7  failed
            hint: look at it

        matrix m 200 cells: 198 passed, 1 failed, 1 cancelled in 1.5s
        "#);
    }

    #[test]
    fn cells_of_different_axes_share_a_table() {
        let cells = [
            (cell(&[("db", "sqlite"), ("n", "1")]), Outcome::Passed),
            (cell(&[("db", "a\x1b[2Jb\nc")]), Outcome::Passed),
            (cell(&[("other", "")]), Outcome::NotRun),
        ];
        insta::assert_snapshot!(lines(&cells, 80), @r#"
            db      n  other  result     time
          ✓ sqlite  1         passed     1m 5s
          ✓ ab c              passed     1m 5s
          -                   not run

        matrix m 3 cells: 2 passed, 1 not run in 1.5s
        "#);
    }

    #[test]
    fn a_table_that_is_too_wide_has_ids() {
        let long = "x".repeat(30);
        let cells = [
            (cell(&[("flags", &long), ("n", "1")]), Outcome::Passed),
            (cell(&[("flags", "-O2"), ("n", "1")]), Outcome::Passed),
        ];
        insta::assert_snapshot!(lines(&cells, 50), @r#"
            cell                         result     time
          ✓ flags=xxxxxxxxxxxxxxxxxxxx…  passed     1m 5s
          ✓ flags=-O2,n=1                passed     1m 5s

        matrix m 2 cells: 2 passed in 1.5s
        "#);
    }

    #[test]
    fn what_is_unchanged_says_so() {
        let cells = [cell(&[("n", "1")]), cell(&[("n", "2")])];
        let ended = |unchanged| Ended {
            outcome: Outcome::Passed,
            duration: ms(1500),
            message: None,
            hint: None,
            tail: String::new(),
            unchanged,
            attempts: 1,
            enter: None,
            artifacts: None,
            refused: None,
        };
        let ended = [ended(true), ended(false)];
        let counts = Counts { passed: 2, ..Counts::default() };
        let cells = cells.iter().zip(&ended).collect();
        let summary = Summary { name: "m", cells, counts, duration: ms(1500), show: Show::Failed };
        insta::assert_snapshot!(summary.lines(Style::default(), 80).join("\n"), @"
            n  result     time
          ✓ 1  unchanged
          ✓ 2  passed     1.5s

        matrix m 2 cells: 2 passed (1 unchanged) in 1.5s
        ");
    }

    #[test]
    fn nothing_selected_has_no_table() {
        assert_eq!(lines(&[], 80), "");
    }
}
