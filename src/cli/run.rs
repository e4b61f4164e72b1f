//! What `sandscript run` and `sandscript watch` share: a script, and how it is run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::args::{ScriptLimits, duration, key_value, order, partition, secret};
use super::config::Settings;
use super::enter::has_terminal;
use super::explain::Explain;
use super::opener::Backends;
use super::reports::{self, Asked, ShowArg, kind_and_path};
use super::session::{Session, Work};
use super::signals::Signals;
use super::{CommandError, Result, exec, housekeeping, params};
use crate::api::{ErrorKind, Host, Plan, Recorder, Registry, ScriptError, WantedBases, new_run_id};
use crate::lang::{self, Params, Source};
use crate::sandbox::{Backend, Cancel, Info, Owner};
use crate::workflow::record::{History, RunFile, Runs};
use crate::workflow::report::Report;
use crate::workflow::{
    Counts, Dispatcher, Event, Filter, LOCK_FILE, LockFile, MatrixReport, OnFail, Order, Partition,
    PinMode, Pins, SecretSource, exit,
};

/// A script, and how it is run.
#[derive(Args, Default)]
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
    /// Let the script call methods of the NAS that change it (host().call)
    #[arg(long)]
    allow_call: bool,
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
    /// Run only the cells that did not end well the last time, however long ago that was
    #[arg(long)]
    failed: bool,
    /// What becomes of a failed cell's sandbox: shell (opened when the run is over), keep or clean
    /// [default: keep; in CI: clean]
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    on_fail: Option<OnFailArg>,
    /// Copy cells' artifacts here [default: into the record of the run]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,
    /// Of which cells to show what they print
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ShowArg::Failed)]
    show: ShowArg,
    /// Write a report, too; KIND is github, html, jsonl, junit or trace
    #[arg(long, value_name = "KIND=PATH", value_parser = kind_and_path)]
    report: Vec<Asked>,
    /// Where a secret comes from: env:VARIABLE, file:PATH or command:LINE
    #[arg(long, value_name = "NAME=SOURCE", value_parser = secret)]
    secret: Vec<(String, SecretSource)>,
    /// Say of each step of a base which fields of its key changed
    #[arg(long)]
    explain: bool,
    /// Refuse images that are not as sandscript.lock has them
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    limits: ScriptLimits,
    /// What the script gets from args()
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// `--on-fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnFailArg {
    Shell,
    Keep,
    Clean,
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
    /// What becomes of failed cells' sandboxes where the command line does not say so.
    pub on_fail: OnFail,
    /// Only bases are wanted.
    pub bases: Option<Arc<WantedBases>>,
    /// Images are only written down.
    pub pins: Option<Arc<Pins>>,
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
        if self.on_fail == Some(OnFailArg::Shell) && !has_terminal() {
            return Err(CommandError::usage("--on-fail shell needs a terminal")
                .hint("use --on-fail keep; 'sandscript enter' opens a shell later"));
        }
        let reports = self.reports(session, true)?;
        let only = if self.failed { Some(self.outstanding(session, &source)?) } else { None };
        let on_fail = if session.in_ci() { OnFail::Clean } else { OnFail::Keep };
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
                only,
                dry: false,
                on_fail,
                bases: None,
                pins: None,
            };
            let sweep = tokio::spawn(sweep(Arc::clone(&work.backend)));
            let ended = self.once(&source, stage).await;
            // What other runs left is not worth waiting for long.
            if let Ok(Ok(gone)) = tokio::time::timeout(SWEEP, sweep).await
                && !gone.is_empty()
            {
                session.output.note(housekeeping::told(&gone));
            }
            if self.on_fail == Some(OnFailArg::Shell) {
                shells(session, work, &ended.matrices).await;
            }
            ended.result
        })
    }

    /// The cells that are still to be set right.
    fn outstanding(
        &self,
        session: &Session<'_>,
        source: &Source,
    ) -> Result<BTreeSet<(String, String)>> {
        let history = self.history(session, source, &session.project);
        let history = history.map(|file| History::load(&file)).unwrap_or_default();
        let left = history.outstanding();
        if !left.is_empty() {
            return Ok(left);
        }
        let message = match history.is_empty() {
            true => "no run of this script is recorded here yet",
            false => "every cell ended well when it ran last: nothing is left to run again",
        };
        Err(CommandError { word: "nothing_selected", ..CommandError::usage(message) }
            .code(exit::NOTHING_SELECTED)
            .hint("run it without --failed"))
    }

    /// The file of how this script's cells ended before.
    fn history(&self, session: &Session<'_>, source: &Source, project: &Path) -> Option<PathBuf> {
        let script = session.folder.join(source.name.as_ref());
        let script = script.canonicalize().unwrap_or(script);
        Some(History::file(session.state.as_deref()?, project, &script.display().to_string()))
    }

    /// A script, with nothing else said about it than this.
    pub(super) fn plain(
        script: PathBuf,
        set: Vec<(String, String)>,
        allow_path: Vec<PathBuf>,
    ) -> Run {
        Run { script, set, allow_path, ..Run::default() }
    }

    /// Tells of each step what its key is.
    pub(super) fn explain_all(&mut self) {
        self.explain = true;
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
        let records = !self.list && !stage.dry && stage.bases.is_none();
        let history = self.history(session, source, project).filter(|_| records);
        let jobs = self.jobs.map(|jobs| jobs as usize).or(settings.jobs);
        let plan = Plan {
            filter: Filter::parse(&self.filter)?,
            list: self.list || stage.dry || stage.bases.is_some(),
            dry: stage.dry,
            parallel: jobs,
            max_fail: self.max_fail.map(|most| most as usize),
            retries: self.retries.map(|count| count as usize),
            order: self.order,
            seed: self.seed.unwrap_or_else(any_seed),
            repeat: self.repeat.unwrap_or(1) as usize,
            partition: self.partition,
            times: history.as_deref().map(|file| History::load(file).times()).unwrap_or_default(),
            only: stage.only,
            explain: self.explain,
            pins: match stage.pins {
                Some(pins) => Some(pins),
                None => pins(project, self.locked)?,
            },
            bases: stage.bases.clone(),
        };
        let owner = Owner::new(new_run_id(), this_machine());
        let (mut reports, mut recorded) = (reports, None);
        if let (Some(file), Some(state)) = (history, &session.state) {
            let run = RunFile {
                v: 1,
                run: owner.run.clone(),
                script: source.name.to_string(),
                project: project.to_owned(),
                backend: settings.backend.clone(),
                began: jiff::Timestamp::now(),
                code: None,
                seconds: None,
                counts: Counts::default(),
                others: Vec::new(),
            };
            match Runs::at(state).begin(run, file) {
                Ok(recording) => {
                    recorded = Some(Runs::at(state).folder(&owner.run));
                    reports.push(Box::new(recording));
                }
                Err(error) => session
                    .output
                    .warn(format!("the run is not recorded: {}: {error}", state.display())),
            }
        }
        let dispatcher = Dispatcher::start(&owner.run, reports);
        let events = dispatcher.sink();
        signals.tell(Some(events.clone()));
        let mut host = Host::builder(backend)
            .owner(owner)
            .events(events.clone())
            .cancel(cancel)
            .project(project)
            .cache(&settings.store)
            .on(settings.host.clone())
            .opener(Backends::new(settings, stage.dry))
            .egress(Arc::clone(&settings.egress))
            .allow_call(self.allow_call)
            .keep(self.keep)
            .on_fail(match self.on_fail {
                Some(OnFailArg::Shell) => OnFail::Shell,
                Some(OnFailArg::Keep) => OnFail::Keep,
                Some(OnFailArg::Clean) => OnFail::Clean,
                None => stage.on_fail,
            })
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
        let folder = match (&self.artifacts, &recorded) {
            (Some(folder), _) => Some(session.folder.join(folder)),
            (None, recorded) => recorded.as_ref().map(|folder| folder.join("artifacts")),
        };
        if let Some(folder) = folder {
            host = host.artifacts(folder);
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
                for backend in host.backends() {
                    end_all(&backend, &host.run.run).await;
                }
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
        let mut incomplete = false;
        for (name, error) in dispatcher.finish().await {
            incomplete |= reports::KINDS.contains(&name);
            if reports::unwritten().is_none() || reports::KINDS.contains(&name) {
                session.output.warn(format!("the {name} report is not complete: {error}"));
            }
        }
        for name in host.unused_params() {
            session.output.warn(format!("the script never asked for '{name}' (--set {name}=…)"));
        }
        let result = match result {
            // It was stopped because it had done what it was for.
            Err(error)
                if matches!(error.kind, ErrorKind::Cancelled)
                    && stage.bases.is_some_and(|bases| bases.complete()) =>
            {
                Ok(exit::OK)
            }
            // Where a script was when it was told to stop tells nobody anything.
            Err(error) if matches!(error.kind, ErrorKind::Cancelled) => Err(CommandError {
                code,
                word: "cancelled",
                ..CommandError::usage("the run was stopped")
            }),
            Err(error) => Err(CommandError::from_script(&error, code)),
            // Somebody waits for what was to be written.
            Ok(()) if code == exit::OK && incomplete => Ok(exit::INTERNAL),
            Ok(()) => Ok(code),
        };
        let result = match reports::unwritten() {
            Some(error) if matches!(result, Ok(exit::OK | exit::INTERNAL)) => {
                Err(super::output::unwritten(&error))
            }
            _ => result,
        };
        Ok(Ended { result, matrices })
    }

    /// Whether cells are listed, not run.
    pub(super) fn lists(&self) -> bool {
        self.list
    }

    /// A report, and the explanations where they are asked for.
    pub(super) fn with_explain(
        &self,
        report: Box<dyn Report>,
        output: &super::output::Output,
    ) -> Vec<Box<dyn Report>> {
        let explain = self.explain.then(|| Box::new(Explain::new(output)) as Box<dyn Report>);
        [Some(report), explain].into_iter().flatten().collect()
    }

    /// The script as it was named.
    pub(super) fn script(&self) -> &Path {
        &self.script
    }

    /// The files that reports are written to.
    pub(super) fn report_files(&self) -> impl Iterator<Item = &Path> {
        self.report.iter().filter_map(|(_, path)| path.as_deref().map(Path::new))
    }

    /// One report for the person, and those that were asked for: `anew`, or behind what they have.
    pub(super) fn reports(
        &self,
        session: &Session<'_>,
        anew: bool,
    ) -> Result<Vec<Box<dyn Report>>> {
        let output = session.output;
        let mut reports = reports::for_people(output, self.show, output.verbose);
        if self.explain {
            reports.push(Box::new(Explain::new(output)));
        }
        reports.extend(reports::open(&self.report, session, anew)?);
        if session.on_github()
            && !self.list
            && !self.report.iter().any(|(kind, _)| kind == "github")
        {
            reports.extend(reports::open(&[("github".to_owned(), None)], session, anew)?);
        }
        // It says what must be masked: before anybody else says anything.
        reports.sort_by_key(|report| report.name() != "github");
        Ok(reports)
    }
}

