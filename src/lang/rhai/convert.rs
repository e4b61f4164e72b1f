//! Values between Rhai and the neutral form.

use std::any::Any;

use ::rhai::{Array, Blob, Dynamic, FnPtr, INT, ImmutableString, NativeCallContext};

use super::callback::Function;
use super::world::World;
use crate::api::{Callback, Handle, Result, ScriptError, Value};

/// A [`Handle`] as a Rhai value.
#[derive(Clone)]
pub(super) struct Held(pub(super) Handle);

const DEPTH: usize = 64;

/// From Rhai, passed in a call from a file; functions are that file's. Fails for what the host has
/// no use for.
pub(super) fn to_value(value: &Dynamic, from: From<'_, '_>) -> Result<Value> {
    deep(value, from, 0)
}

/// The call that a value is passed in; none where nobody will call functions in it.
pub(super) type From<'a, 'b> = Option<&'a NativeCallContext<'b>>;

fn deep(value: &Dynamic, from: From<'_, '_>, depth: usize) -> Result<Value> {
    if depth > DEPTH {
        return Err(ScriptError::runtime(format!(
            "lists and maps are nested deeper than {DEPTH} levels"
        )));
    }
    if value.is_shared() {
        return deep(&value.flatten_clone(), from, depth);
    }
    if value.is_unit() {
        return Ok(Value::Unit);
    }
    if let Ok(value) = value.as_bool() {
        return Ok(value.into());
    }
    if let Ok(value) = value.as_int() {
        return Ok(value.into());
    }
    if let Ok(value) = value.as_float() {
        return Ok(value.into());
    }
    if let Ok(value) = value.as_char() {
        return Ok(value.to_string().into());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(text.as_str().into());
    }
    if let Some(held) = value.read_lock::<Held>() {
        return Ok(held.0.clone().into());
    }
    if let Some(items) = value.read_lock::<Array>() {
        let items = items.iter().map(|item| deep(item, from, depth + 1));
        return Ok(Value::List(items.collect::<Result<_>>()?));
    }
    if let Some(map) = value.read_lock::<::rhai::Map>() {
        let pairs =
            map.iter().map(|(key, value)| Ok((key.to_string(), deep(value, from, depth + 1)?)));
        return Ok(Value::Map(pairs.collect::<Result<_>>()?));
    }
    if let Some(bytes) = value.read_lock::<Blob>() {
        return Ok(bytes.clone().into());
    }
    if let Some(function) = value.read_lock::<FnPtr>() {
        return Ok(Value::Callback(Callback(Function::new(
            function.clone(),
            from.map(World::of),
        )?)));
    }
    if let Some(range) = value.read_lock::<std::ops::Range<INT>>() {
        return numbers(range.clone());
    }
    if let Some(range) = value.read_lock::<std::ops::RangeInclusive<INT>>() {
        return numbers(range.clone());
    }
    Err(ScriptError::runtime(format!(
        "a {} can't be passed to the host",
        super::words::of_type(value.type_name())
    )))
}

fn numbers(range: impl Iterator<Item = INT>) -> Result<Value> {
    const MOST: usize = 100_000;
    let items: Vec<Value> = range.take(MOST + 1).map(Value::from).collect();
    if items.len() > MOST {
        return Err(ScriptError::runtime(format!("the range holds more than {MOST} numbers")));
    }
    Ok(items.into())
}

/// To Rhai.
pub(super) fn to_dynamic(value: Value) -> Dynamic {
    match value {
        Value::Unit => Dynamic::UNIT,
        Value::Bool(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Float(value) => value.into(),
        Value::String(text) => text.into(),
        Value::Bytes(bytes) => Dynamic::from_blob(bytes.to_vec()),
        Value::List(items) => Dynamic::from_array(items.into_iter().map(to_dynamic).collect()),
        Value::Map(map) => Dynamic::from_map(
            map.into_iter().map(|(key, value)| (key.into(), to_dynamic(value))).collect(),
        ),
        Value::Handle(handle) => Dynamic::from(Held(handle)),
        Value::Callback(callback) => {
            let any: &dyn Any = &*callback.0;
            match any.downcast_ref::<Function>() {
                Some(function) => Dynamic::from(function.pointer()),
                None => Dynamic::UNIT,
            }
        }
    }
}
