//! The machine of a run, the thread it lives on, and how others ask it for something.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mlua::Lua;
use tokio::sync::{mpsc, oneshot};

use super::state::State;
use super::{body, machine};
use crate::api::{Ctx, ErrorKind, Host, Registry, Result, ScriptError, Stop, Value};
use crate::lang::{Source, threads};

/// How often a machine that does not come back is looked at after a stop, and how often it must
/// have been seen at the very same step.
const LOOK: Duration = Duration::from_millis(4);
const LOOKS: u32 = 3;

/// How long a machine may take to say which globals there are.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a machine is asked for.
enum Job {
    Run { source: Source, ctx: Ctx, reply: Reply },
    Call { function: u64, ctx: Ctx, args: Vec<Value>, reply: Reply },
    Enter { entry: Entry, ctx: Ctx, reply: Reply },
    Globals { ctx: Ctx, reply: oneshot::Sender<Globals> },
    Set { name: String, value: Value },
    Release(u64),
    End,
}

type Reply = oneshot::Sender<Result<Value>>;

/// The globals that are not the machine's own: names, and values where the host has a form of them.
pub(super) type Globals = Vec<(String, Option<Value>)>;

/// A part of a script that is told bit by bit.
pub(super) struct Entry {
    /// Its name, and the text that errors show lines of.
    pub(super) source: Source,
    /// What is executed; its lines are those of the text.
    pub(super) code: String,
}

/// Where a machine is asked. It answers until its [`Vm`] is dropped.
#[derive(Clone)]
pub(super) struct Door {
    jobs: mpsc::UnboundedSender<Job>,
    /// Odd while the machine executes Lua; counts how often it went in and came out.
    pub(super) steps: Arc<AtomicU64>,
}

/// A running machine. Dropping it ends the machine.
pub(super) struct Vm {
    door: Door,
}

impl Vm {
    /// Starts a machine that has everything in the registry.
    pub(super) fn start(host: &Host) -> Result<Vm> {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let door = Door { jobs, steps: Arc::default() };
        let (registry, mine) = (Arc::clone(&host.registry), door.clone());
        let memory = usize::try_from(host.most_memory()).unwrap_or(usize::MAX);
        let runtime = tokio::runtime::Handle::current();
        let started = threads::begin(move || {
            let local = tokio::task::LocalSet::new();
            runtime.block_on(local.run_until(serve(registry, memory, mine, inbox)));
            // What still waits goes before the machine that it belongs to.
            let _inside = runtime.enter();
            drop(local);
        });
        match started {
            Some(()) => Ok(Vm { door }),
            None => Err(ScriptError::runtime("no thread could be started for the script")),
        }
    }

    /// Runs a script in it.
    pub(super) async fn run(&self, source: &Source, ctx: &Ctx) -> Result<Value> {
        let (source, own) = (source.clone(), ctx.clone());
        self.door.ask(ctx, |reply| Job::Run { source, ctx: own, reply }).await
    }

    /// Runs an entry in it, after others.
    pub(super) async fn enter(&self, entry: Entry, ctx: &Ctx) -> Result<Value> {
        let own = ctx.clone();
        self.door.ask(ctx, |reply| Job::Enter { entry, ctx: own, reply }).await
    }

    /// The globals that entries have declared; none when the machine does not come back.
    pub(super) async fn globals(&self, ctx: &Ctx) -> Option<Globals> {
        let (reply, answer) = oneshot::channel();
        let _ = self.door.jobs.send(Job::Globals { ctx: ctx.clone(), reply });
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// Declares a global, before the next entry runs.
    pub(super) fn set(&self, name: &str, value: Value) {
        let _ = self.door.jobs.send(Job::Set { name: name.to_owned(), value });
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.door.jobs.send(Job::End);
    }
}

impl Door {
    /// Calls a function that the machine holds.
    pub(super) async fn call(&self, function: u64, ctx: &Ctx, args: Vec<Value>) -> Result<Value> {
        let own = ctx.clone();
        self.ask(ctx, |reply| Job::Call { function, ctx: own, args, reply }).await
    }

    /// Lets the machine forget a function.
    pub(super) fn release(&self, function: u64) {
        let _ = self.jobs.send(Job::Release(function));
    }

    async fn ask(&self, ctx: &Ctx, job: impl FnOnce(Reply) -> Job) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(job(reply));
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(ended())),
            () = self.stuck(&ctx.stop) => Err(ctx.stop.error()),
        }
    }

    /// Waits until the run is stopped and the machine still does not come back: it is inside a
    /// function of Lua itself, such as a search for a pattern, which nothing can interrupt. It is
    /// then left to itself, and ends as soon as it notices.
    async fn stuck(&self, stop: &Stop) {
        stop.cancel.cancelled().await;
        let (mut last, mut same) = (0, 0);
        while same < LOOKS {
            let step = self.steps.load(Ordering::Relaxed);
            same = if step % 2 == 1 && step == last { same + 1 } else { 0 };
            last = step;
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn ended() -> ScriptError {
    ScriptError::new(ErrorKind::Runtime, "the script has ended")
}

/// Makes the machine and does what it is asked until it is told to end.
async fn serve(
    registry: Arc<Registry>,
    memory: usize,
    door: Door,
    mut inbox: mpsc::UnboundedReceiver<Job>,
) {
    let made = machine::build(registry, memory, &door);
    let own = made.as_ref().map(|(lua, _)| body::globals(lua)).unwrap_or_default();
    while let Some(job) = inbox.recv().await {
        match job {
            Job::End => return,
            Job::Release(function) => {
                if let Ok((_, state)) = &made {
                    state.release(function);
                }
            }
            Job::Run { source, ctx, reply } => match &made {
                Ok((lua, state)) => start(reply, body::script(lua, state, source, ctx)),
                Err(error) => drop(reply.send(Err(error.clone()))),
            },
            Job::Enter { entry, ctx, reply } => match &made {
                Ok((lua, state)) => start(reply, body::entry(lua, state, entry, ctx)),
                Err(error) => drop(reply.send(Err(error.clone()))),
            },
            Job::Globals { ctx, reply } => {
                if let Ok((lua, state)) = &made {
                    let declared = state.enter(&ctx, || body::declared(lua, state, &own));
                    drop(reply.send(declared));
                }
            }
            Job::Set { name, value } => {
                if let Ok((lua, state)) = &made {
                    body::set(lua, state, &name, value);
                }
            }
            Job::Call { function, ctx, args, reply } => match &made {
                Ok((lua, state)) => start(reply, body::callback(lua, state, function, ctx, args)),
                Err(error) => drop(reply.send(Err(error.clone()))),
            },
        }
    }
}

fn start(reply: Reply, body: impl Future<Output = Result<Value>> + 'static) {
    tokio::task::spawn_local(async move {
        let _ = reply.send(body.await);
    });
}

/// A machine and what its functions share.
pub(super) type Machine = (Lua, Rc<State>);
