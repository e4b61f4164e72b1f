//! The registry's entries as Lua functions.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mlua::{AnyUserData, Function, Lua, MultiValue, Value as LuaValue};

use super::convert::{self, Held, to_lua, to_value, type_word};
use super::state::{Pending, State};
use super::{error, unknown};
use crate::api::{FnSpec, Handle, HandlerFuture, Result, ScriptError, Type, Use, Value};

/// What a call gives at once: whether it is done, has failed, or (nil) must wait; and the value.
type Begun = (Option<bool>, LuaValue);

/// The function that begins calls of this entry.
pub(super) fn begin(lua: &Lua, state: &Rc<State>, spec: &Arc<FnSpec>) -> mlua::Result<Function> {
    let (state, spec) = (Rc::clone(state), Arc::clone(spec));
    // Maps of declared shape are records; what may be anything is not.
    let record = spec.returns != Type::Any;
    lua.create_function(move |lua, given: MultiValue| {
        let begun = arguments(&state, &spec, given).and_then(|(receiver, given)| {
            let ctx = state.ctx()?;
            let (registry, spec) = (Arc::clone(&state.registry), Arc::clone(&spec));
            let work = async move { registry.call(&spec, ctx, receiver, given).await };
            Ok(Box::pin(work) as HandlerFuture)
        });
        Ok(match begun {
            Ok(work) => poll(lua, &state, work, record, spec.name),
            Err(error) => (Some(false), error::raised(lua, &state, error, Some(spec.name))),
        })
    })
}

/// Looks whether the work is done at once, and lets it wait otherwise.
fn poll(
    lua: &Lua,
    state: &State,
    mut work: HandlerFuture,
    record: bool,
    word: &'static str,
) -> Begun {
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => {
            state.pending.replace(Some(Pending { work, record }));
            state.word.set(word);
            (None, LuaValue::Nil)
        }
        Poll::Ready(Ok(value)) => match to_lua(lua, state, value, record) {
            Ok(value) => (Some(true), value),
            Err(failed) => {
                let error = error::native(&failed);
                (Some(false), error::raised(lua, state, error, Some(word)))
            }
        },
        Poll::Ready(Err(error)) => (Some(false), error::raised(lua, state, error, Some(word))),
    }
}

/// The handle that a method is called on, and the arguments. Nothing at the end counts as left out.
fn arguments(
    state: &State,
    spec: &FnSpec,
    mut given: MultiValue,
) -> Result<(Option<Handle>, Vec<Value>)> {
    let receiver = match spec.receiver {
        Some(of) => Some(receiver(spec, of, given.pop_front())?),
        None => None,
    };
    let (least, _) = spec.arity();
    while given.len() > least && given.back().is_some_and(LuaValue::is_nil) {
        given.pop_back();
    }
    let given = given.iter().map(|value| to_value(state, value)).collect::<Result<_>>()?;
    Ok((receiver, given))
}

fn receiver(spec: &FnSpec, of: &str, first: Option<LuaValue>) -> Result<Handle> {
    let held = match &first {
        Some(LuaValue::UserData(data)) => data.borrow::<Held>().ok().map(|held| held.0.clone()),
        _ => None,
    };
    match held {
        Some(handle) if handle.0.type_name() == of => Ok(handle),
        _ => {
            let given =
                first.as_ref().map_or("nothing".into(), |value| format!("a {}", type_word(value)));
            let name = spec.name;
            Err(ScriptError::runtime(format!("{} is called on {given}", spec.title()))
                .hint(format!("call it with a colon: {}:{name}(…)", of.to_lowercase())))
        }
    }
}

/// The error of the host call that the script waited for, or could not wait for.
pub(super) fn failed(lua: &Lua, state: &State) -> LuaValue {
    let error = state.failed.take().unwrap_or_else(|| ScriptError::runtime("the call failed"));
    error::raised(lua, state, error, Some(state.word.get()))
}

/// Drops the call that would have to wait where nothing can.
pub(super) fn give_up(state: &State) {
    state.pending.take();
    let name = state.word.get();
    let error = ScriptError::runtime(format!("{name}() can't wait for the host here")).hint(
        "not inside of what table.sort, string.gsub and coroutine.close call: do it before or after",
    );
    state.failed.replace(Some(error));
}

/// How a script uses the member `name` of a handle.
pub(super) fn member(
    lua: &Lua,
    state: &Rc<State>,
    data: &AnyUserData,
    name: &LuaValue,
) -> mlua::Result<(&'static str, LuaValue)> {
    let handle = data.borrow::<Held>()?.0.clone();
    let text = match name {
        LuaValue::String(text) => text.to_string_lossy(),
        other => convert::text(state, other),
    };
    if let Some(value) = handle.0.field(&text) {
        return Ok(("field", to_lua(lua, state, value, true)?));
    }
    Ok(match state.registry.member(handle.0.type_name(), &text) {
        Some(spec) if spec.usage == Use::Property => {
            ("property", LuaValue::Function(begin(lua, state, spec)?))
        }
        Some(spec) => ("function", LuaValue::Function(begin(lua, state, spec)?)),
        None => {
            let error = unknown::member(lua, state, &handle, &text);
            ("error", error::raised(lua, state, error, Some(&text)))
        }
    })
}

/// The function that begins what leaving the scope of a `<close>` variable does.
pub(super) fn leave(lua: &Lua, state: &Rc<State>) -> mlua::Result<Function> {
    let state = Rc::clone(state);
    lua.create_function(move |lua, data: AnyUserData| {
        let handle = data.borrow::<Held>()?.0.clone();
        let ctx = match state.ctx().and_then(|ctx| ctx.stop.check().map(|()| ctx)) {
            Ok(ctx) => ctx,
            Err(error) => return Ok((Some(false), error::raised(lua, &state, error, None))),
        };
        Ok(match handle.0.leave(ctx) {
            Some(work) => poll(lua, &state, work, false, "close"),
            None => (Some(true), LuaValue::Nil),
        })
    })
}
