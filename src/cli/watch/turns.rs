//! One run after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::backend::Keeper;
use super::files::Files;
use super::keys::{Key, Keys};
use super::screen::Screen;
use super::{OnBusy, Watch, Why};
use crate::api::{Input, Memory, Recorder};
use crate::cli::config::Settings;
use crate::cli::run::{Ended, Stage};
use crate::cli::session::{Session, Work};
use crate::cli::{CommandError, Result};
use crate::config::project_of;
use crate::lang::Source;
use crate::transfer::PackOptions;
use crate::workflow::report::Report;
use crate::workflow::{EventSink, MatrixReport, OnFail};

/// How often to ask a backend that is away whether it is back.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the script, waits for a reason to run it again, and so on.
pub(super) struct Turns<'a> {
    watch: &'a Watch,
    session: &'a Session<'a>,
    work: Work,
    settings: Settings,
    backend: Keeper,
    memory: Arc<Memory>,
    files: Files,
    keys: Keys,
    screen: Screen<'a>,
    /// The cells that failed when they ran last: their matrices and ids.
    failed: BTreeSet<(String, String)>,
    /// Whether the last run failed.
    failing: bool,
    first: bool,
}

/// What comes after a run, or after waiting.
enum Next {
    Run(Why),
    /// The backend does not answer, where there is an error.
    Wait(Option<CommandError>),
    End(Result),
}

