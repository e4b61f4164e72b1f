//! Holds values against types, as strictly as the server does.

use serde_json::{Map, Value};

use super::Method;
use super::ty::{Field, Ty};
use crate::fail::Fault;

/// Checks `value` and fills in what was left out. What is wrong goes to `faults`, named by `path`.
pub fn check(ty: &Ty, value: &Value, path: &str, faults: &mut Vec<Fault>) -> Value {
    let mut wrong = |text: String| faults.push(Fault::new(path, text, 22));
    match (ty, value) {
        (Ty::Any, _) | (Ty::Null, Value::Null) | (Ty::Bool, Value::Bool(_)) => {}
        (Ty::Map, Value::Object(_)) | (Ty::Number, Value::Number(_)) => {}
        (Ty::Int(least, most), Value::Number(n)) => match n.as_i64() {
            None => wrong("Input should be a valid integer".into()),
            Some(n) => {
                if let Some(least) = least.filter(|l| n < *l) {
                    wrong(format!("Input should be greater than or equal to {least}"));
                } else if let Some(most) = most.filter(|m| n > *m) {
                    wrong(format!("Input should be less than or equal to {most}"));
                }
            }
        },
        (Ty::Str(least, most, pattern), Value::String(text)) => {
            let length = text.chars().count();
            if length < *least {
                wrong(format!("String should have at least {least} character{}", plural(*least)));
            } else if length > *most {
                wrong(format!("String should have at most {most} characters"));
            } else if let Some(re) = pattern.as_ref().filter(|re| !re.is_match(text)) {
                wrong(format!("String should match pattern '{re}'"));
            }
        }
        (Ty::Literal(literal), value) if literal == value => {}
        (Ty::List(item), Value::Array(values)) => {
            let each = values.iter().enumerate();
            return each
                .map(|(i, v)| check(item, v, &join(path, &i.to_string()), faults))
                .collect();
        }
        (Ty::MapOf(item), Value::Object(map)) => {
            let each = map.iter().map(|(k, v)| (k.clone(), check(item, v, &join(path, k), faults)));
            return Value::Object(each.collect());
        }
        (Ty::Object(fields), Value::Object(map)) => {
            return Value::Object(object(fields, map, path, faults));
        }
        (Ty::Union(types), value) => return union(types, value, path, faults),
        _ => wrong(expected(ty)),
    }
    value.clone()
}

/// Checks positional arguments against parameters.
pub fn arguments(fields: &[Field], values: &[Value], faults: &mut Vec<Fault>) -> Vec<Value> {
    if values.len() > fields.len() {
        let text =
            format!("Too many arguments (expected {}, found {})", fields.len(), values.len());
        faults.push(Fault::new("", text, 22));
        return Vec::new();
    }
    let mut checked = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        match values.get(i) {
            Some(value) => checked.push(check(&field.ty, value, &field.name, faults)),
            None if field.optional => checked.push(left_out(field).unwrap_or(Value::Null)),
            None => faults.push(Fault::new(&field.name, "Field required".into(), 22)),
        }
    }
    checked
}

/// What about a method's result does not fit its model.
pub fn misfits(method: &Method, args: &[Value], result: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(ty) = &method.returns {
        check(ty, result, "result", &mut faults);
    } else if let Some(ty) = &method.entry {
        let options = args.last();
        let on = |key: &str| options.is_some_and(|o| o[key] == Value::Bool(true));
        let selects = options.and_then(|o| o["select"].as_array()).is_some_and(|s| !s.is_empty());
        let list = Ty::List(Box::new(if selects { Ty::Map } else { ty.clone() }));
        let ty = match &list {
            _ if on("count") => &Ty::Int(Some(0), None),
            Ty::List(row) if on("get") || method.name.ends_with(".config") => row,
            list => list,
        };
        check(ty, result, "result", &mut faults);
    }
    faults
}

/// Keeps of `value` only what `ty` names: how a newer result looks to an older version.
pub fn project(ty: &Ty, value: Value) -> Value {
    match (ty, value) {
        (Ty::Object(fields), Value::Object(map)) => Value::Object(
            map.into_iter()
                .filter_map(|(k, v)| {
                    let field = fields.iter().find(|f| f.name == k)?;
                    Some((k, project(&field.ty, v)))
                })
                .collect(),
        ),
        (Ty::List(item), Value::Array(values)) => {
            values.into_iter().map(|v| project(item, v)).collect()
        }
        (Ty::Union(types), value) => match types.iter().find(|ty| same_kind(ty, &value)) {
            Some(ty) => project(ty, value),
            None => value,
        },
        (_, value) => value,
    }
}

