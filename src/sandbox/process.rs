//! A running command and its streams.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{Command, Error, Result, WindowSize};

/// A byte stream out of a sandbox.
pub type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// A byte stream into a sandbox.
pub type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// Whether the command returned 0.
    pub fn ok(self) -> bool {
        self == Exit::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match Signal(*number).name() {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// A signal number, as on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    const NAMES: &[(&str, i32)] = &[
        ("SIGHUP", 1),
        ("SIGINT", 2),
        ("SIGQUIT", 3),
        ("SIGILL", 4),
        ("SIGTRAP", 5),
        ("SIGABRT", 6),
        ("SIGBUS", 7),
        ("SIGFPE", 8),
        ("SIGKILL", 9),
        ("SIGUSR1", 10),
        ("SIGSEGV", 11),
        ("SIGUSR2", 12),
        ("SIGPIPE", 13),
        ("SIGALRM", 14),
        ("SIGTERM", 15),
        ("SIGCHLD", 17),
        ("SIGCONT", 18),
        ("SIGSTOP", 19),
        ("SIGTSTP", 20),
        ("SIGWINCH", 28),
        ("SIGSYS", 31),
    ];

    /// From `SIGTERM`, `TERM`, `term` or `15`.
    pub fn parse(text: &str) -> Result<Signal> {
        let upper = text.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        if let Some((_, number)) = Self::NAMES.iter().find(|(name, _)| *name == full) {
            return Ok(Signal(*number));
        }
        match text.parse::<i32>() {
            Ok(number) if (1..=64).contains(&number) => Ok(Signal(number)),
            _ => Err(Error::invalid_hint(
                "signal",
                format!("'{text}' is not a signal"),
                "use a name such as \"TERM\" or a number from 1 to 64",
            )),
        }
    }

    /// `SIGTERM` and so on, for the signals that have a name here.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }
}

/// What a backend does for a running command.
///
/// Dropping it kills the command's whole process tree, unless the command was
/// [detached](Command::detached) or has ended.
#[async_trait]
pub trait ProcessControl: Send + Sync {
    /// Waits for the end. May be called again after it returned, with the same answer.
    async fn wait(&mut self) -> Result<Exit>;
    /// Sends a signal to the command itself.
    async fn signal(&mut self, signal: Signal) -> Result<()>;
    /// Kills the command and everything it started.
    async fn kill(&mut self) -> Result<()>;
    /// Tells the terminal its new size; without a terminal it does nothing.
    async fn resize(&mut self, size: WindowSize) -> Result<()>;
}

/// A running command.
pub struct Process {
    /// Its standard input, when [`super::Stdin::Piped`] was asked for. Drop it to send end of file.
    pub stdin: Option<Writer>,
    /// Its standard output; with a terminal, the terminal.
    pub stdout: Option<Reader>,
    /// Its standard error; none with a terminal.
    pub stderr: Option<Reader>,
    /// Its process id in the guest, where the backend knows.
    pub pid: Option<u32>,
    /// Signals, kill, wait.
    pub control: Box<dyn ProcessControl>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, at most [`Command::max_output`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
    pub stderr: Vec<u8>,
    /// Whether either was cut off.
    pub truncated: bool,
    /// From start to end.
    pub duration: Duration,
}

impl Process {
    /// Collects both streams, each up to `max` bytes (more is read and thrown away), until the
    /// command has ended. A background process that holds a stream open does not delay the
    /// result: after the command's own end the streams are read for 200 ms at most.
    pub async fn collect(mut self, max: usize) -> Result<Output> {
        let started = std::time::Instant::now();
        let mut stdout = Sink::new(self.stdout.take(), max);
        let mut stderr = Sink::new(self.stderr.take(), max);
        let exit = {
            let mut both = std::pin::pin!(async { tokio::join!(stdout.fill(), stderr.fill()) });
            let exit = tokio::select! {
                biased;
                _ = &mut both => None,
                exit = self.control.wait() => Some(exit),
            };
            match exit {
                None => self.control.wait().await?,
                Some(exit) => {
                    let _ = tokio::time::timeout(Duration::from_millis(200), both).await;
                    exit?
                }
            }
        };
        Ok(Output {
            exit,
            truncated: stdout.truncated || stderr.truncated,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            duration: started.elapsed(),
        })
    }
}

struct Sink {
    from: Option<Reader>,
    bytes: Vec<u8>,
    max: usize,
    truncated: bool,
}

impl Sink {
    fn new(from: Option<Reader>, max: usize) -> Self {
        Sink { from, bytes: Vec::new(), max, truncated: false }
    }

    async fn fill(&mut self) {
        let Some(from) = self.from.as_mut() else { return };
        let mut buffer = vec![0; 16 << 10];
        loop {
            // A pty answers EIO when its last holder closes it: the end, like 0.
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            let room = self.max - self.bytes.len();
            self.truncated |= count > room;
            self.bytes.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}

/// Runs `command` to its end and collects its output. On timeout or cancel the whole process tree
/// in the sandbox is killed.
pub async fn exec(
    backend: &dyn super::Backend,
    name: &str,
    command: &Command,
    cancel: &super::Cancel,
) -> Result<Output> {
    command.check()?;
    let process = backend.spawn(name, command, cancel).await?;
    let collected = process.collect(command.max_output);
    let limit = command.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
    tokio::select! {
        output = collected => output,
        () = tokio::time::sleep(limit) => {
            Err(Error::Timeout { what: format!("'{}'", command.program), after: limit })
        }
        () = cancel.cancelled() => Err(Error::Cancelled),
    }
}
