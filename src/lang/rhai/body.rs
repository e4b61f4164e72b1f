//! The body that a thread runs: what its host calls need to know.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use ::rhai::{Dynamic, Engine, EvalAltResult};
use rustix::time::{ClockId, clock_gettime};

use super::unit::{Unit, Units};
use super::{convert, error};
use crate::api::{Ctx, ErrorKind, Result, ScriptError, Value};
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
        let done = threads::run(move || {
            CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work(&self.script)
                    .map_err(|error| error::script_error(error, &self))
                    .and_then(|value| convert::to_value(&value, None))
            }));
            CURRENT.with(|current| *current.borrow_mut() = None);
            result
        });
        match done.await {
            Some(Ok(result)) => result,
            _ => {
                Err(ScriptError::new(ErrorKind::Runtime, "the script's thread ended unexpectedly")
                    .hint("this is a fault of sandscript; please report it with the script"))
            }
        }
    }
}
