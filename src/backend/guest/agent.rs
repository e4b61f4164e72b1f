//! Many programs over one line to a guest: a program in Perl at its other end starts them, and
//! carries their streams in frames. Nothing has to listen in the guest, or be reached from here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Attached, Control, Fail, UNDER_WAY};
use crate::sandbox::WindowSize;

/// The program at the other end.
pub(in crate::backend) const AGENT: &str = include_str!("agent.pl");
/// The letter, the channel and the length in front of each frame.
const HEAD: usize = 9;
/// How much of an input is sent at once, and how much may be under way.
const CHUNK: usize = 16 << 10;
const WINDOW: usize = 256 << 10;
/// The status of what could not be started.
const NOT_STARTED: u32 = u32::MAX;
/// No frame is longer; whoever sends one that is, is not this program.
const LONGEST: usize = 1 << 20;

/// Programs at the other end of a line.
pub(in crate::backend) struct Agent {
    shared: Arc<Shared>,
    out: mpsc::Sender<Bytes>,
    next: AtomicU32,
    /// The programs that were sent already, by their place in memory.
    programs: tokio::sync::Mutex<Vec<usize>>,
    _end: DropGuard,
}

struct Shared {
    channels: Mutex<HashMap<u32, Channel>>,
    end: CancellationToken,
}

struct Channel {
    /// What is known of each output: its bytes, and nothing more after its end.
    outputs: [Option<Output>; 2],
    input: Arc<Semaphore>,
    exit: Option<oneshot::Sender<u32>>,
    file: Option<oneshot::Sender<Bytes>>,
}

struct Output {
    pieces: mpsc::UnboundedSender<Piece>,
    /// How much of it was not taken yet.
    waiting: Arc<AtomicUsize>,
}

enum Piece {
    Bytes(Bytes),
    /// Tells when all before it was taken.
    Mark(oneshot::Sender<()>),
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<u32, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frame(kind: u8, id: u32, rest: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEAD + rest.len());
    whole.put_u8(kind);
    whole.put_u32(id);
    whole.put_u32(rest.len() as u32);
    whole.put_slice(rest);
    whole.freeze()
}

impl Agent {
    /// Speaks to the program over a line on which it runs, of which `heard` was read already: as soon
    /// as it has said that it listens. What holds the line goes with it.
    pub async fn greet<F, T>(mut from: F, to: T, mut heard: BytesMut) -> Result<Agent, Fail>
    where
        F: AsyncRead + Send + Unpin + 'static,
        T: AsyncWrite + Send + Unpin + 'static,
    {
        loop {
            match complete(&heard) {
                Some(Ok(length)) if heard[0] == b'H' => {
                    heard.advance(HEAD + length);
                    break;
                }
                Some(_) => return Err(closed(&heard)),
                None => {}
            }
            match from.read_buf(&mut heard).await {
                Ok(1..) => {}
                _ => return Err(closed(&heard)),
            }
        }
        let end = CancellationToken::new();
        let shared = Arc::new(Shared { channels: Mutex::default(), end: end.clone() });
        let (out, orders) = mpsc::channel(64);
        tokio::spawn(carry(Arc::clone(&shared), from, to, orders, heard));
        let (next, programs) = (AtomicU32::new(1), tokio::sync::Mutex::default());
        Ok(Agent { shared, out, next, programs, _end: end.drop_guard() })
    }

    /// Cancelled when the line is gone.
    pub fn end(&self) -> CancellationToken {
        self.shared.end.clone()
    }

    /// Whether nothing can be started by it any more.
    pub fn is_over(&self) -> bool {
        self.shared.end.is_cancelled()
    }

    /// Whether nothing runs by it.
    #[cfg(feature = "truenas")]
    pub fn is_idle(&self) -> bool {
        self.shared.channels().is_empty()
    }

    async fn send(&self, frame: Bytes) -> Result<(), Fail> {
        self.out.send(frame).await.map_err(|_| gone())
    }

