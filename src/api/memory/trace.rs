//! What a cell depended on, found while it ran.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::super::{FnSpec, Handle, Object, Value};
use crate::transfer::PackOptions;

/// Something outside that a cell read.
#[derive(Clone, Debug)]
pub(super) enum Read {
    /// A host tree that it pushed.
    Tree { path: PathBuf, options: PackOptions, digest: blake3::Hash },
    /// What it pulled to the host: no dependency, but it has to be there still.
    Output { path: PathBuf, digest: blake3::Hash },
    /// A variable of the host's environment.
    Env { name: String, value: Option<String> },
    /// An image that it made a sandbox from.
    Image { image: Option<String>, sha256: Option<String>, fingerprint: String },
}

/// What a cell read so far, and whether that is all.
#[derive(Default)]
pub(in crate::api) struct Trace(Mutex<State>);

#[derive(Default)]
struct State {
    reads: Vec<Read>,
    /// The handles that it got itself, by address. Held weakly, so that no address is used again.
    own: HashMap<usize, Weak<dyn Object>>,
    /// Why it has to run every time.
    doubt: Option<String>,
}

/// Functions that say nothing of the world outside.
const PLAIN: &[&str] = &[
    "args",
    "assert",
    "assert_eq",
    "backend",
    "check_options",
    "env",
    "fail",
    "json_parse",
    "json_stringify",
    "log",
    "param",
    "sandbox",
    "seconds",
    "sleep",
];

/// Types of which every method is about the object alone.
const CLOSED: &[&str] = &["Base", "Cell", "Error", "Lines", "Process", "Result"];

/// The methods of a sandbox that are about it alone, or of which the recorder is told more.
const SANDBOX: &[&str] = &[
    "clone",
    "delete",
    "delete_snapshot",
    "exec",
    "exists",
    "freeze",
    "info",
    "keep",
    "list",
    "mkdir",
    "name",
    "pull",
    "push",
    "read",
    "read_bytes",
    "ready",
    "remove",
    "restart",
    "restore",
    "run",
    "snapshot",
    "snapshots",
    "spawn",
    "start",
    "stat",
    "state",
    "stop",
    "thaw",
    "write",
];

/// Types whose objects are values: their content was told to who has them.
const VALUES: &[&str] = &["Base", "Error", "Result"];

impl Trace {
    /// A call is about to be made.
    pub fn call(&self, spec: &FnSpec, receiver: Option<&Handle>, args: &[Value]) {
        let known = match spec.receiver {
            Some("Sandbox") => SANDBOX.contains(&spec.name),
            Some(receiver) => CLOSED.contains(&receiver),
            None => PLAIN.contains(&spec.name),
        };
        if !known {
            self.doubt(|| format!("it calls {}", spec.title()));
        }
        if let Some(handle) = receiver {
            self.check(handle);
        }
        args.iter().for_each(|arg| self.check_all(arg));
    }

    /// The call gave this.
    pub fn gave(&self, value: &Value) {
        match value {
            Value::Handle(handle) => self.own(handle),
            Value::List(values) => values.iter().for_each(|value| self.gave(value)),
            Value::Map(map) => map.values().for_each(|value| self.gave(value)),
            _ => {}
        }
    }

    /// This handle is the cell's own.
    pub fn own(&self, handle: &Handle) {
        if !VALUES.contains(&handle.0.type_name()) {
            self.state().own.insert(address(handle), Arc::downgrade(&handle.0));
        }
    }

    /// It asked for a variable of the host.
    pub fn env(&self, name: &str, value: Option<&str>) {
        self.read(Read::Env { name: name.to_owned(), value: value.map(str::to_owned) });
    }

    /// It made a sandbox from an image.
    pub fn image(&self, image: Option<&str>, sha256: Option<&str>, fingerprint: &str) {
        self.read(Read::Image {
            image: image.map(str::to_owned),
            sha256: sha256.map(str::to_owned),
            fingerprint: fingerprint.to_owned(),
        });
    }

    pub(super) fn read(&self, read: Read) {
        self.state().reads.push(read);
    }

    /// It has to run every time, and why.
    pub fn doubt(&self, why: impl FnOnce() -> String) {
        let mut state = self.state();
        if state.doubt.is_none() {
            state.doubt = Some(why());
        }
    }

    /// What it read, when that is all it depends on.
    pub(super) fn reads(&self) -> Option<Vec<Read>> {
        let state = self.state();
        state.doubt.is_none().then(|| state.reads.clone())
    }

    fn check_all(&self, value: &Value) {
        match value {
            Value::Handle(handle) => self.check(handle),
            Value::List(values) => values.iter().for_each(|value| self.check_all(value)),
            Value::Map(map) => map.values().for_each(|value| self.check_all(value)),
            _ => {}
        }
    }

    fn check(&self, handle: &Handle) {
        let known = VALUES.contains(&handle.0.type_name())
            || self.state().own.contains_key(&address(handle));
        if !known {
            self.doubt(|| format!("it uses {} from outside of it", handle.0.describe()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(handle: &Handle) -> usize {
    Arc::as_ptr(&handle.0).cast::<()>() as usize
}
