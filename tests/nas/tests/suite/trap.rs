//! How a trap is tested: what it does must be seen, and must not be seen when it is switched off.

use std::future::Future;
use std::pin::Pin;

use libtest_mimic::Trial;
use nas_sim::{Options, Release, Sim};

use crate::rig;

/// Whether the trap's behaviour is seen.
pub type Seen<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// A trap that shows without containers.
pub fn wire(number: u8, release: Release, see: for<'a> fn(&'a Sim) -> Seen<'a>) -> Trial {
    with(number, release, |_| {}, see)
}

/// The same, on a simulator with options.
pub fn with(
    number: u8,
    release: Release,
    change: fn(&mut Options),
    see: for<'a> fn(&'a Sim) -> Seen<'a>,
) -> Trial {
    rig::test(&name(number, release), move || {
        Box::pin(async move {
            let set = rig::small(release, change).await;
            assert!(see(&set.sim).await, "trap {number} is set and does not show");
            let off = rig::small(release, |o| {
                change(o);
                o.without.push(number);
            });
            let off = off.await;
            assert!(!see(&off.sim).await, "trap {number} is off and shows");
        })
    })
}

/// A trap that shows on containers.
pub fn big(number: u8, release: Release, see: for<'a> fn(&'a Sim) -> Seen<'a>) -> Trial {
    rig::big(&name(number, release), release, move |sim| {
        Box::pin(async move {
            assert!(see(sim).await, "trap {number} is set and does not show");
            sim.control(&format!("trap {number} off")).await.expect("a trap");
            let seen = see(sim).await;
            sim.control(&format!("trap {number} on")).await.expect("a trap");
            assert!(!seen, "trap {number} is off and shows");
        })
    })
}

fn name(number: u8, release: Release) -> String {
    format!("trap_{number:02}::{release:?}")
}
