//! The language of `query` methods: filters and options over rows.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::fail::Fail;
use crate::trap::Traps;

/// Applies filters and options to rows, as every `query` method does.
pub fn run(
    rows: Vec<Value>,
    filters: &Value,
    options: &Value,
    traps: Traps,
) -> Result<Value, Fail> {
    let filters = filters.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = Vec::new();
    for row in rows {
        if all(filters, &row)? {
            found.push(row);
        }
    }
    let texts = |key: &str| -> Vec<Value> { options[key].as_array().cloned().unwrap_or_default() };
    for order in texts("order_by").iter().rev().filter_map(Value::as_str) {
        sort(&mut found, order);
    }
    if options["count"] == json!(true) {
        return Ok(found.len().into());
    }
    let offset = options["offset"].as_u64().unwrap_or(0) as usize;
    let limit = options["limit"].as_u64().filter(|n| *n > 0).unwrap_or(u64::MAX) as usize;
    let select = texts("select");
    let rows = found.into_iter().skip(offset).take(limit);
    let mut rows: Vec<Value> =
        if select.is_empty() { rows.collect() } else { rows.map(|r| pick(&r, &select)).collect() };
    if options["get"] != json!(true) {
        return Ok(rows.into());
    }
    if rows.is_empty() {
        return if traps.on(9) {
            Err(Fail::Raised("MatchNotFound", "MatchNotFound()".into()))
        } else {
            Ok(Value::Null)
        };
    }
    Ok(rows.swap_remove(0))
}

/// The value at a dotted path.
pub fn at<'a>(row: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(path) {
        return Some(value);
    }
    path.split('.').try_fold(row, |value, key| match value {
        Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
        other => other.get(key),
    })
}

fn all(filters: &[Value], row: &Value) -> Result<bool, Fail> {
    for filter in filters {
        if !one(filter, row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn one(filter: &Value, row: &Value) -> Result<bool, Fail> {
    let wrong = || Fail::Raised("ValueError", format!("Invalid filter {filter}"));
    let parts = filter.as_array().ok_or_else(wrong)?;
    if parts.len() == 2 && parts[0] == "OR" {
        for branch in parts[1].as_array().ok_or_else(wrong)? {
            let nested = branch.as_array().is_some_and(|b| b.first().is_some_and(Value::is_array));
            let matches = if nested {
                all(branch.as_array().map(Vec::as_slice).unwrap_or_default(), row)?
            } else {
                one(branch, row)?
            };
            if matches {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let [field, op, value] = &parts[..] else { return Err(wrong()) };
    let (Some(field), Some(op)) = (field.as_str(), op.as_str()) else { return Err(wrong()) };
    let actual = at(row, field).unwrap_or(&Value::Null);
    let text = actual.as_str().unwrap_or_default();
    let wanted = value.as_str().unwrap_or_default();
    Ok(match op {
        "=" => actual == value,
        "!=" => actual != value,
        ">" => order(actual, value) == Some(Ordering::Greater),
        "<" => order(actual, value) == Some(Ordering::Less),
        ">=" => matches!(order(actual, value), Some(Ordering::Greater | Ordering::Equal)),
        "<=" => matches!(order(actual, value), Some(Ordering::Less | Ordering::Equal)),
        // A match at the start, as Python's `re.match`.
        "~" => Regex::new(&format!("^(?:{wanted})")).map_err(|_| wrong())?.is_match(text),
        "in" => holds(value, actual),
        "nin" => !holds(value, actual),
        "rin" => holds(actual, value),
        "rnin" => !holds(actual, value),
        "^" => text.starts_with(wanted),
        "!^" => !text.starts_with(wanted),
        "$" => text.ends_with(wanted),
        "!$" => !text.ends_with(wanted),
        _ => return Err(Fail::Raised("ValueError", format!("Invalid operation: {op}"))),
    })
}

fn holds(container: &Value, item: &Value) -> bool {
    match container {
        Value::Array(items) => items.contains(item),
        Value::String(text) => item.as_str().is_some_and(|i| text.contains(i)),
        _ => false,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Object(_), Value::Object(_)) => order(a.get("$date")?, b.get("$date")?),
        _ => None,
    }
}

fn sort(rows: &mut [Value], by: &str) {
    let by = by.trim_start_matches("nulls_first:").trim_start_matches("nulls_last:");
    let (field, reverse) = by.strip_prefix('-').map_or((by, false), |f| (f, true));
    rows.sort_by(|a, b| {
        let (a, b) = (at(a, field).unwrap_or(&Value::Null), at(b, field).unwrap_or(&Value::Null));
        let order = order(a, b).unwrap_or_else(|| a.is_null().cmp(&b.is_null()).reverse());
        if reverse { order.reverse() } else { order }
    });
}

fn pick(row: &Value, select: &[Value]) -> Value {
    let mut picked = Map::new();
    for item in select {
        let (path, name) = match item {
            Value::String(path) => (path.as_str(), path.as_str()),
            Value::Array(pair) => match (pair.first(), pair.get(1)) {
                (Some(Value::String(path)), Some(Value::String(name))) => {
                    (path.as_str(), name.as_str())
                }
                _ => continue,
            },
            _ => continue,
        };
        if let Some(value) = at(row, path) {
            put(&mut picked, name, value.clone());
        }
    }
    Value::Object(picked)
}

/// Puts a value at a dotted path; what is beside it stays.
fn put(into: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((key, rest)) = path.split_once('.') else {
        into.insert(path.to_owned(), value);
        return;
    };
    let inner = into.entry(key).or_insert_with(|| json!({}));
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Some(inner) = inner.as_object_mut() {
        put(inner, rest, value);
    }
}
