//! Events, and who is told of them.

use std::sync::{Mutex, PoisonError, Weak};

use serde_json::{Map, Value, json};

use crate::session::Session;

/// All sessions that are open, and a way to tell them something.
#[derive(Default)]
pub struct Bus {
    sessions: Mutex<Vec<Weak<Session>>>,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// Some of it, or all of it, is different.
    Changed,
    /// It is gone.
    Removed,
}

impl Bus {
    /// From now on `session` is told what it subscribes to.
    pub fn join(&self, session: Weak<Session>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|s| s.strong_count() > 0);
        sessions.push(session);
    }

    /// Tells every subscriber of `collection` for whom `may` holds.
    pub fn emit_to(
        &self,
        collection: &str,
        change: Change,
        id: Value,
        fields: Value,
        may: impl Fn(&Session) -> bool,
    ) {
        let sessions: Vec<_> = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.iter().filter_map(Weak::upgrade).collect()
        };
        let mut params = Map::new();
        let msg = match change {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Removed => "removed",
        };
        params.insert("msg".into(), msg.into());
        params.insert("collection".into(), collection.into());
        params.insert("id".into(), id);
        if change != Change::Removed && !fields.is_null() {
            params.insert("fields".into(), fields);
        }
        let frame = json!({"jsonrpc": "2.0", "method": "collection_update", "params": params});
        for session in sessions.iter().filter(|s| s.subscribed(collection) && may(s)) {
            session.send(&frame);
        }
    }

    /// Tells every subscriber of `collection`.
    pub fn emit(&self, collection: &str, change: Change, id: impl Into<Value>, fields: Value) {
        self.emit_to(collection, change, id.into(), fields, |_| true);
    }

    /// All open sessions.
    pub fn sessions(&self) -> Vec<std::sync::Arc<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter_map(Weak::upgrade).collect()
    }
}
