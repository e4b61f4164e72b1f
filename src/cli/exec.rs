//! `sandscript exec`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{FormatArg, duration, key_value};
use super::output::{BROKEN_PIPE, unwritten};
use super::session::{Session, Work};
use super::stdin::feed;
use super::terminal::{RawMode, window_size};
use super::{CommandError, Result};
use crate::sandbox::{self, Cancel, Command, Error, Exit, Process, Reader, Signal, Stdin};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript exec web -- uname -a
  sandscript exec web -it -- bash
  echo hello | sandscript exec web -i -- tee /tmp/hello
  sandscript exec web --user nobody --cwd /tmp --timeout 30s -- sh -c 'id; pwd'

The exit code is the command's, 128 + n when signal n killed it; 125 when exec itself failed, 126
when the program can't be executed, 127 when it is not there.";

/// Run a command in a sandbox
///
/// The words after '--' arrive exactly as they are, without a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Exec {
    /// In which sandbox
    name: String,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal; implies -i
    #[arg(short, long)]
    tty: bool,
    /// A variable added to its environment
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    env: Vec<(String, String)>,
    /// Where it runs [default: the sandbox's, else the user's home]
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// Who runs it [default: the sandbox's, else root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Kill it and all it started after this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Source the login profiles first
    #[arg(long)]
    login: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "ARGV")]
    argv: Vec<String>,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Exec {
    fn command(&self, term: Option<&str>) -> Command {
        let mut command = Command::argv(self.argv.clone());
        command.env = self.env.iter().cloned().collect();
        command.cwd = self.cwd.clone();
        command.user = self.user.clone();
        command.login = self.login;
        command.timeout = self.timeout;
        if self.interactive || self.tty {
            command.stdin = Stdin::Piped;
        }
        if self.tty {
            command.tty = Some(window_size());
            if let Some(term) = term {
                command.env.entry("TERM".into()).or_insert_with(|| term.into());
            }
        }
        command
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let own_failure = |mut error: CommandError| {
            error.code = match error.source.as_deref() {
                Some(Error::Cancelled) => error.code,
                Some(source) => exit::of_exec_error(source),
                None => exit::EXEC_FAILED,
            };
            error
        };
        let command = self.command(session.term.as_deref());
        command.check().map_err(|error| own_failure(error.into()))?;
        let done = if self.format.json() {
            session.work(false, |work| async move {
                let started = Instant::now();
                let mut process = work.backend.spawn(&self.name, &command, &work.cancel).await?;
                let _feed = feed(&mut process);
                let collected = process.collect(command.max_output);
                let output = bounded(&command, &work.cancel, collected).await?;
                let (code, signal) = match output.exit {
                    Exit::Code(code) => (Some(code), None),
                    Exit::Signal(number) => (
                        None,
                        Some(
                            Signal(number).name().map_or_else(|| number.to_string(), str::to_owned),
                        ),
                    ),
                };
                session.output.json(&json!({
                    "code": code,
                    "signal": signal,
                    "ok": output.exit.ok(),
                    "stdout": String::from_utf8_lossy(&output.stdout),
                    "stderr": String::from_utf8_lossy(&output.stderr),
                    "truncated": output.truncated,
                    "duration": started.elapsed().as_secs_f64(),
                }));
                Ok(exit::of_exec(output.exit))
            })
        } else {
            session.work(false, |work| async move {
                if session.output.verbose {
                    say_way(session, &work, &self.name).await?;
                }
                stream(&self.name, self.tty, command, work).await
            })
        };
        done.map_err(own_failure)
    }
}

/// Says which way commands go, where there are several.
async fn say_way(session: &Session<'_>, work: &Work, name: &str) -> sandbox::Result<()> {
    if let Some(way) = work.backend.get(name, &work.cancel).await?.exec {
        session.output.note(format!("commands in '{name}' go by {way}"));
    }
    Ok(())
}

/// Ends `done` on timeout and cancel.
async fn bounded<T>(
    command: &Command,
    cancel: &Cancel,
    done: impl Future<Output = sandbox::Result<T>>,
) -> sandbox::Result<T> {
    let limit = command.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
    tokio::select! {
        done = done => done,
        () = tokio::time::sleep(limit) => {
            Err(Error::Timeout { what: format!("'{}'", command.program), after: limit })
        }
        () = cancel.cancelled() => Err(Error::Cancelled),
    }
}

/// Runs a command, or a shell, with this process's own standard streams; on a terminal where there
/// is one.
pub(super) async fn shell(
    session: &Session<'_>,
    work: Work,
    name: &str,
    argv: Vec<String>,
) -> Result {
    let tty = super::enter::has_terminal();
    let mut command = match argv.is_empty() {
        true => Command::shell("command -v bash >/dev/null && exec bash; exec sh"),
        false => Command::argv(argv),
    };
    command.stdin = Stdin::Piped;
    if tty {
        command.tty = Some(window_size());
        if let Some(term) = &session.term {
            command.env.insert("TERM".into(), term.clone());
        }
    }
    command.check()?;
    stream(name, tty, command, work).await
}

async fn stream(name: &str, tty: bool, command: Command, work: Work) -> Result {
    let mut process = work.backend.spawn(name, &command, &work.cancel).await?;
    let raw = if tty { RawMode::enter() } else { Ok(None) };
    let _raw = raw.map_err(|error| {
        CommandError::internal(format!("the terminal can't be set to raw mode: {error}"))
    })?;
    let _feed = feed(&mut process);
    let ended = Cancel::new();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let copies = async {
        tokio::try_join!(
            copy(stdout, tokio::io::stdout(), &ended),
            copy(stderr, tokio::io::stderr(), &ended),
        )
    };
    let waited = async {
        let exit = wait(&mut process, tty).await;
        ended.cancel();
        exit
    };
    let both = async {
        tokio::pin!(copies, waited);
        tokio::select! {
            copied = &mut copies => match copied {
                Ok(_) => waited.await.map(Ok),
                Err(error) => Ok(Err(error)),
            },
            exit = &mut waited => match copies.await {
                Ok(_) => exit.map(Ok),
                Err(error) => Ok(Err(error)),
            },
        }
    };
    match bounded(&command, &work.cancel, both).await? {
        Ok(exit) => Ok(exit::of_exec(exit)),
        // Whoever read our output went away; dropping the process kills it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(BROKEN_PIPE as u8),
        Err(error) => Err(unwritten(&error)),
    }
}

/// Waits for the end; with a terminal, passes each change of its size on.
async fn wait(process: &mut Process, tty: bool) -> sandbox::Result<Exit> {
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) if tty => resized,
        _ => return process.control.wait().await,
    };
    loop {
        tokio::select! {
            exit = process.control.wait() => return exit,
            _ = resized.recv() => {}
        }
        process.control.resize(window_size()).await?;
    }
}

/// Copies to the end of the stream. Once the command has `ended`, a stream that a background
/// process holds open is left after 200 ms of silence.
async fn copy(
    from: Option<Reader>,
    mut to: impl AsyncWrite + Unpin,
    ended: &Cancel,
) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let silent = async {
            ended.cancelled().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let count = tokio::select! {
            biased;
            count = read(&mut from, &mut buffer) => count,
            () = silent => 0,
        };
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// A terminal answers EIO when its last holder closes it: the end, like 0.
async fn read(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> usize {
    from.read(buffer).await.unwrap_or(0)
}
