//! One WebSocket: calls that are under way at once, events, and the ends of jobs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{Refusal, RpcError};
use crate::transport::http::Duplex;

/// How many calls are under way at once. The server works on ten and refuses the twenty-first.
const AT_ONCE: usize = 10;
/// How long the server may give none.
const SILENCE: Duration = Duration::from_secs(50);
/// How many ends of jobs are remembered until somebody asks for them.
const REMEMBERED: usize = 1024;
/// How many characters a call may have before the login, after it, and where a file is in it.
const SIZES: [usize; 3] = [8192, 65_536, 2_097_152];

/// A WebSocket to a server.
pub type Socket = WebSocketStream<Box<dyn Duplex>>;

/// Something happened on the server.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about, such as `virt.instance.query`.
    pub collection: String,
    /// `added`, `changed` or `removed`.
    pub kind: String,
    /// Which one of the collection.
    pub id: Value,
    /// What it has now, or only what changed.
    pub fields: Value,
}

type Reply = Result<Value, RpcError>;
pub(super) type JobEnd = Result<Value, Refusal>;

/// A job's end.
#[derive(Clone)]
pub(super) struct Ended {
    /// Of which method it was.
    pub method: String,
    /// What came of it.
    pub result: JobEnd,
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a Value,
}

struct Pending {
    reply: oneshot::Sender<Reply>,
    /// Held until the server answers, whoever still waits for that.
    _slot: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    waiting: HashMap<i64, Vec<oneshot::Sender<Ended>>>,
    ended: VecDeque<(i64, Ended)>,
    heard: Option<Instant>,
    broken: Option<String>,
    /// None when it is broken: then those who listen are told.
    events: Option<broadcast::Sender<Arc<Event>>>,
}

struct Shared {
    place: String,
    state: Mutex<State>,
    end: CancellationToken,
}

/// One WebSocket to a server.
pub(super) struct Connection {
    shared: Arc<Shared>,
    out: mpsc::UnboundedSender<Message>,
    slots: Arc<Semaphore>,
    jobs: OnceCell<()>,
    authenticated: std::sync::atomic::AtomicBool,
    _end: DropGuard,
}

impl Connection {
    pub fn new(place: String, socket: Socket, ping: Duration) -> Connection {
        let end = CancellationToken::new();
        let events = Some(broadcast::channel(256).0);
        let state = State { heard: Some(Instant::now()), events, ..State::default() };
        let shared = Arc::new(Shared { place, state: Mutex::new(state), end: end.clone() });
        let (out, orders) = mpsc::unbounded_channel();
        let (to, from) = socket.split();
        tokio::spawn(write(Arc::clone(&shared), to, orders, ping));
        tokio::spawn(read(Arc::clone(&shared), from));
        Connection {
            shared,
            out,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            jobs: OnceCell::new(),
            authenticated: Default::default(),
            _end: end.drop_guard(),
        }
    }

    /// From now on calls may be longer.
    pub fn authenticated(&self) {
        self.authenticated.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether nothing can be called any more.
    pub fn is_broken(&self) -> bool {
        self.shared.state().broken.is_some()
    }

    /// What happens on the server, of what was subscribed to.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        match &self.shared.state().events {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// Calls a method once.
    pub async fn call(&self, method: &str, params: &Value, deadline: Duration) -> Reply {
        let limit = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let slot = slot.map_err(|_| self.shared.unreachable("it is closed"))?;
            self.begin(method, params, slot)?.await.unwrap_or_else(|_| {
                Err(RpcError::Broken {
                    place: self.shared.place.clone(),
                    why: "it is closed".into(),
                })
            })
        };
        match tokio::time::timeout(deadline, limit).await {
            Ok(reply) => reply,
            Err(_) => Err(RpcError::Deadline { method: method.to_owned(), after: deadline }),
        }
    }

    fn begin(
        &self,
        method: &str,
        params: &Value,
        slot: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Reply>, RpcError> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.shared.state();
        if let Some(why) = &state.broken {
            return Err(self.shared.unreachable(why));
        }
        state.next += 1;
        let id = state.next;
        let text = serde_json::to_string(&Request { jsonrpc: "2.0", id, method, params })
            .map_err(|error| RpcError::Auth(error.to_string()))?;
        let authenticated = self.authenticated.load(std::sync::atomic::Ordering::Relaxed);
        let most = match (authenticated, method) {
            (false, _) => SIZES[0],
            (true, "filesystem.file_receive") => SIZES[2],
            (true, _) => SIZES[1],
        };
        let size = text.chars().count();
        if size > most {
            return Err(RpcError::TooLong { method: method.to_owned(), size, most });
        }
        state.pending.insert(id, Pending { reply, _slot: slot });
        let _ = self.out.send(Message::text(text));
        Ok(answer)
    }

    /// Sees to it that the ends of jobs are told on this connection.
    pub async fn listen_to_jobs(&self) -> Result<(), RpcError> {
        let subscribe = async || {
            let params = json!(["core.get_jobs"]);
            self.call("core.subscribe", &params, super::DEADLINE).await.map(drop)
        };
        self.jobs.get_or_try_init(subscribe).await.map(drop)
    }

