//! What the functions of one machine share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlua::{Function, Table};

use super::modules::Modules;
use super::vm::Door;
use crate::api::{Ctx, HandlerFuture, Registry, Result, ScriptError};
use crate::lang::Source;

/// Belongs to the machine's thread.
pub(super) struct State {
    pub(super) registry: Arc<Registry>,
    pub(super) door: Door,
    /// The body that executes now.
    current: RefCell<Option<Ctx>>,
    /// The host call that the body which yields now must wait for.
    pub(super) pending: RefCell<Option<Pending>>,
    /// What it is called.
    pub(super) word: Cell<&'static str>,
    /// Why the host call failed whose body goes on now.
    pub(super) failed: RefCell<Option<ScriptError>>,
    /// Where the script was when it was last looked at.
    pub(super) seen: RefCell<Option<(String, usize)>>,
    pub(super) sources: RefCell<Vec<Source>>,
    /// Parts of sandscript, whose places are nobody's.
    pub(super) hidden: RefCell<Vec<Source>>,
    /// What the script may require, once it runs.
    pub(super) modules: RefCell<Option<Modules>>,
    /// Modules that were found and not read yet.
    pub(super) found: RefCell<HashMap<String, Source>>,
    functions: RefCell<HashMap<u64, Function>>,
    last: Cell<u64>,
    /// Tables that the machine is built with.
    pub(super) tables: Tables,
    /// The function that runs a body, set once the machine is built.
    pub(super) runner: RefCell<Option<Function>>,
    /// Lua's own `error`.
    pub(super) raise: Function,
}

/// A host call that is not done yet.
pub(super) struct Pending {
    pub(super) work: HandlerFuture,
    /// Whether the maps that it gives are records.
    pub(super) record: bool,
}

/// Tables that values are made with.
pub(super) struct Tables {
    /// For each map of the host: the keys that hold nothing.
    pub(super) absent: Table,
    /// What maps have whose keys the script writer may not know.
    pub(super) map: RefCell<Option<Table>>,
    /// What maps have whose keys are known.
    pub(super) record: RefCell<Option<Table>>,
}

impl State {
    pub(super) fn new(
        registry: Arc<Registry>,
        door: &Door,
        absent: Table,
        raise: Function,
    ) -> Rc<State> {
        Rc::new(State {
            registry,
            door: door.clone(),
            current: RefCell::default(),
            pending: RefCell::default(),
            word: Cell::new(""),
            failed: RefCell::default(),
            seen: RefCell::default(),
            sources: RefCell::default(),
            hidden: RefCell::default(),
            modules: RefCell::default(),
            found: RefCell::default(),
            functions: RefCell::default(),
            last: Cell::new(0),
            tables: Tables { absent, map: RefCell::default(), record: RefCell::default() },
            runner: RefCell::default(),
            raise,
        })
    }

    /// The context of the body that executes now.
    pub(super) fn ctx(&self) -> Result<Ctx> {
        self.current
            .borrow()
            .clone()
            .ok_or_else(|| ScriptError::runtime("this can't be called while a script is read"))
    }

    /// Whether the body that executes now must end.
    pub(super) fn stopped(&self) -> bool {
        self.current.borrow().as_ref().is_some_and(|ctx| ctx.stop.stopped())
    }

    /// Takes note of instructions that the body which executes now has done.
    pub(super) fn spend(&self, instructions: u64) {
        if let Some(ctx) = self.current.borrow().as_ref() {
            ctx.stop.spend(instructions);
        }
    }

    /// Ends the run: there is no memory left for what the script wants.
    pub(super) fn out_of_memory(&self) {
        if let Some(ctx) = self.current.borrow().as_ref() {
            ctx.stop.out_of_memory();
        }
    }

    /// Why the body that executes now must end, when it must.
    pub(super) fn stop(&self) -> Option<ScriptError> {
        self.current.borrow().as_ref().and_then(|ctx| ctx.stop.check().err())
    }

    /// Executes Lua as a body.
    pub(super) fn enter<T>(&self, ctx: &Ctx, work: impl FnOnce() -> T) -> T {
        let before = self.current.replace(Some(ctx.clone()));
        self.door.steps.fetch_add(1, Ordering::Relaxed);
        let done = work();
        self.door.steps.fetch_add(1, Ordering::Relaxed);
        self.current.replace(before);
        done
    }

    /// Holds a function for the host.
    pub(super) fn hold(&self, function: Function) -> u64 {
        let id = self.last.get() + 1;
        self.last.set(id);
        self.functions.borrow_mut().insert(id, function);
        id
    }

    pub(super) fn function(&self, id: u64) -> Option<Function> {
        self.functions.borrow().get(&id).cloned()
    }

    pub(super) fn release(&self, id: u64) {
        let function = self.functions.borrow_mut().remove(&id);
        drop(function);
    }
}
