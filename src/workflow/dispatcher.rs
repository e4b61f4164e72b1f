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
    pub fn start(run: &str, mut reports: Vec<Box<dyn Report>>) -> Dispatcher {
        let (sink, receiver) = EventSink::channel(run);
        reports.iter_mut().for_each(|report| report.begin(sink.mask()));
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::{Event, Record};
    use super::*;

    /// Writes down what it is told; fails when it is told "fail".
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Report for Notes {
        fn name(&self) -> &'static str {
            "notes"
        }

        fn record(&mut self, record: &Record) -> io::Result<()> {
            let Event::Print { text, .. } = &record.event else { return Ok(()) };
            if text == "fail" {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().unwrap().push(text.clone());
            Ok(())
        }

        fn moves(&self) -> bool {
            true
        }

        fn tick(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().push("tick".into());
            Ok(())
        }

        fn finish(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().push("end".into());
            Ok(())
        }
    }

    fn print(text: &str) -> Event {
        Event::Print { text: text.into(), cell: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_fails_is_left_alone() {
        let (one, two) = (Arc::default(), Arc::default());
        let reports: Vec<Box<dyn Report>> =
            vec![Box::new(Notes(Arc::clone(&one))), Box::new(Notes(Arc::clone(&two)))];
        let dispatcher = Dispatcher::start("r", reports);
        let sink = dispatcher.sink();
        sink.send(print("a"));
        sink.flush().await;
        let seen = |notes: &Arc<Mutex<Vec<String>>>| notes.lock().unwrap().clone();
        assert_eq!(seen(&two).last().map(String::as_str), Some("a"));
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(seen(&two).iter().filter(|note| *note == "tick").count(), 3);

        one.lock().unwrap().clear();
        sink.send(print("fail"));
        sink.send(print("b"));
        let failed = dispatcher.finish().await;
        assert_eq!(failed.len(), 2);
        assert_eq!((failed[0].0, failed[0].1.kind()), ("notes", io::ErrorKind::StorageFull));
        assert_eq!(seen(&one), [""; 0], "nothing after the failure, not even the end");
        // Nobody listens any more, and nobody waits for it.
        sink.send(print("c"));
        sink.flush().await;
    }

    #[tokio::test]
    async fn all_that_was_sent_before_the_end_is_seen() {
        let notes = Arc::default();
        let dispatcher = Dispatcher::start("r", vec![Box::new(Notes(Arc::clone(&notes)))]);
        for number in 0..1000 {
            dispatcher.sink().send(print(&number.to_string()));
        }
        assert!(dispatcher.finish().await.is_empty());
        let mut notes = std::mem::take(&mut *notes.lock().unwrap());
        notes.retain(|note| note != "tick");
        assert_eq!((notes.len(), notes.last().map(String::as_str)), (1001, Some("end")));
    }
}
