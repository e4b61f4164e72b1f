//! Commands: started by a program in the guest that knows how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

use super::attached::{Attached, Control, End, frame, write};
use super::{Defaults, Fail, Guests};
use crate::sandbox::{
    Command, Error, Exit, Kind, Process, ProcessControl, Result, Signal, Stdin, WindowSize,
};

const SCRIPT: &str = include_str!("exec.pl");
/// Which code says that there is more to read about the end.
const MORE: i32 = 125;

/// After this time a guest that says nothing is looked at.
const SILENCE: Duration = Duration::from_secs(2);

/// How often a guest that can't start a process is asked again.
const TRIES: u32 = 10;

/// How long is waited before the next try.
fn pause(tries: u32) -> Duration {
    Duration::from_millis(20 << tries.min(4))
}

/// Sources the profiles, then becomes the command.
const LOGIN: &str = "for f in /etc/profile \"$HOME/.profile\"; do if [ -f \"$f\" ]; then . \"$f\"; fi; done; exec \"$@\"";

/// Commands in guests.
pub(in crate::backend) trait Exec: Guests {
    /// Starts a command in a running sandbox.
    async fn spawn(
        self: &Arc<Self>,
        name: &str,
        record: Defaults<'_>,
        command: &Command,
    ) -> Result<Process> {
        let argv = match command.login {
            false => command.program.argv(),
            true => ["/bin/sh", "-c", LOGIN, "sh"]
                .map(String::from)
                .into_iter()
                .chain(command.program.argv())
                .collect(),
        };
        let id = new_id();
        let mut env = record.env.clone();
        env.extend(command.env.clone());
        let user = command.user.as_ref().or(record.user).map_or("root", String::as_str);
        let cwd = command.cwd.as_ref().or(record.cwd).map_or("", String::as_str);
        let (detached, pairs) = (if command.detached { "1" } else { "" }, env.len().to_string());
        let fields = [&id, user, cwd, detached, &pairs].into_iter();
        let pairs = env.iter().flat_map(|(name, value)| [name.as_str(), value]);
        let head = frame(fields.chain(pairs).chain(argv.iter().map(String::as_str)));

        let watching = Watching {
            guests: Arc::clone(self),
            name: name.to_owned(),
            id,
            program: argv_name(command),
            user: user.to_owned(),
            cwd: cwd.to_owned(),
        };
        let mut tries = 0;
        let (attached, pid) = loop {
            let turn = self.turns().of(name);
            let _turn = turn.read().await;
            let attached = self.attach(name, SCRIPT, command.tty, command.detached).await;
            let mut attached = match attached {
                Ok(attached) => attached,
                Err(fail) => return Err(self.explain(name, fail, "running a command").await),
            };
            let begun = {
                let tty = command.tty.is_some();
                let mut begin = std::pin::pin!(begin(&mut attached, &head, tty));
                loop {
                    match tokio::time::timeout(SILENCE, &mut begin).await {
                        Ok(begun) => break begun,
                        // One that stands still does not answer, and may not for long.
                        Err(_) => {
                            let why =
                                self.explain(name, super::session::lost(), "running a command");
                            if let error @ (Error::Busy { .. } | Error::NotRunning { .. }) =
                                why.await
                            {
                                return Err(error);
                            }
                        }
                    }
                }
            };
            if let Some(pid) = begun {
                break (attached, pid);
            }
            match ended(&mut attached.end).await {
                // The server looks for the program itself.
                Err(Fail::Failed(_, Some(126 | 127))) => return Err(no_perl(self.backend())),
                // Nothing has run yet: the guest may have no process to spare at the moment.
                Err(fail @ Fail::Failed(_, None)) if tries < TRIES => {
                    let error = self.explain(name, fail, "running a command").await;
                    if !matches!(error, Error::Internal { .. }) {
                        return Err(error);
                    }
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                }
                code => match watching.told(code).await {
                    Err(Error::Exhausted { .. }) if tries < TRIES => {
                        tries += 1;
                        tokio::time::sleep(pause(tries)).await;
                    }
                    Err(error) => return Err(error),
                    Ok(exit) => {
                        let message = format!("the command did not start: {exit}");
                        let error = Error::Transport { message };
                        return Err(
                            match self
                                .explain(name, super::session::lost(), "running a command")
                                .await
                            {
                                Error::Transport { .. } => error,
                                better => better,
                            },
                        );
                    }
                },
            }
        };
        let Attached { stdin, stdout, stderr, control, end } = attached;
        let stdin = match (&command.stdin, stdin) {
            (Stdin::Piped, stdin) => stdin,
            (Stdin::Bytes(bytes), Some(mut stdin)) => {
                let bytes = bytes.clone();
                tokio::spawn(async move {
                    // A command that ends without reading all of it is no failure.
                    let _ = write(&mut stdin, &bytes).await;
                });
                None
            }
            _ => None,
        };
        let (over, exit) = watch::channel(None);
        tokio::spawn(async move {
            let mut end = end;
            let code = ended(&mut end).await;
            over.send_replace(Some(watching.told(code).await));
        });
        let detached = command.detached;
        if detached {
            let (control, mut exit) = (control.clone(), exit.clone());
            tokio::spawn(async move {
                let _ = exit.wait_for(Option::is_some).await;
                drop(control);
            });
        }
        Ok(Process {
            stdin: stdin.map(|stdin| Box::new(stdin) as _),
            stdout: Some(Box::new(stdout)),
            stderr: stderr.map(|stderr| Box::new(stderr) as _),
            pid: Some(pid),
            control: Box::new(Handle { control, exit, detached, backend: self.backend() }),
        })
    }
}

