//! The cells that run on one backend.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{Cell, Machine, MatrixSpec, RunContext};
use super::pool::Pool;
use crate::sandbox::{Capability, Member};

/// The cells of a matrix that run on one backend, which has its own measure of how many.
pub(super) struct Lane {
    /// The run, on that backend.
    pub ctx: RunContext,
    /// That backend, where it is not what the run began with.
    pub machine: Option<Machine>,
    /// How many bodies run at once. Fair, so that cells start in order.
    bodies: Arc<Semaphore>,
    /// How many turns there are.
    pub parallel: usize,
    /// How many bodies run at once on all backends together, where there are several.
    all: Option<(Arc<Semaphore>, usize)>,
    /// How many sandboxes are in use or made ahead.
    pub live: Arc<Semaphore>,
    /// How many there are at all: these, and those being deleted.
    pub slots: Arc<Semaphore>,
    /// Those that wait for cells, where some do.
    pub pool: Option<Pool>,
    /// Whether the backend stayed away for as long as one is waited for: it is not waited for again.
    pub gone: AtomicBool,
}

/// The lanes of a matrix, and which cell is in which.
pub(super) struct Lanes {
    pub all: Vec<Arc<Lane>>,
    /// Cells that are not in the first one.
    places: HashMap<String, usize>,
    /// How many cells run at once.
    pub parallel: usize,
}

impl Lanes {
    pub async fn new(ctx: &RunContext, spec: &MatrixSpec, cells: &[Cell]) -> Lanes {
        let mut contexts: Vec<(RunContext, Option<Machine>)> = Vec::new();
        let mut known: HashMap<Option<&str>, usize> = HashMap::new();
        let mut places = HashMap::new();
        for cell in cells {
            let machine = spec.own.get(&cell.id).and_then(|own| own.machine.as_ref());
            let name = machine.map(|machine| machine.name.as_str());
            let at = *known.entry(name).or_insert_with(|| {
                let here = machine.map_or_else(|| ctx.clone(), |machine| ctx.on(machine));
                contexts.push((here, machine.cloned()));
                contexts.len() - 1
            });
            if at > 0 {
                places.insert(cell.id.clone(), at);
            }
        }
        if contexts.is_empty() {
            contexts.push((ctx.clone(), None));
        }
        let mut can = Vec::with_capacity(contexts.len());
        let mut pools = Vec::with_capacity(contexts.len());
        for (ctx, _) in &contexts {
            can.push(capacity(ctx, spec).await);
            pools.push(
                Pool::of(ctx.backend.as_ref(), spec.pool.min(cells.len()), &ctx.cancel).await,
            );
        }
        let capacity = can.iter().copied().fold(0, usize::saturating_add);
        let parallel = spec.parallel.unwrap_or(capacity).max(1);
        let several = contexts.len() > 1;
        let all = several.then(|| (Arc::new(Semaphore::new(permits(parallel))), parallel));
        let lane = |((ctx, machine), (can, pool)): ((RunContext, Option<Machine>), _)| {
            // A number that is asked for beats what a backend thinks of itself, where it is the only
            // one; of several each has what it can do.
            let parallel = if several { usize::min(can, parallel) } else { parallel };
            // Enough that a slot finds one ready, when cells take much longer than a clone.
            let ahead = parallel.clamp(1, 4).max(parallel / 8);
            Arc::new(Lane {
                ctx,
                machine,
                pool,
                gone: AtomicBool::new(false),
                bodies: Arc::new(Semaphore::new(permits(parallel))),
                parallel,
                all: all.clone(),
                live: Arc::new(Semaphore::new(permits(parallel.saturating_add(ahead)))),
                slots: Arc::new(Semaphore::new(permits(
                    parallel.saturating_mul(2).saturating_add(ahead),
                ))),
            })
        };
        let all = contexts.into_iter().zip(can.into_iter().zip(pools)).map(lane).collect();
        Lanes { all, places, parallel }
    }

    /// The number of the lane that a cell is in.
    pub fn of(&self, cell: &Cell) -> usize {
        self.places.get(&cell.id).copied().unwrap_or(0)
    }
}

/// How many cells a backend can run at once: of a cluster, what its members have room for now.
async fn capacity(ctx: &RunContext, spec: &MatrixSpec) -> usize {
    let can = ctx.backend.capabilities();
    if can.has(Capability::Cluster)
        && let Ok(members) = ctx.backend.members(&ctx.cancel).await
    {
        let fitting = members.iter().filter(|member| member.fits(spec.cell.target.as_ref()));
        let room = fitting.map(Member::capacity).fold(0, usize::saturating_add);
        if room > 0 {
            return room;
        }
    }
    can.parallelism.max(1)
}

/// No more than a semaphore takes.
fn permits(count: usize) -> usize {
    count.min(Semaphore::MAX_PERMITS)
}

type Waiting = Pin<Box<dyn Future<Output = Option<Given>> + Send>>;
type Given = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// A place in the queue for a turn.
pub(super) struct Turn {
    waiting: Waiting,
    given: Option<Given>,
}

impl Turn {
    /// Takes the place, and does not wait.
    pub async fn queue(&mut self) {
        let now = std::future::poll_fn(|cx| Poll::Ready(self.waiting.as_mut().poll(cx))).await;
        if let Poll::Ready(given) = now {
            self.given = given;
        }
    }

    /// Waits for the turn, which lasts until what is returned is dropped.
    pub async fn wait(mut self) -> Option<Given> {
        match self.given.take() {
            Some(given) => Some(given),
            None => self.waiting.await,
        }
    }
}

impl Lane {
    /// A turn to run a body that takes the place of so many.
    pub fn turn(&self, weight: usize) -> Turn {
        let (bodies, all) = (Arc::clone(&self.bodies), self.all.clone());
        // A cell that is too heavy for the whole matrix runs alone.
        let count = move |most: usize| u32::try_from(weight.clamp(1, most)).unwrap_or(u32::MAX);
        let own = count(self.parallel);
        let waiting: Waiting = match all {
            // One queue for all, so that the order is kept.
            Some((all, 1)) => {
                Box::pin(async move { Some((all.acquire_owned().await.ok()?, None)) })
            }
            Some((all, most)) => Box::pin(async move {
                let own = bodies.acquire_many_owned(own).await.ok()?;
                Some((own, Some(all.acquire_many_owned(count(most)).await.ok()?)))
            }),
            None => {
                Box::pin(async move { Some((bodies.acquire_many_owned(own).await.ok()?, None)) })
            }
        };
        Turn { waiting, given: None }
    }
}
