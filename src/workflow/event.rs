//! The one event enum that feeds every report.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    AxisValue, CellEgress, CellTest, Change, Counts, Mask, Order, Outcome, Place, StepKey, Usage,
};

/// The version of [`Record`] as it is written. It grows when a field changes its meaning or goes;
/// new fields and new events don't change it.
pub const SCHEMA: u32 = 1;

/// An event with what every event has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub v: u32,
    /// When it happened; RFC 3339 when written.
    #[serde(with = "timestamp")]
    pub at: SystemTime,
    /// Seconds since the run began, by a clock that never jumps.
    #[serde(with = "seconds")]
    pub t: Duration,
    /// The run it happened in.
    pub run: Arc<str>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Which of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// For everybody.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}

/// A cell as a report needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellInfo {
    /// Its stable id.
    pub id: String,
    /// Its value on each axis, in order; an object when written.
    #[serde(with = "pairs")]
    pub values: Vec<(String, AxisValue)>,
}

/// Everything that can happen in a run. Durations are seconds when written; steps count from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Event {
    /// The script begins.
    RunStarted { script: Option<String>, backend: String },
    /// The run is over; `code` is the exit code.
    RunEnded {
        code: u8,
        #[serde(with = "seconds")]
        duration: Duration,
    },
    /// A cell is to run on another backend than the run began with, and that is open now.
    BackendOpened {
        backend: String,
        /// The machine that it drives, where that is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// A base is wanted.
    BaseStarted { base: String, from: String },
    /// Another run builds what is wanted here; this one waits for it.
    BaseWaiting { base: String, step: usize, sandbox: String, run: Option<String> },
    /// A sandbox is to have a cache that another one has, which is the one named in `by` where that
    /// is known; it is waited for. It is that of a cell or a base, where these are given.
    CacheWaiting {
        cache: String,
        sandbox: String,
        by: Option<String>,
        cell: Option<String>,
        base: Option<String>,
    },
    /// A step was found in the cache.
    StepHit { base: String, step: usize, total: Option<usize>, title: String, key: String },
    /// What a step's key is, and for one that is done the fields that are different from the step
    /// that was in its place before. Told only on request.
    StepExplained {
        base: String,
        step: usize,
        title: String,
        digest: String,
        key: Box<StepKey>,
        reason: Option<String>,
        against: Option<String>,
        changes: Vec<Change>,
    },
    /// A step is done now, because of `reason`.
    StepStarted {
        base: String,
        step: usize,
        total: Option<usize>,
        title: String,
        key: String,
        reason: String,
    },
    /// What a step's command prints: whole lines.
    StepOutput { base: String, step: usize, stream: Stream, text: String },
    /// A step is done and its snapshot taken.
    StepDone {
        base: String,
        step: usize,
        title: String,
        #[serde(with = "seconds")]
        duration: Duration,
        /// How long the guest stood still for the snapshot.
        #[serde(with = "seconds")]
        frozen: Duration,
    },
    /// A step failed or was cancelled.
    StepFailed {
        base: String,
        step: usize,
        title: String,
        #[serde(with = "seconds")]
        duration: Duration,
        message: String,
        hint: Option<String>,
        /// The end of what its command printed.
        tail: String,
    },
    /// The base can be cloned.
    BaseReady {
        base: String,
        sandbox: String,
        label: String,
        steps: usize,
        hits: usize,
        #[serde(with = "seconds")]
        duration: Duration,
    },
    /// The base was not built.
    BaseFailed { base: String, message: String },
    /// The cells that will run, in order. `total` counts those the filter left out, too.
    MatrixStarted {
        matrix: String,
        cells: Vec<CellInfo>,
        total: usize,
        parallel: usize,
        /// In which order they start.
        order: Order,
        /// What decides where something is left to chance.
        seed: u64,
    },
    /// A cell's body begins; attempts count from 1.
    CellStarted { matrix: String, cell: String, sandbox: String, attempt: usize },
    /// A cell still runs.
    CellSlow {
        matrix: String,
        cell: String,
        #[serde(with = "seconds")]
        duration: Duration,
        /// How long it may take.
        #[serde(with = "some_seconds")]
        limit: Option<Duration>,
        /// What its commands printed since it was told the last time, or the end of that.
        tail: String,
    },
    /// An attempt failed, and there will be another one after the pause.
    CellRetry {
        matrix: String,
        cell: String,
        attempt: usize,
        outcome: Outcome,
        #[serde(with = "seconds")]
        duration: Duration,
        message: Option<String>,
        tail: String,
        #[serde(with = "seconds")]
        pause: Duration,
        /// The member of a cluster that went away with it: the cell is no less good for that, and the
        /// attempt is one more than it may have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        away: Option<String>,
    },
    /// What a cell's commands print: whole lines.
    CellOutput { matrix: String, cell: String, stream: Stream, text: String },
    /// A cell is over. `not_run` ones never started.
    CellEnded {
        matrix: String,
        cell: String,
        outcome: Outcome,
        #[serde(with = "seconds")]
        duration: Duration,
        message: Option<String>,
        hint: Option<String>,
        /// The end of what its commands printed; empty when it passed.
        tail: String,
        /// It did not run: it passed before, with all that it depends on as it is now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unchanged: bool,
        /// How many attempts there were.
        attempts: usize,
        /// Where it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
        /// What `sandscript enter` takes to open a shell in the state it failed in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enter: Option<String>,
        /// What it took of the machine, in all.
        #[serde(default, skip_serializing_if = "Usage::is_unknown")]
        usage: Usage,
        /// The folder its artifacts were copied to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        artifacts: Option<String>,
        /// What it was refused and what it reached, at the last attempt.
        #[serde(default, skip_serializing_if = "CellEgress::is_empty")]
        egress: CellEgress,
        /// The members of a cluster that went away while it was on them, before it began again elsewhere.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        moved: Vec<String>,
    },
    /// A test inside of a cell, as the guest's own report has it.
    CellTest { matrix: String, cell: String, test: CellTest },
    /// All cells are over.
    MatrixEnded {
        matrix: String,
        counts: Counts,
        #[serde(with = "seconds")]
        duration: Duration,
    },
    /// The cells there are, instead of running them.
    CellList { matrix: String, cells: Vec<CellInfo> },
    /// A script printed this.
    Print { text: String, cell: Option<String> },
    /// A script or sandscript itself says this.
    Log { level: Level, text: String, cell: Option<String> },
    /// Something the user should know, that does not end the run.
    Warning { message: String, hint: Option<String> },
    /// A sandbox was kept when it would have been deleted.
    SandboxKept { name: String, why: String },
}

