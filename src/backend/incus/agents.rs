//! A program in each guest that starts the commands there, so that the server is asked once and not for
//! every one of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::BytesMut;

use super::attach;
use super::client::{Client, Fail};
use super::record::Record;
use crate::backend::guest::{AGENT, Agent};

/// How long it may take until one listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agents that run, by sandbox.
#[derive(Default)]
pub(super) struct Agents(Mutex<HashMap<String, Arc<Slot>>>);

#[derive(Default)]
struct Slot {
    /// Whether something was started in the guest already. For one command alone an agent is not worth
    /// its start.
    used: AtomicBool,
    agent: tokio::sync::Mutex<Option<Arc<Known>>>,
}

/// An agent, and what is known of the sandbox since it runs there.
pub(super) struct Known {
    pub agent: Agent,
    pub record: OnceLock<Record>,
}

impl Agents {
    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Says that more than one thing will be started in a guest.
    pub fn expect(&self, name: &str) {
        self.slot(name).used.store(true, Ordering::Relaxed);
    }

    /// Lets go of a guest whose processes go or are gone.
    pub fn end(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The agent that runs in a guest; none is started.
    pub async fn running(&self, name: &str) -> Option<Arc<Known>> {
        let slot = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.get(name)?)
        };
        let known = slot.agent.lock().await;
        known.as_ref().filter(|known| !known.agent.is_over()).cloned()
    }

    /// The agent of a guest; nothing where it is the first time, or none can be started.
    pub async fn of(&self, client: &Arc<Client>, name: &str) -> Option<Arc<Known>> {
        let slot = self.slot(name);
        if !slot.used.swap(true, Ordering::Relaxed) {
            return None;
        }
        let mut known = slot.agent.lock().await;
        if let Some(known) = known.as_ref().filter(|known| !known.agent.is_over()) {
            return Some(Arc::clone(known));
        }
        // Why it can't be is told by the way without one.
        let agent = start(client, name).await.ok()?;
        let started = Arc::new(Known { agent, record: OnceLock::new() });
        *known = Some(Arc::clone(&started));
        Some(started)
    }
}

async fn start(client: &Arc<Client>, name: &str) -> Result<Agent, Fail> {
    let attached = attach::attach(client, name, &["perl", "-e", AGENT], None).await?;
    let (Some(stdin), control) = (attached.stdin, attached.control) else {
        return Err(Fail::Lost("the agent has no input".into()));
    };
    if let Some(mut stderr) = attached.stderr {
        tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
    }
    let greeted = Agent::greet(attached.stdout, stdin, BytesMut::new());
    let agent = match tokio::time::timeout(PATIENCE, greeted).await {
        Ok(agent) => agent?,
        Err(_) => return Err(Fail::Lost("the agent does not answer".into())),
    };
    let end = agent.end();
    tokio::spawn(async move {
        end.cancelled().await;
        drop(control);
    });
    Ok(agent)
}
