//! `[hooks]`: what is run when the machine starts and stops, on the host and in it.

use std::time::Duration;

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before it starts: where it fails, the machine does not start.
    PreStart,
    /// When it is ready.
    PostStart,
    /// Before it is stopped.
    PreStop,
    /// When it is gone, however that came.
    PostStop,
}

impl When {
    /// All, in the order of a machine's life.
    pub const ALL: [When; 4] = [When::PreStart, When::PostStart, When::PreStop, When::PostStop];

    /// The key.
    pub fn word(self) -> &'static str {
        match self {
            When::PreStart => "pre_start",
            When::PostStart => "post_start",
            When::PreStop => "pre_stop",
            When::PostStop => "post_stop",
        }
    }
}

/// Where a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Where {
    /// As root of the host.
    Host,
    /// As root of the machine: before its start and after its end, in its root file system alone,
    /// without a network.
    Guest,
}

impl Where {
    /// The key.
    pub fn word(self) -> &'static str {
        match self {
            Where::Host => "host",
            Where::Guest => "guest",
        }
    }
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub when: When,
    /// Where.
    pub place: Where,
    /// A script: by its first line's interpreter where that begins with `#!`, else by `sh`.
    pub script: String,
    /// How long it may take.
    pub timeout: Duration,
}

/// How long a hook may take when nothing is said.
pub const TIMEOUT: Duration = Duration::from_secs(30);

impl Hook {
    /// The script with an interpreter.
    pub fn file(&self) -> String {
        let end = if self.script.ends_with('\n') { "" } else { "\n" };
        if self.script.starts_with("#!") {
            format!("{}{end}", self.script)
        } else {
            format!("#!/bin/sh\nset -e\n{}{end}", self.script)
        }
    }
}

/// Reads the table.
pub(super) fn read(node: &Node) -> Result<Vec<Hook>> {
    let reader = Reader::new(node)?;
    let mut all = Vec::new();
    let timeout = reader.duration("timeout")?.unwrap_or(TIMEOUT);
    for place in [Where::Host, Where::Guest] {
        let Some(node) = reader.node(place.word()) else { continue };
        let inner = Reader::new(node)?;
        for when in When::ALL {
            let Some(node) = inner.node(when.word()) else { continue };
            let (script, timeout) = match &node.value {
                Value::Table(_) => {
                    let hook = Reader::new(node)?;
                    let script = hook.text("run")?.ok_or_else(|| {
                        MachineError::invalid(hook.place(), "the hook does not say what to run")
                            .or_hint("write it as { run = \"…\", timeout = \"1m\" }")
                    })?;
                    let timeout = hook.duration("timeout")?.unwrap_or(timeout);
                    hook.finish()?;
                    (script, timeout)
                }
                _ => (text(node)?, timeout),
            };
            if script.trim().is_empty() {
                continue;
            }
            if timeout.is_zero() {
                return Err(MachineError::invalid(
                    node.origin.place(),
                    "a hook that may take no time can't be run",
                ));
            }
            all.push(Hook { when, place, script, timeout });
        }
        inner.finish()?;
    }
    reader.finish()?;
    Ok(all)
}
