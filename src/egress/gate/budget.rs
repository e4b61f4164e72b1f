//! What all sandboxes of one gate share, so that none of them can use it up.

use std::sync::{Arc, LazyLock};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;

/// No limit of a process is used further than that.
const MOST: usize = 1 << 16;

/// Bounds over all sandboxes, from how many files this process may open; the rest is for who asks and for
/// what is written.
pub struct Budget {
    /// Connections: each has two sockets.
    pub connections: Arc<Semaphore>,
    /// Of one sandbox.
    pub connections_each: usize,
    /// Flows of UDP: each has a port of the host's, of which there are not many.
    pub flows: Arc<Semaphore>,
    /// Of one sandbox.
    pub flows_each: usize,
    /// Questions to other resolvers.
    pub questions: Arc<Semaphore>,
    /// Pipes: an ordinary user has a bounded number.
    pub pipes: Arc<Semaphore>,
}

/// The budget of this process.
pub static BUDGET: LazyLock<Budget> = LazyLock::new(|| {
    let files = getrlimit(Resource::Nofile).current.map_or(MOST, |most| most as usize).min(MOST);
    let (connections, flows) = ((files * 5 / 16).max(4), (files / 8).clamp(4, 4096));
    let shared = |count: usize| Arc::new(Semaphore::new(count));
    Budget {
        connections: shared(connections),
        connections_each: (connections / 4).clamp(1, 1024),
        flows: shared(flows),
        flows_each: (flows / 4).clamp(1, 512),
        questions: shared((files / 16).clamp(4, 1024)),
        pipes: shared((files / 32).clamp(1, 128)),
    }
});
