//! Faults on purpose, and a log of what was asked.

use std::fmt;
use std::time::Duration;

use crate::sandbox::Error;

macro_rules! verbs {
    ($($variant:ident $word:literal,)*) => {
        /// A call of [`crate::sandbox::Backend`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Verb {
            $(#[doc = concat!("`", $word, "`.")] $variant,)*
        }

        impl Verb {
            /// The name of the trait's function.
            pub fn as_str(self) -> &'static str {
                match self { $(Verb::$variant => $word,)* }
            }
        }
    };
}

verbs! {
    Adopt "adopt",
    Allow "allow",
    Caches "caches",
    Clone "clone",
    Create "create",
    Delete "delete",
    DeleteCache "delete_cache",
    DeleteSnapshot "delete_snapshot",
    Deny "deny",
    EgressLog "egress_log",
    Fingerprint "fingerprint",
    Freeze "freeze",
    Gc "gc",
    Get "get",
    Keep "keep",
    List "list",
    Members "members",
    Mkdir "mkdir",
    Pack "pack",
    Policy "policy",
    Prepare "prepare",
    Publish "publish",
    Read "read",
    ReadDir "read_dir",
    Ready "ready",
    Remove "remove",
    Restore "restore",
    SetPolicy "set_policy",
    Snapshot "snapshot",
    Snapshots "snapshots",
    Spawn "spawn",
    Start "start",
    Stat "stat",
    Stop "stop",
    Thaw "thaw",
    Unpack "unpack",
    Unpublish "unpublish",
    Write "write",
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a fault does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// The call fails with this.
    Error(Error),
    /// The call takes this much longer.
    Delay(Duration),
    /// The call never ends, except by its cancel token.
    Hang,
}

/// A fault to inject: which calls it hits, and what it does to them.
///
/// `create` and `clone` are hit while the sandbox is half made, all others before they change
/// anything.
#[derive(Clone, Debug)]
pub struct Fault {
    verb: Verb,
    sandbox: Option<String>,
    detail: Option<String>,
    nth: Option<usize>,
    effect: Effect,
}

impl Fault {
    /// Hits every call of `verb`.
    pub fn new(verb: Verb, effect: Effect) -> Self {
        Fault { verb, sandbox: None, detail: None, nth: None, effect }
    }

    /// Only calls on this sandbox.
    pub fn on(mut self, sandbox: impl Into<String>) -> Self {
        self.sandbox = Some(sandbox.into());
        self
    }

    /// Only calls whose [`Call::detail`] holds this text.
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Only the nth of the calls that match, counted from 1 when the fault is injected.
    pub fn nth(mut self, nth: usize) -> Self {
        self.nth = Some(nth);
        self
    }
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub verb: Verb,
    /// On which sandbox; empty for `list`, `gc` and `fingerprint`.
    pub sandbox: String,
    /// What else tells calls apart: the command, path, label, image or the clone's name.
    pub detail: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verb)?;
        for part in [&self.sandbox, &self.detail] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        Ok(())
    }
}

/// The injected faults and the log.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<(Fault, usize)>,
    calls: Vec<Call>,
}

impl Faults {
    pub fn inject(&mut self, fault: Fault) {
        self.armed.push((fault, 0));
    }

    pub fn clear(&mut self) {
        self.armed.clear();
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.clone()
    }

    pub fn forget_calls(&mut self) {
        self.calls.clear();
    }

    /// Logs the call and says what is to happen to it.
    pub fn record(&mut self, call: Call) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (fault, seen) in &mut self.armed {
            let hit = fault.verb == call.verb
                && fault.sandbox.as_ref().is_none_or(|name| *name == call.sandbox)
                && fault.detail.as_ref().is_none_or(|text| call.detail.contains(text));
            if hit {
                *seen += 1;
                if fault.nth.is_none_or(|nth| nth == *seen) {
                    effects.push(fault.effect.clone());
                }
            }
        }
        self.calls.push(call);
        effects
    }
}
