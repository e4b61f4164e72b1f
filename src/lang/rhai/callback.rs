//! Functions of a Rhai script, callable by the host.

use std::sync::Arc;

use ::rhai::{Array, Dynamic, FnPtr, Map};
use async_trait::async_trait;

use super::body::{self, Body, Script};
use super::convert::{Held, to_dynamic};
use crate::api::{Callable, Ctx, Result, ScriptError, Value};

/// A function pointer with the script it belongs to.
pub(super) struct Function {
    pointer: FnPtr,
    script: Arc<Script>,
    runtime: tokio::runtime::Handle,
}

impl Function {
    /// The function that the body on this thread hands to the host.
    ///
    /// Captured handles are copied out of the variables they share: a handle never changes, and a
    /// variable is locked while one of its methods runs, which would keep the others out.
    pub(super) fn new(mut pointer: FnPtr) -> Result<Arc<Function>> {
        for captured in pointer.iter_curry_mut() {
            let held = captured.read_lock::<Held>().map(|held| held.clone());
            if let Some(held) = held {
                *captured = Dynamic::from(held);
            }
        }
        body::with(|body| match body {
            Some(body) => Ok(Arc::new(Function {
                pointer,
                script: Arc::clone(&body.script),
                runtime: body.runtime.clone(),
            })),
            None => Err(ScriptError::runtime("a function can't leave its script")),
        })
    }

    pub(super) fn pointer(&self) -> &FnPtr {
        &self.pointer
    }

    /// How many arguments it takes beside those it captured; none when it is not the script's.
    fn arity(&self) -> Option<usize> {
        let captured = self.pointer.curry().len();
        self.script
            .ast
            .iter_functions()
            .filter(|function| function.name == self.pointer.fn_name())
            .map(|function| function.params.len().saturating_sub(captured))
            .max()
    }
}

#[async_trait]
impl Callable for Function {
    async fn call(&self, ctx: &Ctx, mut args: Vec<Value>) -> Result<Value> {
        if let Some(takes) = self.arity() {
            if takes > args.len() {
                return Err(ScriptError::runtime(format!(
                    "the function takes {takes} arguments, but gets only {}",
                    args.len()
                )));
            }
            args.truncate(takes);
        }
        let body = Body {
            script: Arc::clone(&self.script),
            ctx: ctx.deeper()?,
            runtime: self.runtime.clone(),
        };
        let pointer = self.pointer.clone();
        body.run(move |script| {
            let args: Vec<Dynamic> = args.into_iter().map(to_dynamic).collect();
            pointer.call::<Dynamic>(&script.engine, &script.ast, args)
        })
        .await
    }

    fn isolated(&self) -> Arc<dyn Callable> {
        Arc::new(Function {
            pointer: isolate_pointer(self.pointer.clone(), 0),
            script: Arc::clone(&self.script),
            runtime: self.runtime.clone(),
        })
    }
}

/// The value without any variable that it shares with others, also not by the functions in it.
fn isolate(value: &Dynamic, depth: usize) -> Dynamic {
    let mut value = value.flatten_clone();
    if depth > 16 {
        return value;
    }
    if let Some(mut items) = value.write_lock::<Array>() {
        items.iter_mut().for_each(|item| *item = isolate(item, depth + 1));
    } else if let Some(mut map) = value.write_lock::<Map>() {
        map.values_mut().for_each(|item| *item = isolate(item, depth + 1));
    } else if let Some(mut pointer) = value.write_lock::<FnPtr>() {
        *pointer = isolate_pointer(pointer.clone(), depth + 1);
    }
    value
}

fn isolate_pointer(mut pointer: FnPtr, depth: usize) -> FnPtr {
    for captured in pointer.iter_curry_mut() {
        *captured = isolate(captured, depth);
    }
    pointer
}
