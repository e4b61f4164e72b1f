//! Values as a person reads them.

use std::time::{Duration, SystemTime};

use unicode_width::UnicodeWidthStr;

use super::table::{cut, table};
use crate::api::{Ctx, Handle, Map, Result, Use, Value};
use crate::cli::view;
use crate::sandbox::format_size;

/// How much is shown of one value where a person looks at it.
const ROWS: usize = 100;
const LINES: usize = 200;
const LINE: usize = 4000;

/// What a value is shown on.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the window; none where nobody looks: then nothing is cut.
    pub width: Option<usize>,
    /// Whether there are colours.
    pub color: bool,
}

/// The columns that come first, where there are such.
const FIRST: &[&str] =
    &["name", "label", "id", "path", "state", "image", "source", "created", "size", "mode"];

/// The columns that come last: a person seldom asks for them.
const LAST: &[&str] = &["fingerprint", "hostname", "run"];

/// The value's text, ending in a newline; empty for nothing. Asks handles for what they are.
pub async fn show(value: &Value, ctx: &Ctx, look: Look) -> Result<String> {
    let text = match value {
        Value::Unit => return Ok(String::new()),
        Value::String(text) if text.trim_end_matches('\n').contains('\n') => text.clone(),
        Value::List(items) if !items.is_empty() => {
            if let Some(rows) = rows(items, ctx, look).await? {
                return Ok(rows);
            }
            list(value, items, look)
        }
        Value::Map(map) if !fits(value, look) => {
            let rows: Vec<Vec<String>> =
                map.iter().map(|(key, value)| vec![line(key), cell(key, value)]).collect();
            let width = rows.iter().map(|row| row[0].width()).max().unwrap_or(0);
            let room = look.width.map(|all| all.saturating_sub(width + 2).max(8));
            let lines = rows.iter().map(|row| {
                let value = room.map_or_else(|| row[1].clone(), |room| cut(&row[1], room));
                format!("{}{}  {value}", row[0], " ".repeat(width - row[0].width()))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        Value::Handle(handle) if handle.0.type_name() == "Result" => {
            return ended(handle, ctx, look).await;
        }
        value => value.quoted(),
    };
    Ok(limited(&text, look))
}

/// Whether the short form has room on one line.
fn fits(value: &Value, look: Look) -> bool {
    value.quoted().width() <= look.width.unwrap_or(100)
}

fn list(value: &Value, items: &[Value], look: Look) -> String {
    if fits(value, look) {
        return value.quoted();
    }
    let lines = items.iter().map(|item| format!("  {},\n", line(&item.quoted())));
    format!("[\n{}]", lines.collect::<String>())
}

/// How a command ended, with what it printed.
async fn ended(handle: &Handle, ctx: &Ctx, look: Look) -> Result<String> {
    let read = |name| ctx.host.registry.read(ctx.clone(), handle.clone(), name);
    let mut text = String::new();
    for stream in ["stdout", "stderr"] {
        if let Value::String(printed) = read(stream).await?
            && !printed.is_empty()
        {
            text.push_str(&limited(&printed, look));
        }
    }
    if read("ok").await? != Value::Bool(true) || text.is_empty() {
        text.push_str(&limited(&handle.0.describe(), look));
    }
    Ok(text)
}

/// A table, when the items are maps, or handles of one type that tell about themselves.
async fn rows(items: &[Value], ctx: &Ctx, look: Look) -> Result<Option<String>> {
    let shown = if look.width.is_some() { ROWS } else { usize::MAX };
    let mut maps = Vec::new();
    for item in items.iter().take(shown) {
        maps.push(match item {
            Value::Map(map) => map.clone(),
            Value::Handle(handle) => match about(handle, ctx).await? {
                Some(map) => map,
                None => return Ok(None),
            },
            _ => return Ok(None),
        });
    }
    let mut columns: Vec<&String> = maps.iter().flat_map(|map| map.keys()).collect();
    columns.sort_by_key(|name| {
        let first = FIRST.iter().position(|first| first == name);
        let last = usize::from(LAST.contains(&name.as_str()));
        (first.unwrap_or(FIRST.len() + last), *name)
    });
    columns.dedup();
    let column = |map: &Map, name: &String| map.get(name).map(|value| cell(name, value));
    columns.retain(|name| {
        maps.iter().any(|map| column(map, name).is_some_and(|cell| !cell.is_empty()))
    });
    if columns.is_empty() {
        return Ok(None);
    }
    let head: Vec<String> = columns.iter().map(|name| line(name)).collect();
    let rows: Vec<Vec<String>> = maps
        .iter()
        .map(|map| columns.iter().map(|name| column(map, name).unwrap_or_default()).collect())
        .collect();
    let mut text = table(&head, &rows, look.width, look.color);
    if items.len() > maps.len() {
        text.push_str(&more(items.len() - maps.len(), "row"));
    }
    Ok(Some(text))
}

/// What a handle says of itself: what its `info` gives, else its properties.
async fn about(handle: &Handle, ctx: &Ctx) -> Result<Option<Map>> {
    let registry = &ctx.host.registry;
    let of = handle.0.type_name();
    if let Some(info) = registry.member(of, "info").filter(|spec| spec.usage == Use::Call) {
        let told = registry.call(info, ctx.clone(), Some(handle.clone()), Vec::new()).await;
        return Ok(match told {
            Ok(Value::Map(map)) => Some(map),
            Ok(_) => None,
            // It went away since the list was made.
            Err(error) if error.catchable() => {
                Some(Map::from([("name".into(), handle.0.describe().into())]))
            }
            Err(error) => return Err(error),
        });
    }
    let mut map = Map::new();
    for name in registry.members(of) {
        if registry.member(of, name).is_some_and(|spec| spec.usage == Use::Property) {
            map.insert(name.into(), registry.read(ctx.clone(), handle.clone(), name).await?);
        }
    }
    Ok((!map.is_empty()).then_some(map))
}

/// A value in a table. Times and sizes are known by their names.
fn cell(name: &str, value: &Value) -> String {
    match (name, value) {
        (_, Value::Unit) => String::new(),
        (_, Value::List(items)) if items.is_empty() => String::new(),
        (_, Value::Map(map)) if map.values().all(Value::is_unit) => String::new(),
        ("created" | "expires" | "modified" | "used", Value::Float(seconds)) => {
            let after = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            match SystemTime::UNIX_EPOCH.checked_add(after) {
                Some(time) if time < SystemTime::now() => view::age(time),
                Some(time) => view::timestamp(time),
                None => value.to_string(),
            }
        }
        ("size", Value::Int(bytes)) => match u64::try_from(*bytes) {
            Ok(bytes) => format_size(bytes),
            Err(_) => bytes.to_string(),
        },
        (_, Value::String(text)) => line(text),
        (_, Value::Map(map)) => {
            let set = map.iter().filter(|(_, value)| !value.is_unit());
            line(&Value::Map(set.map(|(k, v)| (k.clone(), v.clone())).collect()).quoted())
        }
        (_, value) => line(&value.quoted()),
    }
}

/// Text on one line, without what would move the cursor.
fn line(text: &str) -> String {
    let short: String = text.chars().take(LINE).collect();
    crate::workflow::report::clean(&short).replace(['\n', '\t'], " ")
}

/// As much of the text as a person wants to see at once; all where nobody looks.
fn limited(text: &str, look: Look) -> String {
    if look.width.is_none() {
        return if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    }
    let lines = text.trim_end_matches('\n').split('\n');
    let mut out = String::new();
    for line in lines.clone().take(LINES) {
        let line = line.trim_end_matches('\r');
        match line.char_indices().nth(LINE) {
            Some((at, _)) => {
                out.push_str(&crate::workflow::report::clean(&line[..at]));
                out.push_str(&format!("… {} more", format_size((line.len() - at) as u64)));
            }
            None => out.push_str(&crate::workflow::report::clean(line)),
        }
        out.push('\n');
    }
    if let left @ 1.. = lines.count().saturating_sub(LINES) {
        out.push_str(&more(left, "line"));
    }
    out
}

fn more(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("… and {count} more {what}{s}; print it to see all\n")
}
