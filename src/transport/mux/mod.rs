//! Many streams over one: each has a credit of its own, so that one that nobody reads holds up no other.
//!
//! One end opens groups of lanes, the other is told of them. The first lane of a group carries messages both
//! ways; each of the others has one direction. The end of a lane, and that nobody reads it any more, are told the
//! other end. Both ends say something now and then, and are done with one that says nothing any more.

mod frame;
mod lane;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use self::frame::Frame;
use self::lane::Lane;

pub use self::lane::{LaneReader, LaneWriter};

/// How often something is said, and how long the other end may say nothing.
const BEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));

/// As much as is written at once.
const FULL: usize = 128 << 10;

/// How many lanes there may be at once: each may hold a window of bytes.
const MOST: usize = 4096;

/// The streams of a group, as the end that opened it has them, or the other one.
pub struct Group {
    /// What the other end says.
    pub from: LaneReader,
    /// What is said to it.
    pub to: LaneWriter,
    /// The lanes that the other end writes to.
    pub readers: Vec<LaneReader>,
    /// The lanes that it reads.
    pub writers: Vec<LaneWriter>,
}

/// One end of the stream that carries the others. It is closed when this and all lanes are dropped.
#[derive(Clone)]
pub struct Mux {
    shared: Arc<Shared>,
    over: watch::Receiver<bool>,
}

struct Shared {
    out: mpsc::UnboundedSender<Frame>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    lanes: HashMap<u32, Arc<Lane>>,
    /// How many there have been. Their numbers begin anew when there are no more.
    opened: u64,
    over: bool,
}

impl Table {
    fn count(&mut self, base: u32, readers: u8, writers: u8) {
        let end = u64::from(base) + 1 + u64::from(readers) + u64::from(writers);
        // Once all numbers have been there, it only matters which is the next.
        let rounds = self.opened & !u64::from(u32::MAX);
        self.opened = self.opened.max(rounds + end);
    }

    fn was_opened(&self, lane: u32) -> bool {
        self.opened > u64::from(lane)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, frame: Frame) {
        // Where nobody sends any more, all lanes are told so.
        let _ = self.out.send(frame);
    }

    fn group(self: &Arc<Self>, table: &mut Table, base: u32, readers: u8, writers: u8) -> Group {
        let mut lane = |id: u32, reads: bool, writes: bool| {
            let lane = Arc::new(Lane::new(id, reads, writes, table.over));
            table.lanes.insert(id, Arc::clone(&lane));
            lane
        };
        let reader = |lane| LaneReader::new(lane, Arc::clone(self));
        let writer = |lane| LaneWriter::new(lane, Arc::clone(self));
        let first = lane(base, true, true);
        // The opener's own numbers come in the order in which it named them.
        let mut next = base;
        let mut id = || {
            next += 1;
            next
        };
        Group {
            from: reader(Arc::clone(&first)),
            to: writer(first),
            readers: (0..readers).map(|_| reader(lane(id(), true, false))).collect(),
            writers: (0..writers).map(|_| writer(lane(id(), false, true))).collect(),
        }
    }

    fn end(&self) {
        let lanes: Vec<_> = {
            let mut table = self.table();
            table.over = true;
            table.lanes.drain().map(|(_, lane)| lane).collect()
        };
        for lane in lanes {
            lane.fail();
        }
    }
}

impl Mux {
    /// Begins over a stream, of which something may have been read already. The groups that the other end opens
    /// come out of the channel.
    pub fn start(
        from: impl AsyncRead + Send + Unpin + 'static,
        to: impl AsyncWrite + Send + Unpin + 'static,
        already: BytesMut,
    ) -> (Mux, mpsc::UnboundedReceiver<Group>) {
        let (out, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { out, table: Mutex::default() });
        let (tell, groups) = mpsc::unbounded_channel();
        let (end, over) = watch::channel(false);
        let weak = Arc::downgrade(&shared);
        tokio::spawn(pour(queue, to, weak.clone()));
        tokio::spawn(async move {
            take(from, already, &weak, &tell).await;
            if let Some(shared) = weak.upgrade() {
                shared.end();
            }
            let _ = end.send(true);
        });
        (Mux { shared, over }, groups)
    }

