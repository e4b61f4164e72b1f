//! JSON.

use serde_json::Value as Json;

use super::{Args, Ctx, FnSpec, Result, ScriptError, Type, Value};

/// A value from JSON.
pub(super) fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::Unit,
        Json::Bool(value) => value.into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.into(),
        Json::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        Json::Object(map) => {
            Value::Map(map.into_iter().map(|(key, value)| (key, from_json(value))).collect())
        }
    }
}

/// A value as JSON; an error for what JSON can't hold.
pub(super) fn to_json(value: &Value) -> Result<Json> {
    Ok(match value {
        Value::Unit => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => serde_json::Number::from_f64(*value)
            .map(Json::Number)
            .ok_or_else(|| ScriptError::runtime(format!("JSON has no number {value}")))?,
        Value::String(text) => text.as_str().into(),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Result<_>>()?),
        Value::Map(map) => Json::Object(
            map.iter()
                .map(|(key, value)| Ok((key.clone(), to_json(value)?)))
                .collect::<Result<_>>()?,
        ),
        Value::Bytes(_) | Value::Handle(_) | Value::Callback(_) => {
            return Err(ScriptError::runtime(format!("JSON can't hold a {}", value.type_name()))
                .hint("put only nothing, bool, int, float, string, list and map into it"));
        }
    })
}

async fn parse(_ctx: Ctx, args: Args) -> Result<Value> {
    let text = args.need("text")?;
    serde_json::from_str(text)
        .map(from_json)
        .map_err(|error| ScriptError::runtime(format!("the text is not JSON: {error}")))
}

async fn stringify(_ctx: Ctx, args: Args) -> Result<Value> {
    let json = to_json(args.get("value"))?;
    let text = match args.flag("pretty") {
        true => serde_json::to_string_pretty(&json),
        false => serde_json::to_string(&json),
    };
    Ok(text.map_err(|error| ScriptError::runtime(error.to_string()))?.into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("json_parse", parse)
            .doc("A value from JSON text.")
            .param("text", Type::String, "JSON.")
            .returns(Type::Any)
            .error("runtime", "The text is not JSON.")
            .example(
                "let version = json_parse(\"{\\\"version\\\": \\\"1.2\\\"}\").version;",
                "local version = json_parse('{\"version\": \"1.2\"}').version",
            ),
        FnSpec::function("json_stringify", stringify)
            .doc("A value as JSON text; maps are ordered by key.")
            .param("value", Type::Any, "Nothing, bool, number, string, list or map.")
            .option("pretty", Type::Bool, "With line breaks. Default: false.")
            .returns(Type::String)
            .error("runtime", "There is something in it that JSON does not have.")
            .example(
                "box.write(\"/tmp/config.json\", json_stringify(#{ port: 80 }));",
                "box:write(\"/tmp/config.json\", json_stringify({ port = 80 }))",
            ),
    ]
}