impl<G: Guests> Exec for G {}

/// What the image lacks.
pub(super) fn no_perl(backend: &str) -> Error {
    Error::unsupported(
        "working in this sandbox",
        backend,
        "there is no perl in its image: use one that has it, such as debian/12",
    )
}

fn argv_name(command: &Command) -> String {
    command.program.argv().first().cloned().unwrap_or_default()
}

fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}{}", super::token(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tells the program in the guest what to run; the command's process id when it starts.
async fn begin(attached: &mut Attached, head: &[u8], tty: bool) -> Option<u32> {
    let mut ready = [0];
    // A terminal changes what comes before the program has told it not to.
    if tty {
        attached.stdout.read_exact(&mut ready).await.ok()?;
    }
    write(attached.stdin.as_mut()?, head).await.ok()?;
    if !tty {
        attached.stdout.read_exact(&mut ready).await.ok()?;
    }
    let mut pid = [0; 12];
    attached.stdout.read_exact(&mut pid).await.ok()?;
    std::str::from_utf8(&pid).ok()?.parse().ok()
}

async fn ended(end: &mut End) -> std::result::Result<i32, Fail> {
    match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
        Ok(Some(end)) => end,
        _ => Err(Fail::Lost("the runtime of the command is gone".into())),
    }
}

/// What is needed to say how a command ended.
struct Watching<G> {
    guests: Arc<G>,
    name: String,
    id: String,
    program: String,
    user: String,
    cwd: String,
}

impl<G: Guests> Watching<G> {
    async fn told(&self, code: std::result::Result<i32, Fail>) -> Result<Exit> {
        let what = format!("a command in '{}'", self.name);
        if let Err(fail @ Fail::Lost(_)) = &code {
            // The line may have gone with the member of a cluster that the sandbox is on.
            let doing = "running a command";
            let why = self.guests.explain(&self.name, fail.clone(), doing).await;
            if matches!(why, Error::MemberAway { .. }) {
                return Err(why);
            }
        }
        let code = code.map_err(|fail| match fail {
            // It was cut off in the middle: nobody knows what it did.
            Fail::Failed(text, _) => {
                Error::Transport { message: format!("{what}: the server says: {text}") }
            }
            fail => fail.plain(&what),
        })?;
        if code != MORE && code <= 128 {
            return Ok(Exit::Code(code));
        }
        let word = match self.guests.word(&self.name, &self.id).await {
            // What runs it was killed itself: the guest was stopped, or its root did it.
            None if code > 128 => return Ok(Exit::Signal(code - 128)),
            None => return Ok(Exit::Code(code)),
            Some(word) => String::from_utf8_lossy(&word).into_owned(),
        };
        let (what, number) = word.split_once(' ').unwrap_or((&word, ""));
        let number: i32 = number.trim().parse().unwrap_or_default();
        match (what, number) {
            ("code", number) => Ok(Exit::Code(number)),
            ("signal", number) => Ok(Exit::Signal(number)),
            ("user", _) => Err(Error::not_found(Kind::User, &self.user)),
            ("cwd", 13) => Err(Error::Permission { what: self.cwd.clone() }),
            ("cwd", 20) => Err(Error::invalid("cwd", format!("'{}' is no directory", self.cwd))),
            ("cwd", _) => Err(Error::not_found(Kind::File, &self.cwd)),
            ("exec", 2 | 20) => Err(Error::not_found(Kind::Command, &self.program)),
            ("exec", 1 | 13) => Err(Error::Permission { what: self.program.clone() }),
            ("exec", 7) => Err(Error::invalid("command", "its arguments are too long")),
            ("start", 11 | 12) => Err(Error::Exhausted {
                what: format!("sandbox '{}' can't start another process", self.name),
                hint: "end some of its processes, or give it more with `pids` or `memory`".into(),
            }),
            (what, number) => {
                let name = &self.program;
                Err(Error::internal(format!("starting '{name}': {what}: error {number}")))
            }
        }
    }
}

struct Handle {
    control: mpsc::UnboundedSender<Control>,
    exit: watch::Receiver<Option<Result<Exit>>>,
    detached: bool,
    backend: &'static str,
}

#[async_trait]
impl ProcessControl for Handle {
    async fn wait(&mut self) -> Result<Exit> {
        match self.exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            _ => Err(Error::Transport { message: "the runtime of the command is gone".into() }),
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<()> {
        if !(1..=31).contains(&signal.0) {
            return Err(Error::unsupported(
                format!("signal {}", signal.0),
                self.backend,
                "use one of the signals 1 to 31",
            ));
        }
        let _ = self.control.send(Control::Signal(33 + signal.0));
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        let _ = self.control.send(Control::Signal(15));
        Ok(())
    }

    async fn resize(&mut self, size: WindowSize) -> Result<()> {
        let _ = self.control.send(Control::Resize(size));
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.detached && self.exit.borrow().is_none() {
            let _ = self.control.send(Control::Signal(15));
        }
    }
}
