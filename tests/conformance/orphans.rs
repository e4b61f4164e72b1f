//! Finds processes that outlive the backends: whatever a backend leaves running ends up here.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};

/// Makes this process the parent of everything that its children leave behind.
pub fn adopt() {
    let _ = set_child_subreaper(Some(getpid()));
}

/// Waits until no process is left; else says which there are.
pub fn none_left() -> Result<(), String> {
    let start = Instant::now();
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let left = children();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(30) {
            return Err(format!("processes are left running: {}", left.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn children() -> Vec<String> {
    let own = getpid().as_raw_nonzero().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (head, tail) = stat.rsplit_once(") ")?;
            let parent = tail.split(' ').nth(1)?;
            (parent == own).then(|| format!("{head})"))
        })
        .collect()
}
