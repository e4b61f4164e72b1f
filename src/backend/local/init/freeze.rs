//! Lets the guest's processes stand still: by its cgroup where there is one, else by SIGSTOP.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::processes;
use crate::backend::local::protocol::{Doing, Failure};
use crate::backend::local::sys;

/// The freezer of one sandbox.
pub struct Freezer {
    control: Option<Control>,
    stopped: Vec<i32>,
    frozen: bool,
    held: Option<u64>,
}

struct Control {
    freeze: File,
    events: File,
}

impl Freezer {
    /// With the `cgroup.freeze` and `cgroup.events` files of the commands' cgroup, or without.
    pub fn new(control: Option<(OwnedFd, OwnedFd)>) -> Self {
        let control = control
            .map(|(freeze, events)| Control { freeze: freeze.into(), events: events.into() });
        Freezer { control, stopped: Vec::new(), frozen: false, held: None }
    }

    /// Frozen by the user's wish.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Which connection holds the sandbox still.
    pub fn held_by(&self) -> Option<u64> {
        self.held
    }

    /// Freezes for good.
    pub fn freeze(&mut self) -> Result<(), Failure> {
        self.still()?;
        self.frozen = true;
        Ok(())
    }

    /// Freezes for one connection, until it thaws or leaves.
    pub fn hold(&mut self, connection: u64) -> Result<(), Failure> {
        self.held = Some(connection);
        if self.frozen { Ok(()) } else { self.still() }
    }

    /// Ends a hold; without one, ends a freeze.
    pub fn thaw(&mut self) -> Result<(), Failure> {
        if self.held.take().is_some() && self.frozen {
            return Ok(());
        }
        self.frozen = false;
        if let Some(control) = &mut self.control {
            control.freeze.write_all(b"0").doing("thawing the cgroup")?;
        }
        for pid in self.stopped.drain(..) {
            let _ = sys::send_signal(pid, libc::SIGCONT);
        }
        Ok(())
    }

    fn still(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(5);
        if let Some(control) = &mut self.control {
            control.freeze.write_all(b"1").doing("freezing the cgroup")?;
            while !control.is_frozen() && processes::count() > 0 {
                if Instant::now() > deadline {
                    let _ = control.freeze.write_all(b"0");
                    return Err(Failure {
                        what: "freezing the cgroup".into(),
                        errno: libc::ETIMEDOUT,
                    });
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            return Ok(());
        }
        // Processes that were stopped already stay so after the thaw.
        let before: Vec<i32> = processes::all()
            .into_iter()
            .filter(|pid| processes::stands_still(*pid, false))
            .collect();
        let started = Instant::now();
        loop {
            let waiting = started.elapsed() > Duration::from_millis(20);
            let moving: Vec<i32> = processes::all()
                .into_iter()
                .filter(|pid| !processes::stands_still(*pid, waiting))
                .collect();
            if moving.is_empty() {
                return Ok(());
            }
            for pid in moving {
                let _ = sys::send_signal(pid, libc::SIGSTOP);
                if !self.stopped.contains(&pid) && !before.contains(&pid) {
                    self.stopped.push(pid);
                }
            }
            if Instant::now() > deadline {
                let _ = self.thaw();
                return Err(Failure {
                    what: "stopping the processes".into(),
                    errno: libc::ETIMEDOUT,
                });
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Control {
    fn is_frozen(&mut self) -> bool {
        let mut text = String::new();
        self.events.rewind().is_ok()
            && self.events.read_to_string(&mut text).is_ok()
            && text.lines().any(|line| line == "frozen 1")
    }
}