    fn id(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a program, which it is sent once.
    async fn program(&self, script: &'static str) -> Result<u8, Fail> {
        // Held until it is on its way, so that nobody asks for it before.
        let mut all = self.programs.lock().await;
        let place = script.as_ptr() as usize;
        if let Some(at) = all.iter().position(|known| *known == place) {
            return Ok(at as u8);
        }
        let at = all.len();
        self.send(frame(b'P', at as u32, script.as_bytes())).await?;
        all.push(place);
        Ok(at as u8)
    }

    /// Starts a program in Perl.
    pub async fn attach(
        &self,
        script: &'static str,
        tty: Option<WindowSize>,
        detached: bool,
    ) -> Result<Attached, Fail> {
        let program = self.program(script).await?;
        let id = self.id();
        let input = Arc::new(Semaphore::new(WINDOW));
        let (exit, exited) = oneshot::channel();
        let (stdin, from) = tokio::io::duplex(UNDER_WAY);
        let (stdout, stderr) = (tokio::io::duplex(UNDER_WAY), tokio::io::duplex(UNDER_WAY));
        let (first, one) = mpsc::unbounded_channel();
        let (second, two) = mpsc::unbounded_channel();
        let waiting: [Arc<AtomicUsize>; 2] = Default::default();
        let [one_waits, two_waits] = waiting.clone();
        let [of_one, of_two] = waiting;
        let first = Output { pieces: first, waiting: of_one };
        let second = tty.is_none().then_some(Output { pieces: second, waiting: of_two });
        let channel = Channel {
            outputs: [Some(first), second],
            input: Arc::clone(&input),
            exit: Some(exit),
            file: None,
        };
        self.shared.channels().insert(id, channel);
        let size = tty.unwrap_or(WindowSize { rows: 0, cols: 0 });
        let mut order = BytesMut::new();
        order.put_u8(program);
        order.put_u8(u8::from(tty.is_some()) | u8::from(detached) << 1);
        order.put_u16(size.rows);
        order.put_u16(size.cols);
        if self.shared.end.is_cancelled() {
            return Err(gone());
        }
        self.send(frame(b'O', id, &order)).await?;

        tokio::spawn(drain(self.out.clone(), (id, 1), one, stdout.0, one_waits));
        if tty.is_none() {
            tokio::spawn(drain(self.out.clone(), (id, 2), two, stderr.0, two_waits));
        }
        let end = self.shared.end.clone();
        let feeding = tokio::spawn(feed(self.out.clone(), id, from, input));
        let (control, orders) = mpsc::unbounded_channel();
        let ordering = tokio::spawn(pass_on(self.out.clone(), id, orders));
        let (over, told) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let status = tokio::select! {
                biased;
                status = exited => status.ok(),
                () = end.cancelled() => None,
            };
            // What it wrote is here before its end is told, as far as somebody reads it.
            let marks: Vec<_> = {
                let channels = shared.channels();
                let outputs = channels.get(&id).map(|channel| channel.outputs.iter().flatten());
                let mark = |output: &Output| {
                    let (sender, taken) = oneshot::channel();
                    let _ = output.pieces.send(Piece::Mark(sender));
                    taken
                };
                outputs.into_iter().flatten().map(mark).collect()
            };
            let rest = futures_util::future::join_all(marks);
            let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
            feeding.abort();
            ordering.abort();
            over.send_replace(Some(match status {
                Some(NOT_STARTED) => {
                    Err(Fail::Failed("no other process can be started".into(), None))
                }
                Some(status) => Ok(status as i32),
                None => Err(gone()),
            }));
        });
        let stderr = tty.is_none().then_some(stderr.1);
        Ok(Attached { stdin: Some(stdin), stdout: stdout.1, stderr, control, end: told })
    }

    /// What is in `/run/.sandscript.ID`, which goes.
    #[cfg_attr(not(feature = "truenas"), allow(dead_code))]
    pub async fn word(&self, id: &str) -> Option<Bytes> {
        let (file, content) = oneshot::channel();
        let channel = self.id();
        let waiting = Channel {
            outputs: [None, None],
            input: Arc::new(Semaphore::new(0)),
            exit: None,
            file: Some(file),
        };
        self.shared.channels().insert(channel, waiting);
        self.send(frame(b'F', channel, id.as_bytes())).await.ok()?;
        let content = tokio::select! {
            content = content => content.ok(),
            () = self.shared.end.cancelled() => None,
        };
        content.filter(|content| !content.is_empty())
    }
}

