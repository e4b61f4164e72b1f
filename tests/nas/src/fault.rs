//! Faults on demand.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fail::{Fail, errno};

/// One method that fails.
#[derive(Debug, Clone)]
pub struct FailRule {
    /// The method.
    pub method: String,
    /// The errno that it fails with.
    pub errno: i32,
    /// How often; `None` is always.
    pub left: Option<u32>,
}

/// Faults that are switched on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How long each call waits before it is looked at.
    pub latency: Duration,
    /// What is added to that, at most.
    pub jitter: Duration,
    /// Methods that fail.
    pub fails: Vec<FailRule>,
    /// Each connection is cut after this many frames of the client.
    pub drop_after: Option<u64>,
    /// At so many frames from clients from now on a connection is cut, once; whether what the frame asks
    /// for is done all the same.
    pub drop_once: Option<(u64, bool)>,
    /// The same for what is typed into shells.
    pub drop_shell_once: Option<(u64, bool)>,
    /// A connection is cut when it calls this method, before it is run.
    pub drop_at: Vec<String>,
    /// The middleware restarts this often.
    pub restart_every: Option<Duration>,
    /// Addresses are given out this much later.
    pub dhcp_delay: Duration,
    /// The guests' sshd starts this much later.
    pub sshd_delay: Duration,
    /// This many deletes fail because storage is busy.
    pub busy_deletes: u32,
    /// Whether the pool is full.
    pub full: bool,
    /// How far the server's clock is ahead, in milliseconds.
    pub skew: i64,
}

impl Faults {
    /// Switches something on or off: `latency 20`, `fail METHOD=ERR[:n]`, `drop-at METHOD`, `clear`.
    pub fn set(&mut self, command: &str) -> Result<(), String> {
        let (name, value) = command.trim().split_once(' ').unwrap_or((command.trim(), ""));
        let millis =
            || value.parse().map(Duration::from_millis).map_err(|e| format!("{value}: {e}"));
        let number = || value.parse::<u64>().map_err(|e| format!("{value}: {e}"));
        match name {
            "latency" => self.latency = millis()?,
            "jitter" => self.jitter = millis()?,
            "fail" => self.fails.push(rule(value)?),
            "drop-after" => self.drop_after = Some(number()?),
            "drop-once" | "drop-shell-once" => {
                let (count, done) = value.split_once(' ').unwrap_or((value, ""));
                let count = count.parse().map_err(|e| format!("{value}: {e}"))?;
                let once = match name {
                    "drop-once" => &mut self.drop_once,
                    _ => &mut self.drop_shell_once,
                };
                *once = Some((count, done == "done"));
            }
            "drop-at" => self.drop_at.push(value.to_owned()),
            "restart-every" => self.restart_every = Some(millis()?),
            "dhcp-delay" => self.dhcp_delay = millis()?,
            "sshd-delay" => self.sshd_delay = millis()?,
            "busy-deletes" => self.busy_deletes = number()? as u32,
            "full" => self.full = value != "off",
            "skew" => self.skew = value.parse().map_err(|e| format!("{value}: {e}"))?,
            "clear" => *self = Faults::default(),
            _ => return Err(format!("no such fault: {name}")),
        }
        Ok(())
    }

    /// Whether a connection is to be cut at this frame, and whether that is done all the same.
    pub fn drops(&mut self) -> Option<bool> {
        counted(&mut self.drop_once)
    }

    /// The same for a shell's line, and what is typed into it.
    pub fn drops_shell(&mut self) -> Option<bool> {
        counted(&mut self.drop_shell_once)
    }

    /// Whether `method` is to fail now; counts down.
    pub fn fails(&mut self, method: &str) -> Option<Fail> {
        let at = self.fails.iter().position(|r| r.method == method)?;
        let errno = self.fails[at].errno;
        if let Some(left) = &mut self.fails[at].left {
            *left -= 1;
            if *left == 0 {
                self.fails.remove(at);
            }
        }
        Some(Fail::Call(errno, "Fault on demand".into()))
    }

    /// What is switched on.
    pub fn describe(&self) -> Value {
        json!({
            "latency": self.latency.as_millis() as u64, "jitter": self.jitter.as_millis() as u64,
            "fail": self.fails.iter().map(|r| format!("{}={}", r.method, crate::fail::errname(r.errno))).collect::<Vec<_>>(),
            "drop_after": self.drop_after, "drop_once": self.drop_once.map(|(left, _)| left),
            "drop_shell_once": self.drop_shell_once.map(|(left, _)| left), "drop_at": self.drop_at,
            "restart_every": self.restart_every.map(|d| d.as_millis() as u64),
            "dhcp_delay": self.dhcp_delay.as_millis() as u64,
            "sshd_delay": self.sshd_delay.as_millis() as u64,
            "busy_deletes": self.busy_deletes, "full": self.full, "skew": self.skew,
        })
    }
}

/// Counts one down; what was to be at its end, when it is there.
fn counted(once: &mut Option<(u64, bool)>) -> Option<bool> {
    let (left, done) = once.as_mut()?;
    *left = left.saturating_sub(1);
    let done = *done;
    if *left > 0 {
        return None;
    }
    *once = None;
    Some(done)
}

/// Reads `METHOD=ERR[:n]`.
pub fn rule(text: &str) -> Result<FailRule, String> {
    let (method, error) = text.split_once('=').ok_or("a fault is METHOD=ERR or METHOD=ERR:n")?;
    let (name, count) = error.split_once(':').map_or((error, None), |(e, n)| (e, Some(n)));
    let left = match count {
        Some(n) => {
            Some(n.parse::<u32>().ok().filter(|n| *n > 0).ok_or(format!("{n} is no count"))?)
        }
        None => None,
    };
    let errno = errno(name).ok_or(format!("{name} is no errno that the server knows"))?;
    Ok(FailRule { method: method.to_owned(), errno, left })
}
