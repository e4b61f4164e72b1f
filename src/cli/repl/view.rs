//! What the line editor may look at, while the rest waits for it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::api::Host;
use crate::lang::{Language, Session};

/// Where the conversation is.
#[derive(Clone)]
pub struct Now {
    /// The language that is spoken.
    pub language: &'static dyn Language,
    /// The conversation in it.
    pub session: Arc<dyn Session>,
    /// Where sandboxes are.
    pub host: Arc<Host>,
    /// Runs what the backend is asked.
    pub runtime: Handle,
}

impl Now {
    /// Whether it is Lua, which is written differently in places.
    pub fn lua(&self) -> bool {
        self.ending() == "lua"
    }

    /// The ending of the language's files.
    pub fn ending(&self) -> &'static str {
        self.language.extensions().first().copied().unwrap_or_default()
    }

    /// Waits for an answer on a thread outside of the runtime, but not longer than this.
    pub fn wait<T>(&self, patience: Duration, work: impl Future<Output = Option<T>>) -> Option<T> {
        self.runtime.block_on(async { tokio::time::timeout(patience, work).await.ok().flatten() })
    }
}

/// The same, changing while the editor is open.
#[derive(Clone)]
pub struct View(Arc<Mutex<Now>>);

impl View {
    pub fn new(now: Now) -> View {
        View(Arc::new(Mutex::new(now)))
    }

    pub fn now(&self) -> Now {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, now: Now) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