impl<'a> Turns<'a> {
    pub fn new(watch: &'a Watch, session: &'a Session<'a>, work: Work) -> Result<Turns<'a>> {
        let settings = session.resolve()?;
        let memory = Arc::new(Memory::default());
        let keys = Keys::read();
        let screen = Screen::new(session.output, keys.are_read(), watch.clear, &session.project);
        Ok(Turns {
            watch,
            session,
            backend: Keeper::new(&work, &settings),
            work,
            settings,
            files: Files::new(Arc::clone(&memory)),
            memory,
            keys,
            screen,
            failed: BTreeSet::new(),
            failing: false,
            first: true,
        })
    }

    /// Until a signal or a key ends it.
    pub async fn take(mut self) -> Result {
        let mut next = Next::Run(Why::Start);
        loop {
            next = match next {
                Next::Run(why) => self.run(why).await,
                Next::Wait(away) => self.wait(away).await,
                Next::End(result) => return result,
            }
        }
    }

    async fn run(&mut self, why: Why) -> Next {
        let started = Instant::now();
        self.files.begin(why == Why::Failed);
        self.screen.begin(&self.watch.run.script().display().to_string(), &why);
        self.own_files();
        let (source, reports) = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(error) => return self.broken(error, started),
        };
        if why == Why::All {
            self.memory.forget_cells();
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let recorder = Recorder::new(Arc::clone(&self.memory), &source.name, &source.text, tell);
        let cancel = self.work.cancel.child_token();
        let (signals, settings) = (self.work.signals.clone(), self.settings.clone());
        let project = project_of(&self.session.folder);
        let only = (why == Why::Failed && !self.failed.is_empty()).then(|| self.failed.clone());
        let stage = Stage {
            session: self.session,
            settings: &settings,
            project: &project,
            backend: self.backend.get(),
            cancel: cancel.clone(),
            signals: &signals,
            reports,
            recorder: Some(recorder),
            only: only.clone(),
            dry: false,
            on_fail: OnFail::Clean,
            bases: None,
            pins: None,
        };
        let once = self.watch.run.once(&source, stage);
        tokio::pin!(once);
        let restart = self.watch.on_busy == OnBusy::Restart;
        let (mut then, mut quit) = (None, false);
        let ended = loop {
            let asked = tokio::select! {
                biased;
                ended = &mut once => break ended,
                Some(input) = told.recv() => {
                    self.files.add_all(std::iter::once(input).chain(drain(&mut told)));
                    continue;
                }
                key = self.keys.next() => match key {
                    Key::Help => {
                        signals.say(self.session.output, Screen::help());
                        continue;
                    }
                    Key::Quit => {
                        quit = true;
                        cancel.cancel();
                        continue;
                    }
                    Key::Again => Why::Again,
                    Key::Failed => Why::Failed,
                    Key::All => Why::All,
                },
                changed = self.files.changed() => {
                    if self.watch.on_busy == OnBusy::Ignore {
                        continue;
                    }
                    Why::Changed(changed)
                }
            };
            if quit || (then.is_some() && matches!(asked, Why::Changed(_))) {
                continue;
            }
            if !cancel.is_cancelled() {
                signals.say(self.session.output, &self.screen.interruption(&asked, !restart));
            }
            then = Some(asked);
            if restart {
                cancel.cancel();
            }
        };
        self.files.add_all(drain(&mut told));
        self.files.let_go();
        self.note_failures(&ended.matrices, only.is_some());
        self.failing = !matches!(ended.result, Ok(0));
        if let Some(code) = signals.code() {
            return Next::End(ended.result.and(Ok(code)));
        }
        if quit {
            return Next::End(Ok(0));
        }
        self.after(ended, then, started).await
    }

    /// What comes after a run that nobody ended for good.
    async fn after(&mut self, ended: Ended, then: Option<Why>, started: Instant) -> Next {
        let stopped = matches!(&ended.result, Err(error) if error.word == "cancelled");
        if stopped && then.is_some() {
            self.screen.stopped();
        } else {
            self.screen.end(&ended.result, started.elapsed());
        }
        if self.watch.on_busy == OnBusy::Ignore {
            self.files.forgive().await;
        }
        match then {
            Some(why) => Next::Run(why),
            None if self.failing => Next::Wait(self.backend.answers().await.err()),
            None => Next::Wait(None),
        }
    }

    /// The settings, the backend, the script and the reports, as they are now.
    async fn prepare(&mut self) -> Result<(Source, Vec<Box<dyn Report>>)> {
        self.settings = self.session.resolve()?;
        if self.backend.follow(self.session, &self.settings).await? {
            self.memory.forget_cells();
        }
        let source = self.watch.run.source()?;
        let reports = self.watch.run.reports(self.session, self.first)?;
        self.first = false;
        // A script may push the folder that they are in.
        let folder = &self.session.folder;
        for file in self.watch.run.report_files().chain([self.settings.store.as_path()]) {
            let file = folder.join(file);
            self.memory.leave_out(&file.canonicalize().unwrap_or(file));
        }
        Ok((source, reports))
    }

    fn broken(&mut self, error: CommandError, started: Instant) -> Next {
        self.files.let_go();
        self.failing = true;
        self.screen.end(&Err(error), started.elapsed());
        Next::Wait(None)
    }

    /// The files that decide what is run at all, as they are before they are read.
    fn own_files(&mut self) {
        let script = self.session.folder.join(self.watch.run.script());
        let files = std::iter::once(script).chain(self.session.config_files());
        let inputs: Vec<_> = files
            .map(|path| {
                let input = Input { path, options: PackOptions::default() };
                let manifest = self.memory.look(&input);
                (input, manifest)
            })
            .collect();
        self.files.add_all(inputs);
    }

    fn note_failures(&mut self, matrices: &[MatrixReport], some: bool) {
        if !some {
            self.failed.clear();
        }
        for matrix in matrices {
            for cell in &matrix.cells {
                let name = (matrix.name.clone(), cell.cell.id.clone());
                match cell.outcome {
                    outcome if outcome.ok() => drop(self.failed.remove(&name)),
                    _ => drop(self.failed.insert(name)),
                }
            }
        }
    }

    async fn wait(&mut self, away: Option<CommandError>) -> Next {
        match &away {
            Some(error) => self.screen.away(&self.settings.backend, error),
            None => self.screen.wait(self.files.count(), self.files.trouble()),
        }
        // Nothing runs that would have to be cleaned up.
        self.work.signals.tell(Some(EventSink::none()));
        let mut ask = tokio::time::interval(PAUSE);
        let next = loop {
            let key = tokio::select! {
                () = self.work.cancel.cancelled() => {
                    break Next::End(Ok(self.work.signals.code().unwrap_or_default()));
                }
                changed = self.files.changed() => break Next::Run(Why::Changed(changed)),
                key = self.keys.next() => key,
                _ = ask.tick(), if away.is_some() => {
                    if self.backend.answers().await.is_ok() {
                        break Next::Run(Why::Back);
                    }
                    continue;
                }
            };
            match key {
                Key::Again => break Next::Run(Why::Again),
                Key::All => break Next::Run(Why::All),
                Key::Failed if self.failing => break Next::Run(Why::Failed),
                Key::Quit => break Next::End(Ok(0)),
                Key::Failed | Key::Help => {
                    self.screen.key(key);
                    self.screen.wait(self.files.count(), self.files.trouble());
                }
            }
        };
        self.screen.wipe();
        next
    }
}

/// What is there already.
fn drain<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> impl Iterator<Item = T> + '_ {
    std::iter::from_fn(|| receiver.try_recv().ok())
}
