//! A process that runs in the background, its output gathered as it comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::sandbox::{self, Cancel, Command, Error, Exit, Process, Reader, Signal};

/// One of a process's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Stdout,
    Stderr,
}

impl Which {
    pub(super) fn name(self) -> &'static str {
        match self {
            Which::Stdout => "stdout",
            Which::Stderr => "stderr",
        }
    }
}

type Order = (Option<Signal>, oneshot::Sender<sandbox::Result<()>>);

pub(super) struct Running {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    exit: watch::Receiver<Option<sandbox::Result<Exit>>>,
    orders: mpsc::Sender<Order>,
    max: usize,
}

#[derive(Default)]
struct State {
    stdout: Gathered,
    stderr: Gathered,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    ended: bool,
    truncated: bool,
}

impl Running {
    /// Gathers the output of `process` and waits for its end; kills it when `over` is cancelled.
    pub(super) fn watch(mut process: Process, command: &Command, over: Cancel) -> Arc<Running> {
        let (exited, exit) = watch::channel(None);
        let (orders, taken) = mpsc::channel(4);
        let running = Arc::new(Running {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            exit,
            orders,
            max: command.max_output,
        });
        let pumps = [
            running.pump(process.stdout.take(), Which::Stdout),
            running.pump(process.stderr.take(), Which::Stderr),
        ];
        let timeout = command.timeout;
        let what = format!("'{}'", command.program);
        tokio::spawn(async move {
            let end = lead(process, taken, over, timeout, what).await;
            // A grandchild that holds a stream open does not delay the end.
            let drained = async {
                for pump in pumps {
                    let _ = pump.await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(200), drained).await;
            let _ = exited.send(Some(end));
        });
        running
    }

    fn pump(self: &Arc<Self>, from: Option<Reader>, which: Which) -> tokio::task::JoinHandle<()> {
        let running = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(mut from) = from {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(count @ 1..) = from.read(&mut buffer).await {
                    {
                        let mut state = running.state();
                        let gathered = state.of(which);
                        let room = running.max.saturating_sub(gathered.bytes.len());
                        gathered.truncated |= count > room;
                        gathered.bytes.extend_from_slice(&buffer[..count.min(room)]);
                    }
                    running.changed.send_replace(());
                }
            }
            running.state().of(which).ended = true;
            running.changed.send_replace(());
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `take` finds something.
    async fn until<T>(&self, mut take: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = take(&mut self.state()) {
                return found;
            }
            let _ = changed.changed().await;
        }
    }

    /// What is there of a stream, waiting for at least a byte; none at its end.
    pub(super) async fn some(&self, which: Which) -> Option<Vec<u8>> {
        self.until(|state| {
            let gathered = state.of(which);
            match (gathered.bytes.is_empty(), gathered.ended) {
                (true, true) => Some(None),
                (true, false) => None,
                (false, _) => Some(Some(std::mem::take(&mut gathered.bytes))),
            }
        })
        .await
    }

    /// The next line of either stream; none at the end of both.
    pub(super) async fn line(&self) -> Option<(Which, String)> {
        self.until(|state| {
            let both = [Which::Stdout, Which::Stderr];
            for which in both {
                if let Some(line) = state.of(which).line() {
                    return Some(Some((which, line)));
                }
            }
            both.into_iter().all(|which| state.of(which).ended).then_some(None)
        })
        .await
    }

    /// How it ended, when it has.
    pub(super) fn exit(&self) -> Option<sandbox::Result<Exit>> {
        self.exit.borrow().clone()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> sandbox::Result<Exit> {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Err(Error::Cancelled)),
            Err(_) => Err(Error::Cancelled),
        }
    }

    /// Sends a signal, or kills the whole tree; fine when it has ended.
    pub(super) async fn signal(&self, signal: Option<Signal>) -> sandbox::Result<()> {
        let (answer, answered) = oneshot::channel();
        if self.orders.send((signal, answer)).await.is_err() {
            return Ok(());
        }
        answered.await.unwrap_or(Ok(()))
    }

    /// The output that nobody has read, and whether some was cut off.
    pub(super) fn rest(&self) -> (Vec<u8>, Vec<u8>, bool) {
        let mut state = self.state();
        let truncated = state.stdout.truncated || state.stderr.truncated;
        let stdout = std::mem::take(&mut state.stdout.bytes);
        (stdout, std::mem::take(&mut state.stderr.bytes), truncated)
    }
}

impl State {
    fn of(&mut self, which: Which) -> &mut Gathered {
        match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        }
    }
}

impl Gathered {
    /// Takes a whole line, or what is left after the end.
    fn line(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        let mut line: Vec<u8> = match end {
            Some(end) => self.bytes.drain(..=end).collect(),
            None if self.ended && !self.bytes.is_empty() => std::mem::take(&mut self.bytes),
            None => return None,
        };
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

/// Walks over the lines of one stream.
pub(super) struct Lines {
    running: Arc<Running>,
    which: Which,
}

impl Lines {
    pub(super) fn new(running: &Arc<Running>, which: Which) -> Lines {
        Lines { running: Arc::clone(running), which }
    }

    /// The next line; none at the end.
    pub(super) async fn next(&self) -> Option<String> {
        self.running
            .until(|state| {
                let gathered = state.of(self.which);
                match gathered.line() {
                    Some(line) => Some(Some(line)),
                    None => gathered.ended.then_some(None),
                }
            })
            .await
    }
}

/// Waits for the end of a process, and passes signals on meanwhile.
async fn lead(
    mut process: Process,
    mut orders: mpsc::Receiver<Order>,
    over: Cancel,
    timeout: Option<Duration>,
    what: String,
) -> sandbox::Result<Exit> {
    let limit = timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let order = tokio::select! {
            biased;
            exit = process.control.wait() => return exit,
            order = orders.recv() => order,
            () = tokio::time::sleep_until(deadline) => {
                process.control.kill().await?;
                return Err(Error::Timeout { what, after: limit });
            }
            () = over.cancelled() => return Err(Error::Cancelled),
        };
        match order {
            Some((signal, answer)) => {
                let done = match signal {
                    Some(signal) => process.control.signal(signal).await,
                    None => process.control.kill().await,
                };
                let _ = answer.send(done);
            }
            // The handle is gone; the process goes on.
            None => {
                return tokio::select! {
                    exit = process.control.wait() => exit,
                    () = tokio::time::sleep_until(deadline) => Err(Error::Cancelled),
                    () = over.cancelled() => Err(Error::Cancelled),
                };
            }
        }
    }
}
