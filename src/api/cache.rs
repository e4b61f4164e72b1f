//! Caches: the option `caches`, and waiting for them.

use super::{Args, Ctx, Map, Opt, Result, ScriptError, Type, Value, suggest};
use crate::sandbox::{self, CacheMount, Spec};
use crate::workflow::Waiter;

const KEYS: [&str; 2] = ["path", "share"];

/// The option by which a sandbox gets caches.
pub(super) fn option() -> Opt {
    Opt {
        name: "caches",
        ty: Type::map_of(Type::OneOf(vec![Type::String, Type::Map])),
        doc: "Folders that outlive it and are in no snapshot: by name the path, or #{ path, share \
              }. One that is not shared is waited for while another sandbox that runs has it.",
    }
}

/// What the option says.
pub(super) fn caches(args: &Args) -> Result<Vec<CacheMount>> {
    match args.get("caches") {
        Value::Map(map) => of_map(map),
        _ => Ok(Vec::new()),
    }
}

/// The caches of a map, checked.
pub(super) fn of_map(map: &Map) -> Result<Vec<CacheMount>> {
    let caches = map.iter().map(|(name, value)| one(name, value)).collect::<Result<Vec<_>>>()?;
    check(&caches)?;
    Ok(caches)
}

/// Refuses caches that no sandbox can have.
pub(super) fn check(caches: &[CacheMount]) -> Result<()> {
    let probe = Spec { caches: caches.to_vec(), ..Spec::new("probe") };
    probe.check().map_err(|error| ScriptError::from(error).focus("caches"))
}

fn one(name: &str, value: &Value) -> Result<CacheMount> {
    let wrong = |what: String| ScriptError::runtime(format!("cache '{name}': {what}")).focus(name);
    let map = match value {
        Value::String(path) => return Ok(CacheMount::new(name, path)),
        Value::Map(map) => map,
        other => {
            return Err(wrong(format!("it must be a path or a map, got {}", other.quoted()))
                .hint("write it as #{ pip: \"/root/.cache/pip\" }"));
        }
    };
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let hint = suggest::hint(key, KEYS).unwrap_or_default();
        return Err(wrong(format!("unknown key '{key}'")).focus(key).hint(hint));
    }
    let shared = match map.get("share") {
        None => false,
        Some(Value::Bool(shared)) => *shared,
        Some(_) => return Err(wrong("'share' must be true or false".into())),
    };
    match map.get("path") {
        Some(Value::String(path)) => Ok(CacheMount { shared, ..CacheMount::new(name, path) }),
        _ => Err(wrong("'path' must be a string".into())
            .hint("write it as #{ pip: #{ path: \"/root/.cache/pip\", share: true } }")),
    }
}

/// Does what starts a sandbox, as soon as its caches are free.
pub(super) async fn when_free<T, F>(ctx: &Ctx, sandbox: &str, start: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = sandbox::Result<T>>,
{
    let waiter = Waiter {
        sandbox,
        cell: ctx.cell.as_deref(),
        base: None,
        events: &ctx.host.run.events,
        cancel: ctx.cancel(),
    };
    waiter.when_free(start).await.map_err(|error| ctx.error(error))
}
