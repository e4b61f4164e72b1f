//! What time it is by the clock on the wall, which people and programs set while runs go on.
//!
//! Only what is shown, and what expires days later, goes by it; how long something took, and when it
//! is over, is measured by [`std::time::Instant`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// By how many seconds tests say that the clock was set.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// The time.
pub fn wall_clock() -> SystemTime {
    let (now, ahead) = (SystemTime::now(), AHEAD.load(Ordering::Relaxed));
    let by = Duration::from_secs(ahead.unsigned_abs());
    let set = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    set.unwrap_or(now)
}

/// Sets the clock for this process alone: so many seconds ahead of the machine's, or behind it. For
/// tests of what a clock that jumps does.
#[doc(hidden)]
pub fn set_wall_clock(ahead: i64) {
    AHEAD.store(ahead, Ordering::Relaxed);
}
