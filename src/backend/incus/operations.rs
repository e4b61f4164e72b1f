//! How operations end: told by one stream of events, never asked for again and again. Members of a cluster are
//! asked whether they are there, as long as somebody waits for operations on them: nobody else would tell.
//!
//! When the stream breaks it is opened anew, and then the state of each operation that somebody waits
//! for is read once: what ended in between is not missed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::Method;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Fail, within};
use crate::transport::{Http, HttpError, Socket};

/// How many ended operations are remembered until somebody asks.
const REMEMBERED: usize = 4096;
/// How long a server that is gone is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often members of a cluster are asked whether they are there, while they are waited for.
const WATCH: Duration = Duration::from_secs(2);
/// How long such an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

type Outcome = Result<Value, Fail>;

/// What happens to a server's operations.
pub(super) struct Operations {
    shared: Arc<Shared>,
    _end: DropGuard,
}

struct Shared {
    http: Arc<Http>,
    project: Option<String>,
    state: Mutex<State>,
    /// Held while the stream is opened.
    opening: tokio::sync::Mutex<()>,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Whether the stream is open.
    open: bool,
    /// How often it was opened.
    generation: u64,
    waiting: HashMap<String, Vec<oneshot::Sender<Outcome>>>,
    ended: VecDeque<(String, Outcome)>,
    /// On which members of a cluster operations are that somebody waits for.
    places: HashMap<String, String>,
    /// Whether these members are looked after.
    watching: bool,
    /// Which of the places of the server the stream is from.
    source: usize,
}

impl Operations {
    pub fn new(http: Arc<Http>, project: Option<String>) -> Operations {
        let end = CancellationToken::new();
        let shared = Shared {
            http,
            project,
            state: Mutex::default(),
            opening: tokio::sync::Mutex::new(()),
            end: end.clone(),
        };
        Operations { shared: Arc::new(shared), _end: end.drop_guard() }
    }

    /// Opens the stream if it is not open. Which one it is.
    pub async fn listen(&self) -> Result<u64, Fail> {
        self.shared.listen().await
    }

    /// Waits for an operation's end. `generation` is what [`Operations::listen`] said before the
    /// operation was asked for, and `member` where in a cluster it is, and whether that one is
    /// spoken to: when another one goes away, nobody will ever tell.
    pub async fn wait(&self, id: &str, generation: u64, member: Option<(&str, bool)>) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        let unsure = {
            let mut state = self.shared.state();
            if let Some(at) = state.ended.iter().position(|(ended, _)| ended == id) {
                return state.ended.remove(at).map_or_else(gone, |(_, outcome)| outcome);
            }
            state.waiting.entry(id.to_owned()).or_default().push(sender);
            if let Some((member, own)) = member {
                state.places.insert(id.to_owned(), member.to_owned());
                if !own && !std::mem::replace(&mut state.watching, true) {
                    tokio::spawn(watch_members(Arc::clone(&self.shared)));
                }
            }
            state.generation != generation || !state.open
        };
        // It may have ended while nobody listened.
        if unsure && self.shared.listen().await.is_ok() {
            self.shared.read(id).await;
        }
        let mut receiver = receiver;
        let mut patience = self.shared.http.patience();
        let mut failing: Option<tokio::time::Instant> = None;
        loop {
            match tokio::time::timeout(patience, &mut receiver).await {
                Ok(ended) => return ended.unwrap_or_else(|_| gone()),
                // The stream may be open with nobody at its other end.
                Err(_) => match self.shared.look(id).await {
                    Ok(()) => failing = None,
                    Err(error) => {
                        let since = *failing.get_or_insert_with(tokio::time::Instant::now);
                        if since.elapsed() >= PATIENCE {
                            self.shared.settle(id, Err(Fail::Lost(error.to_string())));
                        }
                    }
                },
            }
            patience = self.shared.http.patience();
            if failing.is_some() {
                patience = patience.min(PATIENCE);
            }
        }
    }
}

