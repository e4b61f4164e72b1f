//! What the scripts of a run may use.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{ErrorKind, ScriptError};
use crate::sandbox::format_size;

/// What a run may use up, and what it has used so far. All bodies of a run share one.
#[derive(Debug)]
pub struct Budget {
    operations: u64,
    used: AtomicU64,
    memory: u64,
    /// What the process took when the run began.
    before: u64,
}

/// How much memory a script's own values may take, where nothing else is said.
pub(super) const MEMORY: u64 = 1 << 30;

impl Budget {
    pub(super) fn new(operations: Option<u64>, memory: Option<u64>) -> Budget {
        Budget {
            operations: operations.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
            memory: memory.unwrap_or(MEMORY),
            before: resident(),
        }
    }

    /// Takes note of operations that were done. Whether there are any left.
    pub(super) fn spend(&self, operations: u64) -> bool {
        let used = self.used.fetch_add(operations, Ordering::Relaxed);
        used.saturating_add(operations) <= self.operations
    }

    /// Whether the whole process has grown by more than the scripts may take since the run began.
    /// For languages that can't tell how much their own values take.
    pub(super) fn outgrown(&self) -> bool {
        resident().saturating_sub(self.before) > self.memory
    }

    pub(super) fn too_many_operations(&self) -> ScriptError {
        ScriptError::new(
            ErrorKind::Limit,
            format!("the script took more than {} operations", self.operations),
        )
        .hint("a loop may have no end")
    }

    pub(super) fn too_much_memory(&self) -> ScriptError {
        ScriptError::new(
            ErrorKind::Limit,
            format!("the script uses more than {} of memory", format_size(self.memory)),
        )
        .hint("keep large data in files of the sandbox")
    }
}

/// How much memory the process has, in bytes; 0 where that is not known.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}
