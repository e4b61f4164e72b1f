//! Bases that are built when they are needed, on each backend where they are.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use super::base::{build, is_cancel, source};
use super::{Args, Callable, Ctx, MachineName, Result, ScriptError};
use crate::workflow::BaseHandle;

/// A base that is built when it is needed.
pub(super) struct Lazy {
    pub name: String,
    args: Args,
    steps: Option<Arc<dyn Callable>>,
    builds: Mutex<BTreeMap<MachineName, Arc<Build>>>,
}

/// A lazy base on one backend.
struct Build {
    id: u64,
    name: String,
    done: OnceCell<Result<BaseHandle, Failed>>,
}

/// Why it could not be built.
#[derive(Clone)]
struct Failed {
    error: ScriptError,
    /// The end of what the step that failed printed.
    tail: String,
}

/// A base that is being built, for what its steps need.
pub(super) struct Building {
    id: u64,
    name: String,
    /// Its turn to be built. It is given back while it waits for another base.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

type Found<'a> = Pin<Box<dyn Future<Output = Result<BaseHandle>> + Send + 'a>>;

impl Lazy {
    /// From a call of `base()` that is bound.
    pub fn new(name: String, args: Args) -> Lazy {
        // It may run beside the rest of the script.
        let steps = args.callback("steps").map(|steps| steps.0.isolated());
        Lazy { name, args, steps, builds: Mutex::default() }
    }

    /// The base on the caller's backend; it is built there where that was not done yet.
    pub fn get<'a>(&'a self, ctx: &'a Ctx) -> Found<'a> {
        Box::pin(async move {
            let build = self.on(&ctx.host.machine);
            if build.done.get().is_none() {
                let _waits = Waits::start(ctx.building.as_deref(), &build)?;
                let turn = ctx.building.as_ref().and_then(|building| building.give_turn());
                let waited = turn.is_some();
                drop(turn);
                let done = build.done.get_or_try_init(|| self.build(ctx, &build)).await.map(drop);
                if let Some(building) = ctx.building.as_ref().filter(|_| waited) {
                    building.take_turn(ctx).await;
                }
                done?;
            }
            match build.done.get() {
                Some(Ok(base)) => Ok(base.clone()),
                Some(Err(failed)) => {
                    ctx.base_failed(&failed.tail);
                    Err(failed.error.clone())
                }
                None => Err(ScriptError::runtime(format!("base '{}' was not built", self.name))),
            }
        })
    }

    fn on(&self, machine: &MachineName) -> Arc<Build> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        let build = builds.entry(machine.clone()).or_insert_with(|| {
            let (id, name) = (IDS.fetch_add(1, Ordering::Relaxed), self.name.clone());
            Arc::new(Build { id, name, done: OnceCell::new() })
        });
        Arc::clone(build)
    }

    /// Builds it; what it starts from first. That it was cancelled is no end: whoever needs it next
    /// tries again.
    async fn build(&self, ctx: &Ctx, build_of: &Build) -> Result<Result<BaseHandle, Failed>> {
        let building = Arc::new(Building {
            id: build_of.id,
            name: build_of.name.clone(),
            turn: Mutex::default(),
        });
        if let Some(trace) = &ctx.trace {
            trace.doubt(|| "it is the first to need a base".into());
        }
        let tail = Arc::default();
        let ctx = Ctx {
            building: Some(Arc::clone(&building)),
            tail: Some(Arc::clone(&tail)),
            ..ctx.clone()
        };
        let done = async {
            let source = source(&ctx, &self.args).await?;
            building.take_turn(&ctx).await;
            build(&ctx, &self.args, source, self.steps.clone()).await
        };
        let done = done.await;
        drop(building.give_turn());
        match done {
            Ok(base) => Ok(Ok(base)),
            Err(error) if is_cancel(&error) => Err(error),
            Err(error) => {
                let tail = tail.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(Err(Failed { error, tail }))
            }
        }
    }
}

impl Building {
    async fn take_turn(&self, ctx: &Ctx) {
        let turn = Arc::clone(&ctx.host.builders).acquire_owned().await.ok();
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    fn give_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Which base waits for which: ids and names.
static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());

#[derive(Clone)]
struct Wait {
    who: u64,
    on: u64,
    name: String,
}

/// While it lives, a base waits for another one.
struct Waits(Option<(u64, u64)>);

impl Waits {
    /// Refuses what would wait for itself.
    fn start(who: Option<&Building>, on: &Build) -> Result<Waits> {
        let Some(who) = who else { return Ok(Waits(None)) };
        let mut all = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = path(&all, on.id, who.id, &mut Vec::new()) {
            let circle = [vec![who.name.clone(), on.name.clone()], path].concat().join(" → ");
            return Err(ScriptError::runtime(format!(
                "base '{}' needs itself: {circle}",
                who.name
            ))
            .hint("let one of them start from something else"));
        }
        all.push(Wait { who: who.id, on: on.id, name: on.name.clone() });
        Ok(Waits(Some((who.id, on.id))))
    }
}

/// The names on the way from one base to another that it waits for, without the first.
fn path(all: &[Wait], from: u64, to: u64, seen: &mut Vec<u64>) -> Option<Vec<String>> {
    if from == to {
        return Some(Vec::new());
    }
    if seen.contains(&from) {
        return None;
    }
    seen.push(from);
    all.iter().filter(|wait| wait.who == from).find_map(|wait| {
        let rest = path(all, wait.on, to, seen)?;
        Some([vec![wait.name.clone()], rest].concat())
    })
}

impl Drop for Waits {
    fn drop(&mut self) {
        let Some((who, on)) = self.0 else { return };
        let mut all = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|wait| (wait.who, wait.on) == (who, on)) {
            all.swap_remove(at);
        }
    }
}
