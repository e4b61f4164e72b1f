//! Processes of a fake sandbox: tasks that run the interpreter.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, watch};

use super::machine::{Machine, Proc, Shared};
use super::parse::{Link, Simple};
use super::shell::{End, Gates, Io, Session, Sink, Source};
use super::tree::Errno;
use super::users;
use crate::sandbox::{
    Cancel, Command, Error, Exit, Kind, Process, ProcessControl, Result, Signal, Stdin, WindowSize,
};

const PIPE: usize = 64 << 10;

/// Whether a signal ends a process that does nothing about it.
pub(super) fn fatal(signal: i32) -> bool {
    !matches!(signal, 0 | 17..=23 | 28)
}

/// Sends a signal; false when there is no such process.
pub(super) fn signal(machine: &mut Machine, pid: u32, signal: i32) -> bool {
    let Some(process) = machine.processes.get(&pid) else { return false };
    match signal {
        18 => {
            process.stopped.send_replace(false);
        }
        19 | 20 => {
            process.stopped.send_replace(true);
        }
        number if fatal(number) => return process.signals.send(number).is_ok(),
        _ => {}
    }
    true
}

struct Slot {
    pid: u32,
    signals: mpsc::UnboundedReceiver<i32>,
    stopped: watch::Receiver<bool>,
}

fn register(machine: &mut Machine) -> Slot {
    let (sender, signals) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let pid = machine.next_pid;
    machine.next_pid += 1;
    machine.processes.insert(pid, Proc { signals: sender, stopped: stop });
    Slot { pid, signals, stopped }
}

/// Starts a background list of a shell; its process id, unless the machine is gone.
pub(super) fn fork(mut session: Session, commands: Vec<(Link, Simple)>) -> Option<u32> {
    let slot = session.machine(register).ok()?;
    session.gates.stopped = slot.stopped.clone();
    session.io.stdin = Source::Null;
    let (pid, place) = (slot.pid, Place::of(&session));
    run(place, slot, async move {
        match session.chain(&commands).await {
            Err(End::Exit(code)) => Ok(code),
            other => other,
        }
    });
    Some(pid)
}

/// Where a process belongs.
struct Place {
    shared: Arc<Shared>,
    machine: String,
    serial: u64,
    group: Cancel,
}

impl Place {
    fn of(session: &Session) -> Self {
        Place {
            shared: session.shared.clone(),
            machine: session.machine.clone(),
            serial: session.serial,
            group: session.group.clone(),
        }
    }
}

fn run(
    place: Place,
    mut slot: Slot,
    body: impl Future<Output = Result<i32, End>> + Send + 'static,
) -> watch::Receiver<Option<Exit>> {
    let (end, ended) = watch::channel(None);
    tokio::spawn(async move {
        let done = {
            let body = std::pin::pin!(body);
            tokio::select! {
                biased;
                Some(number) = slot.signals.recv() => Err(End::Killed(number)),
                () = place.group.cancelled() => Err(End::Killed(9)),
                done = body => done,
            }
        };
        place.shared.machine(&place.machine, place.serial, |machine| {
            machine.processes.remove(&slot.pid);
        });
        end.send_replace(Some(match done {
            Ok(code) | Err(End::Exit(code)) => Exit::Code(code),
            Err(End::Killed(number)) => Exit::Signal(number),
        }));
    });
    ended
}

fn sink() -> (Sink, DuplexStream) {
    let (ours, theirs) = duplex(PIPE);
    (Sink::Stream(Arc::new(tokio::sync::Mutex::new(ours))), theirs)
}

