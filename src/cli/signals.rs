//! Ctrl-C: once stops and cleans up, twice kills, three times leaves at once.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::{CommandError, Result};
use crate::sandbox::Cancel;
use crate::workflow::{Event, EventSink, Level};

/// What SIGINT, SIGTERM and SIGHUP do to this process.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first: stop, and clean up.
    pub stop: Cancel,
    /// Cancelled by the second: kill what still runs.
    pub kill: Cancel,
    first: Arc<AtomicI32>,
    events: Arc<Mutex<Option<EventSink>>>,
    interrupts: Arc<Mutex<Interrupts>>,
}

/// What Ctrl-C is for.
#[derive(Clone, Debug, Default)]
pub enum Interrupts {
    /// To end this process.
    #[default]
    Process,
    /// To end the call that runs: cancels this.
    Call(Cancel),
    /// Nothing: nothing runs.
    Nothing,
}

impl Signals {
    /// Starts watching, on a thread of its own: whatever blocks the rest, the third one ends it.
    pub fn watch(output: Output) -> Result<Signals> {
        let signals = Signals {
            stop: Cancel::new(),
            kill: Cancel::new(),
            first: Arc::default(),
            events: Arc::default(),
            interrupts: Arc::default(),
        };
        let fail = |error: std::io::Error| CommandError::system("signals can't be watched", &error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
        let watched = {
            let _entered = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
                .map(|kind| signal(kind).map(|stream| (kind.as_raw_value(), stream)))
        };
        let [interrupt, terminate, hangup] = watched;
        let mut streams =
            (interrupt.map_err(fail)?, terminate.map_err(fail)?, hangup.map_err(fail)?);
        let shared = signals.clone();
        let body = move || {
            runtime.block_on(async move {
                let (mut count, mut pressed) = (0, 0);
                loop {
                    let number = tokio::select! {
                        _ = streams.0.1.recv() => streams.0.0,
                        _ = streams.1.1.recv() => streams.1.0,
                        _ = streams.2.1.recv() => streams.2.0,
                    };
                    let interrupts = shared.interrupts().clone();
                    if number == streams.0.0 && !matches!(interrupts, Interrupts::Process) {
                        pressed = shared.interrupted(&interrupts, pressed, &output);
                    } else {
                        count += 1;
                        shared.arrived(number, count, &output);
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".into()).spawn(body).map_err(fail)?;
        Ok(signals)
    }

    fn arrived(&self, number: i32, count: u32, output: &Output) {
        match count {
            1 => {
                self.first.store(number, Ordering::Relaxed);
                self.say(output, "stopping and cleaning up; once more to kill what still runs");
                self.stop.cancel();
            }
            2 => {
                self.say(output, "killing what still runs; once more to leave at once");
                self.kill.cancel();
            }
            _ => {
                super::terminal::restore();
                output.warn("left at once; 'sandscript gc' finds what is left");
                std::process::exit(128 + number);
            }
        }
    }

    /// From now on, this is what Ctrl-C is for.
    pub fn interrupt(&self, what: Interrupts) {
        *self.interrupts() = what;
    }

    fn interrupts(&self) -> std::sync::MutexGuard<'_, Interrupts> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ctrl-C that is not for the process; `pressed` counts those for one call.
    fn interrupted(&self, what: &Interrupts, pressed: u32, output: &Output) -> u32 {
        let Interrupts::Call(call) = what else { return 0 };
        let pressed = if call.is_cancelled() { pressed + 1 } else { 1 };
        match pressed {
            1 => call.cancel(),
            2 => self.say(output, "still cleaning up; once more to leave at once"),
            _ => {
                output.warn("left at once; 'sandscript gc' finds what is left");
                std::process::exit(128 + SignalKind::interrupt().as_raw_value());
            }
        }
        pressed
    }

    /// From now on, what is said goes to the reports of a run: nobody else may write on a screen
    /// that they draw on. `None` ends that.
    pub fn tell(&self, events: Option<EventSink>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }

    /// Says something where it does not disturb.
    pub fn say(&self, output: &Output, text: &str) {
        match &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(events) => {
                events.send(Event::Log { level: Level::Info, text: text.into(), cell: None });
            }
            None => output.note(text),
        }
    }

    /// The exit code of a process that the first signal ended; none when there was none.
    pub fn code(&self) -> Option<u8> {
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            number => Some(128 + number as u8),
        }
    }
}
