//! A program in each machine that starts the commands there. It is a service of the machine's own systemd, and
//! with that in the machine's cgroup, with the capabilities and the system calls that the machine has.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Inner;
use super::command::{PATH, reap};
use super::groups::is_frozen;
use super::launch::register;
use super::record::{Machine, Run};
use super::systemd::REGISTER;
use crate::backend::guest::{AGENT, Agent, Fail};

/// How long it may take until one listens, in a machine that has just been started.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the machine's systemd may take for its answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The agents that run, by machine.
#[derive(Default)]
pub(super) struct Agents(Mutex<HashMap<String, Arc<Slot>>>);

type Slot = tokio::sync::Mutex<Option<Arc<Known>>>;

/// An agent, and what is known of the machine since it runs there.
pub(super) struct Known {
    pub agent: Agent,
    pub machine: Arc<Machine>,
}

impl Agents {
    /// Lets go of a machine whose processes go or are gone.
    pub fn end(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// The agent of a machine, started where none runs.
    pub async fn of(&self, inner: &Inner, name: &str) -> Result<Arc<Known>, Fail> {
        let slot = self.slot(name);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| !known.agent.is_over()) {
            return Ok(Arc::clone(known));
        }
        let lost = |error: crate::sandbox::Error| Fail::Lost(error.to_string());
        let run = inner.store.run(name).map_err(lost)?;
        let run = run.ok_or_else(|| Fail::Lost("it does not run".into()))?;
        // Whoever started it may have been killed before it could say where it is.
        if run.unit.is_none() && !Path::new(REGISTER).join(&run.machine).exists() {
            let _ = register(&run);
        }
        let machine = Arc::new(inner.store.machine(name).map_err(lost)?);
        let started = Arc::new(Known { agent: begin(&run).await?, machine });
        *known = Some(Arc::clone(&started));
        Ok(started)
    }
}

/// Waits until a machine's systemd may take orders, by what it lays out for those who give them. What a guest lays
/// out in its stead makes the first of them come too soon, and be given again.
pub(super) async fn bus(run: &Run) {
    let socket = format!("/proc/{}/root/run/dbus/system_bus_socket", run.leader);
    let until = Instant::now() + ANSWER;
    while std::fs::symlink_metadata(&socket).is_err() && run.is_alive() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// Starts one, as soon as the machine's systemd takes orders.
async fn begin(run: &Run) -> Result<Agent, Fail> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(4);
    loop {
        let fail = match start(run).await {
            Ok(agent) => return Ok(agent),
            Err(fail) => fail,
        };
        let frozen = run.whole.as_ref().is_some_and(|whole| is_frozen(whole));
        if matches!(fail, Fail::NoWay(_)) || !run.is_alive() || frozen || Instant::now() > until {
            return Err(fail);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

async fn start(run: &Run) -> Result<Agent, Fail> {
    if run.whole.as_ref().is_some_and(|whole| is_frozen(whole)) {
        return Err(Fail::Lost("its processes are frozen".into()));
    }
    let lost = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Fail::NoWay(super::capabilities::INSTALL.into()),
        _ => Fail::Lost(error.to_string()),
    };
    let (line, theirs) = UnixStream::pair().map_err(lost)?;
    let (mut stderr, errors) = UnixStream::pair().map_err(lost)?;
    let mut command = service(&run.machine);
    let input = given(theirs).map_err(lost)?;
    command.stdout(Stdio::from(input.try_clone().map_err(lost)?)).stdin(Stdio::from(input));
    command.stderr(Stdio::from(given(errors).map_err(lost)?));
    let child = command.spawn().map_err(lost)?;
    let mut starter = Starter::of(&child);
    let ended = reap(child);
    // They hold its ends of the lines.
    drop(command);
    let (from, to) = line.into_split();
    let greeted = Agent::greet(from, to, BytesMut::new());
    match tokio::time::timeout(ANSWER, greeted).await {
        Ok(Ok(agent)) => {
            starter.0 = None;
            tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
            Ok(agent)
        }
        Ok(Err(fail)) => {
            let mut said = Vec::new();
            // No more than a message: whoever runs in the agent's stead may say anything.
            let mut some = (&mut stderr).take(64 << 10);
            let _ = tokio::time::timeout(ANSWER, some.read_to_end(&mut said)).await;
            Err(why(&String::from_utf8_lossy(&said), code(ended).await).unwrap_or(fail))
        }
        Err(_) => Err(Fail::Lost("its systemd does not answer".into())),
    }
}

/// What starts an agent; it is ended where none came of it.
struct Starter(Option<OwnedFd>);

impl Starter {
    fn of(child: &Child) -> Starter {
        let pid = rustix::process::Pid::from_child(child);
        Starter(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    }
}

/// A stream as a program is given it.
fn given(stream: UnixStream) -> std::io::Result<OwnedFd> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

async fn code(ended: oneshot::Receiver<Option<ExitStatus>>) -> Option<i32> {
    let ended = tokio::time::timeout(ANSWER, ended).await;
    ended.ok()?.ok()??.code()
}

/// What starts the agent: what it has started outlives it where that was asked for.
fn service(machine: &str) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--machine", machine, "--pipe", "--quiet", "--collect"]);
    command.arg("--description=commands of sandscript");
    for property in [
        "Type=exec",
        "KillMode=process",
        "SendSIGHUP=no",
        "TasksMax=infinity",
        "OOMPolicy=continue",
        "TimeoutStopSec=2",
    ] {
        command.args(["--property", property]);
    }
    // systemd takes a dollar sign for the beginning of a variable's name, and two for one.
    command.args(["--", "perl", "-e", &AGENT.replace('$', "$$")]);
    command.env("SYSTEMD_LOG_LEVEL", "err").env("LC_ALL", "C").env("PATH", PATH);
    command
}

/// What was said in the agent's stead.
fn why(said: &str, code: Option<i32>) -> Option<Fail> {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    if code == Some(203)
        || said.contains("203/EXEC")
        || said.contains("Unable to locate executable")
    {
        let text = "there is no perl in its image: use one that has it, such as debian/12";
        return Some(Fail::NoWay(text.into()));
    }
    (!last.is_empty()).then(|| Fail::Lost(last.to_owned()))
}
