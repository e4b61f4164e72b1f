//! What commands print: told line by line, and its end remembered for failures.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::sandbox::{Backend, Cancel, Command, Error, Output, Reader, Result};

use super::{Event, EventSink, Mask, Masker, Stream};

/// How much of the end of the output is remembered.
const TAIL: usize = 16 << 10;
/// A line longer than this is told in pieces.
const LINE: usize = 16 << 10;

/// Whose output it is.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Cell { matrix: String, cell: String },
    Step { base: String, step: usize },
}

impl Origin {
    fn event(&self, stream: Stream, text: String) -> Event {
        match self {
            Origin::Cell { matrix, cell } => {
                Event::CellOutput { matrix: matrix.clone(), cell: cell.clone(), stream, text }
            }
            Origin::Step { base, step } => {
                Event::StepOutput { base: base.clone(), step: *step, stream, text }
            }
        }
    }
}

/// Where the output of a cell's or a step's commands is written. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct OutputSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    events: EventSink,
    origin: Option<Origin>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What came after the last newline, by stream.
    partial: [Vec<u8>; 2],
    tail: Vec<u8>,
    /// How many bytes there were at all, and when [`OutputSink::since`] was called last.
    total: u64,
    told: u64,
}

impl OutputSink {
    pub(super) fn new(events: EventSink, origin: Origin) -> Self {
        OutputSink(Arc::new(Inner { events, origin: Some(origin), state: Mutex::default() }))
    }

    /// A sink that tells nobody and only remembers the end.
    pub fn quiet() -> Self {
        let events = EventSink::none();
        OutputSink(Arc::new(Inner { events, origin: None, state: Mutex::default() }))
    }

    /// Takes what a command printed. Waits while the reports are behind.
    pub async fn write(&self, stream: Stream, bytes: &[u8]) {
        let whole = self.state().take(stream, bytes);
        self.tell(stream, whole).await;
    }

    /// Tells what has no newline yet. Called when the cell or step is over; later output still counts.
    pub async fn flush(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.state().partial[stream as usize]);
            self.tell(stream, rest).await;
        }
    }

    /// What must not be told.
    pub fn mask(&self) -> &Arc<Mask> {
        self.0.events.mask()
    }

    /// The end of everything written so far, from the start of a line, both streams as they came.
    pub fn tail(&self) -> String {
        let state = self.state();
        let tail = &state.tail;
        let kept = tail.len().saturating_sub(TAIL);
        let start = match kept {
            0 => 0,
            _ => tail[kept..].iter().position(|b| *b == b'\n').map_or(kept, |at| kept + at + 1),
        };
        String::from_utf8_lossy(&tail[start..]).into_owned()
    }

    /// What was written since this was called last, or the end of that.
    pub fn since(&self) -> String {
        let mut state = self.state();
        let new = usize::try_from(state.total - state.told).unwrap_or(usize::MAX);
        state.told = state.total;
        let start = state.tail.len().saturating_sub(new.min(TAIL));
        String::from_utf8_lossy(&state.tail[start..]).into_owned()
    }

    async fn tell(&self, stream: Stream, bytes: Vec<u8>) {
        if let Some(origin) = &self.0.origin
            && !bytes.is_empty()
        {
            let length = bytes.len();
            let text = String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
            self.0.events.send_output(origin.event(stream, text), length).await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers `bytes`; returns the lines that are whole now.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let recent = &bytes[bytes.len().saturating_sub(TAIL)..];
        self.tail.extend_from_slice(recent);
        self.total += bytes.len() as u64;
        if self.tail.len() > 2 * TAIL {
            let surplus = self.tail.len() - TAIL;
            self.tail.drain(..surplus);
        }
        let partial = &mut self.partial[stream as usize];
        partial.extend_from_slice(bytes);
        match partial.iter().rposition(|b| *b == b'\n') {
            Some(end) => {
                let rest = partial.split_off(end + 1);
                std::mem::replace(partial, rest)
            }
            None if partial.len() > LINE => std::mem::take(partial),
            None => Vec::new(),
        }
    }
}

/// Runs `command` to its end like [`crate::sandbox::exec`], and writes what it prints to `sink`
/// while it prints it.
pub async fn exec(
    backend: &dyn Backend,
    sandbox: &str,
    command: &Command,
    sink: &OutputSink,
    cancel: &Cancel,
) -> Result<Output> {
    command.check()?;
    let started = Instant::now();
    let mut process = backend.spawn(sandbox, command, cancel).await?;
    let mut stdout = Tee::new(process.stdout.take(), Stream::Stdout, sink, command.max_output);
    let mut stderr = Tee::new(process.stderr.take(), Stream::Stderr, sink, command.max_output);
    let run = async {
        let mut both = std::pin::pin!(async { tokio::join!(stdout.pump(), stderr.pump()) });
        tokio::select! {
            biased;
            _ = &mut both => process.control.wait().await,
            exit = process.control.wait() => {
                // What it left in the background may hold the streams open for ever.
                let _ = tokio::time::timeout(Duration::from_millis(200), both).await;
                exit
            }
        }
    };
    let limit = command.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
    let exit = tokio::select! {
        exit = run => exit?,
        () = tokio::time::sleep(limit) => {
            return Err(Error::Timeout { what: format!("'{}'", command.program), after: limit });
        }
        () = cancel.cancelled() => return Err(Error::Cancelled),
    };
    Ok(Output {
        exit,
        truncated: stdout.truncated || stderr.truncated,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
        duration: started.elapsed(),
    })
}

