//! Progress on a terminal: lines that stay above, what runs now below.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::sandbox::format_duration;

use super::super::{Event, Record};
use super::narrator::Narrator;
use super::style::fit;
use super::{Out, Report, Show, Style};

/// How many running steps and cells are shown.
const RUNNING: usize = 8;
/// What shows that something moves.
const SPINNER: &[&str] = &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Asks the terminal for its size: rows, columns.
pub type Size = Arc<dyn Fn() -> (u16, u16) + Send + Sync>;

/// Shows what runs now, and leaves a line for each step, each cell that did not pass, and the
/// table at the end.
pub struct Terminal {
    screen: Screen,
    prints: Option<Out>,
    narrator: Narrator,
    bar: Option<ProgressBar>,
    steps: BTreeMap<(String, usize), (String, Instant)>,
    matrices: BTreeMap<String, Progress>,
    frame: usize,
}

/// A matrix on its way.
#[derive(Debug, Default)]
struct Progress {
    cells: usize,
    ended: usize,
    failed: usize,
    running: Vec<(String, Instant)>,
    started: Option<Instant>,
}

impl Terminal {
    /// A report that draws on `out`, a terminal. What scripts print goes to `prints` where that is
    /// given: when standard output is not the terminal.
    pub fn new(out: Out, style: Style, size: Size, prints: Option<Out>) -> Self {
        let screen = Screen {
            inner: Arc::new(Mutex::new(Inner { out, buffer: Vec::new(), error: None })),
            size,
        };
        Terminal {
            screen,
            prints,
            narrator: Narrator::new(style, 80, false),
            bar: None,
            steps: BTreeMap::new(),
            matrices: BTreeMap::new(),
            frame: 0,
        }
    }

    /// Shows what cells printed of others than those that failed, or of none.
    pub fn show(mut self, show: Show) -> Self {
        self.narrator.show = show;
        self
    }

