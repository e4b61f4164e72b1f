//! What can be said about a script without running it.

mod call;
mod checker;
mod egress;
mod import;
mod matrix;
mod shape;
mod walk;

use crate::api::{ErrorKind, Position, Registry, ScriptError};

use super::tree::{At, Tree};
use super::{Source, language};
pub use checker::Checker;
use walk::Walk;

/// Something that is wrong in a script.
#[derive(Clone, Debug)]
pub struct Finding {
    /// A stable word for the kind of mistake.
    pub code: &'static str,
    /// What is wrong, where, and what to do.
    pub error: ScriptError,
}

/// The kinds of mistakes that [`check`] finds: the word and what it means.
pub const FINDINGS: &[(&str, &str)] = &[
    ("import-cycle", "modules import each other in a circle"),
    ("syntax", "the text can't be read as a script"),
    ("unknown-function", "a function that nobody has is called"),
    ("unknown-field", "a value has no such property"),
    ("unknown-module", "there is no such module, or none is imported by this name"),
    ("unknown-option", "an option that a function does not have"),
    ("unknown-variable", "a variable that is declared nowhere"),
    ("unreachable-include", "an include of a matrix changes no cell, or its axes are wrong"),
    ("unused-import", "an import whose name is never used"),
    ("wrong-arity", "a function is called with too few or too many arguments"),
    ("wrong-type", "an argument or option is of another type than it must be"),
];

/// Reads a script without running it, and finds all that is wrong in it, in the order it stands
/// there. Of the modules that it imports only those of the standard library are known, see
/// [`Checker`].
pub fn check(source: &Source, registry: &Registry) -> Vec<Finding> {
    Checker::new(registry).check(source)
}

fn read(source: &Source, checker: &Checker<'_>) -> Vec<Finding> {
    let tree = match language(&source.name) {
        Ok(language) => language.tree(source, checker.registry),
        Err(error) => return vec![Finding { code: "syntax", error }],
    };
    findings(source, &tree, checker)
}

fn findings(source: &Source, tree: &Tree, checker: &Checker<'_>) -> Vec<Finding> {
    let syntax = |error: &ScriptError| Finding { code: "syntax", error: error.clone() };
    let mut found: Vec<Finding> = tree.errors.iter().map(syntax).collect();
    found.extend(Walk::over(source, tree, checker));
    let place = |finding: &Finding| {
        let position = finding.error.position.as_ref();
        position.map(|Position { line, column, .. }| (*line, *column))
    };
    found.sort_by_key(place);
    found.dedup_by(|a, b| place(a) == place(b) && a.error.message == b.error.message);
    found
}

/// Puts an error at its place in the script.
pub(super) fn located(mut error: ScriptError, source: &Source, at: At) -> ScriptError {
    // A word that was found in a call that runs may stand further down; here the place is known.
    error.focus = None;
    if error.position.is_none() && at.line > 0 {
        error.locate(&source.name, &source.text, at.line, at.column);
    }
    if matches!(error.kind, ErrorKind::Sandbox(_)) {
        error.kind = ErrorKind::Runtime;
    }
    error
}
