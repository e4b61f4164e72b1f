//! The registry's entries as Rhai functions.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::rhai::{
    Array, Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, INT, ImmutableString, Module,
    NativeCallContext, Position,
};

use super::body;
use super::convert::{Held, to_dynamic, to_value};
use crate::api::{Ctx, Handle, Registry, Result, ScriptError, Use, Value};

type Answer<T = Dynamic> = Result<T, Box<EvalAltResult>>;

/// Binds everything: one Rhai function for each name and number of arguments, which finds its
/// entry by the type of the handle.
pub(super) fn all(engine: &mut Engine, registry: &Arc<Registry>) {
    engine
        .register_type_with_name::<Held>("handle")
        .register_type_with_name::<INT>("int")
        .register_type_with_name::<FLOAT>("float")
        .register_type_with_name::<Array>("list")
        .register_type_with_name::<::rhai::Blob>("bytes")
        .register_type_with_name::<FnPtr>("function");
    let mut bound = BTreeSet::new();
    for spec in registry.specs().iter().filter(|spec| spec.usage == Use::Call) {
        // One too few and one too many, too: the error then comes from the entry itself.
        let (least, most) = spec.arity();
        for count in least.saturating_sub(1)..=most + 1 {
            if bound.insert((spec.receiver.is_some(), spec.name, count)) {
                match spec.receiver {
                    Some(_) => method(engine, registry, spec.name, count),
                    None => function(engine, registry, spec.name, count),
                }
            }
        }
    }
    properties(engine, registry);
    iteration(engine, registry);
    printing(engine);
}

fn function(engine: &mut Engine, registry: &Arc<Registry>, name: &'static str, count: usize) {
    // Rhai prefers its own function of the same name where that has the exact types.
    let mut overloads = vec![vec![TypeId::of::<Dynamic>(); count]];
    if count == 1 {
        overloads.extend(
            [TypeId::of::<INT>(), TypeId::of::<FLOAT>(), TypeId::of::<ImmutableString>()]
                .map(|one| vec![one]),
        );
    }
    for types in overloads {
        let registry = Arc::clone(registry);
        engine.register_raw_fn(name, types, move |context, args| {
            let values = values(&context, args)?;
            let Some(spec) = registry.function(name).cloned() else { return Ok(Dynamic::UNIT) };
            let table = Arc::clone(&registry);
            let done = host(move |ctx| async move { table.call(&spec, ctx, None, values).await });
            done.map(|value| callable(name, value, &registry))
        });
    }
}

/// A handle that has a method `call`. Rhai keeps that word for functions: in it, it is one.
fn callable(name: &str, value: Dynamic, registry: &Arc<Registry>) -> Dynamic {
    let Some(handle) = held(&value) else { return value };
    let Some(spec) = registry.member(handle.0.type_name(), "call").cloned() else { return value };
    let registry = Arc::clone(registry);
    let call = move |context: NativeCallContext<'_>, args: &mut [&mut Dynamic]| -> Answer {
        let values = values(&context, args)?;
        let (registry, spec, handle) = (Arc::clone(&registry), Arc::clone(&spec), handle.clone());
        host(move |ctx| async move { registry.call(&spec, ctx, Some(handle), values).await })
    };
    #[allow(deprecated, reason = "not deprecated: marked so because it may change")]
    FnPtr::from_fn(name, call).map_or(value, Dynamic::from)
}

fn method(engine: &mut Engine, registry: &Arc<Registry>, name: &'static str, count: usize) {
    let registry = Arc::clone(registry);
    let mut types = vec![TypeId::of::<Held>()];
    types.extend(vec![TypeId::of::<Dynamic>(); count]);
    engine.register_raw_fn(name, types, move |context, args| {
        let handle = held(args[0]);
        let values = values(&context, &args[1..])?;
        let found = handle.as_ref().and_then(|h| registry.member(h.0.type_name(), name)).cloned();
        let registry = Arc::clone(&registry);
        host(move |ctx| async move {
            match (found, handle) {
                (Some(spec), Some(handle)) if spec.usage == Use::Call => {
                    registry.call(&spec, ctx, Some(handle), values).await
                }
                (_, Some(handle)) => Err(registry.unknown_member(&handle, name, Use::Call)),
                _ => Ok(Value::Unit),
            }
        })
    });
}

