//! What is said between the runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Why;
use super::keys::Key;
use super::notifier::Trouble;
use crate::cli::output::{Output, Style, paint};
use crate::cli::terminal::window_size;
use crate::cli::{CommandError, Result};
use crate::sandbox::format_duration;

const HELP: &str = "  Enter, r  run what changed or failed
  f         run the cells that failed
  a         run all cells
  q         quit
  h         this help";

/// Says what happens between the runs: on a terminal a last line that goes away again, else plain
/// lines.
pub(super) struct Screen<'a> {
    output: &'a Output,
    /// Whether keys can be pressed.
    keys: bool,
    clear: bool,
    project: PathBuf,
    runs: usize,
    /// The last line is to go away.
    waiting: bool,
    told: Option<Trouble>,
}

impl<'a> Screen<'a> {
    pub fn new(output: &'a Output, keys: bool, clear: bool, project: &Path) -> Self {
        Screen {
            output,
            keys,
            clear,
            project: project.to_owned(),
            runs: 0,
            waiting: false,
            told: None,
        }
    }

    /// A run begins.
    pub fn begin(&mut self, script: &str, why: &Why) {
        self.runs += 1;
        self.wipe();
        if self.clear && self.output.moves {
            self.write("\x1b[H\x1b[2J\x1b[3J");
        }
        let why = self.reason(script, why);
        let color = self.output.color_err;
        let number = format!("run {}", self.runs);
        let text = match self.output.moves {
            true => {
                let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
                let text = format!("── {number} ── {time} ── {why} ");
                let width = usize::from(window_size().cols).clamp(20, 100);
                let text: String = text.chars().take(width).collect();
                let rest = width.saturating_sub(text.chars().count());
                let line = format!("{text}{}", "─".repeat(rest));
                let gap = if self.runs > 1 && !self.clear { "\n" } else { "" };
                format!("{gap}{}", paint(color, Style::Bold, line))
            }
            false => format!("--- {number}: {why}"),
        };
        self.output.note(text);
    }

    /// What happens to a run on its way.
    pub fn interruption(&self, why: &Why, queued: bool) -> String {
        let then = if queued { "running again after this" } else { "stopping, to run again" };
        format!("{}: {then}", self.reason("", why))
    }

    fn reason(&self, script: &str, why: &Why) -> String {
        match why {
            Why::Start => script.to_owned(),
            Why::Changed(paths) => {
                let names: Vec<String> = paths.iter().take(3).map(|path| self.name(path)).collect();
                match paths.len() {
                    count if count > 3 => {
                        format!("{} and {} more changed", names[..2].join(", "), count - 2)
                    }
                    _ => format!("{} changed", names.join(", ")),
                }
            }
            Why::Again => "again".into(),
            Why::Failed => "what failed".into(),
            Why::All => "all cells".into(),
            Why::Back => "the backend is back".into(),
        }
    }

    fn name(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.project).unwrap_or(path);
        path.display().to_string().chars().filter(|c| !c.is_control()).collect()
    }

    /// A run ended, because it came to its end.
    pub fn end(&mut self, result: &Result, took: Duration) {
        if let Err(error) = result {
            self.output.error(error, false);
        }
        let code = match result {
            Ok(code) => *code,
            Err(error) => error.code,
        };
        let time = format_duration(took);
        let color = self.output.color_err;
        let text = match code {
            0 => format!("{} in {time}", paint(color, Style::Good, "passed")),
            code => format!("{} in {time} (exit code {code})", paint(color, Style::Bad, "failed")),
        };
        match self.output.moves {
            true => self.output.note(text),
            false => self.output.note(format!("--- run {} {text}", self.runs)),
        }
    }

    /// A run was stopped for another one.
    pub fn stopped(&self) {
        if !self.output.moves {
            self.output.note(format!("--- run {} stopped", self.runs));
        }
    }

    /// It waits now.
    pub fn wait(&mut self, files: usize, trouble: Option<&Trouble>) {
        if self.told.as_ref() != trouble {
            self.told = trouble.cloned();
            if let Some(trouble) = trouble {
                self.output.warn(&trouble.message);
                self.output.note(format!("hint: {}", trouble.hint.replace('\n', "\n      ")));
            }
        }
        self.last_line(&match files {
            0 => "watching for the script".to_owned(),
            1 => "watching 1 file".to_owned(),
            count => format!("watching {count} files"),
        });
    }

    /// It waits for the backend.
    pub fn away(&mut self, backend: &str, error: &CommandError) {
        self.wipe();
        self.output.warn(format!("backend '{backend}' is away: {}", error.message));
        self.last_line("waiting for it to come back");
    }

    fn last_line(&mut self, text: &str) {
        let keys = if self.keys {
            ": Enter runs again, f what failed, a all, q quits, h helps"
        } else {
            ""
        };
        if !self.output.moves || !self.keys {
            self.output
                .note(format!("{}{text}{keys}", if self.output.moves { "" } else { "--- " }));
            return;
        }
        let width = usize::from(window_size().cols).saturating_sub(1);
        let text: String = format!("{text}{keys}").chars().take(width).collect();
        self.write(&paint(self.output.color_err, Style::Hint, text));
        self.waiting = true;
    }

    /// A key that does not run anything.
    pub fn key(&mut self, key: Key) {
        self.wipe();
        match key {
            Key::Help => self.output.note(HELP),
            Key::Failed => self.output.note("nothing failed in the last run"),
            _ => {}
        }
    }

    /// What `h` shows, for a screen that somebody else draws on.
    pub fn help() -> &'static str {
        HELP
    }

    /// Takes the last line off the screen.
    pub fn wipe(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.write("\r\x1b[2K");
        }
    }

    fn write(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}
