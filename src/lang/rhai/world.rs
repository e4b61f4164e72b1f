//! What a function can see: the functions, imports and constants of the file it was written in.
//!
//! Rhai looks functions up where they are called. A function that leaves its file, as an argument, a
//! result or a function of a module, is therefore bound to the state of its own file, and called in
//! that.

use std::any::TypeId;
use std::sync::Arc;

use ::rhai::{
    Array, Dynamic, Engine, EvalAltResult, FnAccess, FnPtr, FuncRegistration, GlobalRuntimeState,
    Map, Module, NativeCallContext, Position, RhaiFunc, ScriptFnMetadata, Shared,
};

use super::body;
use super::unit::Unit;

/// The name of a bound function, for Rhai.
pub(super) const BOUND: &str = "bound";

type Answer = Result<Dynamic, Box<EvalAltResult>>;

/// A file with its state: functions, imports, constants.
#[derive(Clone)]
pub(super) struct World {
    unit: Option<Arc<Unit>>,
    global: Arc<GlobalRuntimeState>,
}

impl World {
    /// The file from which a native function is called.
    pub(super) fn of(context: &NativeCallContext<'_>) -> World {
        let name = context.call_source().unwrap_or_default();
        let unit = body::with(|body| body.and_then(|body| body.script.units.get(name)));
        Self::new(unit, context.global_runtime_state().clone())
    }

    /// A file with nothing but its functions.
    pub(super) fn plain(unit: &Arc<Unit>, engine: &Engine) -> World {
        let mut global = engine.new_global_runtime_state();
        global.lib.push(unit.ast.shared_lib().clone());
        global.source = unit.ast.source().map(Into::into);
        Self::new(Some(Arc::clone(unit)), global)
    }

    /// A file in this state.
    pub(super) fn new(unit: Option<Arc<Unit>>, mut global: GlobalRuntimeState) -> World {
        global.level = 0;
        World { unit, global: Arc::new(global) }
    }

    /// The file.
    pub(super) fn unit(&self) -> Option<&Arc<Unit>> {
        self.unit.as_ref()
    }

    /// Calls `work` in this state, as if from where `from` was called.
    fn enter(
        &self,
        from: &NativeCallContext<'_>,
        work: impl FnOnce(&NativeCallContext<'_>) -> Answer,
    ) -> Answer {
        let mut global = GlobalRuntimeState::clone(&self.global);
        global.level = from.call_level() + 1;
        let (engine, at) = (from.engine(), from.call_position());
        let result =
            work(&NativeCallContext::new_with_all_fields(engine, BOUND, None, &global, at));
        result.map(|value| self.bind(value))
    }

    /// Calls a function of this file on behalf of the host.
    pub(super) fn call(&self, engine: &Engine, pointer: &FnPtr, args: Vec<Dynamic>) -> Answer {
        let at = Position::NONE;
        let context = NativeCallContext::new_with_all_fields(engine, BOUND, None, &self.global, at);
        pointer.call_raw(&context, None, args)
    }

    /// The value with all functions in it bound to this file.
    pub(super) fn bind(&self, value: Dynamic) -> Dynamic {
        if !holds_functions(&value, 0) {
            return value;
        }
        let mut value = value.flatten();
        if let Some(mut items) = value.write_lock::<Array>() {
            items.iter_mut().for_each(|item| *item = self.bind(std::mem::take(item)));
        } else if let Some(mut map) = value.write_lock::<Map>() {
            map.values_mut().for_each(|item| *item = self.bind(std::mem::take(item)));
        } else if let Some(mut pointer) = value.write_lock::<FnPtr>() {
            *pointer = self.bound(pointer.clone());
        }
        value
    }

    /// The function, called in this file's state wherever it is called.
    pub(super) fn bound(&self, pointer: FnPtr) -> FnPtr {
        if pointer.fn_name() == BOUND {
            return pointer;
        }
        let takes = self.arity(&pointer);
        let captured = pointer.curry().len();
        let mut bare = pointer.clone();
        bare.set_curry([]);
        let world = self.clone();
        let call = move |from: NativeCallContext<'_>, args: &mut [&mut Dynamic]| -> Answer {
            let mut given = bind_arguments(&from, args, captured);
            if let Some(takes) = takes {
                if given.len() < captured + takes {
                    // Rhai's own functions then try again with more arguments.
                    let name = format!("{BOUND} ({takes})");
                    return Err(EvalAltResult::ErrorFunctionNotFound(name, Position::NONE).into());
                }
                given.truncate(captured + takes);
            }
            world.enter(&from, |context| bare.call_raw(context, None, given))
        };
        #[allow(deprecated, reason = "not deprecated: marked so because it may change")]
        match FnPtr::from_fn(BOUND, call) {
            Ok(mut bound) => {
                bound.set_curry(pointer.iter_curry().cloned());
                bound
            }
            Err(_) => pointer,
        }
    }

