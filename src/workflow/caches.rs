//! Waiting for caches that somebody else has.

use std::time::Duration;

use crate::sandbox::{Cancel, Error, Result};

use super::{Event, EventSink};

/// How long to wait between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Who waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<'a> {
    /// The sandbox that is to have the cache.
    pub sandbox: &'a str,
    /// The cell whose sandbox it is, or in which it is made.
    pub cell: Option<&'a str>,
    /// The base that is built in it.
    pub base: Option<&'a str>,
    /// Where it is told.
    pub events: &'a EventSink,
    /// Ends the wait.
    pub cancel: &'a Cancel,
}

impl Waiter<'_> {
    /// Does what starts a sandbox. While a cache of it is in use it is tried again, for as long as
    /// that takes: it is told, once for each that has it.
    pub async fn when_free<T, F>(self, mut start: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = PAUSE.0;
        let mut told = None;
        loop {
            let (name, by) = match start().await {
                Err(Error::CacheInUse { name, by }) => (name, by),
                done => return done,
            };
            let now = Some((name, by));
            if told != now
                && let Some((cache, by)) = now.clone()
            {
                self.events.send(Event::CacheWaiting {
                    cache,
                    sandbox: self.sandbox.into(),
                    by,
                    cell: self.cell.map(str::to_owned),
                    base: self.base.map(str::to_owned),
                });
                told = now;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
            }
            pause = (pause * 3 / 2).min(PAUSE.1);
        }
    }
}