fn gone() -> Fail {
    Fail::Lost("the line to it is gone".into())
}

/// Why it ended before it began: what it said.
pub(in crate::backend) fn closed(said: &[u8]) -> Fail {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let last: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
    Fail::Failed(last, Some(127))
}

/// Carries frames in both directions until the line breaks or nobody needs it.
async fn carry(
    shared: Arc<Shared>,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: mpsc::Receiver<Bytes>,
    mut buffer: BytesMut,
) {
    let end = shared.end.clone();
    let writing = async {
        while let Some(order) = orders.recv().await {
            if to.write_all(&order).await.is_err() {
                break;
            }
            if orders.is_empty() && to.flush().await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        loop {
            while let Some(length) = complete(&buffer) {
                let Ok(length) = length else { return };
                let mut whole = buffer.split_to(HEAD + length).freeze();
                let kind = whole.get_u8();
                let id = whole.get_u32();
                whole.advance(4);
                if !hear(&shared, kind, id, whole) {
                    return;
                }
            }
            buffer.reserve(CHUNK);
            match from.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
        () = end.cancelled() => {}
    }
    end.cancel();
    shared.channels().clear();
}

/// The length of what the first frame holds, when it is whole; an error when none is that long.
fn complete(buffer: &BytesMut) -> Option<Result<usize, ()>> {
    let length = u32::from_be_bytes(buffer.get(5..HEAD)?.try_into().ok()?) as usize;
    if length > LONGEST {
        return Some(Err(()));
    }
    (buffer.len() >= HEAD + length).then_some(Ok(length))
}

/// Takes a frame. Whether it is one that the program may send: the guest's root can put another in
/// its place, and what that sends is not kept without bound.
fn hear(shared: &Shared, kind: u8, id: u32, rest: Bytes) -> bool {
    let mut channels = shared.channels();
    let Some(channel) = channels.get_mut(&id) else { return true };
    let number = |at: usize| {
        rest.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    match kind {
        b'1' | b'2' => {
            if let Some(output) = &channel.outputs[usize::from(kind - b'1')] {
                let waiting = output.waiting.fetch_add(rest.len(), Ordering::Relaxed) + rest.len();
                // An empty piece is never sent, and would weigh nothing.
                if waiting > WINDOW || rest.is_empty() {
                    return false;
                }
                // A copy: it would hold all that was read along with it.
                let _ = output.pieces.send(Piece::Bytes(Bytes::copy_from_slice(&rest)));
            }
        }
        b'e' => {
            let stream = usize::from(rest.first().copied().unwrap_or_default());
            if let Some(output) = stream.checked_sub(1).and_then(|at| channel.outputs.get_mut(at)) {
                *output = None;
            }
        }
        b'w' => {
            let more = number(0) as usize;
            if more > WINDOW || channel.input.available_permits() + more > WINDOW {
                return false;
            }
            channel.input.add_permits(more);
        }
        b'X' => {
            if let Some(exit) = channel.exit.take() {
                let _ = exit.send(number(0));
            }
            // What was never started has no output that could end.
            if number(0) == NOT_STARTED {
                channels.remove(&id);
                return true;
            }
        }
        b'f' => {
            if let Some(file) = channel.file.take() {
                let _ = file.send(Bytes::copy_from_slice(&rest));
            }
            channels.remove(&id);
            return true;
        }
        _ => {}
    }
    let over = channel.exit.is_none() && channel.outputs.iter().all(Option::is_none);
    if over && channel.file.is_none() {
        channels.remove(&id);
    }
    true
}

/// Writes an output to whoever reads it, and grants more as it is taken.
async fn drain(
    out: mpsc::Sender<Bytes>,
    (id, stream): (u32, u8),
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    mut to: DuplexStream,
    waiting: Arc<AtomicUsize>,
) {
    let mut taken = 0;
    let mut open = true;
    while let Some(piece) = pieces.recv().await {
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Mark(mark) => {
                let _ = mark.send(());
                continue;
            }
        };
        let length = bytes.len();
        if !open {
            waiting.fetch_sub(length, Ordering::Relaxed);
            continue;
        }
        let written = to.write_all(&bytes).await;
        waiting.fetch_sub(length, Ordering::Relaxed);
        if written.is_err() {
            open = false;
            // Then the program is told by SIGPIPE, as everywhere.
            let _ = out.send(frame(b'C', id, &[stream])).await;
            continue;
        }
        taken += length;
        if taken >= WINDOW / 4 {
            let mut grant = BytesMut::new();
            grant.put_u8(stream);
            grant.put_u32(taken as u32);
            taken = 0;
            let _ = out.send(frame(b'W', id, &grant)).await;
        }
    }
    let _ = to.shutdown().await;
}

/// Sends an input as far as it was granted, and its end.
async fn feed(out: mpsc::Sender<Bytes>, id: u32, mut from: DuplexStream, granted: Arc<Semaphore>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Ok(room) = granted.acquire_many(count as u32).await else { return };
        room.forget();
        if out.send(frame(b'I', id, &buffer[..count])).await.is_err() {
            return;
        }
    }
    let _ = out.send(frame(b'E', id, &[])).await;
}

/// Passes orders on until nobody is left to give some.
async fn pass_on(out: mpsc::Sender<Bytes>, id: u32, mut orders: mpsc::UnboundedReceiver<Control>) {
    while let Some(order) = orders.recv().await {
        let order = match order {
            Control::Signal(signal) => frame(b'S', id, &signal.to_be_bytes()),
            Control::Resize(size) => {
                let mut rest = BytesMut::new();
                rest.put_u16(size.rows);
                rest.put_u16(size.cols);
                frame(b'R', id, &rest)
            }
        };
        if out.send(order).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent, and the other end of its line, where nobody is.
    async fn agent() -> (Agent, DuplexStream) {
        let (line, mut other) = tokio::io::duplex(64 << 10);
        other.write_all(&frame(b'H', 0, &[])).await.unwrap();
        let (from, to) = tokio::io::split(line);
        (Agent::greet(from, to, BytesMut::new()).await.unwrap(), other)
    }

    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap()
    }

    #[tokio::test]
    async fn what_can_not_be_started_ends() {
        let (agent, mut other) = agent().await;
        let mut attached = agent.attach("", None, false).await.unwrap();
        other.write_all(&frame(b'X', 1, &NOT_STARTED.to_be_bytes())).await.unwrap();
        let mut rest = Vec::new();
        in_time(attached.stdout.read_to_end(&mut rest)).await.unwrap();
        in_time(attached.stderr.unwrap().read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        let end = in_time(attached.end.wait_for(Option::is_some)).await.unwrap().clone();
        assert!(matches!(end, Some(Err(Fail::Failed(_, None)))), "{end:?}");
        assert!(!agent.is_over());
    }

    #[tokio::test]
    async fn whoever_sends_more_than_was_granted_is_hung_up_on() {
        for bad in [
            // More than a window of an output that nobody reads.
            (0..=2 * WINDOW / CHUNK + 1)
                .flat_map(|_| frame(b'2', 1, &[0; CHUNK]))
                .collect::<Vec<_>>(),
            frame(b'1', 1, &[]).to_vec(),
            frame(b'w', 1, &(WINDOW as u32).to_be_bytes()).repeat(2),
            [b"1\0\0\0\x01".as_slice(), &(LONGEST as u32 + 1).to_be_bytes()].concat(),
        ] {
            let (agent, mut other) = agent().await;
            let attached = agent.attach("", None, false).await.unwrap();
            // It may have hung up before all of it was written.
            let _ = in_time(other.write_all(&bad)).await;
            in_time(agent.end().cancelled()).await;
            assert!(agent.is_over());
            drop(attached);
        }
    }
}
