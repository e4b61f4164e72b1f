//! Jobs: calls that answer with a number at once and do their work behind it.

mod run;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

pub use run::start;
pub use table::Jobs;

use crate::auth::Credential;
use crate::event::Change;
use crate::fail::Fail;
use crate::nas::Nas;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its lock.
    Waiting,
    /// It runs.
    Running,
    /// It ended well.
    Success,
    /// It ended with an error.
    Failed,
    /// Somebody aborted it.
    Aborted,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Waiting => "WAITING",
            State::Running => "RUNNING",
            State::Success => "SUCCESS",
            State::Failed => "FAILED",
            State::Aborted => "ABORTED",
        }
    }

    /// Whether it will not change any more.
    pub fn ended(self) -> bool {
        matches!(self, State::Success | State::Failed | State::Aborted)
    }
}

/// A job.
pub struct Job {
    /// Its number.
    pub id: i64,
    /// Its method.
    pub method: String,
    /// Its lock.
    pub lock: Option<String>,
    /// Who started it.
    pub credential: Option<Credential>,
    /// What is uploaded to it or downloaded from it.
    pub pipe: Option<Pipe>,
    /// Told when somebody aborts it.
    pub abort: Notify,
    /// Whether it has a log.
    pub has_logs: bool,
    arguments: Vec<Value>,
    inner: Mutex<Inner>,
    ended: watch::Sender<bool>,
}

struct Inner {
    state: State,
    message_ids: Vec<Value>,
    description: Value,
    percent: Value,
    step: String,
    result: Result<Value, Fail>,
    logs: Vec<u8>,
    excerpt: Value,
    started: i64,
    finished: Option<i64>,
}

/// A pipe between a job and a request.
pub struct Pipe {
    /// Where it is written to.
    pub sender: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    /// Where it is read from.
    pub receiver: Mutex<Option<mpsc::Receiver<Vec<u8>>>>,
    /// Told when the request is there.
    pub opened: Notify,
}

impl Pipe {
    /// A pipe that holds some chunks.
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        Self {
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(Some(receiver)),
            opened: Notify::new(),
        }
    }

    /// The end to write to; once.
    pub fn write(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The end to read from; once.
    pub fn read(&self) -> Option<mpsc::Receiver<Vec<u8>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Default for Pipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Job {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.inner().state
    }

    /// Writes a line to its log.
    pub fn log(&self, text: &[u8]) {
        self.inner().logs.extend_from_slice(text);
    }

    /// Its whole log.
    pub fn logs(&self) -> Vec<u8> {
        self.inner().logs.clone()
    }

    /// Says how far it is, to everybody who listens.
    pub fn progress(&self, nas: &Nas, percent: impl Into<Value>, step: &str) {
        {
            let mut inner = self.inner();
            inner.percent = percent.into();
            inner.step = step.to_owned();
        }
        self.tell(nas, Change::Changed);
    }

    /// Waits for its end and gives what came of it.
    pub async fn outcome(&self) -> Result<Value, Fail> {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
        self.inner().result.clone()
    }

    fn join(&self, message: Option<Value>) {
        self.inner().message_ids.extend(message);
    }

    /// As `core.get_jobs` and its events show it.
    pub fn row(&self, nas: &Nas) -> Value {
        let inner = self.inner();
        let failed = inner.result.as_ref().err().filter(|_| inner.state.ended());
        let mut row = json!({
            "id": self.id, "method": self.method, "arguments": redact(&self.arguments),
            "transient": false, "description": inner.description, "abortable": false,
            "logs_path": self.has_logs.then(|| format!("/var/log/jobs/{}.log", self.id)),
            "logs_excerpt": inner.excerpt,
            "progress": {"percent": inner.percent, "description": inner.step, "extra": null},
            "result": if inner.state == State::Success { inner.result.clone().unwrap_or_default() } else { Value::Null },
            "error": failed.map(Fail::reason), "exception": failed.map(Fail::traceback),
            "exc_info": failed.map(Fail::exc_info), "state": inner.state.name(),
            "time_started": nas.date(inner.started),
            "time_finished": inner.finished.map(|at| nas.date(at)),
            "credentials": self.credential.as_ref().map(Credential::describe),
        });
        if nas.release >= crate::release::Release::V25_10 {
            row["message_ids"] = inner.message_ids.clone().into();
            row["result_encoding_error"] = Value::Null;
        }
        row
    }

    fn tell(&self, nas: &Nas, change: Change) {
        let owner = self.credential.as_ref().map(|c| c.username.clone());
        nas.events.emit_to("core.get_jobs", change, self.id.into(), self.row(nas), |session| {
            session.credential().is_some_and(|c| c.admin() || Some(&c.username) == owner.as_ref())
        });
    }
}

/// Hides what must not be shown again.
fn redact(arguments: &[Value]) -> Value {
    fn hide(value: &Value) -> Value {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| {
                    let secret = ["password", "api_key", "vnc_password"].contains(&k.as_str());
                    (k.clone(), if secret && !v.is_null() { "********".into() } else { hide(v) })
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Array(items) => items.iter().map(hide).collect(),
            other => other.clone(),
        }
    }
    arguments.iter().map(hide).collect()
}

/// The first ten and the last ten lines of a log.
fn excerpt(logs: &[u8]) -> String {
    let text = String::from_utf8_lossy(logs);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.len() <= 20 {
        return text.into_owned();
    }
    let more = lines.len() - 20;
    format!(
        "{}... {more} more lines ...\n{}",
        lines[..10].concat(),
        lines[lines.len() - 10..].concat()
    )
}

/// A job that did not start yet.
fn new(
    id: i64,
    call: &crate::dispatch::Call,
    lock: Option<String>,
    credential: Option<Credential>,
    message: Option<Value>,
    now: i64,
) -> Arc<Job> {
    let (method, arguments) = (&call.method, call.args.clone());
    let description = match method.name.as_str() {
        "core.bulk" => arguments.get(2).cloned().unwrap_or(Value::Null),
        _ => Value::Null,
    };
    Arc::new(Job {
        id,
        method: method.name.clone(),
        lock,
        credential,
        pipe: call.piped.then(Pipe::new),
        abort: Notify::new(),
        has_logs: method.logs,
        arguments,
        inner: Mutex::new(Inner {
            state: State::Waiting,
            message_ids: message.into_iter().collect(),
            description,
            percent: 0.into(),
            step: String::new(),
            result: Ok(Value::Null),
            logs: Vec::new(),
            excerpt: Value::Null,
            started: now,
            finished: None,
        }),
        ended: watch::Sender::new(false),
    })
}
