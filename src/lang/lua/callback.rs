//! Functions of a Lua script, callable by the host.

use std::sync::Arc;

use async_trait::async_trait;

use super::vm::Door;
use crate::api::{Callable, Ctx, Result, ScriptError, Value};

/// A function that its machine holds for as long as this is there.
pub(super) struct LuaFunction {
    held: Arc<Held>,
    /// How many arguments it names; none when it takes any number.
    takes: Option<usize>,
}

struct Held {
    id: u64,
    door: Door,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.door.release(self.id);
    }
}

impl LuaFunction {
    pub(super) fn new(id: u64, door: Door, takes: Option<usize>) -> LuaFunction {
        LuaFunction { held: Arc::new(Held { id, door }), takes }
    }

    /// Its number in the machine behind `door`; none when it belongs to another.
    pub(super) fn id(&self, door: &Door) -> Option<u64> {
        Arc::ptr_eq(&self.held.door.steps, &door.steps).then_some(self.held.id)
    }
}

#[async_trait]
impl Callable for LuaFunction {
    async fn call(&self, ctx: &Ctx, args: Vec<Value>) -> Result<Value> {
        if let Some(takes) = self.takes.filter(|takes| *takes > args.len()) {
            return Err(ScriptError::runtime(format!(
                "the function takes {takes} arguments, but gets only {}",
                args.len()
            )));
        }
        self.held.door.call(self.held.id, &ctx.deeper()?, args).await
    }

    /// The same function: bodies take turns on one machine, so that they can share variables.
    fn isolated(&self) -> Arc<dyn Callable> {
        Arc::new(LuaFunction { held: Arc::clone(&self.held), takes: self.takes })
    }
}
