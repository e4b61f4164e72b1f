//! Values between Lua and the neutral form.

use std::any::Any;

use mlua::{Lua, Table, Value as LuaValue};

use super::callback::LuaFunction;
use super::state::State;
use crate::api::{Callback, Handle, Map, Result, ScriptError, Value};

/// A [`Handle`] as Lua holds it.
pub(super) struct Held(pub(super) Handle);

const DEPTH: usize = 64;
/// How many values a table may hold, with those of the tables in it.
const VALUES: usize = 1 << 20;

/// From Lua. Fails for what the host has no use for.
pub(super) fn to_value(state: &State, value: &LuaValue) -> Result<Value> {
    deep(state, value, 0, &mut 0)
}

fn deep(state: &State, value: &LuaValue, depth: usize, count: &mut usize) -> Result<Value> {
    *count += 1;
    if depth > DEPTH {
        return Err(ScriptError::runtime(format!(
            "lists and maps are nested deeper than {DEPTH} levels"
        )));
    }
    if *count > VALUES {
        return Err(ScriptError::runtime(format!("a table holds more than {VALUES} values")));
    }
    Ok(match value {
        LuaValue::Nil => Value::Unit,
        value if value.is_null() => Value::Unit,
        LuaValue::Boolean(value) => (*value).into(),
        LuaValue::Integer(value) => (*value).into(),
        LuaValue::Number(value) => (*value).into(),
        LuaValue::String(text) => match std::str::from_utf8(&text.as_bytes()) {
            Ok(text) => text.into(),
            Err(_) => text.as_bytes().to_vec().into(),
        },
        LuaValue::Table(table) => self::table(state, table, depth, count)?,
        LuaValue::Function(function) => {
            let info = function.info();
            let takes = (!info.is_vararg).then_some(usize::from(info.num_params));
            let id = state.hold(function.clone());
            Value::Callback(Callback(std::sync::Arc::new(LuaFunction::new(
                id,
                state.door.clone(),
                takes,
            ))))
        }
        LuaValue::UserData(data) => match data.borrow::<Held>() {
            Ok(held) => held.0.clone().into(),
            Err(_) => return Err(no_use("value of another kind")),
        },
        LuaValue::Thread(_) => return Err(no_use("coroutine")),
        LuaValue::Error(error) => super::error::text(error).into(),
        _ => return Err(no_use("value of another kind")),
    })
}

fn no_use(what: &str) -> ScriptError {
    ScriptError::runtime(format!("a {what} can't be passed to the host"))
}

/// A list when its keys are 1, 2, 3…, a map when they are text.
fn table(state: &State, table: &Table, depth: usize, count: &mut usize) -> Result<Value> {
    let mut items = Vec::new();
    let mut map = Map::new();
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair.map_err(|e| super::error::native(&e))?;
        match key {
            LuaValue::Integer(index) if index >= 1 => {
                items.push((index, deep(state, &value, depth + 1, count)?));
            }
            LuaValue::String(key) => {
                map.insert(key.to_string_lossy(), deep(state, &value, depth + 1, count)?);
            }
            other => {
                let key = to_value(state, &other).map(|key| key.quoted()).unwrap_or_default();
                return Err(ScriptError::runtime(format!(
                    "a table has the key [{key}]; a map's keys are text"
                ))
                .hint("write tostring(key)"));
            }
        }
    }
    if let (Some((index, _)), Some(key)) = (items.first(), map.keys().next()) {
        return Err(ScriptError::runtime(format!(
            "a table is a list and a map at once: it has item {index} and the key '{key}'"
        ))
        .hint("make two tables of it"));
    }
    if let Ok(empty) = state.tables.absent.raw_get::<Table>(table) {
        for key in empty.pairs::<String, LuaValue>().flatten() {
            map.entry(key.0).or_default();
        }
    }
    if !map.is_empty() || (items.is_empty() && table.metatable().is_some()) {
        return Ok(map.into());
    }
    items.sort_unstable_by_key(|(index, _)| *index);
    if let Some(missing) = (1..).zip(&items).find(|(want, (index, _))| want != index) {
        if missing.0 == 1 {
            return Err(ScriptError::runtime(format!(
                "a table begins at [{}]; a list begins at 1, and a map's keys are text",
                missing.1.0
            ))
            .hint("write tostring(key)"));
        }
        return Err(ScriptError::runtime(format!(
            "a list has holes: there is item {}, but no item {}",
            missing.1.0, missing.0
        ))
        .hint("null stands for nothing in a list"));
    }
    Ok(Value::List(items.into_iter().map(|(_, item)| item).collect()))
}