fn properties(engine: &mut Engine, registry: &Arc<Registry>) {
    let table = Arc::clone(registry);
    engine.register_indexer_get(move |held: &mut Held, name: ImmutableString| -> Answer {
        let (table, handle) = (Arc::clone(&table), held.0.clone());
        host(move |ctx| async move { table.read(ctx, handle, &name).await })
    });
    let table = Arc::clone(registry);
    engine.register_indexer_set(
        move |held: &mut Held, name: ImmutableString, value: Dynamic| -> Answer<()> {
            // After `cell.sandbox.run(…)` or `result.stdout.split(…)` Rhai sets the property to what
            // it was.
            let (table, handle, key) = (Arc::clone(&table), held.0.clone(), name.clone());
            let old = host(move |ctx| async move { table.read(ctx, handle, &key).await })?;
            if let (Ok(old), Ok(new)) = (to_value(&old, None), to_value(&value, None))
                && old == new
            {
                return Ok(());
            }
            let of = held.0.0.type_name();
            let error = ScriptError::runtime(format!("'{name}' of {of} can't be set"));
            Err(raise(error.focus(name).hint("copy it into a variable first, and change that")))
        },
    );
}

fn iteration(engine: &mut Engine, registry: &Arc<Registry>) {
    let registry = Arc::clone(registry);
    let mut module = Module::new();
    module.set_iter_result(TypeId::of::<Held>(), move |value| {
        let registry = Arc::clone(&registry);
        let mut handle = value.try_cast::<Held>().map(|held| held.0);
        Box::new(std::iter::from_fn(move || {
            let walked = handle.clone()?;
            let next = registry.member(walked.0.type_name(), "next").cloned();
            let (Some(spec), true) = (next, walked.0.iterable()) else {
                handle = None;
                let of = walked.0.type_name();
                return Some(Err(raise(ScriptError::runtime(format!(
                    "for can't walk over a {of}"
                )))));
            };
            let registry = Arc::clone(&registry);
            let done = host(move |ctx| async move {
                registry.call(&spec, ctx, Some(walked), Vec::new()).await
            });
            match done {
                Ok(value) if value.is_unit() => None,
                other => Some(other),
            }
        }))
    });
    engine.register_global_module(module.into());
}

/// The friendly forms, alike in every language.
fn printing(engine: &mut Engine) {
    let text = |value: &Dynamic, quoted: bool| -> ImmutableString {
        match to_value(value, None) {
            Ok(value) if quoted => value.quoted().into(),
            Ok(value) => value.to_string().into(),
            Err(_) => value.to_string().into(),
        }
    };
    for types in [TypeId::of::<Dynamic>(), TypeId::of::<Held>(), TypeId::of::<Array>()]
        .into_iter()
        .chain([TypeId::of::<::rhai::Map>(), TypeId::of::<FLOAT>(), TypeId::of::<FnPtr>()])
    {
        for name in ["print", "to_string"] {
            engine.register_raw_fn(name, [types], move |_, args| Ok(text(args[0], false)));
        }
        for name in ["debug", "to_debug"] {
            engine.register_raw_fn(name, [types], move |_, args| Ok(text(args[0], true)));
        }
    }
}

fn held(value: &Dynamic) -> Option<Handle> {
    value.read_lock::<Held>().map(|held| held.0.clone())
}

fn values(from: &NativeCallContext<'_>, args: &[&mut Dynamic]) -> Answer<Vec<Value>> {
    args.iter().map(|arg| to_value(arg, Some(from))).collect::<Result<_>>().map_err(raise)
}

/// Waits for a host function on the body's own thread.
fn host<F>(call: impl FnOnce(Ctx) -> F) -> Answer
where
    F: Future<Output = Result<Value>>,
{
    let body = body::with(|body| body.map(|body| (body.ctx.clone(), body.runtime.clone())));
    let Some((ctx, runtime)) = body else {
        return Err(raise(ScriptError::runtime("this can't be called while a script is read")));
    };
    body::hosted();
    // Most calls are done at once: only the others wait.
    let mut work = std::pin::pin!(call(ctx));
    let done = {
        let _inside = runtime.enter();
        work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    let done = match done {
        Poll::Ready(done) => done,
        Poll::Pending => runtime.block_on(work),
    };
    done.map(to_dynamic).map_err(raise)
}

/// An error as Rhai carries it: one that scripts may catch, or one that ends them.
pub(super) fn raise(error: ScriptError) -> Box<EvalAltResult> {
    let catchable = error.catchable();
    let value = to_dynamic(error.into_value());
    match catchable {
        true => EvalAltResult::ErrorRuntime(value, Position::NONE).into(),
        false => EvalAltResult::ErrorTerminated(value, Position::NONE).into(),
    }
}
