//! Building a machine: its libraries, its limits, and what `prelude.lua` needs.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{
    AnyUserData, Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, MetaMethod, StdLib, Table,
    UserDataFields, Value as LuaValue, VmState,
};

use super::convert::{self, Held, type_word};
use super::error::{self, PRELUDE};
use super::state::State;
use super::vm::{Door, Machine};
use super::{bind, modules, unknown};
use crate::api::{Registry, Result, ScriptError};

/// How many instructions are executed between two looks at whether the body must end.
const LOOK: u32 = 1000;

/// A machine with everything in the registry.
pub(super) fn build(registry: Arc<Registry>, memory: usize, door: &Door) -> Result<Machine> {
    let libraries = StdLib::COROUTINE
        | StdLib::MATH
        | StdLib::OS
        | StdLib::STRING
        | StdLib::TABLE
        | StdLib::UTF8;
    Lua::new_with(libraries, LuaOptions::default())
        .and_then(|lua| {
            let state = prepare(&lua, registry, memory, door)?;
            Ok((lua, state))
        })
        .map_err(|failed| error::native(&failed))
}

fn prepare(
    lua: &Lua,
    registry: Arc<Registry>,
    memory: usize,
    door: &Door,
) -> mlua::Result<Rc<State>> {
    let absent = lua.create_table()?;
    let weak = lua.create_table_from([("__mode", "k")])?;
    absent.set_metatable(Some(weak))?;
    let raise = lua.globals().raw_get("error")?;
    let state = State::new(registry, door, absent, raise);
    let host = lua.create_table()?;
    names(lua, &state, &host)?;
    errors(lua, &state, &host)?;
    handles(lua, &state, &host)?;
    modules::install(lua, &state, &host)?;
    let functions = lua.create_table()?;
    for name in state.registry.functions() {
        if let Some(spec) = state.registry.function(name) {
            functions.raw_set(name, bind::begin(lua, &state, spec)?)?;
        }
    }
    host.raw_set("functions", functions)?;
    let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
    let runner: Function = prelude.call(&host)?;
    state.runner.replace(Some(runner));
    state.tables.map.replace(host.raw_get("map_meta")?);
    state.tables.record.replace(host.raw_get("record_meta")?);
    meta(lua, &host)?;
    let own = Rc::clone(&state);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(LOOK), move |lua, debug| {
        // A script that soon has no memory left can't be asked then where it is.
        if lua.used_memory() > memory / 4 {
            let at = debug.source();
            let file = at.source.as_deref().and_then(|source| source.strip_prefix('@'));
            if let (Some(file), Some(line)) = (file, debug.current_line()) {
                own.seen.replace(Some((file.to_owned(), line)));
            }
        }
        own.spend(LOOK.into());
        match own.stopped() {
            true => Err(mlua::Error::RuntimeError("stopped".into())),
            false => Ok(VmState::Continue),
        }
    })?;
    lua.set_memory_limit(memory)?;
    Ok(state)
}

/// A function of the host table.
fn put<A, R>(
    lua: &Lua,
    state: &Rc<State>,
    host: &Table,
    name: &str,
    work: impl Fn(&Lua, &Rc<State>, A) -> R + 'static,
) -> mlua::Result<()>
where
    A: mlua::FromLuaMulti,
    R: IntoLuaMulti,
{
    let state = Rc::clone(state);
    host.raw_set(name, lua.create_function(move |lua, args| Ok(work(lua, &state, args)))?)
}

/// What makes text, and says which names are unknown.
fn names(lua: &Lua, state: &Rc<State>, host: &Table) -> mlua::Result<()> {
    host.raw_set("null", LuaValue::NULL)?;
    host.raw_set("absent", &state.tables.absent)?;
    put(lua, state, host, "type", |_, _, value: LuaValue| type_word(&value))?;
    put(lua, state, host, "text", |_, state, value| convert::text(state, &value))?;
    put(lua, state, host, "print", |_, state, text: mlua::LuaString| {
        if let Ok(ctx) = state.ctx() {
            ctx.print(&text.to_string_lossy());
        }
    })?;
    let word = |state: &State, name: &LuaValue| convert::text(state, name);
    put(lua, state, host, "unknown_global", move |lua, state, name: LuaValue| {
        let name = word(state, &name);
        error::raised(lua, state, unknown::global(lua, state, &name), Some(&name))
    })?;
    put(
        lua,
        state,
        host,
        "unknown_in_library",
        move |lua, state, (library, table, name): (String, Table, LuaValue)| {
            let name = word(state, &name);
            let error = unknown::in_library(&library, &table, &name);
            error::raised(lua, state, error, Some(&name))
        },
    )?;
    put(lua, state, host, "unknown_key", move |lua, state, (map, name): (Table, LuaValue)| {
        let name = word(state, &name);
        error::raised(lua, state, unknown::key(state, &map, &name), Some(&name))
    })
}

