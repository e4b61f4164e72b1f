//! For GitHub Actions: annotations, groups and masks in the log, a table in the step summary.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::sandbox::{format_duration, format_size};

use super::super::{Event, Mask, Outcome, Place, Record, TestOutcome};
use super::story::{CellStory, MatrixStory, Story};
use super::style::{clean, mark, plural};
use super::{Out, Report};

/// GitHub shows no more annotations of a kind for a step.
const ANNOTATIONS: usize = 10;
/// The longest summary of a step, a little less than the megabyte that GitHub takes.
const SUMMARY: usize = 1_000_000;

/// Writes workflow commands to the log and Markdown to the step summary.
pub struct GitHub {
    out: Out,
    summary: Option<Out>,
    story: Story,
    mask: Option<Arc<Mask>>,
    /// Whether `out` is the log itself, and no file that is kept.
    log: bool,
    masked: HashSet<Vec<u8>>,
    errors: usize,
    warnings: usize,
    hidden: usize,
}

impl GitHub {
    /// A report that writes commands to `out`, the log, and Markdown to `summary`.
    pub fn new(out: Out, summary: Option<Out>) -> Self {
        GitHub {
            out,
            summary,
            story: Story::default(),
            mask: None,
            log: true,
            masked: HashSet::new(),
            errors: 0,
            warnings: 0,
            hidden: 0,
        }
    }

    /// The same into a file, which gets no masks: a mask has the secret that it is about.
    pub fn into_file(mut self) -> Self {
        self.log = false;
        self
    }

    /// Tells GitHub what it must not show, before anything else is told.
    fn mask(&mut self) -> io::Result<()> {
        let Some(mask) = self.mask.as_ref().filter(|mask| self.log && !mask.is_empty()) else {
            return Ok(());
        };
        for secret in mask.secrets() {
            let value = secret.expose().to_vec();
            if self.masked.insert(value.clone()) {
                for line in String::from_utf8_lossy(&value).lines().filter(|line| !line.is_empty())
                {
                    writeln!(self.out, "::add-mask::{}", data(line))?;
                }
            }
        }
        Ok(())
    }

    fn annotate(
        &mut self,
        level: &str,
        title: &str,
        place: Option<&Place>,
        text: &str,
    ) -> io::Result<()> {
        let count = if level == "error" { &mut self.errors } else { &mut self.warnings };
        *count += 1;
        if *count > ANNOTATIONS {
            self.hidden += 1;
            return Ok(());
        }
        let mut properties = Vec::new();
        if let Some(Place { file, line, column }) = place {
            properties.push(format!("file={}", property(file)));
            properties.push(format!("line={line}"));
            if *column > 0 {
                properties.push(format!("col={column}"));
            }
        }
        properties.push(format!("title={}", property(&clean(title))));
        writeln!(self.out, "::{level} {}::{}", properties.join(","), data(&clean(text)))
    }

    fn group(&mut self, title: &str, text: &str) -> io::Result<()> {
        let text = clean(text);
        if text.trim().is_empty() {
            return Ok(());
        }
        writeln!(self.out, "::group::{}", data(title))?;
        // What a guest prints is no command to GitHub.
        let token = blake3::hash(format!("{} {title} {text}", self.story.run).as_bytes());
        let token = &token.to_hex()[..16];
        writeln!(self.out, "::stop-commands::{token}")?;
        writeln!(self.out, "{}", text.trim_end_matches('\n'))?;
        writeln!(self.out, "::{token}::")?;
        writeln!(self.out, "::endgroup::")
    }
}

