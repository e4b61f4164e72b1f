//! Progress on a terminal: lines that stay above, what runs now below.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::sandbox::format_duration;

use super::super::{Event, Outcome, Record};
use super::narrator::Narrator;
use super::style::fit;
use super::{Out, Report, Style};

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
    size: Size,
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
            size: Arc::clone(&size),
        };
        Terminal {
            screen,
            size,
            prints,
            narrator: Narrator::new(style, 80, false),
            bar: None,
            steps: BTreeMap::new(),
            matrices: BTreeMap::new(),
            frame: 0,
        }
    }

    /// A terminal that does not know its width is taken for an ordinary one.
    fn measure(&mut self) {
        self.narrator.width = match (self.size)().1 {
            0 => 80,
            width => width.into(),
        };
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
            Event::CellEnded { matrix, cell, outcome, .. } => {
                if let Some(progress) = self.matrices.get_mut(matrix) {
                    progress.running.retain(|(running, _)| running != cell);
                    progress.ended += 1;
                    progress.failed +=
                        usize::from(matches!(outcome, Outcome::Failed | Outcome::TimedOut));
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
        for ((base, step), (title, since)) in self.steps.iter().take(RUNNING) {
            let time = format_duration(whole(since.elapsed()));
            lines.push(self.narrator.step(&sign, base, *step, title, &style.dim(&time)));
        }
        let room = RUNNING - lines.len();
        let running: Vec<_> = self.matrices.values().flat_map(|matrix| &matrix.running).collect();
        let place = self.narrator.width.saturating_sub(14);
        for (cell, since) in running.iter().take(room) {
            let time = format_duration(whole(since.elapsed()));
            lines.push(format!("  {sign} {}  {}", fit(cell, place), style.dim(&time)));
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
        let since = matrix.started.map(|at| whole(at.elapsed())).unwrap_or_default();
        let time = style.dim(&format_duration(since));
        format!("  {bar} {}/{} {}{failed}  {time}", matrix.ended, matrix.cells, fit(name, 16))
    }

    /// Writes lines that stay, above what moves.
    fn write(&mut self, lines: Vec<String>) -> io::Result<()> {
        if !lines.is_empty() {
            let text = lines.join("\n");
            match &self.bar {
                Some(bar) => bar.println(text),
                None => {
                    self.screen.write_line(&text)?;
                    self.screen.flush()?;
                }
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
        if let (Event::Print { text, .. }, Some(prints)) = (&record.event, &mut self.prints) {
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

/// Tenths of a second and whole ones: finer is unrest.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis() / 100 * 100).unwrap_or(u64::MAX))
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
    fn width(&self) -> u16 {
        (self.size)().1
    }

    fn height(&self) -> u16 {
        (self.size)().0
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
