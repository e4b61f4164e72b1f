//! What every verb stands on: settings, the backend, a runtime, signals.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use super::background;
use super::config::{Environment, Settings};
use super::housekeeping::Housekeeping;
use super::output::Output;
use super::signals::Signals;
use super::{CommandError, Global, Result};
use crate::backend;
use crate::config::project_of;
use crate::sandbox::{self, Backend, Cancel, Check, Kind};

/// One call of the program.
pub struct Session<'a> {
    /// What holds.
    pub settings: Settings,
    /// Where to print.
    pub output: &'a Output,
    /// `TERM` of the user's terminal.
    pub term: Option<String>,
    /// The folder the program was called in.
    pub folder: PathBuf,
    global: Global,
    environment: Environment,
    /// The folder of what is remembered from one call to the next.
    pub state: Option<PathBuf>,
    /// Whether what may go is looked for after the verb.
    tidies: Cell<bool>,
    /// The project: the folder with the project file or the repository it is in, else that folder.
    pub project: PathBuf,
}

/// What a verb works with while the runtime runs.
#[derive(Clone)]
pub struct Work {
    /// Where sandboxes are.
    pub backend: Arc<dyn Backend>,
    /// Cancelled by the first signal.
    pub cancel: Cancel,
    /// What arrived.
    pub signals: Signals,
}

impl<'a> Session<'a> {
    /// Resolves the settings; opens nothing yet.
    pub fn new(global: Global, environment: Environment, output: &'a Output) -> Result<Self> {
        let folder = std::env::current_dir().map_err(|error| {
            CommandError::usage(format!("the current folder can't be found: {error}"))
                .hint("change to a folder that exists")
        })?;
        let settings = Settings::resolve(&global, &environment, &folder)?;
        let (project, state) = (project_of(&folder), environment.state());
        let term = environment.term.clone();
        let tidies = Cell::new(true);
        Ok(Session { settings, output, term, folder, global, environment, state, tidies, project })
    }

    /// Leaves all as it is when the verb is done: it says itself what may go.
    pub fn leave_untidied(&self) {
        self.tidies.set(false);
    }

    /// The folder of this user's settings for all programs.
    pub fn config_folder(&self) -> Option<PathBuf> {
        self.environment.config_folder()
    }

    /// The folder of sandscript's own remotes and keys for Incus servers.
    #[cfg(feature = "incus")]
    pub fn own_incus_folder(&self) -> Option<PathBuf> {
        self.environment.own_incus_folder()
    }

    /// What holds now: the files that say so may have changed.
    pub fn resolve(&self) -> Result<Settings> {
        Settings::resolve(&self.global, &self.environment, &self.folder)
    }

    /// Whether nobody looks: a CI job.
    pub fn in_ci(&self) -> bool {
        self.environment.ci
    }

    /// Whether GitHub runs this.
    pub fn on_github(&self) -> bool {
        self.environment.github
    }

    /// The file of GitHub's step summary.
    pub fn step_summary(&self) -> Option<&std::path::Path> {
        self.environment.step_summary.as_deref()
    }

    /// The files that [`Session::resolve`] reads, whether they are there or not.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let mut files = crate::config::candidates(&self.folder);
        files.extend(self.environment.user_file());
        files
    }

    /// Opens the backend and runs `verb` to its end, watching for signals. The runtime has as many
    /// threads as the verb needs: one, unless `parallel`.
    pub fn work<T, F: Future<Output = Result<T>>>(
        &self,
        parallel: bool,
        verb: impl FnOnce(Work) -> F,
    ) -> Result<T> {
        let signals = Signals::watch(self.output.clone())?;
        let mut builder = if parallel {
            tokio::runtime::Builder::new_multi_thread()
        } else {
            tokio::runtime::Builder::new_current_thread()
        };
        let runtime = builder
            .enable_all()
            .build()
            .map_err(|error| CommandError::system("the runtime can't be started", &error))?;
        let done = runtime.block_on(async {
            let open = async {
                match parallel {
                    true => self.open(&self.settings).await,
                    false => self.open_shared(&self.settings).await,
                }
            };
            let backend = tokio::select! {
                opened = open => opened?,
                () = signals.stop.cancelled() => return Err(sandbox::Error::Cancelled.into()),
            };
            let (listing, cancel) = (Arc::clone(&backend), signals.stop.clone());
            let work = Work { backend, cancel, signals: signals.clone() };
            // A verb with work of its own knows what to do when it is to be killed.
            let done = tokio::select! {
                done = verb(work) => done,
                () = signals.kill.cancelled(), if !parallel => Err(sandbox::Error::Cancelled.into()),
            };
            let done = match done {
                Err(error) => Err(explain(error, listing.as_ref()).await),
                done => done,
            };
            if signals.code().is_none()
                && self.tidies.get()
                && let Some(due) = Housekeeping::due(self)
            {
                due.sweep(listing.as_ref(), &signals.stop).await;
            }
            done
        });
        // A read of the terminal can't be ended: leave the thread that waits in it behind.
        runtime.shutdown_background();
        done.map_err(|error| match signals.code() {
            Some(code) if matches!(error.source.as_deref(), Some(sandbox::Error::Cancelled)) => {
                error.code(code)
            }
            _ => error,
        })
    }

    /// Looks at the machine that the backend drives, without opening it.
    pub fn examine(&self) -> Result<Vec<Check>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CommandError::system("the runtime can't be started", &error))?;
        let config = self.settings.backend(self.settings.host.clone());
        Ok(runtime.block_on(backend::examine(&self.settings.backend, &config)))
    }

    /// Opens the backend that the settings name.
    pub async fn open(&self, settings: &Settings) -> Result<Arc<dyn Backend>> {
        self.open_named(&settings.backend, settings.host.clone(), settings).await
    }

    /// The same for a call that is soon over: what other calls have opened does.
    async fn open_shared(&self, settings: &Settings) -> Result<Arc<dyn Backend>> {
        let host = settings.host.clone();
        let opened = background::open(&settings.backend, host, settings, Some(self.output), true);
        opened.await.map_err(CommandError::from)
    }

    /// Opens another one than the settings name.
    pub async fn open_named(
        &self,
        name: &str,
        host: Option<String>,
        settings: &Settings,
    ) -> Result<Arc<dyn Backend>> {
        background::open(name, host, settings, Some(self.output), false)
            .await
            .map_err(CommandError::from)
    }
}

/// Adds what only a look at the backend can tell: the nearest name.
async fn explain(mut error: CommandError, backend: &dyn Backend) -> CommandError {
    let Some(sandbox::Error::NotFound { kind: Kind::Sandbox, name, .. }) = error.source.as_deref()
    else {
        return error;
    };
    let Ok(all) = backend.list(&Cancel::new()).await else { return error };
    let names: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
    let near = crate::config::suggest(name, &names);
    if near.starts_with("did you mean") {
        error.hint = Some(near);
    }
    error
}
