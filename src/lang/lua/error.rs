//! Lua's errors in the script writer's words, with their place and the user's functions around it.

use mlua::{Lua, Value as LuaValue};

use super::convert::{self, Held};
use super::native;
use super::state::State;
use crate::api::{ErrorKind, ErrorObject, Frame, Position, ScriptError, Value, find_word};
use crate::lang::{Source, syntax};

/// The name of the chunk that prepares a machine: its frames are nobody's.
pub(super) const PRELUDE: &str = "=[sandscript]";

/// A function of the script that is being called.
struct Level {
    source: Source,
    line: usize,
    name: Option<String>,
    /// Whether it is a whole file.
    file: bool,
}

/// The user's functions, innermost first.
fn levels(lua: &Lua, state: &State) -> Vec<Level> {
    const MOST: usize = 200;
    let sources = state.sources.borrow();
    let mut found = Vec::new();
    for level in 0..MOST {
        let looked = lua.inspect_stack(level, |debug| {
            let at = debug.source();
            let name = at.source.as_deref()?.strip_prefix('@')?;
            let source = sources.iter().rev().find(|source| &*source.name == name)?.clone();
            let file = at.what == "main";
            let called = if file { None } else { debug.names().name };
            let name = called.filter(|name| *name != "?").map(|name| name.into_owned());
            Some(Level { source, line: debug.current_line()?, name, file })
        });
        match looked {
            Some(level) => found.extend(level),
            None => break,
        }
    }
    found
}

impl Level {
    fn position(&self, word: Option<&str>) -> Position {
        let text = self.source.text.lines().nth(self.line - 1).unwrap_or_default();
        let column = word.and_then(|word| find_word(text, word, 0)).map_or(0, |at| at + 1);
        Position { file: self.source.name.to_string(), line: self.line, column }
    }
}

/// Says where an error is that happens now, or, when it knows that, by which calls it came here.
/// `word` is what stands in the script where it happens.
fn locate(lua: &Lua, state: &State, error: &mut ScriptError, word: Option<&str>) {
    let levels = levels(lua, state);
    let Some(first) = levels.first() else { return locate_tail(state, error, word) };
    match error.position.take() {
        None => place(error, first, word),
        // It happened in a function that the host called for the call at this place.
        Some(known) => {
            error.position = Some(known);
            let called_at = first.position(word);
            match error.kind {
                ErrorKind::Syntax => error.imported_at.push(called_at),
                _ => error.trace.push(Frame { function: None, called_at }),
            }
        }
    }
    trace(error, &levels);
}

fn trace(error: &mut ScriptError, levels: &[Level]) {
    for pair in levels.windows(2) {
        let (inner, outer) = (&pair[0], &pair[1]);
        let function = inner.name.clone();
        if inner.file {
            error.imported_at.push(outer.position(Some("require")));
            continue;
        }
        let called_at = outer.position(function.as_deref());
        error.trace.push(Frame { function, called_at });
    }
    error.trace.dedup();
    error.trace.truncate(16);
}

fn place(error: &mut ScriptError, level: &Level, word: Option<&str>) {
    let source = &level.source;
    error.locate(&source.name, &source.text, level.line, 0);
    if error.position.as_ref().is_some_and(|position| position.column == 0) {
        error.position = Some(level.position(word));
    }
}

/// After `return f()` Lua has forgotten who called f: then the word alone tells the place, where it
/// stands behind one `return` only.
fn locate_tail(state: &State, error: &mut ScriptError, word: Option<&str>) {
    let (None, Some(word)) = (&error.position, word) else { return };
    for source in state.sources.borrow().iter().rev() {
        let mut places = source.text.lines().enumerate().filter(|(_, text)| {
            find_word(text, "return", 0).is_some_and(|at| find_word(text, word, at).is_some())
        });
        if let (Some((index, _)), None) = (places.next(), places.next()) {
            let level = Level { source: source.clone(), line: index + 1, name: None, file: false };
            return place(error, &level, Some(word));
        }
    }
}

/// The value that a script gets for an error of the host which happens now.
pub(super) fn raised(
    lua: &Lua,
    state: &State,
    mut error: ScriptError,
    word: Option<&str>,
) -> LuaValue {
    locate(lua, state, &mut error, word);
    object(lua, state, error)
}

fn object(lua: &Lua, state: &State, error: ScriptError) -> LuaValue {
    let value = Value::object(ErrorObject(error));
    convert::to_lua(lua, state, value, false).unwrap_or(LuaValue::Nil)
}

/// What `pcall` gives for an error that is being raised: what the script raised itself as it is,
/// Lua's own errors as the host's.
pub(super) fn caught(lua: &Lua, state: &State, value: LuaValue) -> LuaValue {
    match &value {
        LuaValue::String(_) if by_script(lua, state) => value,
        LuaValue::String(_) | LuaValue::Error(_) => ended(lua, state, value),
        _ => value,
    }
}

