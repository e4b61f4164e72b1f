//! What starts commands in a machine: a process of ours that has what the machine's own have, and listens outside.
//! It is started at the first need, and ends with the machine: whoever comes next finds it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use super::command::reap;
use super::groups::is_frozen;
use super::launch::{SOCKETS, register};
use super::record::Run;
use super::systemd::REGISTER;
use super::{BACKEND, Inner};
use crate::backend::local::enter::{Enter, Entering};
use crate::backend::local::{FileRequest, Files, Line};
use crate::sandbox::{Command, Error, Process, Result, State};
use crate::transport::Link;

/// How long one may take until it listens.
const ANSWER: Duration = Duration::from_secs(30);
/// After this time a machine that says nothing is looked at.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a machine that has no process to spare is asked again.
const TRIES: u32 = 10;

/// Where the one of a run listens. Another version of this program has another one.
fn socket(run: &Run) -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    let run = format!("{} {} {} {version}", run.boot, run.leader, run.started);
    Path::new(SOCKETS).join(format!("agent-{}", &blake3::hash(run.as_bytes()).to_hex()[..24]))
}

/// Forgets the one of a run that is over.
pub(super) fn end(run: &Run) {
    let _ = fs::remove_file(socket(run));
}

/// Whether a socket's agent is gone.
pub(super) fn is_left(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_err()
}

async fn reach(path: &Path) -> Option<Link> {
    UnixStream::connect(path).await.ok().map(Link::over)
}

/// Ends what was started and has not come in.
struct Starter(Option<OwnedFd>);

impl Drop for Starter {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    }
}

impl Inner {
    /// Connects to the one in a machine, which is started where none runs.
    async fn agent(&self, name: &str) -> Result<Link> {
        let Some(run) = self.store.run(name)? else {
            self.store.machine(name)?;
            return Err(Error::NotRunning { name: name.to_owned() });
        };
        if run.whole.as_ref().is_some_and(|whole| is_frozen(whole)) {
            return Err(frozen(name));
        }
        let path = socket(&run);
        if let Some(link) = reach(&path).await {
            return Ok(link);
        }
        let mut pause = Duration::from_millis(1);
        let until = Instant::now() + ANSWER;
        let _one = loop {
            if let Some(lock) = self.store.try_changing(&format!("{name}.agent")) {
                break lock;
            }
            if Instant::now() > until {
                return Err(Error::Timeout { what: format!("sandbox '{name}'"), after: ANSWER });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        // Somebody else may have started it until now.
        if let Some(link) = reach(&path).await {
            return Ok(link);
        }
        // Whoever started the machine may have been killed before it could say where it is.
        if run.unit.is_none() && !Path::new(REGISTER).join(&run.machine).exists() {
            let _ = register(&run);
        }
        self.start_agent(&run, &path).await?;
        reach(&path).await.ok_or_else(|| Error::Transport {
            message: format!("what runs commands in sandbox '{name}' is gone"),
        })
    }

    async fn start_agent(&self, run: &Run, path: &Path) -> Result<()> {
        let failed = |error: io::Error| Error::io("starting what runs commands", error);
        let listener = listen(path).map_err(failed)?;
        let enter = Enter { leader: run.leader, started: run.started };
        let (child, entering) =
            Entering::start(self.helper.as_deref(), &enter, listener).map_err(failed)?;
        let pid = rustix::process::Pid::from_child(&child);
        let flags = rustix::process::PidfdFlags::empty();
        let mut starter = Starter(rustix::process::pidfd_open(pid, flags).ok());
        drop(reap(child));
        let done = tokio::time::timeout(ANSWER, entering.done()).await;
        match done.unwrap_or_else(|_| {
            Err(Error::Timeout { what: "starting what runs commands".into(), after: ANSWER })
        }) {
            Ok(()) => {
                starter.0 = None;
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// What a failure at a sandbox means, by the state that it is in now.
    fn explain(&self, name: &str, error: Error) -> Error {
        match (error, self.state(name)) {
            (
                Error::Transport { .. } | Error::Timeout { .. },
                Err(error @ Error::NotFound { .. }),
            ) => error,
            (Error::Transport { .. } | Error::Timeout { .. }, Ok(State::Stopped)) => {
                Error::NotRunning { name: name.to_owned() }
            }
            (Error::Transport { .. } | Error::Timeout { .. }, Ok(State::Frozen)) => frozen(name),
            (Error::Unsupported { verb, hint, .. }, _) => Error::unsupported(verb, BACKEND, hint),
            (error, _) => error,
        }
    }

    /// Starts a command in a running machine, with its defaults.
    pub(super) async fn spawn(&self, name: &str, command: &Command) -> Result<Process> {
        use crate::backend::local::Execute;
        let record = self.store.machine(name)?.record;
        let mut whole = command.clone();
        whole.env = record.env;
        whole.env.extend(command.env.clone());
        whole.user = command.user.clone().or(record.user);
        whole.cwd = command.cwd.clone().or(record.cwd);
        let mut tries = 0;
        loop {
            match self.execute(name, &whole).await {
                // Nothing has run yet.
                Err(Error::Exhausted { .. }) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }

    /// Asks for something small about a machine's files.
    pub(super) async fn work(&self, name: &str, request: FileRequest) -> Result<()> {
        self.change(name, "/", request).await
    }
}

fn frozen(name: &str) -> Error {
    Error::Busy { name: name.to_owned(), what: "its processes are frozen".into() }
}

/// Listens there, for this machine's root alone.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(SOCKETS)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener.into())
}

impl Line for Inner {
    async fn connect_running(&self, name: &str) -> Result<Link> {
        self.agent(name).await
    }

    async fn begun<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.settle(name).await?;
        let turn = self.turns.of(name);
        let _turn = turn.read().await;
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(SILENCE, &mut work).await {
                Ok(done) => return done.map_err(|error| self.explain(name, error)),
                // One that stands still does not answer, and may not for long.
                Err(_) => match self.state(name) {
                    Ok(State::Frozen) => return Err(frozen(name)),
                    Ok(State::Stopped) => return Err(Error::NotRunning { name: name.to_owned() }),
                    Err(error @ Error::NotFound { .. }) => return Err(error),
                    _ => {}
                },
            }
        }
    }

    fn root(&self, name: &str) -> Option<u32> {
        self.store.machine(name).ok().map(|machine| machine.base)
    }
}
