//! The processes of a sandbox, as its init sees them in `/proc`.

use std::fs;

use crate::backend::local::sys;

/// Ids of all processes but init. Zombies are left out.
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
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The state letter of `/proc/PID/stat`.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
