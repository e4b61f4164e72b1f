//! `sandscript run`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::{duration, key_value};
use super::session::{Session, Work};
use super::terminal::window_size;
use super::{CommandError, Result};
use crate::api::{ErrorKind, Host, Plan, ScriptError, new_run_id};
use crate::lang::{self, Source};
use crate::sandbox::Owner;
use crate::workflow::report::{self, JsonLines, Out, Plain, Report, Terminal};
use crate::workflow::{Dispatcher, Event, Filter, MatrixReport, Record, exit};

const EXAMPLES: &str = "\
Examples:
  sandscript run scripts/build_base.rhai
  sandscript run scripts/test_matrix.rhai --list
  sandscript run scripts/test_matrix.rhai --filter 'sanitizer=address' --jobs 4
  sandscript run scripts/test_matrix.rhai --set broken=true --report jsonl=events.jsonl

Ctrl-C once stops and cleans up, twice kills, three times leaves at once.";

/// Run a script
///
/// Sandboxes that the script makes are deleted when it ends, however it ends, unless they are kept.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The script; its ending says the language
    script: PathBuf,
    /// A parameter that the script reads with param()
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Stop after this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Run only cells that match: an id or AXIS=VALUE, '*' for any text
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Say which cells there are instead of running them
    #[arg(long)]
    list: bool,
    /// Keep the sandboxes that the script makes
    #[arg(long)]
    keep: bool,
    /// A folder outside the project that the script may use
    #[arg(long, value_name = "FOLDER")]
    allow_path: Vec<PathBuf>,
    /// How many cells run at once [default: the script's, else the backend's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Write a report, too; KIND is jsonl
    #[arg(long, value_name = "KIND=PATH", value_parser = key_value)]
    report: Vec<(String, String)>,
    /// What the script gets from args()
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl Run {
    pub fn call(self, session: &Session<'_>) -> Result {
        let source = Source::read(&self.script)
            .map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        lang::language(&source.name)
            .map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        let reports = self.reports(session)?;
        session.work(true, |work| self.run(session, source, reports, work))
    }

    async fn run(
        self,
        session: &Session<'_>,
        source: Source,
        reports: Vec<Box<dyn Report>>,
        work: Work,
    ) -> Result {
        let started = Instant::now();
        let jobs = self.jobs.map(|jobs| jobs as usize).or(session.settings.jobs);
        let plan = Plan {
            filter: Filter::parse(&self.filter)?,
            list: self.list,
            parallel: jobs,
            ..Plan::default()
        };
        let owner = Owner { run: new_run_id(), host: this_machine() };
        let dispatcher = Dispatcher::start(&owner.run, reports);
        let events = dispatcher.sink();
        work.signals.tell(Some(events.clone()));
        let mut host = Host::builder(Arc::clone(&work.backend))
            .owner(owner)
            .events(events.clone())
            .cancel(work.cancel.clone())
            .project(&session.project)
            .keep(self.keep)
            .plan(plan)
            .args(self.args.clone());
        for folder in self.allow_path.iter().chain(&session.settings.allow_path) {
            host = host.allow(folder);
        }
        for (name, value) in &self.set {
            host = host.param(name, value);
        }
        if let Some(timeout) = self.timeout {
            host = host.timeout(timeout);
        }
        let host = host.build()?;
        events.send(Event::RunStarted {
            script: Some(source.name.to_string()),
            backend: session.settings.backend.clone(),
        });
        let outcome = tokio::select! {
            outcome = lang::run(&source, &host) => Some(outcome),
            () = work.signals.kill.cancelled() => None,
        };
        let result = match outcome {
            Some(outcome) => outcome.result.map(drop),
            None => {
                host.finish().await;
                Err(ScriptError::new(ErrorKind::Cancelled, "killed"))
            }
        };
        let code = match &result {
            Ok(()) => code_of_cells(&host.take_reports()),
            Err(error) => work.signals.code().unwrap_or_else(|| code_of(error)),
        };
        events.send(Event::RunEnded { code, duration: started.elapsed() });
        work.signals.tell(None);
        for (name, error) in dispatcher.finish().await {
            session.output.warn(format!("the {name} report is not complete: {error}"));
        }
        for name in host.unused_params() {
            session.output.warn(format!("the script never asked for '{name}' (--set {name}=…)"));
        }
        match result {
            // Where a script was when it was told to stop tells nobody anything.
            Err(error) if matches!(error.kind, ErrorKind::Cancelled) => Err(CommandError {
                code,
                word: "cancelled",
                ..CommandError::usage("the run was stopped")
            }),
            Err(error) => Err(CommandError::from_script(&error, code)),
            Ok(()) => Ok(code),
        }
    }

    /// One report for the person, and those that were asked for.
    fn reports(&self, session: &Session<'_>) -> Result<Vec<Box<dyn Report>>> {
        let output = session.output;
        let style = report::Style { color: output.color_err };
        let prints = || Box::new(io::stdout()) as Out;
        let mut reports: Vec<Box<dyn Report>> = Vec::new();
        if output.moves {
            let size = Arc::new(|| {
                let size = window_size();
                (size.rows, size.cols)
            });
            let piped = !io::stdout().is_terminal();
            let terminal = Terminal::new(Box::new(io::stderr()), style, size, piped.then(prints));
            reports.push(Box::new(terminal));
        } else {
            let out: Out = if output.quiet { Box::new(io::sink()) } else { Box::new(io::stderr()) };
            reports.push(Box::new(Plain::new(out, style, Some(prints()))));
        }
        if output.verbose {
            reports.push(Box::new(Echo));
        }
        for (kind, path) in &self.report {
            if kind != "jsonl" {
                return Err(CommandError::usage(format!("'{kind}' is no kind of report"))
                    .hint(crate::config::suggest(kind, &["jsonl"])));
            }
            let file = File::create(path).map_err(|error| {
                CommandError::usage(format!("the report '{path}' can't be written: {error}"))
            })?;
            reports.push(Box::new(JsonLines::new(Box::new(io::BufWriter::new(file)))));
        }
        Ok(reports)
    }
}

/// Shows what the commands of steps and cells print, while they do.
struct Echo;

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
        let mut out = io::stderr().lock();
        for line in text.lines() {
            let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
            writeln!(out, "  {whose} │ {line}")?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The exit code of a script that ended with this error.
fn code_of(error: &ScriptError) -> u8 {
    match &error.kind {
        ErrorKind::Assert | ErrorKind::Command(_) => exit::FAILED,
        ErrorKind::Cancelled => exit::INTERRUPTED,
        ErrorKind::Sandbox(error) => exit::of_error(error),
        ErrorKind::Timeout => exit::TIMEOUT,
        ErrorKind::Usage => exit::USAGE,
        _ => exit::SCRIPT,
    }
}

/// The exit code of a script that had nothing to complain about: what its matrices say.
fn code_of_cells(reports: &[MatrixReport]) -> u8 {
    let codes: Vec<u8> = reports.iter().map(exit::of_matrix).collect();
    let worst = [exit::FAILED, exit::INTERRUPTED].into_iter().find(|code| codes.contains(code));
    let nothing = !codes.is_empty() && codes.iter().all(|code| *code == exit::NOTHING_SELECTED);
    worst.unwrap_or(if nothing { exit::NOTHING_SELECTED } else { exit::OK })
}

/// This machine's id, shortened: whose run it is, where a backend is shared.
fn this_machine() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    id.trim().chars().take(12).collect()
}