    fn measure(&mut self) {
        self.narrator.width = self.screen.width().into();
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::StepStarted { base, step, title, .. } => {
                self.steps.insert((base.clone(), *step), (title.clone(), Instant::now()));
            }
            Event::StepDone { base, step, .. } | Event::StepFailed { base, step, .. } => {
                self.steps.remove(&(base.clone(), *step));
            }
            Event::MatrixStarted { matrix, cells, .. } => {
                let started = Some(Instant::now());
                let progress = Progress { cells: cells.len(), started, ..Progress::default() };
                self.matrices.insert(matrix.clone(), progress);
            }
            Event::CellStarted { matrix, cell, .. } => {
                if let Some(progress) = self.matrices.get_mut(matrix) {
                    progress.running.push((cell.clone(), Instant::now()));
                }
            }
            Event::CellRetry { matrix, cell, .. } => {
                if let Some(progress) = self.matrices.get_mut(matrix) {
                    progress.running.retain(|(running, _)| running != cell);
                }
            }
            Event::CellEnded { matrix, cell, outcome, .. } => {
                if let Some(progress) = self.matrices.get_mut(matrix) {
                    progress.running.retain(|(running, _)| running != cell);
                    progress.ended += 1;
                    progress.failed += usize::from(outcome.failed());
                }
            }
            Event::MatrixEnded { matrix, .. } => drop(self.matrices.remove(matrix)),
            _ => {}
        }
    }

    /// What runs now, a line each.
    fn live(&self) -> Vec<String> {
        let style = self.narrator.style;
        let sign = style.good(SPINNER[self.frame % SPINNER.len()]);
        let mut lines = Vec::new();
        for ((base, step), (title, start)) in self.steps.iter().take(RUNNING) {
            let time = style.dim(&since(*start));
            lines.push(self.narrator.step(&sign, base, *step, title, &time));
        }
        let room = RUNNING - lines.len();
        let running: Vec<_> = self.matrices.values().flat_map(|matrix| &matrix.running).collect();
        let place = self.narrator.width.saturating_sub(14);
        for (cell, start) in running.iter().take(room) {
            let time = style.dim(&since(*start));
            lines.push(format!("  {sign} {}  {time}", fit(cell, place)));
        }
        if running.len() > room {
            lines.push(style.dim(&format!("    and {} more", running.len() - room)));
        }
        lines.extend(self.matrices.iter().map(|(name, matrix)| self.gauge(name, matrix)));
        lines
    }

    fn gauge(&self, name: &str, matrix: &Progress) -> String {
        let style = self.narrator.style;
        let width = self.narrator.width.saturating_sub(50).clamp(8, 30);
        let full = (width * matrix.ended).checked_div(matrix.cells).unwrap_or(width);
        let (done, left) = ("━".repeat(full), "─".repeat(width - full));
        let bar = format!("{}{}", style.good(&done), style.dim(&left));
        let failed = match matrix.failed {
            0 => String::new(),
            count => format!("  {}", style.bad(&format!("{count} failed"))),
        };
        let time = style.dim(&matrix.started.map(since).unwrap_or_default());
        format!("  {bar} {}/{} {}{failed}  {time}", matrix.ended, matrix.cells, fit(name, 16))
    }

    /// Writes lines that stay, above what moves.
    fn write(&mut self, lines: Vec<String>) -> io::Result<()> {
        if !lines.is_empty() {
            let text = lines.join("\n");
            let write = || self.screen.write_line(&text).and_then(|()| self.screen.flush());
            match &self.bar {
                Some(bar) => bar.suspend(write)?,
                None => write()?,
            }
        }
        self.screen.error()
    }

    /// Takes what moves off the screen.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Report for Terminal {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.measure();
        self.note(&record.event);
        if let (Some(text), Some(prints)) = (super::data(&record.event), &mut self.prints) {
            writeln!(prints, "{text}")?;
            return prints.flush();
        }
        if self.steps.is_empty() && self.matrices.is_empty() {
            self.clear();
        }
        let lines = self.narrator.tell(&record.event);
        self.write(lines)
    }

    fn moves(&self) -> bool {
        true
    }

    fn tick(&mut self) -> io::Result<()> {
        self.frame += 1;
        self.measure();
        let lines = self.live();
        if lines.is_empty() {
            self.clear();
        } else {
            let bar = self.bar.get_or_insert_with(|| {
                let screen = Box::new(self.screen.clone());
                let target = ProgressDrawTarget::term_like_with_hz(screen, 20);
                let bar = ProgressBar::with_draw_target(None, target);
                match ProgressStyle::with_template("{msg}") {
                    Ok(style) => bar.with_style(style),
                    Err(_) => bar,
                }
            });
            bar.set_message(lines.join("\n"));
        }
        self.screen.error()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.clear();
        let lines = self.narrator.end();
        self.write(lines)
    }
}

/// How long something has been running, once that is worth a word: in whole seconds.
fn since(start: Instant) -> String {
    match start.elapsed().as_secs() {
        0 => String::new(),
        seconds => format_duration(Duration::from_secs(seconds)),
    }
}

/// The terminal, as the drawing library wants it.
#[derive(Clone)]
struct Screen {
    inner: Arc<Mutex<Inner>>,
    size: Size,
}

struct Inner {
    out: Out,
    /// Written in one go, so that nothing flickers.
    buffer: Vec<u8>,
    error: Option<io::Error>,
}

impl Screen {
    fn push(&self, text: &str) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.buffer.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// What went wrong since it was asked last; the drawing library throws it away.
    fn error(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.error.take().map_or(Ok(()), Err)
    }

    fn by(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.push(&format!("\x1b[{count}{direction}")) }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

impl TermLike for Screen {
    /// A terminal that does not know its size is taken for an ordinary one.
    fn width(&self) -> u16 {
        match (self.size)().1 {
            0 => 80,
            width => width,
        }
    }

