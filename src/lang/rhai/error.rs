//! Rhai's errors in the script writer's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::rhai::{EvalAltResult, Position as At};

use super::body::Body;
use super::convert::{Held, to_value};
use super::unit::Unit;
use super::{check, engine, modules, unknown, words, world};
use crate::api::{ErrorObject, Frame, Position, Registry, ScriptError, Value, suggest};
use crate::lang::{self, Source, syntax};

/// A call or an import on the way to an error.
struct Step {
    /// The function that was called; none for an import.
    function: Option<String>,
    /// The file that is entered.
    file: Arc<Unit>,
    /// Where, in the file around it.
    at: At,
}

/// An error of a body, with its place in the script and the user's functions around it.
#[allow(clippy::boxed_local, reason = "Rhai boxes its errors")]
pub(super) fn script_error(error: Box<EvalAltResult>, body: &Body) -> ScriptError {
    let mut steps: Vec<Step> = Vec::new();
    let mut error = *error;
    loop {
        let (function, file, inner, at) = match error {
            EvalAltResult::ErrorInFunctionCall(name, file, inner, at) => {
                (Some(name), file, inner, at)
            }
            EvalAltResult::ErrorInModule(file, inner, at) => (None, file, inner, at),
            _ => break,
        };
        let around = steps.last().map_or(&body.unit, |step| &step.file);
        let file = body.script.units.get(&file).unwrap_or_else(|| Arc::clone(around));
        steps.push(Step { function, file, at });
        error = *inner;
    }
    let mut at = error.position();
    let inside = steps.last().map_or(&body.unit, |step| &step.file);
    let mut found = translate(error, body, inside);
    // What happens inside the standard library happened where the user called it.
    while steps.last().is_some_and(|step| step.file.standard) {
        at = steps.pop().map_or(At::NONE, |step| step.at);
    }
    let inside = steps.last().map_or(&body.unit, |step| &step.file);
    if found.position.is_none() {
        check::locate(&mut found, &inside.source, at);
    } else if let Some(called_at) = position(inside, at)
        && found.position.as_ref() != Some(&called_at)
        && found.imported_at.is_empty()
    {
        // It happened in a function that the host called for the call at this place.
        found.trace.push(Frame { function: None, called_at });
    }
    while let Some(step) = steps.pop() {
        let around = steps.last().map_or(&body.unit, |step| &step.file);
        let Some(at) = position(around, step.at) else { continue };
        match step.function {
            None => found.imported_at.push(at),
            Some(name) => {
                let named = !name.is_empty() && !name.starts_with("anon$");
                found.trace.push(Frame { function: named.then_some(name), called_at: at });
            }
        }
    }
    found.trace.dedup();
    found.trace.truncate(16);
    found
}

/// The place in a file; none in the standard library.
fn position(file: &Unit, at: At) -> Option<Position> {
    let line = at.line().filter(|_| !file.standard)?;
    let (file, column) = (file.source.name.to_string(), at.position().unwrap_or(0));
    Some(Position { file, line, column })
}

/// The message of an error in a file.
fn translate(error: EvalAltResult, body: &Body, file: &Unit) -> ScriptError {
    use EvalAltResult as E;
    let registry = &body.ctx.host.registry;
    let source = &file.source;
    match error {
        E::ErrorTerminated(value, _) => match to_error(&value) {
            Some(error) => error,
            None => body.ctx.stop.error(),
        },
        E::ErrorRuntime(value, _) => match (to_error(&value), to_value(&value, None)) {
            (Some(error), _) => error,
            (None, Ok(Value::Unit)) => ScriptError::thrown("the script threw an error".into()),
            (None, Ok(value)) => ScriptError::thrown(value),
            (None, Err(error)) => error,
        },
        E::ErrorParsing(error, _) => syntax(clean(&error.to_string())),
        E::ErrorVariableNotFound(name, _) => match name.rsplit_once("::") {
            Some((alias, name)) => modules::unknown_variable(alias, name, body, file),
            None => unknown_variable(&name, source, registry),
        },
        E::ErrorFunctionNotFound(text, _) => unknown_function(&text, body, file),
        E::ErrorPropertyNotFound(name, _) => {
            let names = names(&source.text);
            let near = suggest::nearest(&name, names.into_iter().filter(|one| *one != name));
            ScriptError::runtime(format!("the map has no '{name}'")).hint(match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("ask first whether it is there: \"{name}\" in map"),
            })
        }
        E::ErrorIndexNotFound(key, _) => {
            let key = to_value(&key, None).map(|key| key.quoted()).unwrap_or_default();
            ScriptError::runtime(format!("there is no {key} in it"))
        }
        E::ErrorMismatchDataType(wanted, got, _) | E::ErrorMismatchOutputType(wanted, got, _) => {
            let (wanted, got) = (words::of_type(&wanted), words::of_type(&got));
            ScriptError::runtime(format!("expected {wanted}, got {got}"))
        }
        E::ErrorIndexingType(name, _) => {
            let name = name.split(" [").next().unwrap_or_default();
            ScriptError::runtime(format!("{} can't be indexed", words::of_type(name)))
        }
        E::ErrorArrayBounds(count, index, _) => {
            let items = if count == 1 { "1 item".into() } else { format!("{count} items") };
            ScriptError::runtime(format!("index {index} is outside of the list, which has {items}"))
        }
        E::ErrorStringBounds(count, index, _) => ScriptError::runtime(format!(
            "index {index} is outside of the string, which has {count} characters"
        )),
        E::ErrorFor(_) => ScriptError::runtime("for can't walk over this")
            .hint("it walks over lists, ranges, the characters of a string, and lines()"),
        E::ErrorDataRace(name, _) => {
            ScriptError::runtime(format!("{name} is used by two functions at once"))
                .hint("hand it to the function as an argument")
        }
        E::ErrorAssignmentToConstant(name, _) => {
            ScriptError::runtime(format!("'{name}' is a constant")).hint("declare it with let")
        }
        E::ErrorUnboundThis(_) => ScriptError::runtime("'this' is nothing here"),
        E::ErrorStackOverflow(_) => ScriptError::runtime(format!(
            "functions call each other deeper than {} levels",
            engine::CALL_LEVELS
        ))
        .hint("a function that calls itself must come to an end"),
        E::ErrorDataTooLarge(name, _) => {
            let what = match name.to_lowercase() {
                name if name.contains("string") => "string",
                name if name.contains("map") => "map",
                _ => "list",
            };
            ScriptError::runtime(format!("a {what} grew too large"))
                .hint("keep large data in files of the sandbox")
        }
        E::ErrorTooManyVariables(_) => ScriptError::runtime("there are too many variables"),
        E::ErrorModuleNotFound(name, _) => lang::modules::unknown_alias(&name, source),
        E::ErrorArithmetic(message, _) => ScriptError::runtime(clean(&message)),
        mut other => {
            let _ = other.take_position();
            ScriptError::runtime(clean(&other.to_string()))
        }
    }
}

