//! `require` in Lua.

use std::path::Path;
use std::rc::Rc;

use mlua::{Lua, Table, Value as LuaValue};

use super::state::State;
use super::{check, error};
use crate::api::{Ctx, Result, ScriptError};
use crate::lang::{self, Source};

/// What scripts may require.
pub(super) struct Modules {
    found: lang::Modules,
    /// The script itself, which no module can require: its file and its name.
    script: (String, String),
}

impl Modules {
    /// What `source` may require.
    pub(super) fn new(source: &Source, ctx: &Ctx) -> Modules {
        let file = Path::new(&*source.name);
        let id = file.canonicalize().unwrap_or_default().display().to_string();
        Modules {
            found: lang::Modules::new(source, "lua", &ctx.host.run),
            script: (id, file.file_stem().unwrap_or_default().display().to_string()),
        }
    }
}

/// Gives `prelude.lua` what its `require` needs.
pub(super) fn install(lua: &Lua, state: &Rc<State>, host: &Table) -> mlua::Result<()> {
    let own = Rc::clone(state);
    // The file of a module, or nil and why there is none.
    let find = move |lua: &Lua, name: LuaValue| {
        Ok(match find(&own, &name) {
            Ok((id, source)) => {
                own.found.borrow_mut().insert(id.clone(), source);
                (LuaValue::String(lua.create_string(id)?), LuaValue::Nil)
            }
            Err(error) => (LuaValue::Nil, error::raised(lua, &own, error, Some(&focus(&name)))),
        })
    };
    host.raw_set("find_module", lua.create_function(find)?)?;
    let own = Rc::clone(state);
    // The function that runs a module which was found, or nil and why it can't be read.
    let read = move |lua: &Lua, (id, name, chain): (String, String, Vec<String>)| {
        Ok(match read(lua, &own, &id, &name, &chain) {
            Ok((function, standard)) => (LuaValue::Function(function), LuaValue::Boolean(standard)),
            Err(error) => (LuaValue::Nil, error::raised(lua, &own, error, Some("require"))),
        })
    };
    host.raw_set("read_module", lua.create_function(read)?)
}

fn focus(name: &LuaValue) -> String {
    match name {
        LuaValue::String(name) => name.to_string_lossy(),
        _ => "require".into(),
    }
}

/// `std.apt` is `std/apt`; a name with a slash is a path already.
fn path(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { name.replace('.', "/") }
}

fn find(state: &State, name: &LuaValue) -> Result<(String, Source)> {
    let LuaValue::String(name) = name else {
        return Err(ScriptError::runtime("require() takes the name of a module")
            .hint("such as require(\"lib.util\")"));
    };
    let name = path(&name.to_string_lossy());
    let ctx = state.ctx()?;
    let modules = state.modules.borrow();
    let Some(modules) = modules.as_ref() else {
        return Err(ScriptError::runtime("modules can't be required here"));
    };
    let mut looked = Vec::new();
    let found = modules.found.find(&name, &mut looked);
    looked.into_iter().for_each(|file| ctx.host.imported(file));
    let found = found?;
    let id = found.file.map_or(name, |file| file.display().to_string());
    Ok((id, found.source))
}

/// `chain` are the modules that are being read: the file of each, and its name.
fn read(
    lua: &Lua,
    state: &State,
    id: &str,
    name: &str,
    chain: &[String],
) -> Result<(mlua::Function, bool)> {
    let script = state.modules.borrow().as_ref().map(|modules| modules.script.clone());
    let script = script.unwrap_or_default();
    let mut way = vec![(script.0.as_str(), script.1.as_str())];
    way.extend(
        chain.chunks(2).filter_map(|one| Some((one.first()?.as_str(), one.get(1)?.as_str()))),
    );
    if let Some(again) = way.iter().position(|one| one.0 == id) {
        let names: Vec<&str> = way[again..].iter().map(|one| one.1).collect();
        return Err(lang::cycle(&names));
    }
    let source = state.found.borrow_mut().remove(id);
    let source = source.ok_or_else(|| ScriptError::runtime(format!("'{name}' is gone")))?;
    let standard = !id.starts_with('/');
    let function = check::compile(lua, &source)?;
    let list = if standard { &state.hidden } else { &state.sources };
    let mut list = list.borrow_mut();
    if !list.iter().any(|known| known.name == source.name) {
        // The script itself stays the last.
        list.insert(0, source);
    }
    Ok((function, standard))
}