    fn height(&self) -> u16 {
        match (self.size)().0 {
            0 => 24,
            height => height,
        }
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.by(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.by(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.by(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.by(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut inner.buffer);
        let written = inner.out.write_all(&bytes).and_then(|()| inner.out.flush());
        if let Err(error) = written {
            inner.error.get_or_insert(error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Order, Outcome};
    use super::super::sample::{self, Full, Paper, begun, feed};
    use super::*;

    /// What a terminal shows after it was sent `text`, without trailing blanks.
    fn shown(text: &str, width: usize) -> String {
        let mut lines: Vec<Vec<char>> = vec![Vec::new()];
        let (mut row, mut column) = (0, 0);
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\n' => (row, column) = (row + 1, 0),
                '\r' => column = 0,
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut digits = String::new();
                    let verb = loop {
                        match rest.next() {
                            Some(digit @ '0'..='9') => digits.push(digit),
                            verb => break verb,
                        }
                    };
                    let count: usize = digits.parse().unwrap_or(1);
                    match verb {
                        Some('A') => row -= count,
                        Some('B') => row += count,
                        Some('C') => column += count,
                        Some('D') => column -= count,
                        Some('K') => lines[row].clear(),
                        Some('m') => {}
                        other => panic!("ESC [ {digits} {other:?}"),
                    }
                }
                other => {
                    // The cursor stays behind a full line until something more is written.
                    if column == width {
                        (row, column) = (row + 1, 0);
                        lines.resize(lines.len().max(row + 1), Vec::new());
                    }
                    let line = &mut lines[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = other;
                    column += 1;
                }
            }
            lines.resize(lines.len().max(row + 1), Vec::new());
        }
        let lines = lines.into_iter().map(|line| line.into_iter().collect::<String>());
        lines.map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
    }

    fn terminal(width: u16, color: bool) -> (Terminal, Paper) {
        let paper = Paper::default();
        let size: Size = Arc::new(move || (24, width));
        (Terminal::new(Box::new(paper.clone()), Style { color }, size, None), paper)
    }

    /// Feeds events with a tick after each, so that what moves is drawn as often as can be.
    fn lively(terminal: &mut Terminal, events: Vec<Event>) {
        for event in events {
            feed(terminal, vec![event]).unwrap();
            terminal.tick().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn what_stays_of_a_whole_run() {
        let (mut quick, paper) = terminal(100, false);
        feed(&mut quick, sample::run()).unwrap();
        quick.finish().unwrap();
        let text = paper.text();
        insta::assert_snapshot!(text);

        // However much moved below, the same lines stay.
        for color in [false, true] {
            let (mut slow, paper) = terminal(100, color);
            lively(&mut slow, sample::run());
            slow.finish().unwrap();
            assert!(paper.text().contains("\x1b[2K"), "nothing moved");
            assert_eq!(shown(&paper.text(), 100).trim_end(), text.trim_end());
        }
    }

    #[test]
    fn what_moves() {
        let (mut terminal, paper) = terminal(60, false);
        let ids: Vec<String> = (0..11).map(|n| format!("{n}")).collect();
        let values: Vec<(&str, &str)> = ids.iter().map(|n| (n.as_str(), "c99")).collect();
        let cells = sample::cells(&values);
        let mut events = vec![
            sample::started(3, "run make", "it was never built"),
            Event::MatrixStarted {
                matrix: "tests".into(),
                cells: cells.clone(),
                total: 11,
                parallel: 11,
                order: Order::Given,
                seed: 7,
            },
        ];
        events.extend(cells.iter().map(|cell| begun(&cell.id)));
        events.push(sample::ended(&cells[10].id, Outcome::Failed, None, ""));
        feed(&mut terminal, events).unwrap();
        terminal.tick().unwrap();
        insta::assert_snapshot!(shown(&paper.text(), 60));
        terminal.finish().unwrap();
    }

    #[test]
    fn narrow_terminals_and_those_of_no_width() {
        for width in [0, 1, 20, 40] {
            let (mut terminal, paper) = terminal(width, true);
            lively(&mut terminal, sample::run());
            terminal.finish().unwrap();
            assert!(paper.text().contains("1 failed"));
        }
    }

    #[test]
    fn a_broken_terminal_is_an_error() {
        let size: Size = Arc::new(|| (24, 80));
        let mut terminal = Terminal::new(Box::new(Full), Style::default(), size, None);
        let error = feed(&mut terminal, sample::run()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
