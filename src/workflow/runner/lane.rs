//! The cells that run on one backend.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{Cell, Machine, MatrixSpec, RunContext};
use super::pool::Pool;
use crate::sandbox::{Capability, Member, Placement};

/// The cells of a matrix that run on one backend, which has its own measure of how many.
pub(super) struct Lane {
    /// The run, on that backend.
    pub ctx: RunContext,
    /// That backend, where it is not what the run began with.
    pub machine: Option<Machine>,
    /// How many bodies run at once. Fair, so that cells start in order.
    bodies: Arc<Semaphore>,
    /// How many turns there are.
    parallel: AtomicUsize,
    /// Where in a cluster its cells may be, where that says how many run at once.
    targets: Option<BTreeSet<Option<Placement>>>,
    /// No fewer turns than this: the heaviest cell needs them.
    heaviest: usize,
    /// Held while it is looked how many can run at once.
    measuring: tokio::sync::Mutex<()>,
    /// How many processors the members had that its cells may be on, when that was looked at last.
    cpus: AtomicUsize,
    /// How many bodies run at once on all backends together, where there are several.
    all: Option<(Arc<Semaphore>, usize)>,
    /// How many sandboxes are in use or made ahead.
    pub live: Arc<Semaphore>,
    /// How many there are at all: these, and those being deleted.
    pub slots: Arc<Semaphore>,
    /// Those that wait for cells, where some do.
    pub pool: Option<Arc<Pool>>,
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
        let mut targets: Vec<BTreeSet<Option<Placement>>> = Vec::new();
        let mut known: HashMap<Option<&str>, usize> = HashMap::new();
        let mut places = HashMap::new();
        for cell in cells {
            let machine = spec.own.get(&cell.id).and_then(|own| own.machine.as_ref());
            let name = machine.map(|machine| machine.name.as_str());
            let at = *known.entry(name).or_insert_with(|| {
                let here = machine.map_or_else(|| ctx.clone(), |machine| ctx.on(machine));
                contexts.push((here, machine.cloned()));
                targets.push(BTreeSet::new());
                contexts.len() - 1
            });
            targets[at].insert(spec.target(cell).cloned());
            if at > 0 {
                places.insert(cell.id.clone(), at);
            }
        }
        if contexts.is_empty() {
            contexts.push((ctx.clone(), None));
            targets.push([spec.cell.target.clone()].into());
        }
        let mut can = Vec::with_capacity(contexts.len());
        let mut pools = Vec::with_capacity(contexts.len());
        let mut processors = Vec::with_capacity(contexts.len());
        for ((ctx, _), targets) in contexts.iter().zip(&targets) {
            let (room, cpus) = capacity(ctx, targets).await;
            can.push(room);
            processors.push(cpus);
            let pool =
                Pool::of(ctx.backend.as_ref(), spec.pool.min(cells.len()), &ctx.cancel).await;
            pools.push(pool.map(Arc::new));
        }
        let heaviest = cells.iter().filter_map(|cell| spec.own.get(&cell.id));
        let heaviest = heaviest.map(|own| own.weight).max().unwrap_or(1).max(1);
        let capacity = can.iter().copied().fold(0, usize::saturating_add);
        let parallel = spec.parallel.unwrap_or(capacity).max(1);
        let several = contexts.len() > 1;
        let all = several.then(|| (Arc::new(Semaphore::new(permits(parallel))), parallel));
        let measured = spec.parallel.is_none() || several;
        let lane =
            |(((ctx, machine), targets), ((can, cpus), pool)): (((_, _), BTreeSet<_>), _)| {
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
                    parallel: AtomicUsize::new(parallel),
                    targets: Some(targets).filter(|_| measured),
                    heaviest: heaviest.min(parallel),
                    measuring: tokio::sync::Mutex::default(),
                    cpus: AtomicUsize::new(cpus),
                    all: all.clone(),
                    live: Arc::new(Semaphore::new(permits(parallel.saturating_add(ahead)))),
                    slots: Arc::new(Semaphore::new(permits(
                        parallel.saturating_mul(2).saturating_add(ahead),
                    ))),
                })
            };
        let all = contexts.into_iter().zip(targets);
        let all = all.zip(can.into_iter().zip(processors).zip(pools)).map(lane).collect();
        Lanes { all, places, parallel }
    }

    /// The number of the lane that a cell is in.
    pub fn of(&self, cell: &Cell) -> usize {
        self.places.get(&cell.id).copied().unwrap_or(0)
    }
}

/// How many cells a backend can run at once: of a cluster, what the members that they may be on have room for now.
/// And how many processors these have.
async fn capacity(ctx: &RunContext, targets: &BTreeSet<Option<Placement>>) -> (usize, usize) {
    let can = ctx.backend.capabilities();
    if can.has(Capability::Cluster)
        && let Ok(members) = ctx.backend.members(&ctx.cancel).await
    {
        let fits = |member: &&Member| targets.iter().any(|at| member.fits(at.as_ref()));
        let fitting = || members.iter().filter(fits);
        let room = fitting().map(Member::capacity).fold(0, usize::saturating_add);
        if room > 0 {
            return (room, fitting().map(|member| member.cpus).fold(0, usize::saturating_add));
        }
    }
    (can.parallelism.max(1), 0)
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

/// Gives a semaphore other permits. Those in use that are too many go when they are given back.
fn resize(semaphore: &Arc<Semaphore>, from: usize, to: usize) {
    if to > from {
        semaphore.add_permits(to - from);
        return;
    }
    let left = from - to - semaphore.forget_permits(from - to);
    let semaphore = Arc::clone(semaphore);
    if let Some(left) = u32::try_from(left).ok().filter(|left| *left > 0) {
        tokio::spawn(async move {
            if let Ok(permits) = semaphore.acquire_many_owned(left).await {
                permits.forget();
            }
        });
    }
}

impl Lane {
    /// Looks how many cells can run at once now that a member of the cluster has gone away: as many fewer as there are
    /// fewer processors. What keeps them busy now are the cells themselves.
    pub async fn measure(&self) {
        let Some(targets) = &self.targets else { return };
        // Others that saw it go are told nothing new.
        let Ok(_alone) = self.measuring.try_lock() else { return };
        let most = self.all.as_ref().map_or(usize::MAX, |(_, most)| *most);
        let (_, cpus) = capacity(&self.ctx, targets).await;
        let known = self.cpus.load(Ordering::Relaxed);
        if cpus == 0 || known == 0 {
            return;
        }
        self.cpus.store(cpus, Ordering::Relaxed);
        let before = self.parallel.load(Ordering::Relaxed);
        let now = (before.saturating_mul(cpus) / known).max(1).min(most).max(self.heaviest);
        self.parallel.store(now, Ordering::Relaxed);
        resize(&self.bodies, before, now);
        resize(&self.live, before, now);
        resize(&self.slots, before * 2, now * 2);
    }

    /// A turn to run a body that takes the place of so many.
    pub fn turn(&self, weight: usize) -> Turn {
        let (bodies, all) = (Arc::clone(&self.bodies), self.all.clone());
        // A cell that is too heavy for the whole matrix runs alone.
        let count = move |most: usize| u32::try_from(weight.clamp(1, most)).unwrap_or(u32::MAX);
        let own = count(self.parallel.load(Ordering::Relaxed));
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