fn environment(
    command: &Command,
    machine: &Machine,
    user: &users::User,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = [
        ("HOME", user.home.as_str()),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", &user.name),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SHELL", "/bin/sh"),
        ("USER", &user.name),
        ("container", "sandscript"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if command.tty.is_some() {
        env.insert("TERM".to_owned(), "xterm-256color".to_owned());
    }
    env.extend(machine.info.env.clone());
    env.extend(command.env.clone());
    env
}

/// Starts `command` in the machine.
pub(super) fn spawn(shared: &Arc<Shared>, name: &str, command: &Command) -> Result<Process> {
    let mut world = shared.world();
    let machine = world.running(name)?;
    let user = command.user.as_ref().or(machine.info.user.as_ref());
    let user = users::find(&machine.tree, user.map_or("root", String::as_str))?;
    let group = machine.boot.child_token();
    let (stdin, input) = match &command.stdin {
        Stdin::Null => (Source::Null, None),
        Stdin::Bytes(bytes) => (Source::bytes(bytes.clone()), None),
        Stdin::Piped => {
            let (ours, theirs) = duplex(PIPE);
            (Source::Stream(Arc::new(tokio::sync::Mutex::new(ours))), Some(theirs))
        }
    };
    let (out, stdout) = sink();
    let (err, stderr) = match command.tty {
        Some(_) => (out.clone(), None),
        None => {
            let (err, stderr) = sink();
            (err, Some(stderr))
        }
    };
    let home = user.home.clone();
    let wanted = command.cwd.clone().or_else(|| machine.info.cwd.clone());
    let frozen = machine.frozen.subscribe();
    let mut session = Session {
        shared: shared.clone(),
        machine: name.to_owned(),
        serial: machine.serial,
        env: environment(command, machine, &user),
        user,
        cwd: "/".to_owned(),
        vars: BTreeMap::new(),
        args: vec!["sh".to_owned()],
        pid: 0,
        background: None,
        status: 0,
        broken: None,
        io: Io { stdin, out, err },
        tty: command.tty.is_some(),
        gates: Gates { stopped: frozen.clone(), frozen },
        group: group.clone(),
    };
    drop(world);
    let gone = |_| Error::not_found(Kind::Sandbox, name);
    match &wanted {
        Some(path) => session.enter(path).map_err(gone)?.map_err(|why| why.at(path))?,
        // A user without a home starts at the root.
        None => session.enter(&home).map_err(gone)?.unwrap_or_default(),
    }
    let argv = command.program.argv();
    let found = session.locate(&argv[0]).map_err(gone)?.map_err(|why| match why {
        Errno::NoEntry => Error::not_found(Kind::Command, &argv[0]),
        _ => Error::Permission { what: argv[0].clone() },
    })?;
    let slot = session.machine(register).map_err(gone)?;
    let pid = slot.pid;
    session.pid = pid;
    session.gates.stopped = slot.stopped.clone();
    let login = command.login;
    let ended = run(Place::of(&session), slot, async move {
        session.gates.pass().await;
        if login {
            for profile in ["/etc/profile", "$HOME/.profile"] {
                session.script(&format!("test -f {profile} && . {profile}")).await?;
            }
        }
        session.program(found, &argv).await
    });
    let control = Control {
        shared: shared.clone(),
        machine: name.to_owned(),
        pid,
        group,
        ended,
        detached: command.detached,
    };
    Ok(Process {
        stdin: input.map(|stream| Box::new(stream) as _),
        stdout: Some(Box::new(stdout)),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        pid: Some(pid),
        control: Box::new(control),
    })
}

struct Control {
    shared: Arc<Shared>,
    machine: String,
    pid: u32,
    group: Cancel,
    ended: watch::Receiver<Option<Exit>>,
    detached: bool,
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&mut self) -> Result<Exit> {
        match self.ended.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => Ok(exit),
            _ => Err(Error::Transport { message: "the runtime of the command is gone".to_owned() }),
        }
    }

    async fn signal(&mut self, number: Signal) -> Result<()> {
        if self.ended.borrow().is_none()
            && let Ok(machine) = self.shared.world().get(&self.machine)
        {
            signal(machine, self.pid, number.0);
        }
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        self.group.cancel();
        Ok(())
    }

    async fn resize(&mut self, _size: WindowSize) -> Result<()> {
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if !self.detached && self.ended.borrow().is_none() {
            self.group.cancel();
        }
    }
}