    /// The end of a job; `None` when the connection breaks before it.
    pub async fn end_of(&self, job: i64) -> Option<Ended> {
        let end = {
            let mut state = self.shared.state();
            // It stays there: the server may give one job's number to several calls.
            if let Some((_, end)) = state.ended.iter().find(|(ended, _)| *ended == job) {
                return Some(end.clone());
            }
            if state.broken.is_some() {
                return None;
            }
            let (sender, end) = oneshot::channel();
            state.waiting.entry(job).or_default().push(sender);
            end
        };
        end.await.ok()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, why: &str) -> RpcError {
        RpcError::Unreachable { place: self.place.clone(), why: why.to_owned() }
    }

    /// Nothing comes any more: tells everybody who waits.
    fn break_off(&self, why: &str) {
        let mut state = self.state();
        if state.broken.is_none() {
            state.broken = Some(why.to_owned());
        }
        for (_, pending) in state.pending.drain() {
            let broken = RpcError::Broken { place: self.place.clone(), why: why.to_owned() };
            let _ = pending.reply.send(Err(broken));
        }
        state.waiting.clear();
        state.events = None;
        self.end.cancel();
    }

    fn hear(&self, text: &str) {
        let Ok(mut message) = serde_json::from_str::<Value>(text) else { return };
        let mut state = self.state();
        if let Some(pending) = message["id"].as_u64().and_then(|id| state.pending.remove(&id)) {
            let reply = match &message["error"] {
                Value::Null => Ok(message["result"].take()),
                error => Err(RpcError::Refused(Refusal::of_reply(error))),
            };
            let _ = pending.reply.send(reply);
            return;
        }
        if message["method"] != "collection_update" {
            return;
        }
        let mut params = message["params"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let collection = text(&params["collection"]);
        if collection == "core.get_jobs" {
            let job = &params["fields"];
            if let (Some(id), Some(end)) = (job["id"].as_i64(), job_end(job)) {
                let end = Ended { method: text(&job["method"]), result: end };
                for one in state.waiting.remove(&id).unwrap_or_default() {
                    let _ = one.send(end.clone());
                }
                // A success is told twice.
                if state.ended.iter().all(|(ended, _)| *ended != id) {
                    state.ended.push_back((id, end));
                    if state.ended.len() > REMEMBERED {
                        state.ended.pop_front();
                    }
                }
            }
        }
        let Some(events) = state.events.clone() else { return };
        drop(state);
        let event = Event {
            collection,
            kind: text(&params["msg"]),
            id: params["id"].take(),
            fields: params["fields"].take(),
        };
        let _ = events.send(Arc::new(event));
    }
}

/// How a job ended, if it has.
pub(super) fn job_end(job: &Value) -> Option<JobEnd> {
    match job["state"].as_str() {
        Some("SUCCESS") => Some(Ok(job["result"].clone())),
        Some("FAILED" | "ABORTED") => Some(Err(Refusal::of_job(job))),
        _ => None,
    }
}

async fn write(
    shared: Arc<Shared>,
    mut to: SplitSink<Socket, Message>,
    mut orders: mpsc::UnboundedReceiver<Message>,
    ping: Duration,
) {
    let mut ping = tokio::time::interval_at(Instant::now() + ping, ping);
    let why = loop {
        let message = tokio::select! {
            () = shared.end.cancelled() => break "it is closed".to_owned(),
            order = orders.recv() => match order {
                Some(message) => message,
                None => break "it is closed".to_owned(),
            },
            _ = ping.tick() => {
                let heard = shared.state().heard;
                if heard.is_some_and(|heard| heard.elapsed() > SILENCE) {
                    break "it gives no sign of life".to_owned();
                }
                Message::Ping(Bytes::new())
            }
        };
        let sent = tokio::select! {
            () = shared.end.cancelled() => break "it is closed".to_owned(),
            sent = send(&mut to, message, &mut orders) => sent,
        };
        if let Err(error) = sent {
            break plain(&error);
        }
    };
    shared.break_off(&why);
    let _ = tokio::time::timeout(Duration::from_secs(1), to.close()).await;
}

/// Sends a message, and with it all that wait already: one write for all of them.
async fn send(
    to: &mut SplitSink<Socket, Message>,
    first: Message,
    orders: &mut mpsc::UnboundedReceiver<Message>,
) -> Result<(), tungstenite::Error> {
    to.feed(first).await?;
    while let Ok(next) = orders.try_recv() {
        to.feed(next).await?;
    }
    to.flush().await
}

/// Why a line broke, in words for people.
fn plain(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server is gone".to_owned()
        }
        tungstenite::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

async fn read(shared: Arc<Shared>, mut from: SplitStream<Socket>) {
    let why = loop {
        let message = tokio::select! {
            () = shared.end.cancelled() => break "it is closed".to_owned(),
            message = from.next() => message,
        };
        shared.state().heard = Some(Instant::now());
        match message {
            Some(Ok(Message::Text(text))) => shared.hear(&text),
            Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                break format!("the server closes it: {}", frame.reason);
            }
            Some(Ok(Message::Close(_))) | None => break "the server closes it".to_owned(),
            Some(Ok(_)) => {}
            Some(Err(error)) => break plain(&error),
        }
    };
    shared.break_off(&why);
}
