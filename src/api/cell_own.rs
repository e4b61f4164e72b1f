//! What single cells of a matrix have of their own: by axes of certain names, or by a function.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::base::BaseObject;
use super::sandbox::SandboxObject;
use super::{Args, Ctx, ErrorKind, Map, Result, ScriptError, Value, cache, suggest};
use crate::sandbox::{Policy, parse_size};
use crate::workflow::{Cell, CellOwn, MatrixSpec, Source};

/// The axis that says what a cell is made from.
pub(super) const FROM: &str = "from";
/// The axes that are options of their cell, too.
const AXES: &[&str] = &["cpu", "disk", "egress", FROM, "inodes", "memory", "pids"];
/// What the function may give.
const KEYS: &[&str] = &[
    "caches", "cpu", "disk", "egress", "env", FROM, "inodes", "label", "memory", "pids", "weight",
];
/// How many cells' functions run at once.
const AT_ONCE: usize = 8;

/// Fills in what the selected cells have of their own.
pub(super) async fn fill(ctx: &Ctx, args: &Args, spec: &mut MatrixSpec) -> Result<()> {
    let named = spec.axes.iter().any(|(name, _)| AXES.contains(&name.as_str()))
        || spec.include.iter().flatten().any(|(name, _)| AXES.contains(&name.as_str()));
    let function = args.callback("options").map(|callback| callback.0.isolated());
    if spec.list || (!named && function.is_none()) {
        return Ok(());
    }
    let cells = spec.select().map_err(|error| ctx.error(error))?;
    let handles = handles(args);
    for cell in &cells {
        let own = by_axes(cell, &handles)?;
        spec.own.insert(cell.id.clone(), own);
    }
    let Some(function) = function else { return Ok(()) };
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for cell in cells {
        let (ctx, function, gate) = (ctx.clone(), Arc::clone(&function), Arc::clone(&gate));
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            let mut values: Map = cell
                .values
                .iter()
                .map(|(name, value)| (name.clone(), super::matrix::to_value(value)))
                .collect();
            values.insert("id".into(), cell.id.as_str().into());
            (cell.id, function.call(&ctx, vec![Value::Map(values)]).await)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let Ok((id, given)) = done else { continue };
        let map = match given? {
            Value::Unit => continue,
            Value::Map(map) => map,
            Value::List(items) if items.is_empty() => continue,
            other => {
                return Err(ScriptError::runtime(format!(
                    "the function in option 'options' of matrix() must give a map, got {} (cell \
                     '{id}')",
                    other.quoted()
                ))
                .hint("it gives a map, such as #{ from: \"debian/12\", memory: \"1GiB\" }"));
            }
        };
        let own = spec.own.entry(id).or_default();
        for (key, value) in &map {
            set(own, key, value, map.get("label"))?;
        }
    }
    Ok(())
}

/// The bases and sandboxes among the values of the axis `from`, by name.
fn handles(args: &Args) -> HashMap<String, Value> {
    let mut found = HashMap::new();
    let Value::Map(axes) = args.get("axes") else { return found };
    let values = match axes.get(FROM) {
        Some(Value::List(values)) => values.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    for value in values {
        if let (Value::Handle(_), Some(name)) = (value, super::matrix::to_axis(value)) {
            found.insert(name.to_string(), value.clone());
        }
    }
    found
}

fn by_axes(cell: &Cell, handles: &HashMap<String, Value>) -> Result<CellOwn> {
    let mut own = CellOwn::default();
    for (name, value) in &cell.values {
        if AXES.contains(&name.as_str()) {
            let plain = super::matrix::to_value(value);
            let value = if name == FROM { handles.get(&value.to_string()) } else { None };
            set(&mut own, name, value.unwrap_or(&plain), None)?;
        }
    }
    Ok(own)
}

fn set(own: &mut CellOwn, key: &str, value: &Value, label: Option<&Value>) -> Result<()> {
    let wrong = |what: &str| {
        ScriptError::new(
            ErrorKind::Runtime,
            format!("'{key}' of a cell must be {what}, got {}", value.quoted()),
        )
        .focus(key)
    };
    let count = || match value {
        Value::Int(number) => u64::try_from(*number).ok().filter(|number| *number > 0),
        _ => None,
    };
    let size = || match value {
        Value::String(text) => parse_size(text).ok(),
        _ => count(),
    };
    match key {
        FROM => {
            own.source =
                Some(source(value, label).ok_or_else(|| wrong("an image, a base or a sandbox"))?)
        }
        "egress" => {
            let word = value.as_str().ok_or_else(|| wrong("a string"))?;
            own.egress = Some(Policy::parse(word).map_err(ScriptError::from)?);
        }
        "cpu" => {
            own.limits.cpu = Some(match value {
                Value::Int(number) => *number as f64,
                Value::Float(number) => *number,
                _ => return Err(wrong("a number of CPUs")),
            });
        }
        "memory" => own.limits.memory = Some(size().ok_or_else(|| wrong("a size"))?),
        "disk" => own.limits.disk = Some(size().ok_or_else(|| wrong("a size"))?),
        "pids" => own.limits.pids = Some(count().ok_or_else(|| wrong("a number"))?),
        "inodes" => own.limits.inodes = Some(count().ok_or_else(|| wrong("a number"))?),
        "weight" => {
            let weight = count().ok_or_else(|| wrong("a number from 1 on"))?;
            own.weight = usize::try_from(weight).unwrap_or(usize::MAX);
        }
        "env" => match value {
            Value::Map(map) => {
                own.env =
                    map.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
            }
            _ => return Err(wrong("a map")),
        },
        "caches" => match value {
            Value::Map(map) => own.caches = cache::of_map(map)?,
            _ => return Err(wrong("a map")),
        },
        "label" => {}
        other => {
            let hint = suggest::hint(other, KEYS.iter().copied()).unwrap_or_default();
            return Err(ScriptError::runtime(format!("a cell has no option '{other}'"))
                .hint(hint)
                .focus(other));
        }
    }
    own.limits.check().map_err(ScriptError::from)
}

fn source(value: &Value, label: Option<&Value>) -> Option<Source> {
    match value {
        Value::String(image) => Some(Source::image(image.as_str())),
        Value::Handle(handle) => match handle.downcast::<BaseObject>() {
            Some(base) => Some(base.0.clone().into()),
            None => {
                let sandbox = handle.downcast::<SandboxObject>()?.name().ok()?.to_owned();
                let label = label.and_then(Value::as_str).map(str::to_owned);
                Some(Source::Snapshot { sandbox, label })
            }
        },
        _ => None,
    }
}
