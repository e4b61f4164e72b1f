//! Cases that block the thread they run on: no time limit of the runtime ends those.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::LONGEST_CLEANING;
use crate::case::LONGEST;

/// So many mean that nothing goes on at all: the runtime's own threads are blocked.
const ALL: usize = 2;
static BLOCKED: AtomicUsize = AtomicUsize::new(0);

/// Runs a case on a thread of its own. When it goes on for longer than its limits allow, says where this process
/// stands and leaves it, so that the others go on;
/// ends this program when it is not the only one.
pub fn watched(
    name: &str,
    case: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let most = LONGEST + LONGEST_CLEANING + Duration::from_secs(30);
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(case()));
    match wait.recv_timeout(most) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            eprintln!("{name} blocks its thread:");
            stands();
            if BLOCKED.fetch_add(1, Ordering::Relaxed) + 1 >= ALL {
                eprintln!("{ALL} cases blocked their threads: the others are not tried");
                std::process::exit(101);
            }
            Err(format!("blocked its thread for {most:?}"))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("panicked outside the case".into()),
    }
}

/// What each thread of this process waits for, and what it started.
fn stands() {
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| {
            let text = std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            text.trim().replace('\n', " < ")
        };
        eprintln!("thread {}: {} {}", read("comm"), read("wchan"), read("stack"));
    }
    let _ = std::process::Command::new("ps")
        .args(["-e", "--forest", "-o", "pid,ppid,etimes,stat,wchan:20,args:120"])
        .status();
}
