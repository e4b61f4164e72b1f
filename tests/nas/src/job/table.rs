//! All jobs that the server remembers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::{Job, State};

/// So many are remembered.
const REMEMBERED: usize = 1000;

/// All jobs that the server remembers. They are lost when it restarts.
#[derive(Default)]
pub struct Jobs {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) next: i64,
    pub(super) jobs: BTreeMap<i64, Arc<Job>>,
    pub(super) locks: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    pub(super) tasks: HashMap<i64, AbortHandle>,
}

impl Jobs {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job with this number.
    pub fn get(&self, id: i64) -> Option<Arc<Job>> {
        self.lock().jobs.get(&id).cloned()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.lock().jobs.values().cloned().collect()
    }

    /// Forgets all of them and stops those that run: the server restarts.
    pub fn lose(&self) {
        let inner = std::mem::take(&mut *self.lock());
        inner.tasks.values().for_each(AbortHandle::abort);
    }
}

impl Inner {
    pub(super) fn next(&mut self) -> i64 {
        self.next += 1;
        while self.jobs.len() >= REMEMBERED {
            let Some(oldest) = self.jobs.values().find(|j| j.state().ended()).map(|j| j.id) else {
                break;
            };
            self.jobs.remove(&oldest);
        }
        self.next
    }

    pub(super) fn waiting(&self, lock: &str) -> Vec<Arc<Job>> {
        let waits = |j: &&Arc<Job>| j.lock.as_deref() == Some(lock) && j.state() == State::Waiting;
        self.jobs.values().filter(waits).cloned().collect()
    }
}