impl Event {
    /// A warning without a hint.
    pub fn warning(message: impl Into<String>) -> Self {
        Event::Warning { message: message.into(), hint: None }
    }
}

/// What goes through the channel.
#[derive(Debug)]
pub(super) enum Message {
    /// An event; the permit gives its share of the output budget back when it is dropped.
    Event(Box<Record>, Option<OwnedSemaphorePermit>),
    /// Everything sent before this has been seen when it is answered.
    Flush(oneshot::Sender<()>),
    /// The last message.
    Finish,
}

/// Where events are sent. Clones are cheap and send into the same channel.
#[derive(Clone, Debug)]
pub struct EventSink {
    run: Arc<str>,
    began: Instant,
    sender: mpsc::UnboundedSender<Message>,
    output: Arc<Semaphore>,
    mask: Arc<Mask>,
}

impl EventSink {
    /// How many KiB of guest output may be on their way to the reports.
    const OUTPUT_KIB: u32 = 4096;

    /// A sink and the other end of its channel.
    pub fn channel(run: impl Into<Arc<str>>) -> (EventSink, Receiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let output = Arc::new(Semaphore::new(Self::OUTPUT_KIB as usize));
        let mask = Arc::default();
        let began = Instant::now();
        (EventSink { run: run.into(), began, sender, output, mask }, Receiver(receiver))
    }

    /// A sink that nobody listens to.
    pub fn none() -> EventSink {
        EventSink::channel("").0
    }

    /// What must not be told: every event goes through it.
    pub fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// Sends an event, without the secrets in it. Without a listener it is lost.
    pub fn send(&self, event: Event) {
        let event = self.mask.event(event);
        let _ = self.sender.send(Message::Event(Box::new(self.record(event)), None));
    }