    /// Opens a group: so many lanes to read, and so many to write. The other end need not answer.
    pub fn open(&self, readers: u8, writers: u8) -> Group {
        let mut table = self.shared.table();
        let base = table.opened as u32;
        table.count(base, readers, writers);
        let group = self.shared.group(&mut table, base, readers, writers);
        // Under the lock: what is opened first is told first.
        self.shared.say(Frame::Open { lane: base, readers, writers });
        group
    }

    /// Whether it is closed, or broke.
    pub fn is_over(&self) -> bool {
        *self.over.borrow() || self.shared.table().over
    }
}

/// Sends what is to be said, until nobody has anything to say any more.
async fn pour(
    mut queue: mpsc::UnboundedReceiver<Frame>,
    mut to: impl AsyncWrite + Unpin,
    shared: Weak<Shared>,
) {
    let mut buffer = BytesMut::with_capacity(FULL);
    loop {
        match tokio::time::timeout(BEAT.0, queue.recv()).await {
            Ok(Some(frame)) => frame.put(&mut buffer),
            Ok(None) => break,
            Err(_) => Frame::Beat.put(&mut buffer),
        }
        while buffer.len() < FULL
            && let Ok(frame) = queue.try_recv()
        {
            frame.put(&mut buffer);
        }
        if to.write_all(&buffer).await.is_err() || to.flush().await.is_err() {
            if let Some(shared) = shared.upgrade() {
                shared.end();
            }
            break;
        }
        buffer.clear();
    }
    let _ = to.shutdown().await;
}

/// Hands out what comes, until it ends or makes no sense.
async fn take(
    mut from: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
    shared: &Weak<Shared>,
    tell: &mpsc::UnboundedSender<Group>,
) {
    loop {
        while let Some(frame) = Frame::take(&mut buffer).transpose() {
            // Without anybody left here it is only read on so that the other end can finish.
            let Some(shared) = shared.upgrade() else { break };
            let Ok(frame) = frame else { return };
            if !hand_out(&shared, frame, tell) {
                return;
            }
        }
        if buffer.len() > 2 * FULL {
            return;
        }
        buffer.reserve(FULL);
        match tokio::time::timeout(BEAT.1, from.read_buf(&mut buffer)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
    }
}

/// Whether the frame was one that may come.
fn hand_out(shared: &Arc<Shared>, frame: Frame, tell: &mpsc::UnboundedSender<Group>) -> bool {
    let lane = |id: u32| shared.table().lanes.get(&id).cloned();
    match frame {
        Frame::Beat => true,
        Frame::Open { lane, readers, writers } => {
            let group = {
                let mut table = shared.table();
                if table.lanes.len() > MOST || table.lanes.contains_key(&lane) {
                    return false;
                }
                // What the other end reads is written here; its numbers go first.
                let mut group = Group {
                    readers: Vec::new(),
                    writers: Vec::new(),
                    ..shared.group(&mut table, lane, 0, 0)
                };
                table.count(lane, readers, writers);
                let mut add = |offset: u32, reads: bool| {
                    let id = lane.wrapping_add(offset);
                    let lane = Arc::new(Lane::new(id, reads, !reads, false));
                    table.lanes.insert(id, Arc::clone(&lane));
                    lane
                };
                for at in 1..=u32::from(readers) {
                    group.writers.push(LaneWriter::new(add(at, false), Arc::clone(shared)));
                }
                for at in 1..=u32::from(writers) {
                    let at = u32::from(readers) + at;
                    group.readers.push(LaneReader::new(add(at, true), Arc::clone(shared)));
                }
                group
            };
            tell.send(group).is_ok()
        }
        Frame::Data { lane: id, bytes } => match lane(id) {
            Some(lane) => lane.arrive(bytes),
            // It may have been on its way when nobody wanted it any more.
            None => shared.table().was_opened(id),
        },
        Frame::End { lane: id } => {
            if let Some(lane) = lane(id) {
                lane.end();
            }
            true
        }
        Frame::Credit { lane: id, count } => {
            lane(id).is_none_or(|lane| lane.credit(count as usize))
        }
        Frame::Gone { lane: id } => {
            if let Some(lane) = lane(id) {
                lane.gone();
            }
            true
        }
    }
}

#[cfg(test)]
mod tests;