fn object(
    fields: &[Field],
    map: &Map<String, Value>,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Map<String, Value> {
    let mut checked = Map::new();
    for field in fields {
        match map.get(&field.name) {
            Some(value) => {
                let value = check(&field.ty, value, &join(path, &field.name), faults);
                checked.insert(field.name.clone(), value);
            }
            None if field.optional => {
                if let Some(value) = left_out(field) {
                    checked.insert(field.name.clone(), value);
                }
            }
            None => {
                faults.push(Fault::new(&join(path, &field.name), "Field required".into(), 22));
            }
        }
    }
    for key in map.keys().filter(|k| !fields.iter().any(|f| f.name == **k)) {
        let text = "Extra inputs are not permitted".to_owned();
        faults.push(Fault::new(&join(path, key), text, 22));
    }
    checked
}

/// What an optional field is when it is left out. An object is made of its own defaults.
fn left_out(field: &Field) -> Option<Value> {
    match (&field.default, &field.ty) {
        (Some(value), _) => Some(value.clone()),
        (None, Ty::Object(fields))
            if fields
                .iter()
                .all(|f| f.optional && f.default.is_some() || matches!(f.ty, Ty::Map)) =>
        {
            Some(Value::Object(object(fields, &Map::new(), "", &mut Vec::new())))
        }
        (None, Ty::Map) => Some(Value::Object(Map::new())),
        _ => None,
    }
}

fn union(types: &[Ty], value: &Value, path: &str, faults: &mut Vec<Fault>) -> Value {
    let mut best: Option<Vec<Fault>> = None;
    for ty in types {
        let mut own = Vec::new();
        let checked = check(ty, value, path, &mut own);
        if own.is_empty() {
            return checked;
        }
        let near = same_kind(ty, value);
        if near && best.as_ref().is_none_or(|b| own.len() < b.len()) {
            best = Some(own);
        }
    }
    match best {
        Some(own) => faults.extend(own),
        None => {
            let text = if types.iter().all(|t| matches!(t, Ty::Literal(_) | Ty::Null)) {
                choices(types)
            } else {
                types.iter().find(|t| !matches!(t, Ty::Null)).map(expected).unwrap_or_default()
            };
            faults.push(Fault::new(path, text, 22));
        }
    }
    value.clone()
}

/// Whether this alternative is the one that was meant: the kind fits, and so does each literal.
fn same_kind(ty: &Ty, value: &Value) -> bool {
    match (ty, value) {
        (Ty::Object(fields), Value::Object(map)) => fields.iter().all(|f| match &f.ty {
            Ty::Literal(l) => map.get(&f.name) == Some(l),
            _ => true,
        }),
        (Ty::List(_), Value::Array(_))
        | (Ty::Int(..), Value::Number(_))
        | (Ty::Str(..), Value::String(_)) => true,
        _ => false,
    }
}

fn expected(ty: &Ty) -> String {
    match ty {
        Ty::Null => "Input should be None".into(),
        Ty::Bool => "Input should be a valid boolean".into(),
        Ty::Int(..) => "Input should be a valid integer".into(),
        Ty::Number => "Input should be a valid number".into(),
        Ty::Str(..) => "Input should be a valid string".into(),
        Ty::List(_) => "Input should be a valid list".into(),
        Ty::Map | Ty::MapOf(_) | Ty::Object(_) => "Input should be a valid dictionary".into(),
        Ty::Literal(Value::String(s)) => format!("Input should be '{s}'"),
        Ty::Literal(_) => "Input should be True".into(),
        Ty::Union(types) => choices(types),
        Ty::Any => String::new(),
    }
}

fn choices(types: &[Ty]) -> String {
    let names: Vec<String> = types
        .iter()
        .filter_map(|t| match t {
            Ty::Literal(v) => v.as_str().map(|s| format!("'{s}'")),
            _ => None,
        })
        .collect();
    match names.split_last() {
        Some((last, [])) => format!("Input should be {last}"),
        Some((last, rest)) => format!("Input should be {} or {last}", rest.join(", ")),
        None => "Input should be None".into(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
