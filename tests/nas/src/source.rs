//! Event sources: what is told over and over to those who asked for it, with arguments in the name.

mod metrics;
mod realtime;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fail::Fail;
use crate::nas::Nas;
use crate::release::Release;
use crate::schema::{self, Ty};
use crate::session::Session;

/// Who listens: a subscription and its session.
type Listener = (String, Weak<Session>);

/// The sources that run, by their full names, and who listens: subscriptions and sessions.
#[derive(Default)]
pub struct Sources {
    running: Mutex<HashMap<String, Vec<Listener>>>,
}

impl Sources {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Listener>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who still listen; without any the source ends.
    fn listeners(&self, full: &str) -> Vec<Arc<Session>> {
        let mut running = self.lock();
        let Some(all) = running.get_mut(full) else { return Vec::new() };
        all.retain(|(id, session)| session.upgrade().is_some_and(|s| s.subscribes(id)));
        let found: Vec<_> = all.iter().filter_map(|(_, session)| session.upgrade()).collect();
        if found.is_empty() {
            running.remove(full);
        }
        found
    }
}

/// The role that a source asks for; `None` when there is no such source in this release.
pub fn role(release: Release, name: &str) -> Option<&'static str> {
    match name {
        "reporting.realtime" => Some("REPORTING_READ"),
        "virt.instance.metrics" if !release.is_26() => Some("VIRT_INSTANCE_READ"),
        "container.metrics" if release.is_26() => Some("CONTAINER_READ"),
        _ => None,
    }
}

/// Subscribes a session to a source. Arguments that are wrong are told as the end of it.
pub fn subscribe(session: &Arc<Session>, full: &str) -> String {
    let nas = &session.nas;
    let id = session.subscribe(full);
    match interval(full) {
        Err(fail) => {
            session.unsubscribe(&id);
            let error = fail.object(nas.release, nas.traps)["data"].take();
            ended(session, full, error);
        }
        Ok(interval) => {
            let mut running = nas.sources.lock();
            let all = running.entry(full.to_owned()).or_default();
            let first = all.is_empty();
            all.push((id.clone(), Arc::downgrade(session)));
            drop(running);
            if first {
                tokio::spawn(run(Arc::downgrade(nas), full.to_owned(), interval));
            }
        }
    }
    id
}

/// Tells a session that a source has ended for it.
pub fn ended(session: &Session, full: &str, error: Value) {
    session.send(&json!({
        "jsonrpc": "2.0", "method": "notify_unsubscribed",
        "params": {"collection": full, "error": error},
    }));
}

/// Every so many seconds, two or more.
fn interval(full: &str) -> Result<Duration, Fail> {
    let given = match full.split_once(':') {
        None | Some((_, "")) => json!({}),
        // What is no JSON is passed on as it is, and refused by the model.
        Some((_, text)) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    let model = schema::parse("{interval?:integer >=2=2}", 0).unwrap_or(Ty::Any);
    let mut faults = Vec::new();
    let checked = schema::check(&model, &given, "", &mut faults);
    if !faults.is_empty() {
        return Err(Fail::Validation(faults));
    }
    Ok(Duration::from_secs(checked["interval"].as_u64().unwrap_or(2)))
}

async fn run(nas: Weak<Nas>, full: String, interval: Duration) {
    let name = full.split(':').next().unwrap_or_default().to_owned();
    let mut before = Value::Null;
    loop {
        let Some(strong) = nas.upgrade() else { return };
        let fields = match name.as_str() {
            "reporting.realtime" => Some(realtime::fields(&strong, &mut before)),
            _ => metrics::fields(&strong, &mut before).await,
        };
        let listeners = strong.sources.listeners(&full);
        if listeners.is_empty() {
            return;
        }
        if let Some(fields) = fields {
            let frame = json!({
                "jsonrpc": "2.0", "method": "collection_update",
                "params": {"msg": "added", "collection": full, "fields": fields},
            });
            for session in listeners {
                session.send(&frame);
            }
        }
        drop(strong);
        tokio::time::sleep(interval).await;
    }
}