fn gone() -> Outcome {
    Err(Fail::Lost("the operation is no longer known".into()))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: &Arc<Self>) -> Result<u64, Fail> {
        let opened = |state: &State| state.open.then_some(state.generation);
        if let Some(generation) = opened(&self.state()) {
            return Ok(generation);
        }
        let _opening = self.opening.lock().await;
        if let Some(generation) = opened(&self.state()) {
            return Ok(generation);
        }
        let path = within("/1.0/events?type=operation", self.project.as_deref());
        let socket = self.http.socket(&path).await?;
        let generation = {
            let mut state = self.state();
            state.open = true;
            state.generation += 1;
            // The one that was spoken to went away, perhaps with operations of its own.
            let moved = state.source != self.http.current();
            state.source = self.http.current();
            if moved && !state.places.is_empty() && !std::mem::replace(&mut state.watching, true) {
                tokio::spawn(watch_members(Arc::clone(self)));
            }
            state.generation
        };
        tokio::spawn(follow(Arc::clone(self), socket));
        Ok(generation)
    }

    /// Keeps what an event says, if it says that an operation has ended.
    fn hear(&self, mut operation: Value) {
        let Some(id) = operation["id"].as_str().map(str::to_owned) else { return };
        let outcome = match operation["status_code"].as_u64() {
            Some(200) => Ok(operation.take()),
            Some(400 | 401) => {
                let text = operation["err"].as_str().unwrap_or_default();
                Err(Fail::Failed(text.to_owned(), operation["metadata"]["return"].as_i64()))
            }
            _ => return,
        };
        self.settle(&id, outcome);
    }

    fn settle(&self, id: &str, outcome: Outcome) {
        let mut state = self.state();
        match state.waiting.remove(id) {
            Some(all) => {
                for one in all {
                    let _ = one.send(outcome.clone());
                }
            }
            None => {
                if state.ended.iter().all(|(ended, _)| ended != id) {
                    state.ended.push_back((id.to_owned(), outcome));
                }
                if state.ended.len() > REMEMBERED {
                    state.ended.pop_front();
                }
            }
        }
    }

    /// Whether a member of a cluster answers; it is asked twice.
    async fn answers(&self, member: &str) -> bool {
        let path = format!("/1.0/cluster/members/{}/state", super::client::escape(member));
        let nothing = Bytes::new();
        for pause in [WATCH / 2, Duration::ZERO] {
            let asked = self.http.send(&Method::GET, &path, &[], &nothing);
            match tokio::time::timeout(ANSWER, asked).await {
                Ok(Ok(answer)) if answer.status < 400 => return true,
                // Nobody can be asked about it: the stream of events tells that story.
                Ok(Err(_)) => return true,
                _ => tokio::time::sleep(pause).await,
            }
        }
        false
    }

    /// Reads an operation's state once.
    async fn read(&self, id: &str) {
        if let Err(error) = self.ask(id).await {
            self.settle(id, Err(error.into()));
        }
    }

    /// The same, where that it can't be reached may be told by the stream.
    async fn look(&self, id: &str) -> Result<(), HttpError> {
        match self.ask(id).await {
            Err(error @ HttpError::Silent { .. }) => {
                self.settle(id, Err(error.into()));
                Ok(())
            }
            done => done,
        }
    }

    async fn ask(&self, id: &str) -> Result<(), HttpError> {
        let path = within(&format!("/1.0/operations/{id}"), self.project.as_deref());
        let answer = self
            .http
            .send_within(self.http.patience(), &Method::GET, &path, &[], &Bytes::new())
            .await?;
        if answer.status == 404 {
            self.settle(id, gone());
        } else if let Ok(mut answer) = serde_json::from_slice::<Value>(&answer.body) {
            self.hear(answer["metadata"].take());
        }
        Ok(())
    }
}

/// Sees that members of a cluster are there as long as somebody waits for operations on them.
async fn watch_members(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.end.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        let members: BTreeSet<String> = {
            let mut state = shared.state();
            let State { places, waiting, .. } = &mut *state;
            places.retain(|id, _| waiting.contains_key(id));
            if places.is_empty() {
                state.watching = false;
                return;
            }
            state.places.values().cloned().collect()
        };
        for member in members {
            if shared.answers(&member).await {
                continue;
            }
            let on_it: Vec<String> = {
                let state = shared.state();
                let on_it = state.places.iter().filter(|(_, place)| **place == member);
                on_it.map(|(id, _)| id.clone()).collect()
            };
            for id in on_it {
                shared.settle(&id, Err(Fail::Away(member.clone())));
            }
        }
    }
}

/// Reads the stream to its end; then, as long as somebody waits, opens the next one.
fn follow(shared: Arc<Shared>, socket: Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(listen_and_reopen(shared, socket))
}

async fn listen_and_reopen(shared: Arc<Shared>, mut socket: Socket) {
    loop {
        let message = tokio::select! {
            () = shared.end.cancelled() => return,
            message = socket.next() => message,
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                if let Ok(mut event) = serde_json::from_str::<Value>(&text) {
                    shared.hear(event["metadata"].take());
                }
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            Some(Ok(_)) => {}
        }
    }
    shared.state().open = false;
    if shared.state().waiting.is_empty() {
        return;
    }
    let reopen = async {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            match shared.listen().await {
                Ok(_) => return Ok(()),
                Err(fail) if tokio::time::Instant::now() > until => return Err(fail),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    };
    let opened = tokio::select! {
        () = shared.end.cancelled() => return,
        opened = reopen => opened,
    };
    let waiting: Vec<String> = shared.state().waiting.keys().cloned().collect();
    for id in waiting {
        match &opened {
            Ok(()) => shared.read(&id).await,
            Err(fail) => shared.settle(&id, Err(fail.clone())),
        }
    }
}