    /// How many arguments a function of the file takes beside those it captured; none when it is
    /// not the file's.
    pub(super) fn arity(&self, pointer: &FnPtr) -> Option<usize> {
        let captured = pointer.curry().len();
        let functions = self.unit.iter().flat_map(|unit| unit.ast.iter_functions());
        functions
            .filter(|function| function.name == pointer.fn_name())
            .map(|function| function.params.len().saturating_sub(captured))
            .max()
    }

    /// The file as a module: its public functions, and the `variables` that it exports.
    pub(super) fn module(&self, variables: &Module) -> Module {
        let mut module = Module::new();
        for (name, value) in variables.iter_var() {
            module.set_var(name, self.bind(value.clone()));
        }
        let functions = self.unit.iter().flat_map(|unit| unit.ast.iter_functions());
        for function in functions.filter(|function| is_public(function)) {
            let name = function.name.to_owned();
            let (world, own) = (self.clone(), name.clone());
            let call = move |from: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| {
                let Some(from) = from else { return Ok(Dynamic::UNIT) };
                let mut given = bind_arguments(&from, args, 0);
                world.enter(&from, |context| {
                    let mut given: Vec<&mut Dynamic> = given.iter_mut().collect();
                    context.call_fn_raw(&own, false, false, &mut given)
                })
            };
            let call = RhaiFunc::Pure {
                func: Shared::new(call),
                has_context: true,
                is_pure: true,
                is_volatile: true,
            };
            let types = vec![TypeId::of::<Dynamic>(); function.params.len()];
            FuncRegistration::new(name).in_internal_namespace().set_into_module_raw(
                &mut module,
                types,
                call,
            );
        }
        module.build_index();
        module
    }
}

/// Whether other files can call the function.
pub(super) fn is_public(function: &ScriptFnMetadata<'_>) -> bool {
    matches!(function.access, FnAccess::Public)
        && function.this_type.is_none()
        && !function.name.starts_with("anon$")
}

/// The arguments, functions in them bound to the file that calls; the first `captured` are not
/// that file's.
fn bind_arguments(
    from: &NativeCallContext<'_>,
    args: &[&mut Dynamic],
    captured: usize,
) -> Vec<Dynamic> {
    let mut caller = None;
    let bind = |(index, arg): (usize, &&mut Dynamic)| {
        let arg = (**arg).clone();
        if index < captured || !holds_functions(&arg, 0) {
            return arg;
        }
        caller.get_or_insert_with(|| World::of(from)).bind(arg)
    };
    args.iter().enumerate().map(bind).collect()
}

/// Whether there is a function in the value that is not bound yet.
fn holds_functions(value: &Dynamic, depth: usize) -> bool {
    const DEPTH: usize = 64;
    if depth > DEPTH {
        return false;
    }
    if let Some(pointer) = value.read_lock::<FnPtr>() {
        return pointer.fn_name() != BOUND;
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().any(|item| holds_functions(item, depth + 1));
    }
    if let Some(map) = value.read_lock::<Map>() {
        return map.values().any(|item| holds_functions(item, depth + 1));
    }
    false
}
