//! The line editor.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::{FileHistory, History as _};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Behavior, ColorMode, CompletionType, Config, Context, ExternalPrinter, Helper};

use super::command;
use super::complete::complete;
use super::input::{Ask, Input};
use super::view::View;

/// How many entries are remembered.
const REMEMBERED: usize = 10_000;

type Result<T> = rustyline::Result<T>;

/// Writes above the prompt while there is one.
pub type Printer = Box<dyn FnMut(String) -> io::Result<()> + Send>;

/// Reads entries from a terminal, with history, hints and completion.
pub struct Editor {
    inner: rustyline::Editor<Assistant, FileHistory>,
    /// Where histories are, one for each language; none when they can't be kept.
    folder: Option<PathBuf>,
    /// The language whose history is loaded.
    loaded: &'static str,
    warn: Box<dyn FnMut(String) + Send>,
}

/// How the terminal is used.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// With colours.
    pub color: bool,
    /// Standard output goes elsewhere.
    pub aside: bool,
}

impl Editor {
    /// Opens the terminal.
    pub fn open(
        view: View,
        manner: Manner,
        folder: Option<PathBuf>,
        warn: impl FnMut(String) + Send + 'static,
    ) -> Result<Editor> {
        let config = Config::builder()
            .auto_add_history(false)
            .history_ignore_space(true)
            .max_history_size(REMEMBERED)?
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .completion_prompt_limit(200)
            .color_mode(if manner.color { ColorMode::Forced } else { ColorMode::Disabled })
            .behavior(if manner.aside { Behavior::PreferTerm } else { Behavior::Stdio })
            .build();
        let history = FileHistory::with_config(&config);
        let mut inner = rustyline::Editor::with_history(config, history)?;
        let assistant =
            Assistant { view, hinter: HistoryHinter::new(), color: manner.color, answering: false };
        inner.set_helper(Some(assistant));
        Ok(Editor { inner, folder, loaded: "", warn: Box::new(warn) })
    }

    /// What writes above the prompt; none where the terminal can't do that.
    pub fn printer(&mut self) -> Option<Printer> {
        let mut printer = self.inner.create_external_printer().ok()?;
        Some(Box::new(move |text| printer.print(text).map_err(io::Error::other)))
    }

    /// Reads what is asked for.
    pub fn read(&mut self, ask: &Ask) -> Input {
        let prompt = match ask {
            Ask::Entry(language) => {
                self.load(language);
                format!("{language}> ")
            }
            Ask::Answer(question) => format!("{question} "),
        };
        if let Some(assistant) = self.inner.helper_mut() {
            assistant.answering = matches!(ask, Ask::Answer(_));
        }
        match self.inner.readline(&prompt) {
            Ok(text) => {
                if matches!(ask, Ask::Entry(_)) && !text.trim().is_empty() {
                    self.remember(&text);
                }
                Input::Entry(text)
            }
            Err(ReadlineError::Interrupted) => Input::Interrupted,
            Err(ReadlineError::Eof) => Input::End,
            Err(error) => Input::Failed(format!("the terminal can't be read: {error}")),
        }
    }

    fn file(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("history.{}", self.loaded)))
    }

    fn load(&mut self, language: &'static str) {
        if self.loaded == language {
            return;
        }
        self.loaded = language;
        let _ = self.inner.history_mut().clear();
        let Some(file) = self.file() else { return };
        match self.inner.load_history(&file) {
            Ok(()) => {}
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.forget(&file, "read", &error),
        }
    }

    /// Writes the entry down at once: another session sees it, and no crash loses it.
    fn remember(&mut self, text: &str) {
        let _ = self.inner.add_history_entry(text);
        let Some(file) = self.file() else { return };
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let done = made.map_err(ReadlineError::Io).and_then(|()| self.inner.append_history(&file));
        if let Err(error) = done {
            self.forget(&file, "written", &error);
        }
    }

    /// Goes on without a file.
    fn forget(&mut self, file: &Path, what: &str, error: &ReadlineError) {
        let file = file.display();
        (self.warn)(format!("the history can't be {what}, and so is not kept: {file}: {error}"));
        self.folder = None;
    }
}

/// What the editor asks while somebody types.
struct Assistant {
    view: View,
    hinter: HistoryHinter,
    color: bool,
    /// A question is answered: that is no entry.
    answering: bool,
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        if self.answering {
            return Ok((at, Vec::new()));
        }
        let (start, offers) = complete(&line[..at], &self.view.now());
        let pair =
            |offer: super::complete::Offer| Pair { display: offer.shown, replacement: offer.text };
        Ok((start, offers.into_iter().map(pair).collect()))
    }
}

impl Hinter for Assistant {
    type Hint = String;

    /// The rest of an entry that began alike, of its first line.
    fn hint(&self, line: &str, at: usize, context: &Context<'_>) -> Option<String> {
        if self.answering {
            return None;
        }
        let hint = self.hinter.hint(line, at, context)?;
        let first = hint.lines().next().filter(|first| !first.is_empty())?;
        Some(first.to_owned())
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.color { format!("\x1b[1m{prompt}\x1b[0m").into() } else { prompt.into() }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.color { format!("\x1b[2m{hint}\x1b[0m").into() } else { hint.into() }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        false
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        let text = context.input();
        let whole = self.answering
            || command::split(text).is_some()
            || !self.view.now().session.incomplete(text.trim_end());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}
