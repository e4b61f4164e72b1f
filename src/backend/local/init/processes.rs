//! The processes of a sandbox, as its init sees them in `/proc`.

use std::fs;

use crate::backend::local::sys;

/// Ids of all processes but init. Zombies are left out, unless threads of theirs run on.
pub fn all() -> Vec<i32> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1 && alive(*pid))
        .collect()
}

/// How many there are.
pub fn count() -> usize {
    all().len()
}

fn alive(pid: i32) -> bool {
    match state(&format!("/proc/{pid}/stat")) {
        // The first thread may end before the others: it is a zombie then, and the process is not.
        Some('Z' | 'X') => threads(pid).any(|state| !matches!(state, 'Z' | 'X')),
        Some(_) => true,
        None => false,
    }
}

/// Whether nothing of a process moves: each of its threads is stopped or has ended. With
/// `waiting`, one that waits in the kernel counts too: it stops before it runs another instruction,
/// and a parent in vfork waits for as long as its child is stopped.
pub fn stands_still(pid: i32, waiting: bool) -> bool {
    threads(pid).all(|state| matches!(state, 'T' | 't' | 'Z' | 'X') || waiting && state == 'D')
}

fn threads(pid: i32) -> impl Iterator<Item = char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| state(task.path().join("stat").to_str()?))
}

/// The state letter of a `stat` file.
fn state(file: &str) -> Option<char> {
    let stat = fs::read_to_string(file).ok()?;
    // The program's name is in parentheses and may hold anything, parentheses too.
    stat.rsplit(") ").next()?.chars().next()
}

/// Kills every process that carries the mark. They are stopped first, so that none can fork away
/// while the rest is being killed.
pub fn kill_tagged(tag: u64) {
    for signal in [libc::SIGSTOP, libc::SIGKILL] {
        let mut known = Vec::new();
        for _ in 0..200 {
            let fresh: Vec<i32> = all()
                .into_iter()
                .filter(|pid| !known.contains(pid) && carries(*pid, tag))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for pid in &fresh {
                let _ = sys::send_signal(*pid, signal);
            }
            known.extend(fresh);
        }
    }
}

fn carries(pid: i32, tag: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/limits"))
        .is_ok_and(|limits| sys::tag_of(&limits) == Some(tag))
}
