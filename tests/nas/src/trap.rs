//! The fifty traps: behaviour of the real server that clients get wrong. Each can be switched off,
//! so that a test can show that it notices.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which traps are set.
#[derive(Debug, Clone, Copy)]
pub struct Traps(&'static AtomicU64);

/// How many traps there are.
pub const COUNT: u8 = 50;

impl Traps {
    /// All traps but these.
    pub fn without(numbers: &[u8]) -> Self {
        let set = numbers.iter().fold(u64::MAX, |set, n| set & !(1 << n));
        // Eight bytes for as long as the process lives: it is looked at everywhere.
        Self(Box::leak(Box::new(AtomicU64::new(set))))
    }

    /// Whether trap `number` is set.
    pub fn on(self, number: u8) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << number) != 0
    }

    /// Whether all are set.
    pub fn all(self) -> bool {
        (1..=COUNT).all(|n| self.on(n))
    }

    /// Sets trap `number`, or takes it away.
    pub fn set(self, number: u8, on: bool) {
        match on {
            true => self.0.fetch_or(1 << number, Ordering::Relaxed),
            false => self.0.fetch_and(!(1 << number), Ordering::Relaxed),
        };
    }
}
