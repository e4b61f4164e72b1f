//! One of the streams, and its two ends.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::frame::{Frame, LONGEST};

/// How much of a lane may be on its way.
const WINDOW: usize = 256 << 10;

/// What is known of a lane here.
pub(super) struct Lane {
    id: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What has come, and nobody has read yet.
    queue: VecDeque<Bytes>,
    waiting: usize,
    /// What was read, and is not told yet.
    read: usize,
    ended: bool,
    reader: Option<Waker>,
    /// How much more may be sent.
    credit: usize,
    gone: bool,
    writer: Option<Waker>,
    /// What holds it here: a reader, a writer.
    held: (bool, bool),
}

impl Lane {
    pub fn new(id: u32, reads: bool, writes: bool, over: bool) -> Lane {
        let state = State {
            credit: WINDOW,
            ended: over,
            gone: over,
            held: (reads, writes),
            ..State::default()
        };
        Lane { id, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was credit for what came.
    pub fn arrive(&self, bytes: Bytes) -> bool {
        let mut state = self.state();
        state.waiting += bytes.len();
        if state.waiting + state.read > WINDOW {
            return false;
        }
        // What nobody will read is not kept.
        if state.held.0 && !bytes.is_empty() {
            state.queue.push_back(bytes);
            wake(&mut state.reader);
        }
        true
    }

    pub fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        wake(&mut state.reader);
    }

    /// Whether there may be so much credit.
    pub fn credit(&self, count: usize) -> bool {
        let mut state = self.state();
        state.credit += count;
        wake(&mut state.writer);
        state.credit <= WINDOW
    }

    pub fn gone(&self) {
        let mut state = self.state();
        state.gone = true;
        wake(&mut state.writer);
    }

    /// The stream that carries it is over.
    pub fn fail(&self) {
        self.end();
        self.gone();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The end that reads. When it is dropped, whoever writes gets an error.
pub struct LaneReader {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
}

impl LaneReader {
    pub(super) fn new(lane: Arc<Lane>, shared: Arc<Shared>) -> LaneReader {
        LaneReader { lane, shared }
    }
}

impl AsyncRead for LaneReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lane.state();
        let mut count = 0;
        while buffer.remaining() > 0
            && let Some(first) = state.queue.front_mut()
        {
            let some = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..some]);
            first.advance(some);
            count += some;
            if first.is_empty() {
                state.queue.pop_front();
            }
        }
        if count == 0 {
            if state.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.waiting -= count;
        state.read += count;
        if state.read >= WINDOW / 2 && !state.ended {
            let count = std::mem::take(&mut state.read) as u32;
            self.shared.say(Frame::Credit { lane: self.lane.id, count });
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for LaneReader {
    fn drop(&mut self) {
        let last = {
            let mut state = self.lane.state();
            state.held.0 = false;
            state.queue.clear();
            if !state.ended {
                self.shared.say(Frame::Gone { lane: self.lane.id });
            }
            !state.held.1
        };
        if last {
            self.shared.table().lanes.remove(&self.lane.id);
        }
    }
}

/// The end that writes. When it is dropped, whoever reads comes to the end.
pub struct LaneWriter {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    closed: bool,
}

impl LaneWriter {
    pub(super) fn new(lane: Arc<Lane>, shared: Arc<Shared>) -> LaneWriter {
        LaneWriter { lane, shared, closed: false }
    }

    fn write_some(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lane.state();
        if state.gone || self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(state.credit).min(LONGEST);
        if count == 0 && !bytes.is_empty() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.credit -= count;
        let bytes = Bytes::copy_from_slice(&bytes[..count]);
        self.shared.say(Frame::Data { lane: self.lane.id, bytes });
        Poll::Ready(Ok(count))
    }

    /// Writes all of it. Whoever drops this in the middle has to drop the lane, too.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            done += std::future::poll_fn(|cx| self.write_some(cx, &bytes[done..])).await?;
        }
        Ok(())
    }

    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.shared.say(Frame::End { lane: self.lane.id });
        }
    }
}

impl AsyncWrite for LaneWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_some(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        self.close();
        let last = {
            let mut state = self.lane.state();
            state.held.1 = false;
            !state.held.0
        };
        if last {
            self.shared.table().lanes.remove(&self.lane.id);
        }
    }
}
