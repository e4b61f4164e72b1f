//! What stands between a client and the daemon's socket, and breaks what it carries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// It breaks what it is told to, and carries everything else.
#[derive(Clone)]
pub struct Proxy {
    pub socket: PathBuf,
    daemon: PathBuf,
    /// How requests start whose answers are cut off, each once, and after how many bytes.
    cuts: Arc<Mutex<Vec<(String, usize)>>>,
    /// A request that is not passed on, when so many others that start like it were; nor is any that follows.
    hold: Arc<Mutex<Option<(String, usize)>>>,
    /// It came, and waits for this.
    held: Arc<AtomicUsize>,
    release: Arc<Notify>,
    /// How requests start that get lost on their way, each once.
    losses: Arc<Mutex<Vec<String>>>,
    /// What stands in answers, and what does instead; of the same length.
    words: Arc<Mutex<Vec<(String, String)>>>,
    /// Ends the streams of events that are open.
    events: Arc<Mutex<CancellationToken>>,
    /// How often one was opened.
    pub opened: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn new(folder: &Path, daemon: PathBuf) -> Proxy {
        let proxy = Proxy {
            socket: folder.join("proxy.socket"),
            daemon,
            cuts: Arc::default(),
            hold: Arc::default(),
            held: Arc::default(),
            release: Arc::default(),
            losses: Arc::default(),
            words: Arc::default(),
            events: Arc::default(),
            opened: Arc::default(),
            seen: Arc::default(),
        };
        let listener = UnixListener::bind(&proxy.socket).unwrap();
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serving.clone().carry(client));
            }
        });
        proxy
    }

    /// Cuts the answer to the next request that starts like this.
    pub fn cut(&self, start: &str, after: usize) {
        self.cuts.lock().unwrap().push((start.to_owned(), after));
    }

    /// Holds the request that starts like this and comes after so many others that do.
    pub fn hold(&self, start: &str, after: usize) {
        *self.hold.lock().unwrap() = Some((start.to_owned(), after));
    }

    /// Passes on what is held, and what follows.
    pub fn go_on(&self) {
        *self.hold.lock().unwrap() = None;
        self.held.store(0, Ordering::Relaxed);
        self.release.notify_waiters();
    }

    /// Loses the next request that starts like this, and its connection.
    pub fn lose(&self, start: &str) {
        self.losses.lock().unwrap().push(start.to_owned());
    }

    /// Whether a request is held.
    pub fn is_holding(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// From now on answers have other words.
    pub fn replace(&self, words: &str, by: &str) {
        assert!(by.len() <= words.len());
        let by = format!("{by:<width$}", width = words.len());
        self.words.lock().unwrap().push((words.to_owned(), by));
    }

    /// Whether all that was to be cut was.
    pub fn is_done(&self) -> bool {
        self.cuts.lock().unwrap().is_empty()
    }

    /// Breaks the streams of events that are open.
    pub fn drop_events(&self) {
        std::mem::take(&mut *self.events.lock().unwrap()).cancel();
    }

    async fn carry(self, client: UnixStream) {
        let Ok(server) = UnixStream::connect(&self.daemon).await else { return };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let left = Arc::new(Mutex::new(None::<usize>));
        let end = Arc::new(Mutex::new(CancellationToken::new()));
        let (proxy, cutting, ending) = (self.clone(), Arc::clone(&left), Arc::clone(&end));
        let speaking = self.clone();
        let up = async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..size.min(200)]);
                let line = text.lines().next().unwrap_or_default().to_owned();
                if line.ends_with("HTTP/1.1") {
                    proxy.seen.lock().unwrap().push(line.clone());
                }
                if line.starts_with("GET /1.0/events") {
                    proxy.opened.fetch_add(1, Ordering::Relaxed);
                    *ending.lock().unwrap() = proxy.events.lock().unwrap().clone();
                }
                let cut = {
                    let mut cuts = proxy.cuts.lock().unwrap();
                    let at = cuts.iter().position(|(start, _)| line.starts_with(start));
                    at.map(|at| cuts.remove(at).1)
                };
                if cut.is_some() {
                    *cutting.lock().unwrap() = cut;
                }
                let holds = match proxy.hold.lock().unwrap().as_mut() {
                    Some((start, 0)) if line.starts_with(start.as_str()) => true,
                    Some((start, after)) if line.starts_with(start.as_str()) => {
                        *after -= 1;
                        false
                    }
                    _ => false,
                };
                if holds {
                    let released = proxy.release.notified();
                    proxy.held.fetch_add(1, Ordering::Relaxed);
                    released.await;
                }
                let lost = {
                    let mut losses = proxy.losses.lock().unwrap();
                    let at = losses.iter().position(|start| line.starts_with(start.as_str()));
                    at.map(|at| losses.remove(at)).is_some()
                };
                if lost {
                    return;
                }
                if to_server.write_all(&buffer[..size]).await.is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown().await;
        };
        let down = async move {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let token = end.lock().unwrap().clone();
                let size = tokio::select! {
                    () = token.cancelled() => break,
                    read = from_server.read(&mut buffer) => match read {
                        Ok(size @ 1..) => size,
                        _ => break,
                    },
                };
                for (words, by) in speaking.words.lock().unwrap().iter() {
                    let mut at = 0;
                    while at + words.len() <= size {
                        if buffer[at..].starts_with(words.as_bytes()) {
                            buffer[at..at + words.len()].copy_from_slice(by.as_bytes());
                        }
                        at += 1;
                    }
                }
                let most = *left.lock().unwrap();
                let most = most.unwrap_or(size).min(size);
                if to_client.write_all(&buffer[..most]).await.is_err() || most < size {
                    break;
                }
            }
            let _ = to_client.shutdown().await;
        };
        // When one side is over, so is the other.
        tokio::select! {
            () = up => {}
            () = down => {}
        }
    }
}
