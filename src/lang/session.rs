//! A conversation with a language.

use async_trait::async_trait;

use super::Source;
use crate::api::{Ctx, Result, Value};

/// The name that what was typed goes by in errors, instead of a file's.
pub const TYPED: &str = "repl";

/// A conversation: what one entry declares, the next ones know.
///
/// Only one entry runs at a time. The other functions may be called while none does.
#[async_trait]
pub trait Session: Send + Sync {
    /// Runs an entry, named [`TYPED`], or a file. When `ctx` is stopped it ends soon after, and the
    /// result is the stop. What it had declared until it failed stays.
    ///
    /// The lines of entries are counted on, so that each place in the conversation has a line of
    /// its own; those of a file are the file's.
    async fn eval(&self, entry: &Source, ctx: &Ctx) -> Result<Value>;

    /// Whether the text can't be run because it is not at its end: another line may make it whole.
    /// Text with a mistake is not incomplete.
    fn incomplete(&self, text: &str) -> bool;

    /// The names of the variables and functions that were declared.
    fn names(&self) -> Vec<String>;

    /// A variable's value, where the host has a form of it.
    fn get(&self, name: &str) -> Option<Value>;

    /// Declares a variable, or changes it.
    fn set(&self, name: &str, value: Value);

    /// The entry as it stands in a script, before other statements.
    fn statement(&self, entry: &str) -> String;

    /// The words of the language itself.
    fn words(&self) -> &'static [&'static str];
}