    /// Sends guest output; waits while too much of it is on its way, so that memory stays flat.
    pub async fn send_output(&self, event: Event, bytes: usize) {
        let share = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, Self::OUTPUT_KIB);
        let permit = Arc::clone(&self.output).acquire_many_owned(share).await.ok();
        let event = self.mask.event(event);
        let _ = self.sender.send(Message::Event(Box::new(self.record(event)), permit));
    }

    /// Returns when everything sent before was seen by the listener.
    pub async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.sender.send(Message::Flush(sender)).is_ok() {
            let _ = receiver.await;
        }
    }

    pub(super) fn finish(&self) {
        let _ = self.sender.send(Message::Finish);
    }

    fn record(&self, event: Event) -> Record {
        Record {
            v: SCHEMA,
            at: crate::sandbox::wall_clock(),
            t: self.began.elapsed(),
            run: Arc::clone(&self.run),
            event,
        }
    }
}

/// The end of the channel where events come out.
#[derive(Debug)]
pub struct Receiver(pub(super) mpsc::UnboundedReceiver<Message>);

impl Receiver {
    /// The next event; `None` when all sinks are gone.
    pub async fn recv(&mut self) -> Option<Record> {
        loop {
            match self.0.recv().await? {
                Message::Event(record, _) => return Some(*record),
                Message::Flush(answer) => drop(answer.send(())),
                Message::Finish => return None,
            }
        }
    }

    /// The events that are there already.
    pub fn drain(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while let Ok(message) = self.0.try_recv() {
            match message {
                Message::Event(record, _) => records.push(*record),
                Message::Flush(answer) => drop(answer.send(())),
                Message::Finish => {}
            }
        }
        records
    }
}

/// A duration as seconds.
pub(super) mod seconds {
    use super::*;

    pub fn serialize<S: serde::Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        // Microseconds: what finer clocks say is noise, and longer to read.
        to.serialize_f64((value.as_secs_f64() * 1e6).round() / 1e6)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

/// A duration as seconds, where there is one.
pub(super) mod some_seconds {
    use super::*;

    pub fn serialize<S: serde::Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => seconds::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        let duration = seconds.map(Duration::try_from_secs_f64).transpose();
        duration.map_err(serde::de::Error::custom)
    }
}

/// A time as RFC 3339.
mod timestamp {
    use super::*;

    pub fn serialize<S: serde::Serializer>(value: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let stamp = jiff::Timestamp::try_from(*value).map_err(serde::ser::Error::custom)?;
        to.collect_str(&stamp)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        let stamp: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(stamp.into())
    }
}

/// Pairs as an object that keeps their order.
mod pairs {
    use super::*;

    type Pairs = Vec<(String, AxisValue)>;

    pub fn serialize<S: serde::Serializer>(value: &Pairs, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(value.iter().map(|(name, value)| (name, value)))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        struct InOrder;
        impl<'de> serde::de::Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Pairs, A::Error> {
                let mut pairs = Pairs::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_an_object_in_order() {
        let info = CellInfo {
            id: "z=1,a=x".into(),
            values: vec![("z".into(), 1.into()), ("a".into(), "x".into())],
        };
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!(text, r#"{"id":"z=1,a=x","values":{"z":1,"a":"x"}}"#);
        assert_eq!(serde_json::from_str::<CellInfo>(&text).unwrap(), info);
    }

    #[test]
    fn a_record_reads_back() {
        let record = Record {
            v: SCHEMA,
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            t: Duration::from_millis(7),
            run: "r1".into(),
            event: Event::StepDone {
                base: "cc".into(),
                step: 2,
                title: "run make".into(),
                duration: Duration::from_millis(1_250),
                frozen: Duration::ZERO,
            },
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"at":"1970-01-01T00:00:01.5Z","t":0.007,"run":"r1","type":"step_done","base":"cc","step":2,"title":"run make","duration":1.25,"frozen":0.0}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[tokio::test]
    async fn output_waits_for_a_slow_listener() {
        let (sink, mut receiver) = EventSink::channel("r");
        let line = || Event::Print { text: String::new(), cell: None };
        let all = (EventSink::OUTPUT_KIB as usize) << 10;
        sink.send_output(line(), all).await;
        let more = tokio::spawn({
            let sink = sink.clone();
            async move { sink.send_output(line(), 1).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!more.is_finished());
        assert!(receiver.recv().await.is_some());
        more.await.unwrap();
        assert!(receiver.recv().await.is_some());
    }

    #[tokio::test]
    async fn output_without_a_listener_does_not_wait() {
        let sink = EventSink::none();
        for _ in 0..10 {
            sink.send_output(Event::warning("x"), 4 << 20).await;
        }
    }
}
