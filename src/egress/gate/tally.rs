//! Counting what is carried while it is carried.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::relay::Count;
use super::{Shared, lock};

/// One connection's count, told to the log at its end and whenever somebody looks.
pub struct Tally<'a> {
    shared: &'a Shared,
    id: u64,
    /// What has not been told yet.
    pub count: Arc<Count>,
}

impl<'a> Tally<'a> {
    /// Of a connection that has just been made to a host.
    pub fn begin(shared: &'a Shared, host: &str) -> Tally<'a> {
        let (id, count) = (shared.serial.fetch_add(1, Ordering::Relaxed), Arc::<Count>::default());
        lock(&shared.log).connect(host);
        lock(&shared.tallies).insert(id, (host.to_owned(), count.clone()));
        Tally { shared, id, count }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let ended = lock(&self.shared.tallies).remove(&self.id);
        if let Some((host, count)) = ended {
            tell(self.shared, &host, &count);
        }
    }
}

/// Tells the log what all connections have carried so far.
pub fn tell_all(shared: &Shared) {
    for (host, count) in lock(&shared.tallies).values() {
        tell(shared, host, count);
    }
}

fn tell(shared: &Shared, host: &str, count: &Count) {
    let taken = |number: &std::sync::atomic::AtomicU64| number.swap(0, Ordering::Relaxed);
    let (sent, received) = (taken(&count.sent), taken(&count.received));
    if sent + received > 0 {
        lock(&shared.log).bytes(host, sent, received);
    }
}