/// The error that an uncatchable one carries.
pub(super) fn held(error: &EvalAltResult) -> Option<ScriptError> {
    match error {
        EvalAltResult::ErrorTerminated(value, _) => to_error(value),
        _ => None,
    }
}

fn to_error(value: &::rhai::Dynamic) -> Option<ScriptError> {
    let held = value.read_lock::<Held>()?;
    held.0.downcast::<ErrorObject>().map(|object| object.0.clone())
}

fn unknown_function(text: &str, body: &Body, file: &Unit) -> ScriptError {
    let registry = &body.ctx.host.registry;
    let (name, types) = words::signature(text);
    if name == world::BOUND {
        let takes = types.first().map_or("more", String::as_str);
        return ScriptError::runtime(format!(
            "the function takes {takes} arguments, but gets fewer"
        ));
    }
    if let Some((alias, name)) = name.rsplit_once("::") {
        return modules::unknown_function(alias, name, types.len(), body, file);
    }
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !plain {
        return match types.as_slice() {
            [one] => ScriptError::runtime(format!("'{name}' does not work on {one}")),
            [left, right] => {
                ScriptError::runtime(format!("'{name}' does not work on {left} and {right}"))
            }
            _ => ScriptError::runtime(format!("'{name}' does not work here")),
        };
    }
    if let Some(error) = unknown::explained(&name) {
        return error;
    }
    if unknown::builtin().contains(&name) {
        let given = if types.is_empty() { "nothing".into() } else { types.join(", ") };
        return ScriptError::runtime(format!("{name}() can't be called with ({given})"));
    }
    unknown::unknown_among(registry, &name, None, &unknown::functions(&file.ast))
}

/// The error for a variable that is not declared.
pub(super) fn unknown_variable(name: &str, source: &Source, registry: &Registry) -> ScriptError {
    let error = ScriptError::runtime(format!("there is no variable '{name}'"));
    if registry.function(name).is_some() {
        return error.hint(format!("'{name}' is a function: call it with parentheses"));
    }
    let declared = declared(&source.text);
    let near = suggest::nearest(name, declared.into_iter().filter(|one| *one != name));
    match near {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None => error.hint(format!("declare it with: let {name} = …;")),
    }
}

/// All words of a script that could be names.
pub(super) fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        .collect()
}

/// The variables that a script declares anywhere: `let`, `const`, `for`, and parameters.
pub(super) fn declared(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for word in ["let ", "const ", "for ", "catch ("] {
        for (at, _) in text.match_indices(word) {
            let rest = text[at + word.len()..].trim_start_matches(['(', ' ']);
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            found.insert(&rest[..end.unwrap_or(rest.len())]);
        }
    }
    for params in text.split('|').skip(1).step_by(2) {
        if params.len() < 80 && !params.contains(['\n', ';', '"']) {
            found.extend(names(params));
        }
    }
    for (at, _) in text.match_indices("fn ") {
        let inside = text[at..].split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        if let Some((params, _)) = inside {
            found.extend(names(params));
        }
    }
    found.remove("");
    found
}

/// Rhai's message without Rust's names for types.
pub(super) fn clean(message: &str) -> String {
    let mut text = message
        .replace("&str | ImmutableString | String", "string")
        .replace("i64", "int")
        .replace("f64", "float")
        .replace("array", "list");
    if let Some(rest) = text.strip_prefix("Syntax error: ") {
        text = rest.to_owned();
    }
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "the script has an error".into(),
    }
}
