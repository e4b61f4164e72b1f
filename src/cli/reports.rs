//! The reports of a run: one for the person, and those that were asked for.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;

use super::output::Output;
use super::session::Session;
use super::terminal::window_size;
use super::{CommandError, Result};
use crate::workflow::report::{
    self, GitHub, Html, JsonLines, Junit, Out, Plain, Report, Show, Terminal, Trace,
};
use crate::workflow::{Event, Record};

/// The kinds of report that can be written to a file.
pub(super) const KINDS: &[&str] = &["github", "html", "jsonl", "junit", "trace"];

/// `--show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Default)]
pub(super) enum ShowArg {
    /// All of it, while it is printed
    All,
    /// Its end, where a cell failed
    #[default]
    Failed,
    /// Nothing of it
    None,
}

impl ShowArg {
    fn show(self) -> Show {
        match self {
            ShowArg::All => Show::All,
            ShowArg::Failed => Show::Failed,
            ShowArg::None => Show::None,
        }
    }
}

/// A report that was asked for: its kind, and the file it goes to.
pub(super) type Asked = (String, Option<String>);

/// `KIND=PATH`, or `github` alone.
pub(super) fn kind_and_path(text: &str) -> Result<Asked, String> {
    let (kind, path) = match text.split_once('=') {
        Some((kind, path)) if !path.is_empty() => (kind, Some(path.to_owned())),
        _ => (text.trim_end_matches('='), None),
    };
    if !KINDS.contains(&kind) {
        let hint = crate::config::suggest(kind, KINDS);
        return Err(format!("'{kind}' is no kind of report; {hint}"));
    }
    if path.is_none() && kind != "github" {
        return Err(format!("write it as {kind}=PATH"));
    }
    Ok((kind.to_owned(), path))
}

/// What a person sees.
pub(super) fn for_people(output: &Output, show: ShowArg, verbose: bool) -> Vec<Box<dyn Report>> {
    let style = report::Style { color: output.color_err };
    let prints = || Box::new(Prints) as Out;
    let mut reports: Vec<Box<dyn Report>> = Vec::new();
    let all = verbose || show == ShowArg::All;
    if output.moves && !all {
        let size = Arc::new(|| {
            let size = window_size();
            (size.rows, size.cols)
        });
        let piped = !io::stdout().is_terminal();
        let terminal = Terminal::new(Box::new(io::stderr()), style, size, piped.then(prints));
        reports.push(Box::new(terminal.show(show.show())));
    } else {
        let out: Out = if output.quiet { Box::new(io::sink()) } else { Box::new(io::stderr()) };
        let show = if all { Show::All } else { show.show() };
        reports.push(Box::new(Plain::new(out, style, Some(prints())).show(show)));
    }
    if all {
        reports.push(Box::new(Echo(style)));
    }
    reports
}

/// Standard output, of which it is remembered when it could not be written.
struct Prints;

static UNWRITTEN: OnceLock<i32> = OnceLock::new();

impl Prints {
    fn note<T>(done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| match error.kind() {
            // Whoever read it went away.
            io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => {}
            _ => drop(UNWRITTEN.set(error.raw_os_error().unwrap_or_default())),
        })
    }
}

impl Write for Prints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Prints::note(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Prints::note(io::stdout().flush())
    }
}

/// Why what scripts print could not be written, where that is so.
pub(super) fn unwritten() -> Option<io::Error> {
    UNWRITTEN.get().map(|number| io::Error::from_raw_os_error(*number))
}

/// Opens what was asked for, so that what can't be written is known before anything runs: `anew`,
/// or behind what is there.
pub(super) fn open(
    asked: &[Asked],
    session: &Session<'_>,
    anew: bool,
) -> Result<Vec<Box<dyn Report>>> {
    let mut reports: Vec<Box<dyn Report>> = Vec::new();
    for (index, (kind, path)) in asked.iter().enumerate() {
        if let Some(path) = path
            && !path.starts_with("/dev/")
            && asked[..index].iter().any(|(_, other)| other.as_ref() == Some(path))
        {
            return Err(CommandError::usage(format!("two reports are to go to '{path}'"))
                .hint("name a file of its own for each"));
        }
        let out = || match path {
            Some(path) => create(Path::new(path), anew || kind != "jsonl"),
            None => Ok(Box::new(io::stdout()) as Out),
        };
        reports.push(match kind.as_str() {
            "github" => {
                let report = GitHub::new(out()?, summary(session)?);
                Box::new(if path.is_some() { report.into_file() } else { report })
            }
            "html" => Box::new(Html::new(out()?)),
            "junit" => Box::new(Junit::new(out()?)),
            "trace" => Box::new(Trace::new(out()?)),
            _ => Box::new(JsonLines::new(out()?)),
        });
    }
    Ok(reports)
}

/// The step summary of GitHub, behind what other steps wrote.
fn summary(session: &Session<'_>) -> Result<Option<Out>> {
    session.step_summary().map(|path| create(path, false)).transpose()
}

fn create(path: &Path, anew: bool) -> Result<Out> {
    let mut options = File::options();
    options.create(true).write(true).truncate(anew).append(!anew);
    let file = options.open(path).map_err(|error| {
        CommandError::usage(format!("the report '{}' can't be written: {error}", path.display()))
            .hint("name a file in a folder that is there and can be written to")
    })?;
    Ok(Box::new(io::BufWriter::new(file)))
}

/// Shows what the commands of steps and cells print, while they do.
pub(super) struct Echo(pub report::Style);

impl Report for Echo {
    fn name(&self) -> &'static str {
        "output"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let (whose, text) = match &record.event {
            Event::StepOutput { base, step, text, .. } => (format!("{base} {step}"), text),
            Event::CellOutput { cell, text, .. } => (cell.clone(), text),
            _ => return Ok(()),
        };
        let mut lines = String::new();
        for line in report::shown(text, self.0).lines() {
            lines.push_str(&format!("  {whose} │ {line}\n"));
        }
        io::stderr().lock().write_all(lines.as_bytes())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
