//! One attempt of a cell: its body, within its time, and what comes after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sandbox::{Cancel, Error, Result, Usage};

use super::super::output::Origin;
use super::super::{Cell, CellEgress, CellReport, Event, Failure, Outcome, OutputSink, RunContext};
use super::CellContext;
use super::executor::Shared;
use super::lane::Lane;
use super::sandbox::unmade;

/// How long a cancelled body may take to notice.
const GRACE: Duration = Duration::from_secs(2);
/// How long a teardown may take.
const TEARDOWN: Duration = Duration::from_secs(60);

/// How one attempt ended.
pub(super) struct Attempt {
    pub outcome: Outcome,
    pub failure: Option<Failure>,
    pub duration: Duration,
    /// The end of what its commands printed; empty when it passed.
    pub tail: String,
    pub usage: Usage,
    /// Where its artifacts are.
    pub artifacts: Option<PathBuf>,
    pub egress: CellEgress,
}

impl Attempt {
    pub fn report(self, cell: Cell, attempts: usize) -> CellReport {
        let Attempt { outcome, failure, duration, tail, usage, artifacts, egress } = self;
        let not_run = CellReport::not_run(cell);
        CellReport {
            outcome,
            failure,
            duration,
            tail,
            attempts,
            usage,
            artifacts,
            egress,
            ..not_run
        }
    }
}

impl Shared {
    /// Runs the body, unless the sandbox could not be made.
    pub async fn attempt(
        &self,
        lane: &Lane,
        cell: &Cell,
        sandbox: &str,
        number: usize,
        made: Result<()>,
    ) -> Attempt {
        let events = &self.ctx.events;
        let matrix = self.spec.name.clone();
        events.send(Event::CellStarted {
            matrix: matrix.clone(),
            cell: cell.id.clone(),
            sandbox: sandbox.into(),
            attempt: number,
        });
        let origin = Origin::Cell { matrix: matrix.clone(), cell: cell.id.clone() };
        let output = OutputSink::new(events.clone(), origin);
        let started = Instant::now();
        let exists = made.is_ok();
        let mut artifacts = None;
        let (outcome, failure) = match made {
            Err(error) => (Outcome::Failed, Some(unmade(error))),
            Ok(()) => {
                let run = RunContext { cancel: self.cancel.child_token(), ..lane.ctx.clone() };
                let context = CellContext {
                    run,
                    matrix,
                    cell: cell.clone(),
                    attempt: number,
                    sandbox: sandbox.into(),
                    output: output.clone(),
                };
                let ended = self.body(context.clone()).await;
                artifacts = self.artifacts(lane, sandbox, cell, &self.cancel).await;
                self.teardown(context, ended).await
            }
        };
        output.flush().await;
        let tail = match outcome {
            Outcome::Passed | Outcome::Skipped => String::new(),
            _ => output.tail(),
        };
        let duration = started.elapsed();
        let usage = if exists { self.usage(lane, sandbox).await } else { Usage::default() };
        let egress = match exists && (outcome.failed() || self.reaches(cell)) {
            true => self.egress(lane, sandbox).await,
            false => CellEgress::default(),
        };
        Attempt { outcome, failure, duration, tail, usage, artifacts, egress }
    }

    async fn body(&self, context: CellContext) -> (Outcome, Option<Failure>) {
        let cancel = context.run.cancel.clone();
        let watched = (context.cell.id.clone(), context.output.clone());
        let body = Arc::clone(&self.body);
        // A task of its own: a body that panics or blocks takes no other cell with it.
        let mut task = tokio::spawn(async move { body.run(context).await });
        let limit = self.spec.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
        let stopped = tokio::select! {
            biased;
            result = &mut task => return self.outcome(result),
            () = cancel.cancelled() => false,
            () = tokio::time::sleep(limit) => true,
            () = self.warn(&watched.0, &watched.1) => false,
        };
        cancel.cancel();
        let late = tokio::time::timeout(GRACE, &mut task).await;
        if late.is_err() {
            task.abort();
        }
        match (stopped, late) {
            (true, _) => {
                let error = Error::Timeout { what: "the cell".into(), after: limit };
                (Outcome::TimedOut, Some(error.into()))
            }
            // It was done, or failed on its own, just when the cancel came.
            (false, Ok(result)) => self.outcome(result),
            (false, Err(_)) => (Outcome::Cancelled, Some(Error::Cancelled.into())),
        }
    }

