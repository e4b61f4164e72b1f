//! Reading a script without running it.

use std::collections::BTreeSet;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, StdLib};

use super::{error, native, unknown};
use crate::api::{Result, ScriptError};
use crate::lang::tree::{self, Builtin, Tree};
use crate::lang::{Source, syntax};

/// Compiles the script.
pub(super) fn compile(lua: &Lua, source: &Source) -> Result<Function> {
    compile_as(lua, source, &source.text)
}

/// Compiles `code`, whose lines are those of `source`.
pub(super) fn compile_as(lua: &Lua, source: &Source, code: &str) -> Result<Function> {
    let text = code.strip_prefix('\u{feff}').unwrap_or(code);
    // A first line such as `#!/usr/bin/env sandscript` is a comment.
    let shebang = if text.starts_with('#') { "--" } else { "" };
    lua.load(format!("{shebang}{text}"))
        .set_name(format!("@{}", source.name))
        .set_mode(ChunkMode::Text)
        .into_function()
        .map_err(|failed| error::syntax_error(&failed, source))
}

/// Finds what Lua itself finds wrong.
pub(super) fn check(source: &Source) -> Result<()> {
    let lua = Lua::new_with(StdLib::NONE, LuaOptions::default()).map_err(|e| error::native(&e))?;
    compile(&lua, source).map(drop)
}

/// The script for the checks. What Lua itself says about the first mistake counts; a parser that goes
/// on after it finds the others.
pub(super) fn tree(source: &Source) -> Tree {
    let mut errors: Vec<_> = check(source).err().into_iter().collect();
    // What is nested too deep for Lua is so for the other parser, too.
    let deep = |error: &ScriptError| ["overflow", "too many"].map(|w| error.message.contains(w));
    let read = match errors.first().is_some_and(|first| deep(first).contains(&true)) {
        true => None,
        false => tree::lua::tree(&source.text),
    };
    let (body, mistakes) = read.unwrap_or_default();
    if let Some(first) = errors.first().and_then(|error| error.position.clone()) {
        for (at, message) in mistakes {
            let place = (at.line, at.column);
            let told = errors.last().and_then(|error| error.position.as_ref());
            // The parser takes a `break` for the end of its block, as it was in older Lua.
            let older = message.contains("after last statement");
            let more = told.is_none_or(|told| at.line > told.line) && !older;
            if at.line > first.line + 1 && more && errors.len() < MISTAKES {
                let line = source.text.lines().nth(at.line - 1).unwrap_or_default();
                let hint = native::syntax_hint(&message, line).unwrap_or_default();
                let mut error = syntax(message).hint(hint);
                error.locate(&source.name, &source.text, place.0, place.1);
                errors.push(error);
            }
        }
    }
    // What stands in the parts that can't be read may be declared in them.
    let unread = match errors.is_empty() {
        true => BTreeSet::new(),
        false => unknown::declared(&source.text).into_iter().map(str::to_owned).collect(),
    };
    let exports = if errors.is_empty() { tree::lua::exports(&body) } else { None };
    Tree { body, errors, unread, exports, builtin: builtin() }
}

/// After that many, the rest mostly follows from them.
const MISTAKES: usize = 5;

fn builtin() -> Builtin {
    let globals = "_G _VERSION assert collectgarbage coroutine error getmetatable ipairs load math next null os \
                   pairs pcall print rawequal rawget rawlen rawset require select setmetatable string \
                   table tonumber tostring type utf8 xpcall";
    let methods = "byte char dump find format gmatch gsub len lower match pack packsize rep reverse \
                   sub unpack upper";
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let (variables, mut callable) = (words(globals), words(methods));
    callable.extend(variables.iter().cloned());
    let plain = unknown::LEFT_OUT.iter().map(|(name, why)| ((*name).to_owned(), *why));
    let of_os = unknown::LEFT_OUT_OF_OS.iter().map(|(name, why)| (format!("os.{name}"), *why));
    Builtin {
        callable,
        variables,
        flat_functions: false,
        left_out: plain.chain(of_os).collect(),
        method_mark: ":",
    }
}
