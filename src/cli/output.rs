//! Printing: data to stdout, messages to stderr, colour where it helps.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::config::Environment;
use super::{Color, CommandError, Global};
use crate::workflow::exit;
use crate::workflow::report::clean;

/// How this process talks.
#[derive(Clone, Debug)]
pub struct Output {
    /// Colour on stdout.
    pub color_out: bool,
    /// Colour on stderr.
    pub color_err: bool,
    /// Only errors.
    pub quiet: bool,
    /// Show what guests print.
    pub verbose: bool,
    /// Stderr is a terminal that progress can be drawn on.
    pub moves: bool,
    /// Stdin and stderr are a person's.
    pub can_ask: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Bad,
    Good,
    Bold,
    Hint,
    Warn,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Bad => "1;31",
            Style::Good => "32",
            Style::Bold => "1",
            Style::Hint => "36",
            Style::Warn => "33",
        }
    }
}

/// `text` in this style, when `color`.
pub fn paint(color: bool, style: Style, text: impl Display) -> String {
    if color { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_string() }
}

impl Output {
    /// From flags and environment.
    pub fn new(global: &Global, environment: &Environment) -> Output {
        let dumb = environment.term.as_deref() == Some("dumb");
        let color = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                !environment.no_color && (environment.force_color || (terminal && !dumb))
            }
        };
        Output {
            color_out: color(io::stdout().is_terminal()),
            color_err: color(io::stderr().is_terminal()),
            quiet: global.quiet,
            verbose: global.verbose,
            moves: io::stderr().is_terminal()
                && !(dumb || environment.ci || global.quiet || global.verbose),
            can_ask: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Data. A reader that went away ends the process quietly, as it does for other filters.
    pub fn data(&self, text: &str) {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.error(&unwritten(&error), false);
                std::process::exit(exit::INTERNAL.into());
            }
            std::process::exit(BROKEN_PIPE);
        }
    }

    /// Data as JSON.
    pub fn json(&self, value: &Value) {
        self.data(&format!("{value:#}\n"));
    }

    /// A message about what was done.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.stderr(format!("{text}\n"));
        }
    }

    /// A warning.
    pub fn warn(&self, text: impl Display) {
        let label = paint(self.color_err, Style::Warn, "warning:");
        self.stderr(format!("{label} {}\n", clean(&text.to_string())));
    }

    /// An error with its hint, without what a guest or an archive may have put into it to move the
    /// cursor; as JSON on stdout, too, for a program that asked for JSON.
    pub fn error(&self, error: &CommandError, json: bool) {
        if json {
            self.json(&error.json());
        }
        let label = paint(self.color_err, Style::Bad, "error:");
        let mut text = format!("{label} {}\n", clean(&error.message));
        if let Some(hint) = &error.hint {
            let label = paint(self.color_err, Style::Hint, "hint:");
            text.push_str(&format!("{label} {}\n", clean(hint).replace('\n', "\n      ")));
        }
        self.stderr(text);
    }

    /// A question to be answered with y or n.
    pub fn ask(&self, question: &str) -> bool {
        self.stderr(format!("{question} [y/N] "));
        let mut answer = String::new();
        let _ = io::stdin().read_line(&mut answer);
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Rows under headings, in columns; without what a guest or a server may have put into them.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([headings[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            line.trim_end().to_owned()
        };
        let headings: Vec<String> = headings.iter().map(|heading| heading.to_string()).collect();
        let mut text = paint(self.color_out, Style::Bold, line(&headings)) + "\n";
        for row in &rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        self.data(&text);
    }

    fn stderr(&self, text: String) {
        // With stderr gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// A value of somebody else's, for one line of a terminal.
pub fn one_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// What was to be printed could not be, and somebody waits for it.
pub fn unwritten(error: &io::Error) -> CommandError {
    CommandError::internal(format!("standard output can't be written: {error}"))
}

/// As a shell reports a process that SIGPIPE ended.
pub const BROKEN_PIPE: i32 = 141;
