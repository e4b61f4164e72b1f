//! One connection to the API.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

use crate::auth::Credential;
use crate::nas::Nas;

/// What the writer of a connection is asked to do.
#[derive(Debug)]
pub enum Out {
    /// Send this text.
    Text(String),
    /// Close with a code and a reason.
    Close(u16, &'static str),
    /// Cut the line without a word.
    Cut,
}

/// What a client set with `core.set_options`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether a job's call answers with its id.
    pub legacy_jobs: bool,
    /// Whether private methods are called without a warning in the log.
    pub private_methods: bool,
    /// Whether errors carry a pickled exception.
    pub py_exceptions: bool,
}

/// One connection to the API.
pub struct Session {
    /// Its id.
    pub id: String,
    /// The server.
    pub nas: Arc<Nas>,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The API version it asked for; `None` is the newest.
    pub version: Option<&'static str>,
    /// Ten calls run at once.
    pub running: Semaphore,
    /// Calls that run or wait.
    pub admitted: AtomicUsize,
    state: Mutex<State>,
    out: mpsc::UnboundedSender<Out>,
}

struct State {
    credential: Option<Credential>,
    settings: Settings,
    subscriptions: HashMap<String, String>,
    pending: Option<crate::auth::Pending>,
}

impl Session {
    /// A connection that nobody logged in on yet.
    pub fn new(
        nas: Arc<Nas>,
        remote: SocketAddr,
        tls: bool,
        version: Option<&'static str>,
        out: mpsc::UnboundedSender<Out>,
    ) -> Arc<Self> {
        let settings = Settings { legacy_jobs: true, private_methods: false, py_exceptions: false };
        let ten = if nas.traps.on(14) { 10 } else { Semaphore::MAX_PERMITS };
        let session = Arc::new(Self {
            id: crate::random::uuid(),
            nas,
            remote,
            tls,
            version,
            running: Semaphore::new(ten),
            admitted: AtomicUsize::new(0),
            state: Mutex::new(State {
                credential: None,
                settings,
                subscriptions: HashMap::new(),
                pending: None,
            }),
            out,
        });
        session.nas.events.join(Arc::downgrade(&session));
        session
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message; one for a connection that is gone is lost.
    pub fn send(&self, message: &Value) {
        self.out(Out::Text(message.to_string()));
    }

    /// Asks the writer to do something.
    pub fn out(&self, what: Out) {
        let _ = self.out.send(what);
    }

    /// Who is logged in.
    pub fn credential(&self) -> Option<Credential> {
        self.state().credential.clone()
    }

    /// Logs somebody in, or out.
    pub fn set_credential(&self, credential: Option<Credential>) {
        let credential = credential.map(|c| Credential { since: self.nas.now(), ..c });
        let mut state = self.state();
        state.credential = credential;
        if state.credential.is_none() {
            state.subscriptions.clear();
        }
    }

    /// A login that waits for its second step; it can be taken once.
    pub fn take_pending(&self) -> Option<crate::auth::Pending> {
        self.state().pending.take()
    }

    /// Keeps the first step of a login.
    pub fn set_pending(&self, pending: crate::auth::Pending) {
        self.state().pending = Some(pending);
    }

    /// The client's settings.
    pub fn settings(&self) -> Settings {
        self.state().settings
    }

    /// Changes the client's settings.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) -> Settings {
        let mut state = self.state();
        change(&mut state.settings);
        state.settings
    }

    /// Subscribes to a collection and gives the id to unsubscribe by.
    pub fn subscribe(&self, collection: &str) -> String {
        let id = crate::random::uuid();
        self.state().subscriptions.insert(id.clone(), collection.to_owned());
        id
    }

    /// Ends a subscription and gives the collection that it was to.
    pub fn unsubscribe(&self, id: &str) -> Option<String> {
        self.state().subscriptions.remove(id)
    }

    /// Whether a subscription still stands.
    pub fn subscribes(&self, id: &str) -> bool {
        self.state().subscriptions.contains_key(id)
    }

    /// Whether a collection is subscribed to, by itself or by `*`.
    pub fn subscribed(&self, collection: &str) -> bool {
        self.state().subscriptions.values().any(|c| c == collection || c == "*")
    }

    /// Admits one more call, unless twenty are in flight.
    pub fn admit(&self) -> bool {
        let before = self.admitted.fetch_add(1, Ordering::SeqCst);
        let fits = before < 20 || !self.nas.traps.on(14);
        if !fits {
            self.admitted.fetch_sub(1, Ordering::SeqCst);
        }
        fits
    }

    /// A call ended.
    pub fn leave(&self) {
        self.admitted.fetch_sub(1, Ordering::SeqCst);
    }

    /// The address that rate limits and tokens go by.
    pub fn origin(&self) -> String {
        self.remote.ip().to_string()
    }
}
