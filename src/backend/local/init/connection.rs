//! A control connection: one request at a time.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::backend::local::protocol::{Refusal, Reply};

/// What to do with a connection after a request.
pub enum Next {
    /// Wait for more.
    Stay,
    /// Close it.
    Leave,
    /// End the sandbox when its processes have ended, or after this long.
    End {
        /// How long at most.
        grace: Duration,
    },
}

/// A peer and what it started.
pub struct Connection {
    /// Unique for the life of the sandbox.
    pub id: u64,
    /// The socket.
    pub socket: OwnedFd,
    /// The command it runs.
    pub command: Option<Pid>,
    /// The mark of everything that command starts.
    pub tag: Option<u64>,
    /// The command outlives the connection.
    pub detached: bool,
    /// The command has ended; what it left in the background stays.
    pub ended: bool,
}

impl Connection {
    /// A new peer.
    pub fn new(id: u64, socket: OwnedFd) -> Self {
        Connection { id, socket, command: None, tag: None, detached: false, ended: false }
    }

    /// Whether a request has come, or the peer has gone again.
    pub fn has_spoken(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }
}

/// The answer of a sandbox that is frozen.
pub fn frozen() -> Reply {
    Reply::Refused { code: Refusal::Frozen, what: String::new(), message: String::new() }
}
