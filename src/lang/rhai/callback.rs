//! Functions of a Rhai script, callable by the host.

use std::sync::Arc;

use ::rhai::{Array, Dynamic, FnPtr, Map};
use async_trait::async_trait;

use super::body::{self, Body, Script};
use super::convert::{Held, to_dynamic};
use super::unit::Unit;
use super::world::World;
use crate::api::{Callable, Ctx, Result, ScriptError, Value};

/// A function pointer with the script it belongs to.
pub(super) struct Function {
    pointer: FnPtr,
    world: World,
    script: Arc<Script>,
    unit: Arc<Unit>,
    runtime: tokio::runtime::Handle,
}

impl Function {
    /// The function that the body on this thread hands to the host.
    ///
    /// Captured handles are copied out of the variables they share: a handle never changes, and a
    /// variable is locked while one of its methods runs, which would keep the others out.
    pub(super) fn new(mut pointer: FnPtr, world: Option<World>) -> Result<Arc<Function>> {
        for captured in pointer.iter_curry_mut() {
            let held = captured.read_lock::<Held>().map(|held| held.clone());
            if let Some(held) = held {
                *captured = Dynamic::from(held);
            }
        }
        body::with(|body| match body {
            Some(body) => {
                let world = world.unwrap_or_else(|| World::plain(&body.unit, &body.script.engine));
                Ok(Arc::new(Function {
                    pointer,
                    unit: Arc::clone(world.unit().unwrap_or(&body.unit)),
                    world,
                    script: Arc::clone(&body.script),
                    runtime: body.runtime.clone(),
                }))
            }
            None => Err(ScriptError::runtime("a function can't leave its script")),
        })
    }

    /// The function as a value of any file.
    pub(super) fn pointer(&self) -> FnPtr {
        self.world.bound(self.pointer.clone())
    }
}

#[async_trait]
impl Callable for Function {
    async fn call(&self, ctx: &Ctx, mut args: Vec<Value>) -> Result<Value> {
        if let Some(takes) = self.world.arity(&self.pointer) {
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
            unit: Arc::clone(&self.unit),
            ctx: ctx.deeper()?,
            runtime: self.runtime.clone(),
        };
        let (pointer, world) = (self.pointer.clone(), self.world.clone());
        body.run(move |script| {
            let args: Vec<Dynamic> = args.into_iter().map(to_dynamic).collect();
            world.call(&script.engine, &pointer, args)
        })
        .await
    }

    fn isolated(&self) -> Arc<dyn Callable> {
        Arc::new(Function {
            pointer: isolate_pointer(self.pointer.clone(), 0),
            world: self.world.clone(),
            script: Arc::clone(&self.script),
            unit: Arc::clone(&self.unit),
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