/// How images are held against the project's lock file.
fn pins(project: &Path, locked: bool) -> Result<Option<Arc<Pins>>> {
    let file = project.join(LOCK_FILE);
    let mode = if locked { PinMode::Locked } else { PinMode::Warn };
    match LockFile::read(&file)? {
        Some(lock) => Ok(Some(Arc::new(Pins::new(file, lock, mode)))),
        None if locked => {
            Err(CommandError::usage(format!("there is no {LOCK_FILE} in {}", project.display()))
                .hint("make it with: sandscript lock update SCRIPT"))
        }
        None => Ok(None),
    }
}

/// How long the end of a run waits for what other runs left.
const SWEEP: Duration = Duration::from_secs(10);

/// Deletes what dead runs left and what has expired, where there is something; the names.
pub(super) async fn sweep(backend: Arc<dyn Backend>) -> Vec<String> {
    let cancel = Cancel::new();
    if backend.gc(true, &cancel).await.is_ok_and(|found| !found.sandboxes.is_empty()) {
        return backend.gc(false, &cancel).await.unwrap_or_default().sandboxes;
    }
    Vec::new()
}

/// Deletes what a run that was killed owns, side by side.
async fn end_all(backend: &Arc<dyn Backend>, run: &str) {
    let is_of = |info: &Info, run: &str| info.owner.as_ref().is_some_and(|own| own.run == run);
    let Ok(all) = backend.list(&Cancel::new()).await else { return };
    let mut tasks = tokio::task::JoinSet::new();
    for info in all.into_iter().filter(|info| is_of(info, run)) {
        let (backend, run) = (Arc::clone(backend), run.to_owned());
        tasks.spawn(async move {
            let ours = |info: &Info| is_of(info, &run);
            let _ = backend.delete_if(&info.name, &ours, &Cancel::new()).await;
        });
    }
    let _ = tokio::time::timeout(SWEEP, tasks.join_all()).await;
}

/// Opens a shell in the sandbox of each failed cell in turn, and deletes it then.
async fn shells(session: &Session<'_>, work: Work, matrices: &[MatrixReport]) {
    for cell in matrices.iter().flat_map(|matrix| &matrix.cells) {
        let Some(sandbox) = &cell.kept else { continue };
        session
            .output
            .note(format!("a shell in cell {}; the next one comes when it ends", cell.cell.id));
        let machine = cell.machine.as_ref().map(|machine| &machine.backend);
        let backend = machine.unwrap_or(&work.backend);
        let own = Work {
            backend: Arc::clone(backend),
            cancel: Cancel::new(),
            signals: work.signals.clone(),
        };
        // One that had a cache was stopped.
        let started = backend.start(sandbox, &Cancel::new()).await.map_err(Into::into);
        let done = match started {
            Ok(()) => exec::shell(session, own, sandbox, Vec::new()).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            session.output.warn(error.message);
        }
        if let Err(error) = backend.delete(sandbox, &Cancel::new()).await {
            session.output.warn(format!("sandbox '{sandbox}' could not be deleted: {error}"));
        }
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
