//! What `sandscript run` and `sandscript watch` share: a script, and how it is run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::{ScriptLimits, duration, key_value, order, partition, secret};
use super::config::Settings;
use super::session::Session;
use super::signals::Signals;
use super::terminal::window_size;
use super::{CommandError, Result, params};
use crate::api::{ErrorKind, Host, Plan, Recorder, Registry, ScriptError, new_run_id};
use crate::lang::{self, Params, Source};
use crate::sandbox::{Backend, Cancel, Owner};
use crate::workflow::report::{self, JsonLines, Out, Plain, Report, Terminal};
use crate::workflow::{
    Dispatcher, Event, Filter, MatrixReport, Order, Partition, Record, SecretSource, exit,
};

/// A script, and how it is run.
#[derive(Args)]
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
    /// Try a cell that failed so many times again, in a fresh sandbox
    #[arg(long, value_name = "COUNT")]
    retries: Option<u32>,
    /// End a matrix when so many cells failed
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_fail: Option<u32>,
    /// Run every cell so many times
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    /// In which order cells start: longest (by earlier runs), given or random [default: longest]
    #[arg(long, value_name = "ORDER", value_parser = order)]
    order: Option<Order>,
    /// What a random order is made from [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Of the selected cells run only one part of so many, such as 1/4
    #[arg(long, value_name = "M/N", value_parser = partition)]
    partition: Option<Partition>,
    /// Write a report, too; KIND is jsonl
    #[arg(long, value_name = "KIND=PATH", value_parser = key_value)]
    report: Vec<(String, String)>,
    /// Where a secret comes from: env:VARIABLE, file:PATH or command:LINE
    #[arg(long, value_name = "NAME=SOURCE", value_parser = secret)]
    secret: Vec<(String, SecretSource)>,
    #[command(flatten)]
    limits: ScriptLimits,
    /// What the script gets from args()
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What one run of a script works with.
pub(super) struct Stage<'a> {
    pub session: &'a Session<'a>,
    /// What holds for this run.
    pub settings: &'a Settings,
    /// The project folder.
    pub project: &'a Path,
    pub backend: Arc<dyn Backend>,
    /// Ends this run.
    pub cancel: Cancel,
    pub signals: &'a Signals,
    pub reports: Vec<Box<dyn Report>>,
    /// Writes down what the run depends on.
    pub recorder: Option<Arc<Recorder>>,
    /// Of the selected cells only these: names of matrices, and ids.
    pub only: Option<BTreeSet<(String, String)>>,
    /// Only to plan: the backend runs no commands.
    pub dry: bool,
}

/// How a run ended.
pub(super) struct Ended {
    /// The exit code, or what went wrong.
    pub result: Result,
    /// How its matrices ended.
    pub matrices: Vec<MatrixReport>,
}

impl Run {
    pub fn call(self, session: &Session<'_>) -> Result {
        let source = self.source()?;
        let reports = self.reports(session, true)?;
        session.work(true, |work| async move {
            let stage = Stage {
                session,
                settings: &session.settings,
                project: &session.project,
                backend: Arc::clone(&work.backend),
                cancel: work.cancel.clone(),
                signals: &work.signals,
                reports,
                recorder: None,
                only: None,
                dry: false,
            };
            self.once(&source, stage).await.result
        })
    }

    /// Reads the script, whose language must be known.
    pub(super) fn source(&self) -> Result<Source> {
        let source = Source::read(&self.script)
            .map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        lang::language(&source.name)
            .map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        Ok(source)
    }

    /// The parameters that the script declares.
    fn params(&self, source: &Source, settings: &Settings, project: &Path) -> Params {
        let allowed: Vec<PathBuf> =
            self.allow_path.iter().chain(&settings.allow_path).cloned().collect();
        Params::of(source, &Registry::standard(), project, &allowed)
    }

    /// Says what the script is for and which parameters it has, instead of running it.
    pub fn help(self, session: &Session<'_>) -> Result {
        let source = self.source()?;
        let params = self.params(&source, &session.settings, &session.project);
        session.output.data(&params::help(&self.script, &source, &params));
        Ok(exit::OK)
    }

    /// Runs the script once.
    pub(super) async fn once(&self, source: &Source, stage: Stage<'_>) -> Ended {
        match self.started(source, stage).await {
            Ok(ended) => ended,
            Err(error) => Ended { result: Err(error), matrices: Vec::new() },
        }
    }