/// What makes and hands on errors.
fn errors(lua: &Lua, state: &Rc<State>, host: &Table) -> mlua::Result<()> {
    put(lua, state, host, "failed", |lua, state, ()| bind::failed(lua, state))?;
    put(lua, state, host, "give_up", |_, state, ()| bind::give_up(state))?;
    put(lua, state, host, "caught", |lua, state, value| error::caught(lua, state, value))?;
    put(lua, state, host, "ended", |lua, state, value| error::ended(lua, state, value))?;
    put(lua, state, host, "stop", |lua, state, value: LuaValue| {
        if error::is_memory(&value) {
            state.out_of_memory();
        }
        state.stop().map(|error| error::raised(lua, state, error, None))
    })?;
    put(lua, state, host, "fault", |lua, state, (message, hint): (String, Option<String>)| {
        let error = ScriptError::runtime(message).hint(hint.unwrap_or_default());
        error::raised(lua, state, error, None)
    })
}

/// What handles do.
fn handles(lua: &Lua, state: &Rc<State>, host: &Table) -> mlua::Result<()> {
    host.raw_set("kinds", lua.create_table()?)?;
    host.raw_set("leave", bind::leave(lua, state)?)?;
    put(lua, state, host, "kind", |_, _, data: AnyUserData| {
        data.borrow::<Held>().map_or("?", |held| held.0.0.type_name())
    })?;
    let own = Rc::clone(state);
    let member = lua.create_function(move |lua, (data, name): (AnyUserData, LuaValue)| {
        bind::member(lua, &own, &data, &name)
    })?;
    host.raw_set("member", member)?;
    put(lua, state, host, "not_set", |lua, state, (data, name): (AnyUserData, LuaValue)| {
        let of = data.borrow::<Held>().map_or("?", |held| held.0.0.type_name());
        let name = convert::text(state, &name);
        let error = ScriptError::runtime(format!("'{name}' of {of} can't be set"))
            .hint("copy it into a variable first, and change that");
        error::raised(lua, state, error, Some(&name))
    })?;
    put(lua, state, host, "iterable", |lua, state, data: AnyUserData| {
        let (walks, of) = data
            .borrow::<Held>()
            .map_or((false, "?"), |held| (held.0.0.iterable(), held.0.0.type_name()));
        match walks {
            true => (true, LuaValue::Nil),
            false => {
                let error = ScriptError::runtime(format!("for can't walk over a {of}"));
                (false, error::raised(lua, state, error, None))
            }
        }
    })
}

/// What all handles have.
fn meta(lua: &Lua, host: &Table) -> mlua::Result<()> {
    let take = |name: &str| host.raw_get::<Function>(name);
    let (index, set, call) = (take("index")?, take("set")?, take("call")?);
    let (close, concat) = (take("close")?, take("concat")?);
    let text = lua.create_function(|_, data: AnyUserData| {
        Ok(data.borrow::<Held>().map_or(String::new(), |held| held.0.0.describe()))
    })?;
    let equal = lua.create_function(|_, (left, right): (LuaValue, LuaValue)| {
        let handle = |value: &LuaValue| match value {
            LuaValue::UserData(data) => data.borrow::<Held>().ok().map(|held| held.0.clone()),
            _ => None,
        };
        Ok(match (handle(&left), handle(&right)) {
            (Some(left), Some(right)) => Arc::ptr_eq(&left.0, &right.0),
            _ => false,
        })
    })?;
    lua.register_userdata_type::<Held>(|held| {
        held.add_meta_field(MetaMethod::Type, "handle");
        held.add_meta_field(MetaMethod::Index, index);
        held.add_meta_field(MetaMethod::NewIndex, set);
        held.add_meta_field(MetaMethod::Call, call);
        held.add_meta_field(MetaMethod::Close, close);
        held.add_meta_field(MetaMethod::Concat, concat);
        held.add_meta_field(MetaMethod::ToString, text);
        held.add_meta_field(MetaMethod::Eq, equal);
    })
}
