//! The one place that sees every event and feeds every report.

use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::event::Message;
use super::report::Report;
use super::{EventSink, Receiver};

/// How often reports that move on their own are drawn.
const TICK: Duration = Duration::from_millis(100);

/// Feeds reports with the events of a run, in a task of its own.
#[derive(Debug)]
pub struct Dispatcher {
    sink: EventSink,
    task: JoinHandle<Vec<(&'static str, io::Error)>>,
}

impl Dispatcher {
    /// Starts feeding. Needs a tokio runtime.
    pub fn start(run: &str, reports: Vec<Box<dyn Report>>) -> Dispatcher {
        let (sink, receiver) = EventSink::channel(run);
        Dispatcher { sink, task: tokio::spawn(dispatch(receiver, reports)) }
    }

    /// Where to send events.
    pub fn sink(&self) -> EventSink {
        self.sink.clone()
    }

    /// Feeds what was sent so far, lets the reports end, and returns those that could not be
    /// written, with the first thing that went wrong.
    pub async fn finish(self) -> Vec<(&'static str, io::Error)> {
        self.sink.finish();
        self.task.await.unwrap_or_default()
    }
}

struct Fed {
    report: Box<dyn Report>,
    error: Option<io::Error>,
}

impl Fed {
    /// A report that failed once is left alone: the run is worth more than its report.
    fn feed(&mut self, action: impl FnOnce(&mut dyn Report) -> io::Result<()>) {
        if self.error.is_none() {
            self.error = action(self.report.as_mut()).err();
        }
    }
}

async fn dispatch(
    mut receiver: Receiver,
    reports: Vec<Box<dyn Report>>,
) -> Vec<(&'static str, io::Error)> {
    let mut reports: Vec<Fed> =
        reports.into_iter().map(|report| Fed { report, error: None }).collect();
    let moving = reports.iter().any(|fed| fed.report.moves());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick(), if moving => {
                reports.iter_mut().for_each(|fed| fed.feed(|report| report.tick()));
            }
            message = receiver.0.recv() => match message {
                Some(Message::Event(record, permit)) => {
                    reports.iter_mut().for_each(|fed| fed.feed(|report| report.record(&record)));
                    drop(permit);
                }
                Some(Message::Flush(answer)) => drop(answer.send(())),
                Some(Message::Finish) | None => break,
            },
        }
    }
    reports.iter_mut().for_each(|fed| fed.feed(|report| report.finish()));
    let failed = |fed: Fed| Some((fed.report.name(), fed.error?));
    reports.into_iter().filter_map(failed).collect()
}
