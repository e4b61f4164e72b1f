//! The threads that script bodies run on.
//!
//! In Rhai a body blocks its thread while it waits for the host, and its recursion is native
//! recursion: so each body that runs has a thread of its own, with a stack of known size. In Lua all
//! bodies of a script share one thread, which is not one of the runtime's: a script that computes
//! keeps nobody else waiting. Idle threads are used again for a few seconds.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Virtual: only what a body uses becomes memory. Enough for data that is nested as deep as the
/// engine allows.
const STACK: usize = 64 << 20;
const IDLE: Duration = Duration::from_secs(3);

static FREE: Mutex<Vec<(u64, Sender<Job>)>> = Mutex::new(Vec::new());

fn free() -> std::sync::MutexGuard<'static, Vec<(u64, Sender<Job>)>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on a thread of its own. None when no thread could be started or `work` panicked.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    begin(move || {
        let _ = answer.send(work());
    })?;
    answered.await.ok()
}

/// Starts `work` on a thread of its own. None when no thread could be started.
pub(super) fn begin(work: impl FnOnce() + Send + 'static) -> Option<()> {
    let job: Job = Box::new(work);
    let waiting = free().pop();
    let job = match waiting {
        Some((_, sender)) => match sender.send(job) {
            Ok(()) => None,
            Err(back) => Some(back.0),
        },
        None => Some(job),
    };
    if let Some(job) = job {
        start(job).ok()?;
    }
    Some(())
}

fn start(first: Job) -> std::io::Result<()> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let id = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (sender, jobs) = channel();
    std::thread::Builder::new()
        .name("script".into())
        .stack_size(STACK)
        .spawn(move || work(id, first, &sender, &jobs))
        .map(drop)
}

fn work(id: u64, first: Job, sender: &Sender<Job>, jobs: &Receiver<Job>) {
    let mut job = first;
    loop {
        // A body that panics ends as an error of the one who waits, not of the thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        free().push((id, sender.clone()));
        job = match jobs.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let mut free = free();
                let before = free.len();
                free.retain(|(other, _)| *other != id);
                if free.len() < before {
                    return;
                }
                drop(free);
                // Somebody took this thread at that very moment; the job is on its way.
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_panic_is_no_answer_and_the_next_body_runs() {
        let answer: Option<()> = super::run(|| std::panic::resume_unwind(Box::new(1))).await;
        assert!(answer.is_none());
        assert_eq!(super::run(|| 7).await, Some(7));
    }
}
