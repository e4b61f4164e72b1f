//! A thread for one sandbox's work. How many connections a guest opens is its own affair: the kernel shares
//! the processors among threads, so another guest's work waits for one turn and not for a thousand.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// It keeps little there; what is on its way is elsewhere.
const STACK: usize = 512 << 10;

/// As much of a name as the kernel shows.
const NAME: usize = 15;

/// Ends, with all that runs in it, when it is dropped.
pub struct Thread {
    handle: Handle,
    #[expect(dead_code, reason = "held for its end")]
    end: Option<oneshot::Sender<()>>,
}

impl Thread {
    /// Called as the sandbox, for who looks at a list of threads. Where there may be no more threads, the
    /// work is done in the calling one.
    pub fn start(name: &str) -> Thread {
        Thread::own(name).unwrap_or_else(|_| Thread { handle: Handle::current(), end: None })
    }

    fn own(name: &str) -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let name = name.chars().take(NAME).collect();
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Thread { handle, end: Some(end) })
    }

    /// Where its work is started.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}