    async fn started(&self, source: &Source, stage: Stage<'_>) -> Result<Ended> {
        let Stage { session, settings, project, backend, cancel, signals, reports, .. } = stage;
        if !self.set.is_empty() {
            params::check(&self.params(source, settings, project), &self.set)?;
        }
        let started = Instant::now();
        let jobs = self.jobs.map(|jobs| jobs as usize).or(settings.jobs);
        let plan = Plan {
            filter: Filter::parse(&self.filter)?,
            list: self.list || stage.dry,
            dry: stage.dry,
            parallel: jobs,
            max_fail: self.max_fail.map(|most| most as usize),
            retries: self.retries.map(|count| count as usize),
            order: self.order,
            seed: self.seed.unwrap_or_else(any_seed),
            repeat: self.repeat.unwrap_or(1) as usize,
            partition: self.partition,
            only: stage.only,
            ..Plan::default()
        };
        let owner = Owner { run: new_run_id(), host: this_machine() };
        let dispatcher = Dispatcher::start(&owner.run, reports);
        let events = dispatcher.sink();
        signals.tell(Some(events.clone()));
        let mut host = Host::builder(backend)
            .owner(owner)
            .events(events.clone())
            .cancel(cancel)
            .project(project)
            .cache(&settings.store)
            .keep(self.keep)
            .plan(plan)
            .args(self.args.clone());
        host = self.limits.apply(host, settings);
        if let Some(recorder) = stage.recorder {
            host = host.recorder(recorder);
        }
        for folder in self.allow_path.iter().chain(&settings.allow_path) {
            host = host.allow(folder);
        }
        for (name, value) in &self.set {
            host = host.param(name, value);
        }
        for (name, source) in settings.secrets.iter().chain(self.secret.iter().map(|(n, s)| (n, s)))
        {
            host = host.secret(name, source.clone());
        }
        if let Some(timeout) = self.timeout {
            host = host.timeout(timeout);
        }
        let host = host.build()?;
        events.send(Event::RunStarted {
            script: Some(source.name.to_string()),
            backend: settings.backend.clone(),
        });
        let outcome = tokio::select! {
            outcome = lang::run(source, &host) => Some(outcome),
            () = signals.kill.cancelled() => None,
        };
        let result = match outcome {
            Some(outcome) => outcome.result.map(drop),
            None => {
                host.finish().await;
                Err(ScriptError::new(ErrorKind::Cancelled, "killed"))
            }
        };
        let matrices = host.take_reports();
        let code = match &result {
            Ok(()) => code_of_cells(&matrices),
            Err(error) => signals.code().unwrap_or_else(|| code_of(error)),
        };
        events.send(Event::RunEnded { code, duration: started.elapsed() });
        signals.tell(None);
        for (name, error) in dispatcher.finish().await {
            session.output.warn(format!("the {name} report is not complete: {error}"));
        }
        for name in host.unused_params() {
            session.output.warn(format!("the script never asked for '{name}' (--set {name}=…)"));
        }
        let result = match result {
            // Where a script was when it was told to stop tells nobody anything.
            Err(error) if matches!(error.kind, ErrorKind::Cancelled) => Err(CommandError {
                code,
                word: "cancelled",
                ..CommandError::usage("the run was stopped")
            }),
            Err(error) => Err(CommandError::from_script(&error, code)),
            Ok(()) => Ok(code),
        };
        Ok(Ended { result, matrices })
    }

    /// Whether cells are listed, not run.
    pub(super) fn lists(&self) -> bool {
        self.list
    }

    /// The script as it was named.
    pub(super) fn script(&self) -> &Path {
        &self.script
    }

    /// The files that reports are written to.
    pub(super) fn report_files(&self) -> impl Iterator<Item = &Path> {
        self.report.iter().map(|(_, path)| Path::new(path))
    }

    /// One report for the person, and those that were asked for: `anew`, or behind what they have.
    pub(super) fn reports(
        &self,
        session: &Session<'_>,
        anew: bool,
    ) -> Result<Vec<Box<dyn Report>>> {
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
            let mut options = File::options();
            options.create(true).write(true).truncate(anew).append(!anew);
            let file = options.open(path).map_err(|error| {
                CommandError::usage(format!("the report '{path}' can't be written: {error}"))
            })?;
            reports.push(Box::new(JsonLines::new(Box::new(io::BufWriter::new(file)))));
        }
        Ok(reports)
    }
}

/// Shows what the commands of steps and cells print, while they do.
pub(super) struct Echo;

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
pub(super) fn code_of(error: &ScriptError) -> u8 {
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
pub(super) fn code_of_cells(reports: &[MatrixReport]) -> u8 {
    let codes: Vec<u8> = reports.iter().map(exit::of_matrix).collect();
    let worst = [exit::FAILED, exit::INTERRUPTED].into_iter().find(|code| codes.contains(code));
    let nothing = !codes.is_empty() && codes.iter().all(|code| *code == exit::NOTHING_SELECTED);
    worst.unwrap_or(if nothing { exit::NOTHING_SELECTED } else { exit::OK })
}

/// A seed that is another one each time, and short enough to be typed.
fn any_seed() -> u64 {
    let id = new_run_id();
    u64::from_str_radix(&id[1..5], 16).unwrap_or_default()
}

/// This machine's id, shortened: whose run it is, where a backend is shared.
pub(super) fn this_machine() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    id.trim().chars().take(12).collect()
}
