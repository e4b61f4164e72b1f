//! Bodies: the script itself, and functions of it that the host calls. Each is a coroutine that is
//! resumed when what it waits for is there.

use std::collections::HashSet;
use std::rc::Rc;

use mlua::thread::ThreadStatus;
use mlua::{Lua, MultiValue, Thread, Value as LuaValue};

use super::modules::Modules;
use super::state::{Pending, State};
use super::vm::{Entry, Globals};
use super::{check, convert, error};
use crate::api::{Ctx, Map, Result, ScriptError, Value};
use crate::lang::Source;

/// Runs a script as a body of its own.
pub(super) fn script(
    lua: &Lua,
    state: &Rc<State>,
    source: Source,
    ctx: Ctx,
) -> impl Future<Output = Result<Value>> + 'static {
    let compiled = check::compile(lua, &source);
    state.modules.replace(Some(Modules::new(&source, &ctx)));
    state.sources.borrow_mut().push(source);
    let thread = compiled.and_then(|function| begin(lua, state, function));
    drive(lua.clone(), Rc::clone(state), thread, ctx, Vec::new())
}

/// Runs an entry as a body of its own.
pub(super) fn entry(
    lua: &Lua,
    state: &Rc<State>,
    entry: Entry,
    ctx: Ctx,
) -> impl Future<Output = Result<Value>> + 'static {
    let Entry { source, code } = entry;
    let compiled = check::compile_as(lua, &source, &code);
    state.modules.replace(Some(Modules::new(&source, &ctx)));
    // Newer text of the same name has the lines of the older one.
    let mut sources = state.sources.borrow_mut();
    sources.retain(|known| known.name != source.name);
    sources.push(source);
    drop(sources);
    let thread = compiled.and_then(|function| begin(lua, state, function));
    drive(lua.clone(), Rc::clone(state), thread, ctx, Vec::new())
}

/// The names of all globals.
pub(super) fn globals(lua: &Lua) -> HashSet<String> {
    lua.globals().pairs::<String, LuaValue>().flatten().map(|(name, _)| name).collect()
}

/// The globals that are not among `own`, by name.
pub(super) fn declared(lua: &Lua, state: &State, own: &HashSet<String>) -> Globals {
    let globals = lua.globals();
    let mut declared: Globals = globals
        .pairs::<String, LuaValue>()
        .flatten()
        .filter(|(name, _)| !own.contains(name))
        .map(|(name, value)| (name, outline(state, &value, 0)))
        .collect();
    declared.sort_by(|a, b| a.0.cmp(&b.0));
    declared
}

/// A value without what is deep in it: enough to know what it is.
fn outline(state: &State, value: &LuaValue, depth: usize) -> Option<Value> {
    const MOST: usize = 200;
    match value {
        LuaValue::Function(_) | LuaValue::Thread(_) => None,
        LuaValue::Table(_) if depth > 0 => Some(Value::Unit),
        LuaValue::Table(table) => {
            let (mut items, mut map) = (Vec::new(), Map::new());
            for (key, value) in table.pairs::<LuaValue, LuaValue>().flatten().take(MOST) {
                let value = outline(state, &value, depth + 1).unwrap_or_default();
                match key {
                    LuaValue::String(key) => drop(map.insert(key.to_string_lossy(), value)),
                    _ => items.push(value),
                }
            }
            Some(if map.is_empty() { items.into() } else { map.into() })
        }
        value => convert::to_value(state, value).ok(),
    }
}

/// Declares a global.
pub(super) fn set(lua: &Lua, state: &State, name: &str, value: Value) {
    if let Ok(value) = convert::to_lua(lua, state, value, false) {
        let _ = lua.globals().raw_set(name, value);
    }
}

/// Runs a function that the machine holds.
pub(super) fn callback(
    lua: &Lua,
    state: &Rc<State>,
    function: u64,
    ctx: Ctx,
    args: Vec<Value>,
) -> impl Future<Output = Result<Value>> + 'static {
    let thread = match state.function(function) {
        Some(function) => begin(lua, state, function),
        None => Err(ScriptError::runtime("the function is gone")),
    };
    drive(lua.clone(), Rc::clone(state), thread, ctx, args)
}

/// A thread, and the function that it is to run.
type Begun = (Thread, mlua::Function);

fn begin(lua: &Lua, state: &State, function: mlua::Function) -> Result<Begun> {
    let runner = state.runner.borrow().clone();
    let runner = runner.ok_or_else(|| ScriptError::runtime("the machine is not ready"))?;
    let thread = lua.create_thread(runner).map_err(|e| error::native(&e))?;
    Ok((thread, function))
}

async fn drive(
    lua: Lua,
    state: Rc<State>,
    begun: Result<Begun>,
    ctx: Ctx,
    args: Vec<Value>,
) -> Result<Value> {
    let (thread, function) = begun?;
    let mut input = MultiValue::with_capacity(args.len() + 1);
    input.push_back(mlua::Value::Function(function));
    for arg in args {
        input.push_back(convert::to_lua(&lua, &state, arg, false).map_err(|e| error::native(&e))?);
    }
    loop {
        let gave = state.enter(&ctx, || thread.resume::<MultiValue>(input));
        let mut gave = match gave {
            Ok(gave) => gave,
            // Only what no handler in Lua could be called for.
            Err(failed) => {
                if matches!(failed, mlua::Error::MemoryError(_)) {
                    ctx.stop.out_of_memory();
                }
                let error = ctx.stop.check().err().unwrap_or_else(|| error::native(&failed));
                return Err(error::last_seen(&state, error));
            }
        };
        if thread.status() != ThreadStatus::Resumable {
            let ok = matches!(gave.pop_front(), Some(mlua::Value::Boolean(true)));
            let value = gave.pop_front().unwrap_or(mlua::Value::Nil);
            return match ok {
                true => convert::to_value(&state, &value),
                false if error::is_memory(&value) => {
                    ctx.stop.out_of_memory();
                    Err(error::last_seen(&state, ctx.stop.error()))
                }
                false => Err(error::of_value(&state, &value)),
            };
        }
        let word = state.word.get();
        let Some(Pending { work, record }) = state.pending.take() else {
            return Err(ScriptError::runtime("the script waits for nothing"));
        };
        // Elsewhere: whatever the host does for one body, the others go on.
        let mut task = Task(tokio::spawn(work));
        let done = (&mut task.0).await.unwrap_or_else(|failed| {
            Err(ScriptError::runtime(format!("a function of the host failed: {failed}"))
                .hint("this is a fault of sandscript; please report it with the script"))
        });
        let done = done.and_then(|value| {
            convert::to_lua(&lua, &state, value, record).map_err(|e| error::native(&e))
        });
        state.word.set(word);
        input = MultiValue::with_capacity(2);
        input.push_back(mlua::Value::Boolean(done.is_ok()));
        match done {
            Ok(value) => input.push_back(value),
            Err(error) => drop(state.failed.replace(Some(error))),
        }
    }
}

/// A task that ends with who waits for it.
struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
