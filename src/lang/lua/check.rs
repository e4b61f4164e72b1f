//! Reading a script without running it.

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, StdLib};

use super::error;
use crate::api::Result;
use crate::lang::Source;

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
