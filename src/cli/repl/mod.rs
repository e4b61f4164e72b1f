//! `sandscript repl`.

mod command;
mod complete;
mod cursor;
mod editor;
mod help;
mod input;
mod leave;
mod place;
mod screen;
mod shell;
mod show;
mod table;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::args::ScriptLimits;
use super::output::Output;
use super::reports::Echo;
use super::session::{Session, Work};
use super::signals::Interrupts;
use super::terminal::{Modes, window_size};
use super::{CommandError, Result};
use crate::api::new_run_id;
use crate::workflow::report::{self, Out, Plain, Report, Terminal};
use crate::workflow::{Dispatcher, exit};
use editor::{Editor, Manner};
use input::{Ask, Input, Reader};
use screen::Screen;
use shell::{Flow, Shell};

const EXAMPLES: &str = "\
Examples:
  sandscript repl
  sandscript repl --lang lua --backend fake
  echo 'sandbox(\"a\").run(\"uname -r\")' | sandscript repl

Ctrl-C ends the call that runs, Ctrl-D leaves. When standard input is no terminal, its lines are run
without a prompt up to the first that fails, whose exit code is as that of 'run'. Sandboxes that were
made are deleted at the end; on a terminal you are asked.";

/// Try things line by line
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Repl {
    /// The language to begin with
    #[arg(long, value_name = "LANGUAGE", default_value = "rhai")]
    lang: String,
    /// Keep the sandboxes that are made
    #[arg(long)]
    pub keep: bool,
    /// A folder outside the project that may be used
    #[arg(long, value_name = "FOLDER")]
    pub allow_path: Vec<PathBuf>,
    /// Methods of the NAS that change it may be called (host().call)
    #[arg(long)]
    pub allow_call: bool,
    #[command(flatten)]
    pub limits: ScriptLimits,
}

impl Repl {
    pub fn call(self, session: &Session<'_>) -> Result {
        let language = place::language(&self.lang)?;
        session.work(true, |work| async move {
            let person = io::stdin().is_terminal();
            let screen = Screen::default();
            let reports = reports(session.output, person, &screen);
            let dispatcher = Dispatcher::start(&new_run_id(), reports);
            work.signals.tell(Some(dispatcher.sink()));
            let events = dispatcher.sink();
            let mut shell = Shell::open(self, session, &work, language, events, person)?;
            // Dropped last: the editor may be left in the middle of a line.
            let modes = Modes::now();
            let mut reader = reader(session, &shell, &screen, person)?;
            let code = if person {
                shell.greet();
                talk(&mut shell, &mut reader, &work).await
            } else {
                follow(&mut shell, &mut reader, &work).await
            };
            work.signals.tell(None);
            drop(dispatcher.finish().await);
            drop(modes);
            code
        })
    }
}

fn reader(
    session: &Session<'_>,
    shell: &Shell<'_>,
    screen: &Screen,
    person: bool,
) -> Result<Reader> {
    let no_thread =
        |error: io::Error| CommandError::internal(format!("input can't be read: {error}"));
    if !person {
        return Reader::lines(shell.view()).map_err(no_thread);
    }
    let output = session.output.clone();
    let manner = Manner { color: session.output.color_err, aside: !io::stdout().is_terminal() };
    let warn = move |text| output.warn(text);
    let mut editor = Editor::open(shell.view(), manner, session.state.clone(), warn)
        .map_err(|error| CommandError::internal(format!("the terminal can't be used: {error}")))?;
    screen.print_with(editor.printer());
    Reader::terminal(editor).map_err(no_thread)
}

/// What is told while something runs, and by what goes on in the background.
fn reports(output: &Output, person: bool, screen: &Screen) -> Vec<Box<dyn Report>> {
    let style = report::Style { color: output.color_err };
    let out = || -> Out {
        match (person, output.quiet) {
            (true, _) => Box::new(screen.clone()),
            (false, true) => Box::new(io::sink()),
            (false, false) => Box::new(io::stderr()),
        }
    };
    let elsewhere = !(person && io::stdout().is_terminal());
    let prints = elsewhere.then(|| Box::new(io::stdout()) as Out);
    let mut reports: Vec<Box<dyn Report>> = Vec::new();
    if output.moves {
        let size = Arc::new(|| {
            let size = window_size();
            (size.rows, size.cols)
        });
        reports.push(Box::new(Terminal::new(out(), style, size, prints)));
    } else {
        reports.push(Box::new(Plain::new(out(), style, prints)));
    }
    if output.verbose {
        reports.push(Box::new(Echo(style)));
    }
    reports
}

/// Entry by entry with a person, who may be wrong as often as they like.
async fn talk(shell: &mut Shell<'_>, reader: &mut Reader, work: &Work) -> Result {
    loop {
        work.signals.interrupt(Interrupts::Nothing);
        let input = tokio::select! {
            input = reader.read(Ask::Entry(shell.ending())) => input,
            () = work.cancel.cancelled() => break,
        };
        let leaves = match input {
            Input::Entry(text) => match shell.entry(&text).await {
                Ok(Flow::On) => false,
                Ok(Flow::Leave) => true,
                Err(error) => {
                    shell.error(&error);
                    false
                }
            },
            Input::Interrupted => false,
            Input::End => true,
            Input::Failed(why) => {
                shell.error(&CommandError::internal(why));
                break;
            }
        };
        if work.cancel.is_cancelled() || (leaves && leave::ask(shell, reader, work).await) {
            break;
        }
    }
    work.signals.interrupt(Interrupts::Process);
    shell.close().await;
    Ok(work.signals.code().unwrap_or(exit::OK))
}

/// Entry by entry, up to the first that fails.
async fn follow(shell: &mut Shell<'_>, reader: &mut Reader, work: &Work) -> Result {
    let mut result = Ok(exit::OK);
    while result.is_ok() {
        let input = tokio::select! {
            input = reader.read(Ask::Entry(shell.ending())) => input,
            () = work.cancel.cancelled() => break,
        };
        match input {
            Input::Entry(text) => match shell.entry(&text).await {
                Ok(Flow::On) => {}
                Ok(Flow::Leave) => break,
                Err(error) => result = Err(error),
            },
            Input::Interrupted | Input::End => break,
            Input::Failed(why) => result = Err(CommandError::usage(why)),
        }
    }
    shell.close().await;
    match (work.signals.code(), result) {
        (Some(code), _) => Ok(code),
        (None, Ok(_)) => Ok(shell.worst()),
        (None, error) => error,
    }
}
