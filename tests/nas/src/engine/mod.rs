//! The containers: a real Incus daemon in namespaces of its own.

mod events;
mod golden;
mod http;
mod leftovers;
mod start;

use serde_json::{Value, json};
use tokio::sync::watch;

pub use events::follow;
pub use start::{plug, start};

use crate::fail::Fail;

/// A daemon that runs.
pub struct Engine {
    /// Process 1 of its namespaces.
    pub pid: u32,
    /// Its bridge.
    pub bridge: String,
    /// The bridge's address.
    pub gateway: [u8; 4],
    keeper: std::sync::Mutex<start::Keeper>,
    plugged: watch::Sender<Option<Result<(), String>>>,
}

impl Engine {
    /// Stops the daemon and everything in its namespaces.
    pub fn stop(&self) {
        self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stop();
    }

    fn socket(&self) -> String {
        format!("/proc/{}/root/mnt/host/var/lib/incus/unix.socket", self.pid)
    }

    /// Asks for something.
    pub async fn get(&self, path: &str) -> Result<Value, Fail> {
        let answer = http::request(&self.socket(), "GET", path, None).await.map_err(Fail::fault)?;
        accepted(answer).map(|mut a| a["metadata"].take())
    }

    /// Waits until its network is there: that comes a moment after the daemon.
    pub async fn settled(&self) -> Result<(), Fail> {
        let mut plugged = self.plugged.subscribe();
        match plugged.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(text))) => Err(Fail::fault(text.clone())),
            _ => Ok(()),
        }
    }

    /// Changes something and waits until it is done.
    pub async fn send(&self, verb: &str, path: &str, body: Value) -> Result<Value, Fail> {
        self.settled().await?;
        self.change(verb, path, body).await
    }

    async fn change(&self, verb: &str, path: &str, body: Value) -> Result<Value, Fail> {
        let answer =
            http::request(&self.socket(), verb, path, Some(&body)).await.map_err(Fail::fault)?;
        self.done(accepted(answer)?).await
    }

    async fn done(&self, answer: Value) -> Result<Value, Fail> {
        let Some(operation) = answer["operation"].as_str().filter(|o| !o.is_empty()) else {
            return Ok(answer["metadata"].clone());
        };
        let path = format!("{operation}/wait?timeout=300");
        let done = self.get(&path).await?;
        match done["err"].as_str() {
            Some("") | None => Ok(done["metadata"].clone()),
            Some(text) => Err(Fail::fault(text)),
        }
    }

    /// Posts what comes in pieces, and waits until it is done.
    pub async fn upload(
        &self,
        path: &str,
        headers: &str,
        from: tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), Fail> {
        let answer =
            http::upload(&self.socket(), path, headers, from).await.map_err(Fail::fault)?;
        self.done(accepted(answer)?).await.map(|_| ())
    }

    /// All instances with their configuration and state, in order of their names.
    pub async fn instances(&self) -> Result<Vec<Value>, Fail> {
        let all = self.get("/1.0/instances?recursion=2").await?;
        Ok(all.as_array().cloned().unwrap_or_default())
    }

    /// One instance; `None` when there is none.
    pub async fn instance(&self, name: &str) -> Result<Option<Value>, Fail> {
        match self.get(&format!("/1.0/instances/{name}")).await {
            Ok(found) => Ok(Some(found)),
            Err(Fail::Call(_, text)) if text.contains("not found") => Ok(None),
            Err(fail) => Err(fail),
        }
    }

    /// What an instance does at the moment: addresses, process number.
    pub async fn state(&self, name: &str) -> Result<Value, Fail> {
        self.get(&format!("/1.0/instances/{name}/state")).await
    }

    /// Whether an instance runs.
    pub async fn running(&self, name: &str) -> bool {
        matches!(self.state(name).await, Ok(state) if state["status"] == "Running")
    }

    /// Starts, stops, restarts. `timeout` in seconds, -1 for none.
    pub async fn act(
        &self,
        name: &str,
        action: &str,
        timeout: i64,
        force: bool,
    ) -> Result<(), Fail> {
        let body = json!({"action": action, "timeout": timeout, "force": force});
        self.send("PUT", &format!("/1.0/instances/{name}/state"), body).await.map(|_| ())
    }

    /// Changes an instance as a whole: reads it, lets `change` at it, writes it.
    pub async fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<(), Fail> {
        let mut whole = self.get(&format!("/1.0/instances/{name}")).await?;
        change(&mut whole);
        self.send("PUT", &format!("/1.0/instances/{name}"), whole).await.map(|_| ())
    }

    /// Removes an instance that does not run.
    pub async fn delete(&self, name: &str) -> Result<(), Fail> {
        self.send("DELETE", &format!("/1.0/instances/{name}"), Value::Null).await.map(|_| ())
    }

    /// The bridge's network, such as `10.91.7`.
    pub fn network(&self) -> String {
        let [a, b, c, _] = self.gateway;
        format!("{a}.{b}.{c}")
    }
}

fn accepted(answer: Value) -> Result<Value, Fail> {
    match answer["error"].as_str() {
        Some("") | None => Ok(answer),
        Some(text) => Err(Fail::fault(text)),
    }
}