    /// Tells again and again that a cell still runs, and what it printed since. Never ends.
    async fn warn(&self, cell: &str, output: &OutputSink) {
        let halves = self.spec.timeout.map(|limit| limit / 2);
        let Some(period) = self.spec.warn.or(halves).filter(|period| !period.is_zero()) else {
            return std::future::pending().await;
        };
        let mut duration = period;
        loop {
            tokio::time::sleep(period).await;
            self.ctx.events.send(Event::CellSlow {
                matrix: self.spec.name.clone(),
                cell: cell.into(),
                duration,
                limit: self.spec.timeout,
                tail: output.since(),
            });
            duration += period;
        }
    }

    /// Cleans up after the body, however it ended.
    async fn teardown(
        &self,
        context: CellContext,
        ended: (Outcome, Option<Failure>),
    ) -> (Outcome, Option<Failure>) {
        if !self.body.tears_down() {
            return ended;
        }
        let cancel = Cancel::new();
        // When this is dropped, the task ends.
        let _guard = cancel.clone().drop_guard();
        let cell = context.cell.id.clone();
        let run = RunContext { cancel: cancel.clone(), ..context.run.clone() };
        let body = Arc::clone(&self.body);
        let mut task =
            tokio::spawn(async move { body.teardown(CellContext { run, ..context }).await });
        let done = tokio::time::timeout(TEARDOWN, &mut task).await;
        let failure = match done {
            Ok(Ok(Ok(()))) => return ended,
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(join)) => panicked(join),
            Err(_) => {
                cancel.cancel();
                let _ = tokio::time::timeout(GRACE, &mut task).await;
                task.abort();
                Error::Timeout { what: "the teardown".into(), after: TEARDOWN }.into()
            }
        };
        match ended {
            (Outcome::Passed | Outcome::Skipped, _) => {
                let message = format!("the teardown failed: {failure}");
                let told = Failure::Failed { message, hint: failure.hint() };
                let told = match failure.place() {
                    Some(place) => Failure::At { place: place.clone(), failure: Box::new(told) },
                    None => told,
                };
                (Outcome::Failed, Some(told))
            }
            ended => {
                self.ctx.events.send(Event::Warning {
                    message: format!("the teardown of cell '{cell}' failed, too: {failure}"),
                    hint: failure.hint(),
                });
                ended
            }
        }
    }

    fn outcome(
        &self,
        result: std::result::Result<Result<(), Failure>, tokio::task::JoinError>,
    ) -> (Outcome, Option<Failure>) {
        match result {
            Ok(Ok(())) => (Outcome::Passed, None),
            Ok(Err(failure)) if failure.is_cancel() && self.cancel.is_cancelled() => {
                (Outcome::Cancelled, Some(failure))
            }
            Ok(Err(failure @ Failure::Skipped { .. })) => (Outcome::Skipped, Some(failure)),
            Ok(Err(failure @ Failure::Expected { .. })) => {
                (Outcome::ExpectedFailure, Some(failure))
            }
            Ok(Err(failure)) => (Outcome::Failed, Some(failure)),
            Err(join) => (Outcome::Failed, Some(panicked(join))),
        }
    }
}

fn panicked(join: tokio::task::JoinError) -> Failure {
    let text = match join.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
        }
        Err(join) => join.to_string(),
    };
    Error::internal(format!("the cell's body panicked: {text}")).into()
}
