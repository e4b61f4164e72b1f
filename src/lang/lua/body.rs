//! Bodies: the script itself, and functions of it that the host calls. Each is a coroutine that is
//! resumed when what it waits for is there.

use std::rc::Rc;

use mlua::thread::ThreadStatus;
use mlua::{Lua, MultiValue, Thread};

use super::modules::Modules;
use super::state::{Pending, State};
use super::{check, convert, error};
use crate::api::{Ctx, Result, ScriptError, Value};
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
                return Err(ctx.stop.check().err().unwrap_or_else(|| error::native(&failed)));
            }
        };
        if thread.status() != ThreadStatus::Resumable {
            let ok = matches!(gave.pop_front(), Some(mlua::Value::Boolean(true)));
            let value = gave.pop_front().unwrap_or(mlua::Value::Nil);
            return match ok {
                true => convert::to_value(&state, &value),
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
