//! The files of a run, compiled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::rhai::AST;

use crate::lang::Source;

/// A compiled file: the script itself or a module.
pub(super) struct Unit {
    pub(super) ast: AST,
    pub(super) source: Source,
    /// Whether it is a part of sandscript, which errors don't lead into.
    pub(super) standard: bool,
}

/// All files of a run so far, by the name in their errors.
#[derive(Default)]
pub(super) struct Units(Mutex<HashMap<String, Arc<Unit>>>);

impl Units {
    pub(super) fn add(&self, unit: &Arc<Unit>) {
        let name = unit.source.name.to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(unit));
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Unit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
