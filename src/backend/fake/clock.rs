//! What time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The source of every time the backend reports.
#[derive(Debug)]
pub(super) enum Clock {
    System,
    /// Seconds after 2001-09-09T01:46:40Z; one more at each reading.
    Counter(AtomicU64),
}

impl Clock {
    pub fn counter() -> Self {
        Clock::Counter(AtomicU64::new(1_000_000_000))
    }

    /// What [`Clock::now`] gave last, or would give.
    pub fn last(&self) -> SystemTime {
        match self {
            Clock::System => crate::sandbox::wall_clock(),
            Clock::Counter(seconds) => {
                let seconds = seconds.load(Ordering::Relaxed).saturating_sub(1);
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
            }
        }
    }

    pub fn now(&self) -> SystemTime {
        match self {
            Clock::System => crate::sandbox::wall_clock(),
            Clock::Counter(seconds) => {
                SystemTime::UNIX_EPOCH
                    + Duration::from_secs(seconds.fetch_add(1, Ordering::Relaxed))
            }
        }
    }
}