/// What a body ends with for an error that nobody caught.
pub(super) fn ended(lua: &Lua, state: &State, value: LuaValue) -> LuaValue {
    if is_memory(&value) {
        state.out_of_memory();
    }
    if let Some(error) = state.stop() {
        return raised(lua, state, error, None);
    }
    match value {
        LuaValue::UserData(data) if is_error(&data) => LuaValue::UserData(data),
        LuaValue::Error(error) => raised(lua, state, native(&error), None),
        LuaValue::String(text) => {
            let text = text.to_string_lossy();
            let (at, message) = strip(state, &text);
            let (mut error, word) = match by_script(lua, state) {
                true => (ScriptError::thrown(message.into()), None),
                false => native::explain(message, &state.registry),
            };
            let mut levels = levels(lua, state);
            if let Some((source, line)) = at {
                // error("…", 2) blames the caller.
                let blamed = levels.iter().position(|level| level.line == line);
                levels.drain(..blamed.unwrap_or(levels.len()));
                if levels.is_empty() {
                    levels.push(Level { source, line, name: None, file: false });
                }
            }
            if let Some(first) = levels.first() {
                place(&mut error, first, word.as_deref().or(Some("error")));
                trace(&mut error, &levels);
            }
            object(lua, state, error)
        }
        LuaValue::Nil => {
            let error = ScriptError::thrown("the script threw an error".into());
            raised(lua, state, error, Some("error"))
        }
        other => {
            let error = convert::to_value(state, &other).map_or_else(|e| e, ScriptError::thrown);
            raised(lua, state, error, Some("error"))
        }
    }
}

/// Whether this is what Lua raises when it gets no memory.
pub(super) fn is_memory(value: &LuaValue) -> bool {
    matches!(value, LuaValue::String(text) if text == "not enough memory")
}

/// Says where an error is that no handler was called for: where the script was last seen.
pub(super) fn last_seen(state: &State, mut error: ScriptError) -> ScriptError {
    if let (None, Some((file, line))) = (&error.position, state.seen.take())
        && let Some(source) = state.sources.borrow().iter().find(|source| *source.name == file)
    {
        error.locate(&source.name, &source.text, line, 0);
    }
    error
}

/// The error in the value that a body ended with.
pub(super) fn of_value(state: &State, value: &LuaValue) -> ScriptError {
    match convert::to_value(state, value) {
        Ok(Value::Handle(handle)) => match handle.downcast::<ErrorObject>() {
            Some(object) => object.0.clone(),
            None => ScriptError::thrown(handle.into()),
        },
        // The handler was not called, or failed itself: too deep, or no memory.
        Ok(Value::String(text)) => {
            last_seen(state, native::explain(strip(state, &text).1, &state.registry).0)
        }
        Ok(value) => ScriptError::thrown(value),
        Err(error) => error,
    }
}

fn is_error(data: &mlua::AnyUserData) -> bool {
    data.borrow::<Held>().is_ok_and(|held| held.0.downcast::<ErrorObject>().is_some())
}

/// Whether the error that is being handled was raised by the script's own `error`.
fn by_script(lua: &Lua, state: &State) -> bool {
    let mut level = 1;
    loop {
        let raiser = lua.inspect_stack(level, |debug| {
            let ours = debug.source().source.as_deref() == Some(PRELUDE);
            (!ours).then(|| debug.function().to_pointer() == state.raise.to_pointer())
        });
        match raiser {
            Some(Some(raised)) => return raised,
            Some(None) => level += 1,
            None => return false,
        }
    }
}

/// An error of Lua's that knows no place.
pub(super) fn native(error: &mlua::Error) -> ScriptError {
    match error {
        mlua::Error::MemoryError(_) => native::memory(),
        other => native::explain_alone(&text(other)),
    }
}

/// The innermost message.
pub(super) fn text(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => text(cause),
        mlua::Error::WithContext { cause, .. } => text(cause),
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => {
            text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
        }
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Takes `file:line: ` off a message.
fn strip<'a>(state: &State, message: &'a str) -> (Option<(Source, usize)>, &'a str) {
    // What the host put between the script and Lua is no place of the script.
    if let Some((_, rest)) = after_place(PRELUDE.trim_start_matches('='), message) {
        return (None, rest);
    }
    for source in state.hidden.borrow().iter() {
        if let Some((_, rest)) = after_place(&source.name, message) {
            return (None, rest);
        }
    }
    for source in state.sources.borrow().iter().rev() {
        if let Some((line, rest)) = after_place(&source.name, message) {
            return (Some((source.clone(), line)), rest);
        }
    }
    let loaded = message.strip_prefix("load:").and_then(|rest| rest.split_once(": "));
    match loaded {
        Some((line, rest)) if line.parse::<usize>().is_ok() => (None, rest),
        _ => (None, message),
    }
}

/// The line and the rest of a message that begins with a place in this file.
fn after_place<'a>(file: &str, message: &'a str) -> Option<(usize, &'a str)> {
    let rest = message.strip_prefix(&*short(file))?.strip_prefix(':')?;
    let (line, rest) = rest.split_once(": ")?;
    Some((line.parse().ok()?, rest))
}

/// A file's name as Lua writes it in messages: the end of it when it is long.
fn short(file: &str) -> std::borrow::Cow<'_, str> {
    const MOST: usize = 59;
    if file.len() <= MOST {
        return file.into();
    }
    let end = &file.as_bytes()[file.len() - (MOST - 3)..];
    format!("...{}", String::from_utf8_lossy(end)).into()
}

/// Why a script can't be compiled, and where.
pub(super) fn syntax_error(failed: &mlua::Error, source: &Source) -> ScriptError {
    let text = text(failed);
    let Some((line, message)) = after_place(&source.name, &text) else {
        return syntax(native::syntax(&text));
    };
    let mut error = syntax(native::syntax(message));
    // What it stumbled over, unless that is the end of the script.
    let near = message.rsplit_once(" near ").map(|(_, near)| near.trim_matches('\''));
    let text = source.text.lines().nth(line - 1).unwrap_or_default();
    let column = match near {
        Some("<eof>") => 0,
        None => message
            .split('\'')
            .nth(1)
            .and_then(|name| find_word(text, name, 0))
            .map_or(0, |at| at + 1),
        Some(near) => text.find(near).map_or(0, |at| text[..at].chars().count() + 1),
    };
    error.locate(&source.name, &source.text, line, column);
    error.hint = native::syntax_hint(message, text);
    error
}
