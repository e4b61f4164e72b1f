//! How often a cell is tried.

use std::time::Duration;

/// The longest pause before an attempt.
const LONGEST: Duration = Duration::from_secs(60);

/// How often a cell that failed is tried again, and how long after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// How many attempts there are after the first one.
    pub count: usize,
    /// The pause before the second attempt. Before each further one it is twice as long, a minute
    /// at most; by chance up to a quarter is taken off, so that cells don't all come back at once.
    pub backoff: Duration,
}

impl Retries {
    /// The pause after this many attempts of a cell; the same for the same seed.
    pub fn pause(self, attempts: usize, seed: u64, cell: &str) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        let whole = self.backoff.saturating_mul(1 << doublings).min(LONGEST.max(self.backoff));
        let chance = blake3::hash(format!("{seed} {attempts} {cell}").as_bytes()).as_bytes()[0];
        whole.mul_f64(1.0 - f64::from(chance) / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let retries = Retries { count: 9, backoff: Duration::from_secs(1) };
        let pauses: Vec<f64> = (1..=9).map(|n| retries.pause(n, 1, "a=1").as_secs_f64()).collect();
        for (pause, whole) in pauses.iter().zip([1., 2., 4., 8., 16., 32., 60., 60., 60.]) {
            assert!((whole * 0.75..=whole).contains(pause), "{pauses:?}");
        }
        assert_eq!(retries.pause(3, 1, "a=1"), retries.pause(3, 1, "a=1"));
        assert_ne!(retries.pause(3, 1, "a=1"), retries.pause(3, 2, "a=1"));
        assert_eq!(Retries::default().pause(5, 1, "a=1"), Duration::ZERO);
        let long = Retries { count: 1, backoff: Duration::from_secs(600) };
        assert!(long.pause(1, 1, "") > Duration::from_secs(440));
    }
}
