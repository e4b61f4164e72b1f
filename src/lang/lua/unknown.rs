//! Names that nobody has: what was meant.

use mlua::{Lua, Table, Value as LuaValue};

use super::state::State;
use crate::api::{Handle, ScriptError, Use, find_word, suggest};

/// What scripts do not get, and what to use instead.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    ("debug", "an error tells its place by itself"),
    ("dofile", "a script can't run files of the host"),
    ("io", "a script reaches files through a sandbox: box:read(), box:write(), box:push()"),
    ("loadfile", "a script can't run files of the host"),
    ("package", "a script can't load programs of the host"),
];
pub(super) const LEFT_OUT_OF_OS: &[(&str, &str)] = &[
    ("execute", "a script runs programs in a sandbox: box:run()"),
    ("exit", "a script ends at its end, or with error()"),
    ("getenv", "env() reads the environment"),
    ("remove", "a script reaches files through a sandbox: box:remove()"),
];

/// The line of the script that is being executed.
fn line(lua: &Lua, state: &State) -> Option<String> {
    (0..16).find_map(|level| {
        lua.inspect_stack(level, |debug| {
            let at = debug.source();
            let name = at.source.as_deref()?.strip_prefix('@')?;
            let sources = state.sources.borrow();
            let source = sources.iter().rev().find(|source| &*source.name == name)?;
            source.text.lines().nth(debug.current_line()? - 1).map(str::to_owned)
        })?
    })
}

/// Whether the line calls what it names.
fn called(lua: &Lua, state: &State, name: &str) -> bool {
    let Some(line) = line(lua, state) else { return false };
    let Some(at) = find_word(&line, name, 0) else { return false };
    let rest: String = line.chars().skip(at + name.chars().count()).collect();
    rest.trim_start().starts_with(['(', '{', '"', '\'', '['])
}

/// The error for a global that is not there.
pub(super) fn global(lua: &Lua, state: &State, name: &str) -> ScriptError {
    let registry = &state.registry;
    if let Some((_, why)) = LEFT_OUT.iter().find(|(left, _)| *left == name) {
        return ScriptError::runtime(format!("scripts have no '{name}'")).hint(*why).focus(name);
    }
    let called = called(lua, state, name);
    let receiver =
        registry.specs().iter().find(|spec| spec.name == name && spec.receiver.is_some());
    if let (Some(spec), true) = (receiver, called) {
        let receiver = spec.receiver.unwrap_or_default();
        let on = receiver.to_lowercase();
        let way =
            if spec.usage == Use::Call { format!(":{name}(…)") } else { format!(".{name}") };
        return ScriptError::runtime(format!("{name}() is a function of {receiver}"))
            .hint(format!("call it on one: {on}{way}"))
            .focus(name);
    }
    let globals: Vec<String> =
        lua.globals().pairs::<String, LuaValue>().flatten().map(|(name, _)| name).collect();
    let sources = state.sources.borrow();
    let locals = sources.iter().flat_map(|source| declared(&source.text));
    let known = locals.chain(globals.iter().map(String::as_str)).filter(|one| *one != name);
    let near = suggest::nearest(name, known);
    let what = if called { "function" } else { "variable" };
    let error = ScriptError::runtime(format!("there is no {what} '{name}'")).focus(name);
    match near {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None if called => error,
        None => error.hint(format!("declare it with: local {name} = …")),
    }
}

/// The error for a function that a library does not have.
pub(super) fn in_library(library: &str, table: &Table, name: &str) -> ScriptError {
    let error = ScriptError::runtime(format!("{library} has no function '{name}'")).focus(name);
    let left_out = LEFT_OUT_OF_OS.iter().find(|(left, _)| *left == name && library == "os");
    if let Some((_, why)) = left_out {
        return error.hint(*why);
    }
    let known: Vec<String> = table.pairs::<String, LuaValue>().flatten().map(|(k, _)| k).collect();
    let near = suggest::nearest(name, known.iter().map(String::as_str));
    error.hint(near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default())
}

/// The error for a key that a map of the host does not have.
pub(super) fn key(state: &State, map: &Table, name: &str) -> ScriptError {
    let mut known: Vec<String> =
        map.pairs::<String, LuaValue>().flatten().map(|(key, _)| key).collect();
    if let Ok(absent) = state.tables.absent.raw_get::<Table>(map) {
        known.extend(absent.pairs::<String, LuaValue>().flatten().map(|(key, _)| key));
    }
    let error = ScriptError::runtime(format!("the map has no '{name}'")).focus(name);
    match suggest::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None => error.hint(format!("ask first whether it is there: rawget(map, \"{name}\")")),
    }
}

/// The error for a member that a handle does not have.
pub(super) fn member(lua: &Lua, state: &State, handle: &Handle, name: &str) -> ScriptError {
    let usage = if called(lua, state, name) { Use::Call } else { Use::Property };
    state.registry.unknown_member(handle, name, usage)
}

/// The variables that a script declares anywhere.
pub(super) fn declared(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in ["local ", "for ", "function ", "function("] {
        for (at, _) in text.match_indices(word) {
            let rest = &text[at + word.len()..];
            let end = rest.find(['=', '\n', ')']).unwrap_or(rest.len());
            found.extend(
                rest[..end]
                    .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .filter(|name| !name.is_empty() && !matches!(*name, "in" | "function")),
            );
        }
    }
    found
}
