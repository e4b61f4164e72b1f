//! One cell on its way: a sandbox, a turn, an attempt; and again, when it failed and may.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::sandbox::{Capability, Error};

use super::super::{Broken, Cell, CellReport, Event, Failure, Outcome};
use super::attempt::Attempt;
use super::executor::Shared;
use super::lane::{Lane, Turn};

/// How often a cell begins again because the member of a cluster that it was on went away.
const MOVES: usize = 3;

/// One cell on its way.
pub(super) struct One {
    pub shared: Arc<Shared>,
    pub lane: Arc<Lane>,
    pub cell: Cell,
    pub index: usize,
    /// Given back when the body is over.
    pub live: Option<OwnedSemaphorePermit>,
    /// Given back when the sandbox is gone.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Its turn, for the first attempt.
    pub turn: Turn,
}

impl One {
    pub async fn run(self, ended: &mpsc::UnboundedSender<(usize, CellReport)>) {
        let One { shared, lane, cell, index, live, slot, turn } = self;
        let broken = shared.spec.own.get(&cell.id).and_then(|own| own.broken.clone());
        if let Some(Broken { failure, tail }) = broken {
            let not_run = CellReport::not_run(cell);
            let report = CellReport {
                outcome: Outcome::Failed,
                failure: Some(failure),
                tail,
                attempts: 1,
                ..not_run
            };
            shared.count_failure();
            shared.tell(&report);
            let _ = ended.send((index, report));
            return;
        }
        let mut first = Some(turn);
        let most = 1 + shared.spec.retries.count;
        let mut last: Option<Attempt> = None;
        let mut sandbox = None;
        let mut attempts = 0;
        let mut moved: Vec<String> = Vec::new();
        while attempts < most + moved.len() {
            let number = attempts + 1;
            let name = shared.name(index, &cell, number);
            let turn = first.take().unwrap_or_else(|| lane.turn(shared.weight(&cell)));
            let turn = async {
                tokio::select! {
                    biased;
                    () = shared.cancel.cancelled() => None,
                    turn = turn.wait() => turn,
                }
            };
            let (turn, made) = if shared.spec.caches(&cell).is_empty() {
                // Made ahead of its turn.
                let made = shared.make(&lane, &name, &cell).await;
                (turn.await, made)
            } else {
                // One that waits for its turn must not have what one with a turn waits for.
                match turn.await {
                    None => (None, Err(Error::Cancelled)),
                    turn => (turn, shared.make(&lane, &name, &cell).await),
                }
            };
            // One that waited has the name that it was made under.
            let (name, made) = match made {
                Ok(name) => (name, Ok(())),
                Err(error) => (name, Err(error)),
            };
            sandbox = made.is_ok().then(|| name.clone());
            let (turn, made) = match (turn, made) {
                // Stopped before it began; an earlier attempt still counts.
                (None, _) | (_, Err(Error::Cancelled)) => break,
                (Some(turn), made) => (turn, made),
            };
            attempts = number;
            let attempt = shared.attempt(&lane, &cell, &name, number, made).await;
            let failed = attempt.outcome.failed();
            if failed
                && moved.len() < MOVES
                && !shared.cancel.is_cancelled()
                && let Some(member) = shared.away(&lane, &name, &attempt).await
            {
                drop(turn);
                shared.tell_retry(&cell, &attempt, attempts, Duration::ZERO, Some(&member));
                moved.push(member);
                let here = Arc::clone(&lane);
                tokio::spawn(async move { here.measure().await });
                if let Some(name) = sandbox.take() {
                    shared.delete(&lane, &name).await;
                }
                continue;
            }
            let again = failed && attempts < most + moved.len() && !shared.cancel.is_cancelled();
            if failed && !again {
                // Before the next one gets its turn.
                shared.count_failure();
            }
            drop(turn);
            if again {
                let pause = shared.spec.retries.pause(attempts, shared.spec.seed, &cell.id);
                shared.tell_retry(&cell, &attempt, attempts, pause, None);
                if let Some(name) = sandbox.take() {
                    shared.delete(&lane, &name).await;
                }
                last = Some(attempt);
                let rest = async {
                    tokio::time::sleep(pause).await;
                    shared.answers(&lane, &name).await;
                };
                tokio::select! {
                    biased;
                    () = shared.cancel.cancelled() => break,
                    () = rest => {}
                }
            } else {
                last = Some(settled(attempt, last.take(), number));
                break;
            }
        }
        let mut report = match last {
            None => CellReport::not_run(cell),
            Some(attempt) => attempt.report(cell, attempts),
        };
        report.machine = lane.machine.clone();
        report.moved = moved;
        if let Some(name) = sandbox.clone().filter(|_| report.outcome.failed()) {
            if shared.ctx.keep {
                if shared.keep(&lane, &name, &report.cell).await {
                    report.enter = Some(format!("{}/{}", shared.ctx.run, report.cell.id));
                }
            } else {
                report.enter = shared.keep_failure(&lane, &name, &report.cell).await;
            }
            if report.enter.is_some() {
                report.kept = sandbox.take();
            }
        }
        shared.tell(&report);
        let _ = ended.send((index, report));
        drop(live);
        if let Some(name) = sandbox {
            shared.delete(&lane, &name).await;
        }
        drop(slot);
    }
}

/// The last attempt, in the light of the one before it.
fn settled(attempt: Attempt, before: Option<Attempt>, number: usize) -> Attempt {
    match (attempt.outcome, before) {
        (Outcome::Passed, Some(before)) => {
            let why = before.failure.as_ref().map(Failure::to_string).unwrap_or_default();
            let place = before.failure.as_ref().and_then(|failure| failure.place().cloned());
            let message = format!("it passed at attempt {number}; the one before: {why}");
            let told = Failure::new(message);
            let failure = match place {
                Some(place) => Failure::At { place, failure: Box::new(told) },
                None => told,
            };
            let failure = Some(failure);
            Attempt { outcome: Outcome::Flaky, failure, tail: before.tail, ..attempt }
        }
        // That it was stopped later does not undo that it failed.
        (Outcome::Cancelled, Some(before)) => before,
        _ => attempt,
    }
}

impl Shared {
    /// The member of a cluster that an attempt failed with.
    async fn away(&self, lane: &Lane, sandbox: &str, attempt: &Attempt) -> Option<String> {
        if !lane.ctx.backend.capabilities().has(Capability::Cluster) {
            return None;
        }
        if let Some(Failure::Error(Error::MemberAway { member, .. })) = &attempt.failure {
            return Some(member.clone());
        }
        // The script may have made something else of it.
        lane.ctx.backend.away(sandbox, &self.cancel).await.ok().flatten()
    }

    fn tell_retry(
        &self,
        cell: &Cell,
        attempt: &Attempt,
        number: usize,
        pause: Duration,
        away: Option<&String>,
    ) {
        let message = attempt.failure.as_ref().map(Failure::to_string);
        let message = match away {
            Some(member) => Some(format!("member '{member}' of the cluster went away")),
            None => message,
        };
        self.ctx.events.send(Event::CellRetry {
            matrix: self.spec.name.clone(),
            cell: cell.id.clone(),
            attempt: number,
            outcome: attempt.outcome,
            duration: attempt.duration,
            message,
            tail: attempt.tail.clone(),
            pause,
            away: away.cloned(),
        });
    }
}