/// To Lua. A map is a `record` when its keys are known, so that asking for another one is a mistake.
pub(super) fn to_lua(
    lua: &Lua,
    state: &State,
    value: Value,
    record: bool,
) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Unit => LuaValue::Nil,
        Value::Bool(value) => LuaValue::Boolean(value),
        Value::Int(value) => LuaValue::Integer(value),
        Value::Float(value) => LuaValue::Number(value),
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Bytes(bytes) => LuaValue::String(lua.create_string(&bytes)?),
        Value::List(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.into_iter().enumerate() {
                let item = match item {
                    Value::Unit => LuaValue::NULL,
                    item => to_lua(lua, state, item, record)?,
                };
                table.raw_set(index + 1, item)?;
            }
            LuaValue::Table(table)
        }
        Value::Map(map) => {
            let table = lua.create_table_with_capacity(0, map.len())?;
            let mut absent = None;
            for (key, value) in map {
                if value.is_unit() {
                    if absent.is_none() {
                        absent = Some(lua.create_table()?);
                    }
                    if let Some(absent) = &absent {
                        absent.raw_set(key, true)?;
                    }
                } else {
                    table.raw_set(key, to_lua(lua, state, value, record)?)?;
                }
            }
            if let Some(absent) = absent {
                state.tables.absent.raw_set(&table, absent)?;
            }
            let meta = if record { &state.tables.record } else { &state.tables.map };
            table.set_metatable(meta.borrow().clone())?;
            LuaValue::Table(table)
        }
        Value::Handle(handle) => LuaValue::UserData(lua.create_any_userdata(Held(handle))?),
        Value::Callback(callback) => {
            let any: &dyn Any = &*callback.0;
            let id = any.downcast_ref::<LuaFunction>().and_then(|own| own.id(&state.door));
            match id.and_then(|id| state.function(id)) {
                Some(function) => LuaValue::Function(function),
                None => LuaValue::Function(lua.create_function(|_, _: mlua::MultiValue| {
                    let why = "the function is of a script that has ended";
                    Err::<(), _>(mlua::Error::RuntimeError(why.into()))
                })?),
            }
        }
    })
}

/// The friendly form of anything, alike in every language.
pub(super) fn text(state: &State, value: &LuaValue) -> String {
    match to_value(state, value) {
        Ok(value) => value.to_string(),
        Err(_) => match value {
            LuaValue::Table(table) => loose(state, table, 0),
            other => format!("<{}>", type_word(other)),
        },
    }
}

/// Tables that are no value of the host: both list and map, or in a circle.
fn loose(state: &State, table: &Table, depth: usize) -> String {
    const DEPTH: usize = 4;
    const MOST: usize = 100;
    if depth > DEPTH {
        return "…".into();
    }
    let mut parts = Vec::new();
    for pair in table.pairs::<LuaValue, LuaValue>().take(MOST + 1) {
        let Ok((key, value)) = pair else { break };
        if parts.len() == MOST {
            parts.push("…".into());
            break;
        }
        let value = match &value {
            LuaValue::Table(inner) => loose(state, inner, depth + 1),
            other => to_value(state, other)
                .map_or_else(|_| format!("<{}>", type_word(other)), |value| value.quoted()),
        };
        parts.push(match key {
            LuaValue::String(key) => format!("{}: {value}", key.to_string_lossy()),
            LuaValue::Integer(_) => value,
            other => format!("[{}]: {value}", text(state, &other)),
        });
    }
    format!("{{{}}}", parts.join(", "))
}

/// The word a script writer knows the type by.
pub(super) fn type_word(value: &LuaValue) -> &'static str {
    match value {
        LuaValue::Nil => "nil",
        value if value.is_null() => "null",
        LuaValue::Boolean(_) => "bool",
        LuaValue::Integer(_) => "int",
        LuaValue::Number(_) => "float",
        LuaValue::String(_) => "string",
        LuaValue::Table(_) => "table",
        LuaValue::Function(_) => "function",
        LuaValue::Thread(_) => "coroutine",
        LuaValue::UserData(data) => match data.borrow::<Held>() {
            Ok(held) => held.0.0.type_name(),
            Err(_) => "value of another kind",
        },
        _ => "value of another kind",
    }
}
