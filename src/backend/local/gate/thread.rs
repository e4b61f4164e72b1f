//! A thread for one sandbox's work. How many connections a guest opens is its own affair: the kernel shares
//! the processors among threads, so another guest's work waits for one turn and not for a thousand. It can't be
//! in the sandbox's cgroup, since the threads of one process have to be in one of version 2; so it keeps to the
//! sandbox's share of the processors by itself.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// It keeps little there; what is on its way is elsewhere.
const STACK: usize = 512 << 10;

/// As much of a name as the kernel shows.
const NAME: usize = 15;

/// How often it looks how much it has worked, when it works and when it does not.
const BUSY: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_millis(250);

/// Ends, with all that runs in it, when it is dropped.
pub struct Thread {
    handle: Handle,
    #[expect(dead_code, reason = "held for its end")]
    end: Option<oneshot::Sender<()>>,
}

impl Thread {
    /// Called as the sandbox, for who looks at a list of threads. It uses no more than so many processors.
    /// Where there may be no more threads, the work is done in the calling one.
    pub fn start(name: &str, processors: Option<f64>) -> Thread {
        let own = Thread::own(name, processors);
        own.unwrap_or_else(|_| Thread { handle: Handle::current(), end: None })
    }

    fn own(name: &str, processors: Option<f64>) -> io::Result<Thread> {
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let name = name.chars().take(NAME).collect();
        // What it runs in is made and ends in there: elsewhere it might be dropped by a task of another one.
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = tell.send(Ok(runtime.handle().clone()));
                    if let Some(share) = processors.filter(|share| *share < 1.0) {
                        runtime.spawn(keep_to(share));
                    }
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

/// Has the thread stand still for as long as it has worked more than its share of one processor.
async fn keep_to(share: f64) {
    // What can be used up in one pause is made good in the next ones, of which none is long.
    let idle = IDLE.mul_f64(share).max(BUSY);
    let mut pause = idle;
    loop {
        let (start, before) = (Instant::now(), worked());
        tokio::time::sleep(pause).await;
        let used = worked().saturating_sub(before);
        let due = used.div_f64(share.max(0.01));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        pause = if used < BUSY.mul_f64(share) { idle } else { BUSY };
    }
}

/// How long this thread has had a processor.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_work_is_in_it_and_ends_with_it() {
        let thread = Thread::start("a-name-that-is-too-long", None);
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

    #[tokio::test]
    async fn it_keeps_to_its_share() {
        let thread = Thread::start("share", Some(0.2));
        // As one that has more to carry than there is time.
        let work = async {
            let (start, before) = (Instant::now(), worked());
            while start.elapsed() < Duration::from_secs(2) {
                tokio::task::yield_now().await;
            }
            (worked() - before).div_duration_f64(start.elapsed())
        };
        let used = thread.handle().spawn(work).await.unwrap();
        // It begins with what it has not used before.
        assert!(used < 0.45, "{used}");
    }
}
