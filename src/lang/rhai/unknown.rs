//! Functions that are not there: what was meant, or how they are called.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use ::rhai::packages::{Package, StandardPackage};
use ::rhai::{Dynamic, Engine};

use super::body;
use super::convert::{Held, to_value};
use crate::api::{Registry, ScriptError, Use, suggest};

/// The names of Rhai's own functions.
pub(super) fn builtin() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut engine = Engine::new_raw();
        StandardPackage::new().register_into_engine(&mut engine);
        let names = engine.gen_fn_signatures(true).into_iter();
        let names = names.filter_map(|text| {
            let name = text.split('(').next()?.trim();
            name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| name.to_owned())
        });
        let words = ["print", "debug", "type_of", "Fn", "call", "curry", "is_def_fn", "is_def_var"];
        names.chain(words.map(String::from)).chain(["is_shared".to_owned()]).collect()
    })
}

thread_local! {
    /// The last call of an unknown function on this thread, explained.
    static LAST: RefCell<Option<(String, ScriptError)>> = const { RefCell::new(None) };
}

/// The explanation for the call of `name` that was just not found.
pub(super) fn explained(name: &str) -> Option<ScriptError> {
    LAST.with(|last| last.borrow_mut().take())
        .filter(|(other, _)| other == name)
        .map(|(_, error)| error)
}

/// Explains calls of unknown functions while the arguments are there. Rhai goes on to raise its own
/// error, which knows the place.
pub(super) fn hooks(engine: &mut Engine, registry: &Arc<Registry>) {
    let registry = Arc::clone(registry);
    #[allow(deprecated, reason = "not deprecated: marked so because it may change")]
    engine.on_missing_function(move |name, args, method, context| {
        // Rhai asks for every error of a call, so only what can be nothing else is answered.
        let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let held = args.first().is_some_and(|first| first.is::<Held>());
        if !plain || (builtin().contains(name) && !held) {
            return Ok(None);
        }
        if let Some(error) = explain(&registry, name, args, method, context.source()) {
            LAST.with(|last| *last.borrow_mut() = Some((name.to_owned(), error)));
        }
        Ok(None)
    });
}

fn explain(
    registry: &Registry,
    name: &str,
    args: &[&mut Dynamic],
    method: bool,
    file: Option<&str>,
) -> Option<ScriptError> {
    let held = args.first().and_then(|first| first.read_lock::<Held>().map(|held| held.0.clone()));
    if let Some(handle) = held {
        let spec = registry.member(handle.0.type_name(), name);
        match spec.filter(|spec| spec.usage == Use::Call) {
            Some(spec) => return spec.count_error(args.len() - 1),
            None if method => return Some(registry.unknown_member(&handle, name, Use::Call)),
            None => {}
        }
    }
    if let Some(spec) = registry.function(name)
        && !method
    {
        return spec.count_error(args.len());
    }
    let given = args.first().filter(|_| method).and_then(|first| to_value(first, None).ok());
    let unit = body::with(|body| body.and_then(|body| body.script.units.get(file?)));
    let own = unit.map(|unit| functions(&unit.ast)).unwrap_or_default();
    Some(unknown_among(registry, name, given.map(|value| value.type_name()), &own))
}

/// The names and parameter counts of a script's own functions.
pub(super) fn functions(ast: &::rhai::AST) -> Vec<(String, usize)> {
    let own = ast.iter_functions().map(|f| (f.name.to_owned(), f.params.len()));
    own.filter(|(name, _)| !name.starts_with("anon$")).collect()
}

/// The error for a function that nobody has; `on` is the type it was called on as a method, `own`
/// are the functions of the file.
pub(super) fn unknown_among(
    registry: &Registry,
    name: &str,
    on: Option<&str>,
    own: &[(String, usize)],
) -> ScriptError {
    if let Some((_, takes)) = own.iter().find(|(own, _)| own == name) {
        return ScriptError::runtime(format!(
            "{name}() is called with the wrong number of arguments"
        ))
        .hint(format!("the script's own {name}() takes {takes}"));
    }
    let receivers: Vec<&str> = registry
        .specs()
        .iter()
        .filter(|spec| spec.name == name && spec.usage == Use::Call)
        .filter_map(|spec| spec.receiver)
        .collect();
    if let (Some(receiver), None) = (receivers.first(), on) {
        return ScriptError::runtime(format!("{name}() is a function of {receiver}"))
            .hint(format!("call it on one: {}.{name}(…)", receiver.to_lowercase()));
    }
    let message = match on {
        Some(on) => format!("{on} has no function '{name}'"),
        None => format!("there is no function '{name}'"),
    };
    let known = registry
        .functions()
        .into_iter()
        .chain(own.iter().map(|(name, _)| name.as_str()))
        .chain(builtin().iter().map(String::as_str));
    let near = suggest::nearest(name, known);
    ScriptError::runtime(message)
        .hint(near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default())
}
