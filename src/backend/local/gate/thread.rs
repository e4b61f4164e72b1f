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
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let name = name.chars().take(NAME).collect();
        // What it runs in is made and ends in there: elsewhere it might be dropped by a task of another one.
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = tell.send(Ok(runtime.handle().clone()));
                    let _ = runtime.block_on(ended);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let handle = told.recv().map_err(io::Error::other)??;
        Ok(Thread { handle, end: Some(end) })
    }

    /// Where its work is started.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_work_is_in_it_and_ends_with_it() {
        let thread = Thread::start("a-name-that-is-too-long");
        let name = async { std::thread::current().name().map(str::to_owned) };
        let name = thread.handle().spawn(name).await.unwrap();
        assert_eq!(name.as_deref(), Some("a-name-that-is-"));
        let (held, gone) = oneshot::channel::<()>();
        thread.handle().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(thread);
        assert!(gone.await.is_err());
    }
}
