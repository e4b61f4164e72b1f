//! Cases that block the thread they run on: no time limit ends those.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use crate::LONGEST_CLEANING;
use crate::case::LONGEST;

static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());
static WATCHER: Once = Once::new();

/// Watches over a case until it is dropped.
pub struct Watched(String);

impl Drop for Watched {
    fn drop(&mut self) {
        RUNNING.lock().unwrap().remove(&self.0);
    }
}

/// Ends this program, and says where it stands, when the case goes on for longer than its limits allow.
pub fn watch(case: String) -> Watched {
    WATCHER.call_once(|| {
        std::thread::spawn(watcher);
    });
    RUNNING.lock().unwrap().insert(case.clone(), Instant::now());
    Watched(case)
}

fn watcher() {
    let most = LONGEST + LONGEST_CLEANING + Duration::from_secs(30);
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let running = RUNNING.lock().unwrap().clone();
        if running.values().any(|since| since.elapsed() > most) {
            for (case, since) in running {
                eprintln!("FAILED, hangs: {case}, for {} s", since.elapsed().as_secs());
            }
            stands();
            std::process::exit(101);
        }
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
        .args(["-e", "--forest", "-o", "pid,ppid,etimes,stat,wchan:20,args"])
        .status();
}