/// The most that is read at once.
const MOST: usize = 256 << 10;

struct Tee<'a> {
    from: Option<Reader>,
    stream: Stream,
    sink: &'a OutputSink,
    bytes: Vec<u8>,
    max: usize,
    truncated: bool,
}

impl<'a> Tee<'a> {
    fn new(from: Option<Reader>, stream: Stream, sink: &'a OutputSink, max: usize) -> Self {
        Tee { from, stream, sink, bytes: Vec::new(), max, truncated: false }
    }

    /// The caller gets the bytes as they are, the sink gets them without secrets.
    async fn pump(&mut self) {
        let Some(from) = self.from.as_mut() else { return };
        // As much as a pipe holds; more from one that has much to say.
        let mut buffer = vec![0; 64 << 10];
        let mut masker: Option<Masker> = None;
        // A pty answers EIO when its last holder closes it: the end, like 0.
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let room = self.max - self.bytes.len();
            if count == buffer.len() && count < MOST {
                buffer.resize(MOST, 0);
            }
            self.truncated |= count > room;
            self.bytes.extend_from_slice(&buffer[..count.min(room)]);
            if masker.is_none() && self.sink.mask().is_empty() {
                self.sink.write(self.stream, &buffer[..count]).await;
                continue;
            }
            let masker = masker.get_or_insert_with(|| Masker::new(Arc::clone(self.sink.mask())));
            let shown = masker.push(&buffer[..count]);
            self.sink.write(self.stream, &shown).await;
        }
        if let Some(mut masker) = masker {
            self.sink.write(self.stream, &masker.finish()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink() -> (OutputSink, super::super::Receiver) {
        let (events, receiver) = EventSink::channel("r");
        let origin = Origin::Step { base: "b".into(), step: 1 };
        (OutputSink::new(events, origin), receiver)
    }

    fn texts(receiver: &mut super::super::Receiver) -> Vec<(Stream, String)> {
        let told = |record: super::super::Record| match record.event {
            Event::StepOutput { stream, text, .. } => (stream, text),
            other => panic!("{other:?}"),
        };
        receiver.drain().into_iter().map(told).collect()
    }

    #[tokio::test]
    async fn tells_whole_lines() {
        let (sink, mut receiver) = sink();
        sink.write(Stream::Stdout, b"one\ntw").await;
        sink.write(Stream::Stderr, b"bad").await;
        sink.write(Stream::Stdout, "o\nthr\u{e9}".as_bytes()).await;
        sink.flush().await;
        sink.flush().await;
        let expected = [
            (Stream::Stdout, "one\n"),
            (Stream::Stdout, "two\n"),
            (Stream::Stdout, "thr\u{e9}"),
            (Stream::Stderr, "bad"),
        ];
        assert_eq!(texts(&mut receiver), expected.map(|(s, t)| (s, t.to_string())));
        assert_eq!(sink.tail(), "one\ntwbado\nthr\u{e9}");
    }

    #[tokio::test]
    async fn remembers_a_bounded_end_from_a_line_start() {
        let sink = OutputSink::quiet();
        for number in 0..10_000 {
            sink.write(Stream::Stdout, format!("line {number}\n").as_bytes()).await;
        }
        let tail = sink.tail();
        assert!(tail.len() <= TAIL && tail.len() > TAIL - 20, "{}", tail.len());
        assert!(tail.starts_with("line ") && tail.ends_with("line 9999\n"), "{tail}");
        assert!(sink.state().tail.capacity() < 8 * TAIL);
    }

    #[tokio::test]
    async fn what_is_new_is_told_once() {
        let sink = OutputSink::quiet();
        sink.write(Stream::Stdout, b"one\n").await;
        assert_eq!(sink.since(), "one\n");
        sink.write(Stream::Stderr, b"two\n").await;
        sink.write(Stream::Stdout, b"three").await;
        assert_eq!((sink.since().as_str(), sink.since().as_str()), ("two\nthree", ""));
        sink.write(Stream::Stdout, &[b'x'; 3 * TAIL]).await;
        assert_eq!(sink.since().len(), TAIL);
    }

    #[tokio::test]
    async fn an_endless_line_is_told_in_pieces() {
        let (sink, mut receiver) = sink();
        for _ in 0..5 {
            sink.write(Stream::Stdout, &[b'x'; 10 << 10]).await;
        }
        let told = texts(&mut receiver);
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|(_, text)| text.len() == 20 << 10));
    }
}
