//! Entry by entry: one machine, whose globals live on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mlua::{Lua, LuaOptions, StdLib};

use super::check;
use super::vm::{Entry, Vm};
use crate::api::{Ctx, Host, Result, ScriptError, Value};
use crate::lang::{Session, Source, TYPED, settle};

/// A conversation in Lua.
pub(super) struct LuaSession {
    vm: Vm,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Everything that was typed: the lines of entries are counted on.
    typed: String,
    /// The globals that entries declared, after the last one.
    globals: Vec<(String, Option<Value>)>,
}

impl LuaSession {
    pub(super) fn new(host: &Arc<Host>) -> Result<LuaSession> {
        Ok(LuaSession { vm: Vm::start(host)?, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry as the machine reads it.
    fn entry(&self, entry: &Source) -> Entry {
        if *entry.name != *TYPED {
            return Entry { source: entry.clone(), code: String::from(&*entry.text) };
        }
        let mut state = self.state();
        let before = state.typed.matches('\n').count();
        state.typed.push_str(&entry.text);
        state.typed.push('\n');
        // In parentheses where that works: a call then is no tail call, and an error in it says
        // where it is.
        let values = [format!("return ({})", entry.text), format!("return {}", entry.text)];
        let code = values.into_iter().find(|value| compiles(value));
        let code = code.unwrap_or_else(|| String::from(&*entry.text));
        Entry {
            source: Source::new(TYPED, state.typed.as_str()),
            code: format!("{}{code}", "\n".repeat(before)),
        }
    }
}

#[async_trait]
impl Session for LuaSession {
    async fn eval(&self, entry: &Source, ctx: &Ctx) -> Result<Value> {
        let result = self.vm.enter(self.entry(entry), ctx).await;
        if let Some(globals) = self.vm.globals(ctx).await {
            self.state().globals = globals;
        }
        settle(ctx, result).map_err(in_entries)
    }

    fn incomplete(&self, text: &str) -> bool {
        let Some(lua) = reader() else { return false };
        let reads = |text: &str| lua.load(text).into_function().map(drop);
        let ends_early = |error: &mlua::Error| match error {
            mlua::Error::SyntaxError { message, incomplete_input: true } => {
                !message.contains("unfinished string")
            }
            _ => false,
        };
        match (reads(&format!("return {text}")), reads(text)) {
            (Err(value), Err(statement)) => ends_early(&value) || ends_early(&statement),
            _ => false,
        }
    }

    fn names(&self) -> Vec<String> {
        self.state().globals.iter().map(|(name, _)| name.clone()).collect()
    }

    fn get(&self, name: &str) -> Option<Value> {
        let state = self.state();
        let (_, value) = state.globals.iter().find(|(known, _)| known == name)?;
        value.clone()
    }

    fn set(&self, name: &str, value: Value) {
        let mut state = self.state();
        state.globals.retain(|(known, _)| known != name);
        state.globals.push((name.to_owned(), Some(value.clone())));
        self.vm.set(name, value);
    }

    fn statement(&self, entry: &str) -> String {
        let entry = entry.trim_end();
        match entry.trim_start().strip_prefix("return ") {
            Some(value) => format!("_ = {value}"),
            // Only a call stands alone.
            None if compiles(entry) => entry.to_owned(),
            None => format!("_ = {entry}"),
        }
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "and",
            "break",
            "coroutine",
            "do",
            "else",
            "elseif",
            "end",
            "error",
            "false",
            "for",
            "function",
            "goto",
            "if",
            "in",
            "ipairs",
            "local",
            "math",
            "next",
            "nil",
            "not",
            "null",
            "or",
            "os",
            "pairs",
            "pcall",
            "print",
            "repeat",
            "require",
            "return",
            "select",
            "setmetatable",
            "string",
            "table",
            "then",
            "tonumber",
            "tostring",
            "true",
            "type",
            "until",
            "utf8",
            "while",
            "xpcall",
        ]
    }
}

/// The error in words that fit a conversation, where a local ends with its entry.
fn in_entries(mut error: ScriptError) -> ScriptError {
    let name = error.hint.as_deref().and_then(|hint| hint.strip_prefix("declare it with: local "));
    if let Some(name) = name {
        error.hint = Some(format!("declare it with: {name} (a local ends with its entry)"));
    }
    error
}

fn reader() -> Option<Lua> {
    Lua::new_with(StdLib::NONE, LuaOptions::default()).ok()
}

fn compiles(text: &str) -> bool {
    reader().is_some_and(|lua| check::compile(&lua, &Source::new(TYPED, text)).is_ok())
}

#[cfg(test)]
mod tests;
