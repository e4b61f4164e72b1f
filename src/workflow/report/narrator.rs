//! What happened, in lines that stay: shared by the reports for people.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::sandbox::format_duration;

use super::super::{CellInfo, Event, Level, Order, Outcome};
use super::Show;
use super::style::{Style, clean, fit, mark, pad, plural};
use super::summary::{Ended, Summary, tail, why};

/// Tells events in lines.
#[derive(Debug, Default)]
pub(super) struct Narrator {
    pub style: Style,
    /// Columns there are.
    pub width: usize,
    /// Also tell which steps begin, and every cell that ends: where nothing moves, these lines are
    /// all there is to see.
    pub chatty: bool,
    pub show: Show,
    matrices: BTreeMap<String, Running>,
    /// Bases on their way: with more than one, step lines say whose they are.
    bases: Vec<String>,
    kept: Vec<String>,
    /// The script, whose language a line of it is told in.
    script: Option<String>,
    /// Why the last step failed, which need not be said twice.
    failed: Option<String>,
}

/// A matrix on its way.
#[derive(Debug)]
struct Running {
    cells: Vec<CellInfo>,
    ended: HashMap<String, Ended>,
}

impl Narrator {
    pub fn new(style: Style, width: usize, chatty: bool) -> Self {
        Narrator { style, width, chatty, ..Narrator::default() }
    }