impl Report for GitHub {
    fn name(&self) -> &'static str {
        "github"
    }

    fn begin(&mut self, mask: &Arc<Mask>) {
        self.mask = Some(Arc::clone(mask));
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.story.take(record);
        self.mask()?;
        match &record.event {
            Event::CellTest { cell, test, .. } if test.outcome == TestOutcome::Failed => {
                let title = format!("{} ({cell})", test.name);
                let text = test.message.clone().unwrap_or_else(|| "failed".into());
                self.annotate("error", &title, test.place.as_ref(), &text)?;
            }
            Event::CellEnded {
                matrix, cell, outcome, message, hint, tail, place, egress, ..
            } => {
                let title = format!("{matrix}: {cell} {outcome}");
                let mut text = message.clone().unwrap_or_else(|| outcome.to_string());
                if let Some(hint) = hint {
                    text.push_str(&format!("\nhint: {hint}"));
                }
                let remedy = egress.remedy(self.story.script.as_deref());
                let remedy = remedy.map(|line| format!("to allow it: {line}"));
                for line in egress.said().into_iter().chain(remedy) {
                    text.push_str(&format!("\n{line}"));
                }
                match outcome {
                    Outcome::Failed | Outcome::TimedOut => {
                        self.group(&title, tail)?;
                        self.annotate("error", &title, place.as_ref(), &text)?;
                    }
                    Outcome::Flaky => self.annotate("warning", &title, place.as_ref(), &text)?,
                    _ => {}
                }
            }
            Event::StepFailed { base, step, title, message, tail, .. } => {
                let title = format!("base {base}, step {step}: {title}");
                self.group(&title, tail)?;
                self.annotate("error", &title, None, message)?;
            }
            Event::Warning { message, hint } => {
                let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}"));
                let text = format!("{message}{}", hint.unwrap_or_default());
                self.annotate("warning", "sandscript", None, &text)?;
            }
            _ => {}
        }
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.hidden > 0 {
            let what = plural(self.hidden, "more annotation");
            writeln!(self.out, "::notice title=sandscript::{what}: see the step summary")?;
        }
        self.out.flush()?;
        let Some(summary) = &mut self.summary else { return Ok(()) };
        let mut text = String::new();
        for matrix in &self.story.matrices {
            text.push_str(&table(matrix));
        }
        for base in &self.story.bases {
            if let Some(failure) = &base.failure {
                let line =
                    format!("**base {}** was not built: {}\n\n", base.name, cell_text(failure));
                text.push_str(&line);
            }
        }
        if text.len() > SUMMARY {
            let cut = (0..=SUMMARY).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
            text.push_str("\n\n… the rest is too long for a summary\n");
        }
        summary.write_all(text.as_bytes())?;
        summary.flush()
    }
}

/// A matrix as Markdown: the counts, and a row for each cell that is worth one.
fn table(matrix: &MatrixStory) -> String {
    let counts = matrix.counts();
    let cells = plural(matrix.cells.len(), "cell");
    let time = format_duration(matrix.duration);
    let mut text = format!("### {}\n\n{cells}: {counts} in {time}\n\n", cell_text(&matrix.name));
    let all = matrix.cells.len() <= 40;
    let told = |cell: &&CellStory| all || cell.outcome != Outcome::Passed;
    let rows: Vec<&CellStory> = matrix.cells.iter().filter(told).collect();
    if rows.is_empty() {
        return text;
    }
    text.push_str("| | cell | result | time | memory | |\n|---|---|---|---|---|---|\n");
    for cell in rows {
        let outcome = cell.outcome;
        let first = cell.message.as_deref().and_then(|text| text.lines().next());
        let memory = cell.usage.memory.map(format_size).unwrap_or_default();
        let time = match outcome {
            Outcome::NotRun => String::new(),
            _ => format_duration(cell.duration),
        };
        text.push_str(&format!(
            "| {} | {} | {outcome} | {time} | {memory} | {} |\n",
            mark(outcome),
            cell_text(&cell.info.id),
            cell_text(first.unwrap_or_default()),
        ));
    }
    text.push('\n');
    text
}

/// A guest's text inside of a Markdown table.
fn cell_text(text: &str) -> String {
    let mut out = String::new();
    for character in clean(text).replace('\n', " ").chars() {
        match character {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => out.extend(['\\', character]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            other => out.push(other),
        }
    }
    out
}

/// What follows the second `::` of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a command's property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
