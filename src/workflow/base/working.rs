//! Which base sandboxes are worked on in this process right now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

static WORKED_ON: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

/// While it lives, its sandbox is being made, or a step done in it.
///
/// Who waits for another base of its own run asks for this: one that nobody works on may belong to
/// the very script that waits, and would be waited for until the end of time.
#[derive(Debug)]
pub(super) struct Working(String);

impl Working {
    pub fn on(sandbox: &str) -> Working {
        let mut all = all();
        *all.get_or_insert_default().entry(sandbox.into()).or_default() += 1;
        Working(sandbox.into())
    }

    pub fn is_on(sandbox: &str) -> bool {
        all().as_ref().is_some_and(|all| all.contains_key(sandbox))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut all = all();
        let all = all.get_or_insert_default();
        if let Some(count) = all.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.0);
            }
        }
    }
}

fn all() -> MutexGuard<'static, Option<HashMap<String, usize>>> {
    WORKED_ON.lock().unwrap_or_else(PoisonError::into_inner)
}
