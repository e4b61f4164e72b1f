//! The body that a thread runs: what its host calls need to know.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::rhai::{Dynamic, Engine, EvalAltResult};
use rustix::time::{ClockId, clock_gettime};

use super::unit::{Unit, Units};
use super::{convert, error};
use crate::api::{Ctx, ErrorKind, Result, ScriptError, Stop, Value};
use crate::lang::threads;

/// A compiled script and the context that one body of it runs in.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) script: Arc<Script>,
    /// The file that the body begins in.
    pub(super) unit: Arc<Unit>,
    pub(super) ctx: Ctx,
    pub(super) runtime: tokio::runtime::Handle,
}

/// A compiled script with its modules.
pub(super) struct Script {
    pub(super) engine: Arc<Engine>,
    /// The script's own file.
    pub(super) main: Arc<Unit>,
    pub(super) units: Arc<Units>,
}

thread_local! {
    static CURRENT: RefCell<Option<Body>> = const { RefCell::new(None) };
}

/// Where a body is, for those who wait for it: a number that grows with its operations, and is odd
/// while the host does something for it.
#[derive(Default)]
struct Beat(AtomicU64);

thread_local! {
    static BEAT: RefCell<Arc<Beat>> = RefCell::default();
}

/// How often a body that does not come back is looked at after a stop, and how often it must have
/// been seen at the very same operation.
const GLANCE: Duration = Duration::from_millis(4);
const GLANCES: u32 = 4;

/// From here to its next operation the body waits for the host.
pub(super) fn hosted() {
    BEAT.with(|beat| {
        beat.borrow().0.fetch_or(1, Ordering::Relaxed);
    });
}

/// Looks at the body that this thread runs.
pub(super) fn with<T>(look: impl FnOnce(Option<&Body>) -> T) -> T {
    CURRENT.with(|current| look(current.borrow().as_ref()))
}

/// How many operations are done between two looks at what the run may use.
const LOOK: u32 = 1000;
/// How long the process may grow unseen.
const WEIGH: i64 = 10_000_000;

/// Takes note of an operation. An operation may be a large one, so memory is weighed by the clock.
pub(super) fn progress() {
    thread_local! {
        static DONE: Cell<u32> = const { Cell::new(0) };
        static WEIGHED: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
    }
    BEAT.with(|beat| {
        let beat = &beat.borrow().0;
        beat.store((beat.load(Ordering::Relaxed) | 1) + 1, Ordering::Relaxed);
    });
    let done = DONE.get() + 1;
    DONE.set(if done < LOOK { done } else { 0 });
    if done == LOOK {
        with(|body| body.iter().for_each(|body| body.ctx.stop.spend(LOOK.into())));
    }
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = WEIGHED.get();
    if (now.tv_sec - seconds) * 1_000_000_000 + now.tv_nsec - nanos > WEIGH {
        WEIGHED.set((now.tv_sec, now.tv_nsec));
        with(|body| body.iter().for_each(|body| body.ctx.stop.weigh()));
    }
}

/// Whether the body on this thread must end.
pub(super) fn stopped() -> bool {
    with(|body| body.is_some_and(|body| body.ctx.stop.stopped()))
}

impl Body {
    /// Runs `work` on a thread of its own, as this body.
    pub(super) async fn run(
        self,
        work: impl FnOnce(&Script) -> Result<Dynamic, Box<EvalAltResult>> + Send + 'static,
    ) -> Result<Value> {
        let beat = Arc::<Beat>::default();
        let (own, stop) = (Arc::clone(&beat), self.ctx.stop.clone());
        let done = threads::run(move || {
            BEAT.with(|beat| *beat.borrow_mut() = own);
            CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work(&self.script)
                    .map_err(|error| error::script_error(error, &self))
                    .and_then(|value| convert::to_value(&value, None))
            }));
            CURRENT.with(|current| *current.borrow_mut() = None);
            result
        });
        let done = tokio::select! {
            biased;
            done = done => done,
            () = stuck(&stop, &beat) => return Err(stop.error()),
        };
        match done {
            Some(Ok(result)) => result,
            _ => {
                Err(ScriptError::new(ErrorKind::Runtime, "the script's thread ended unexpectedly")
                    .hint("this is a fault of sandscript; please report it with the script"))
            }
        }
    }
}

/// Waits until the run is stopped and the body still does not come back: it is inside a function of
/// Rhai itself, such as one that fills a long text, which nothing can interrupt. It is then left to
/// itself, and ends as soon as it notices.
async fn stuck(stop: &Stop, beat: &Beat) {
    stop.cancel.cancelled().await;
    let (mut last, mut same) = (0, 0);
    while same < GLANCES {
        tokio::time::sleep(GLANCE).await;
        let now = beat.0.load(Ordering::Relaxed);
        same = if now.is_multiple_of(2) && now == last { same + 1 } else { 0 };
        last = now;
    }
}
