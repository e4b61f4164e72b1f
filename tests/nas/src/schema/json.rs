//! Types as JSON schemas, as `core.get_methods` shows them.

use serde_json::{Map, Value, json};

use super::ty::{Field, Ty};

/// A type as a JSON schema.
pub fn schema(ty: &Ty) -> Value {
    match ty {
        Ty::Any => json!({}),
        Ty::Null => json!({"type": "null"}),
        Ty::Bool => json!({"type": "boolean"}),
        Ty::Number => json!({"type": "number"}),
        Ty::Int(least, most) => {
            let mut schema = json!({"type": "integer"});
            for (key, bound) in [("minimum", least), ("maximum", most)] {
                if let Some(bound) = bound {
                    schema[key] = (*bound).into();
                }
            }
            schema
        }
        Ty::Str(least, most, pattern) => {
            let mut schema = json!({"type": "string"});
            if *least > 0 {
                schema["minLength"] = (*least).into();
            }
            if *most < usize::MAX {
                schema["maxLength"] = (*most).into();
            }
            if let Some(pattern) = pattern {
                schema["pattern"] = pattern.as_str().into();
            }
            schema
        }
        Ty::Literal(value) => json!({"const": value}),
        Ty::List(item) => json!({"type": "array", "items": schema(item)}),
        Ty::Map => json!({"type": "object"}),
        Ty::MapOf(item) => json!({"type": "object", "additionalProperties": schema(item)}),
        Ty::Object(fields) => object(fields),
        Ty::Union(types) => {
            let words: Vec<&Value> = types
                .iter()
                .filter_map(|t| match t {
                    Ty::Literal(word @ Value::String(_)) => Some(word),
                    _ => None,
                })
                .collect();
            match words.len() == types.len() {
                true => json!({"type": "string", "enum": words}),
                false => json!({"anyOf": types.iter().map(schema).collect::<Vec<_>>()}),
            }
        }
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|f| (f.name.clone(), with_default(f))).collect();
    let required: Vec<&str> =
        fields.iter().filter(|f| !f.optional).map(|f| f.name.as_str()).collect();
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn with_default(field: &Field) -> Value {
    let mut schema = schema(&field.ty);
    if let Some(default) = &field.default {
        schema["default"] = default.clone();
    }
    schema
}

/// A positional parameter.
pub fn parameter(field: &Field) -> Value {
    let mut schema = with_default(field);
    schema["title"] = field.name.as_str().into();
    schema["_name_"] = field.name.as_str().into();
    schema["_required_"] = (!field.optional).into();
    schema
}