    /// The lines that an event is worth.
    pub fn tell(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::BaseStarted { .. }
            | Event::BaseWaiting { .. }
            | Event::StepHit { .. }
            | Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::BaseReady { .. }
            | Event::BaseFailed { .. } => self.base(event),
            Event::MatrixStarted { .. }
            | Event::CellSlow { .. }
            | Event::CellRetry { .. }
            | Event::CellEnded { .. }
            | Event::MatrixEnded { .. }
            | Event::CellList { .. } => self.matrix(event),
            Event::CacheWaiting { cache, sandbox, by, cell, base } => {
                let who = match (cell, base) {
                    (Some(cell), _) => format!("cell {cell}"),
                    (None, Some(base)) => format!("base {base}"),
                    (None, None) => format!("sandbox {sandbox}"),
                };
                let by = by.as_ref().map_or("others have".into(), |by| format!("sandbox {by} has"));
                let text = format!("… {who} waits for cache '{cache}', which {by}");
                vec![self.style.dim(&text)]
            }
            Event::Print { text, cell } => prefixed(&clean(text), cell.as_deref(), self.style),
            Event::Log { level, text, cell } => {
                let text = match level {
                    Level::Debug => self.style.dim(&format!("debug: {}", clean(text))),
                    Level::Info => clean(text),
                    Level::Warn => format!("{} {}", self.style.odd("warning:"), clean(text)),
                    Level::Error => format!("{} {}", self.style.bad("error:"), clean(text)),
                };
                prefixed(&text, cell.as_deref(), self.style)
            }
            Event::Warning { message, hint } => {
                let mut lines = vec![format!("{} {message}", self.style.odd("warning:"))];
                lines.extend(why(None, hint.as_deref(), self.style));
                lines
            }
            Event::SandboxKept { name, why } => {
                self.kept.push(format!("{name} ({why})"));
                Vec::new()
            }
            Event::RunStarted { script, .. } => {
                self.script.clone_from(script);
                Vec::new()
            }
            Event::RunEnded { .. } => self.end(),
            _ => Vec::new(),
        }
    }

    /// The last words: what was kept.
    pub fn end(&mut self) -> Vec<String> {
        let kept = std::mem::take(&mut self.kept);
        if kept.is_empty() {
            return Vec::new();
        }
        vec![format!("{} {}", self.style.bold("kept:"), kept.join(", "))]
    }

    fn base(&mut self, event: &Event) -> Vec<String> {
        let style = self.style;
        match event {
            Event::BaseStarted { base, from } => {
                self.bases.push(base.clone());
                let base = style.bold(&format!("base {base}"));
                vec![format!("{base} {}", style.dim(&format!("from {from}")))]
            }
            Event::BaseWaiting { base, step, sandbox, run } => {
                let who = run.as_ref().map_or("another run".into(), |run| format!("run {run}"));
                let text = format!("waiting for {who}, which builds it in {sandbox}");
                vec![style.dim(&self.step("…", base, *step, &text, ""))]
            }
            Event::StepHit { base, step, title, .. } => {
                vec![self.step(&style.good("✓"), base, *step, title, &style.dim("cached"))]
            }
            Event::StepStarted { base, step, title, reason, .. } => {
                // What is new is no news.
                let news = reason.contains("changed:")
                    || reason.starts_with("content of")
                    || reason.starts_with("env ");
                if self.chatty {
                    vec![self.step("·", base, *step, title, reason)]
                } else if news {
                    vec![style.dim(&format!("    {reason}"))]
                } else {
                    Vec::new()
                }
            }
            Event::StepDone { base, step, title, duration, frozen } => {
                let mut time = format_duration(*duration);
                if *frozen >= Duration::from_millis(10) {
                    let still = format_duration(*frozen);
                    time.push_str(&style.dim(&format!("  (stood still for {still})")));
                }
                vec![self.step(&style.good("✓"), base, *step, title, &time)]
            }
            Event::StepFailed { base, step, title, duration, message, hint, tail: output } => {
                self.failed = Some(message.clone());
                let time = format_duration(*duration);
                let mut lines = vec![self.step(&style.bad("✗"), base, *step, title, &time)];
                lines.extend(tail(output, style));
                lines.extend(why(Some(message), hint.as_deref(), style));
                lines
            }
            Event::BaseReady { base, steps, hits, duration, .. } => {
                let whose = self.forget(base);
                let hits = match (*hits, *steps) {
                    (0, _) => "none cached".into(),
                    (hits, steps) if hits == steps => "all cached".into(),
                    (hits, _) => format!("{hits} cached"),
                };
                let steps = plural(*steps, "step");
                let time = format_duration(*duration);
                vec![style.dim(&format!("  {whose}ready: {steps}, {hits}, in {time}"))]
            }
            Event::BaseFailed { base, message } => {
                self.forget(base);
                let head = format!("base {base} was not built");
                if self.failed.take().as_ref() == Some(message) {
                    return vec![format!("  {}", style.bad(&head))];
                }
                vec![format!("  {} {message}", style.bad(&format!("{head}:")))]
            }
            _ => Vec::new(),
        }
    }

    fn forget(&mut self, base: &str) -> String {
        let whose = self.whose(base);
        if let Some(at) = self.bases.iter().position(|known| known == base) {
            self.bases.remove(at);
        }
        whose
    }

    fn whose(&self, base: &str) -> String {
        if self.bases.len() > 1 { format!("{base} ") } else { String::new() }
    }

    /// One line about a step, its right side in one column.
    pub fn step(&self, mark: &str, base: &str, step: usize, title: &str, right: &str) -> String {
        let place = self.width.saturating_sub(20).clamp(24, 60);
        let text = fit(&format!("{}{step} {}", self.whose(base), clean(title)), place);
        format!("  {mark} {}  {right}", pad(&text, place)).trim_end().to_string()
    }

    fn matrix(&mut self, event: &Event) -> Vec<String> {
        let style = self.style;
        match event {
            Event::MatrixStarted { matrix, cells, total, parallel, order, seed } => {
                let running = Running { cells: cells.clone(), ended: HashMap::new() };
                self.matrices.insert(matrix.clone(), running);
                let name = style.bold(&format!("matrix {matrix}"));
                let total = *total;
                let mut what = match cells.len() {
                    0 => format!("the filter selects none of its {}", plural(total, "cell")),
                    count if count < total => {
                        format!("{count} of {}, {parallel} at once", plural(total, "cell"))
                    }
                    count => format!("{}, {parallel} at once", plural(count, "cell")),
                };
                if *order == Order::Random {
                    what.push_str(&format!(", in random order (--seed {seed})"));
                }
                vec![format!("{name} {}", style.dim(&what))]
            }
            Event::CellEnded {
                matrix,
                cell,
                outcome,
                duration,
                message,
                hint,
                tail,
                unchanged,
                attempts,
                enter,
                artifacts,
                egress,
                moved,
                ..
            } => {
                let script = self.script.as_deref();
                let ended = Ended {
                    attempts: *attempts,
                    enter: enter.clone(),
                    artifacts: artifacts.clone(),
                    refused: egress.said().map(|said| (said, egress.remedy(script))),
                    outcome: *outcome,
                    duration: *duration,
                    message: message.clone(),
                    hint: hint.clone(),
                    tail: tail.clone(),
                    unchanged: *unchanged,
                };
                if let Some(running) = self.matrices.get_mut(matrix) {
                    running.ended.insert(cell.clone(), ended);
                }
                let told = self.chatty
                    || outcome.failed()
                    || !moved.is_empty()
                    || matches!(outcome, Outcome::Cancelled | Outcome::Flaky);
                if !told || *outcome == Outcome::NotRun || *unchanged {
                    return Vec::new();
                }
                let time = format_duration(*duration);
                let sign = style.outcome(*outcome, mark(*outcome));
                let mut line = format!("  {sign} {cell}  {outcome} in {time}");
                if let (Outcome::Skipped, Some(reason)) = (outcome, message) {
                    line = format!("  {sign} {cell}  {outcome}: {}", first_line(reason));
                }
                if !moved.is_empty() {
                    line.push_str(&style.dim(&format!("  (began again: {})", gone(moved))));
                }
                vec![line]
            }
            Event::CellRetry { cell, attempt, outcome, duration, message, pause, away, .. } => {
                let sign = style.outcome(Outcome::Flaky, mark(Outcome::Flaky));
                let time = format_duration(*duration);
                let mut line = format!("  {sign} {cell}  attempt {attempt} {outcome} in {time}");
                if let Some(message) = message {
                    line.push_str(&format!(": {}", first_line(message)));
                }
                let again = match pause.is_zero() {
                    true if away.is_some() => "  (again elsewhere)".to_string(),
                    true => "  (again)".to_string(),
                    false => format!("  (again in {})", format_duration(*pause)),
                };
                line.push_str(&style.dim(&again));
                vec![line]
            }
            Event::CellSlow { cell, duration, limit, tail: since, .. } => {
                let sign = style.odd("…");
                let time = format_duration(*duration);
                let mut line = format!("  {sign} {cell}  still runs after {time}");
                if let Some(limit) = limit {
                    let limit = format!(" (timeout {})", format_duration(*limit));
                    line.push_str(&style.dim(&limit));
                }
                let mut lines = vec![line];
                lines.extend(tail(since, style));
                lines
            }
            Event::MatrixEnded { matrix, counts, duration } => {
                let Some(running) = self.matrices.remove(matrix) else { return Vec::new() };
                let cells = running.cells.iter();
                let ended = cells.filter_map(|cell| Some((cell, running.ended.get(&cell.id)?)));
                let summary = Summary {
                    name: matrix,
                    cells: ended.collect(),
                    counts: *counts,
                    duration: *duration,
                    show: self.show,
                };
                summary.lines(style, self.width)
            }
            Event::CellList { cells, .. } => cells.iter().map(|cell| cell.id.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Which members of a cluster went away.
fn gone(members: &[String]) -> String {
    let names: Vec<String> = members.iter().map(|name| format!("'{}'", clean(name))).collect();
    match names.as_slice() {
        [one] => format!("member {one} of the cluster went away"),
        all => format!("members {} of the cluster went away", all.join(", ")),
    }
}

/// The first line of a guest's or a script's message.
fn first_line(message: &str) -> String {
    clean(message.lines().next().unwrap_or_default())
}

fn prefixed(text: &str, cell: Option<&str>, style: Style) -> Vec<String> {
    let Some(cell) = cell else { return text.split('\n').map(String::from).collect() };
    let prefix = style.dim(&format!("[{cell}]"));
    text.split('\n').map(|line| format!("{prefix} {line}")).collect()
}
