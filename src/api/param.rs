//! What the script was started with: parameters and arguments.

use super::{Args, Ctx, ErrorKind, FnSpec, Result, ScriptError, Type, Value};

async fn param(ctx: Ctx, args: Args) -> Result<Value> {
    let name = args.need("name")?;
    let default = args.get("default");
    ctx.host.asked(name);
    match ctx.host.params.get(name) {
        Some(text) => parse_param(name, text, default),
        None if default.is_unit() => {
            let about = args.string("doc").map(|doc| format!(" ({doc})")).unwrap_or_default();
            Err(usage(format!("the script needs parameter '{name}'{about}"))
                .hint(format!("give it with --set {name}=VALUE")))
        }
        None => Ok(default.clone()),
    }
}

fn usage(message: String) -> ScriptError {
    ScriptError::new(ErrorKind::Usage, message)
}

/// The text of the command line as the type that the default has.
pub fn parse_param(name: &str, text: &str, default: &Value) -> Result<Value> {
    let wrong = || {
        usage(format!(
            "parameter '{name}' must be {}, got '{text}'",
            match default {
                Value::Bool(_) => "true or false",
                Value::Int(_) => "a whole number",
                _ => "a number",
            }
        ))
        .hint(format!("its default is {}", default.quoted()))
    };
    Ok(match default {
        Value::Bool(_) => match text {
            "true" | "yes" | "on" | "1" | "" => true.into(),
            "false" | "no" | "off" | "0" => false.into(),
            _ => return Err(wrong()),
        },
        Value::Int(_) => Value::Int(text.parse().map_err(|_| wrong())?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong())?),
        Value::List(_) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Value::List(words.map(Value::from).collect())
        }
        _ => text.into(),
    })
}

async fn arguments(ctx: Ctx, _args: Args) -> Result<Value> {
    Ok(ctx.host.args.clone().into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("param", param)
            .doc(
                "A parameter of the script, given with --set name=value. It has the type of its \
                  default: a string, a number, a bool, or a list (written a,b,c).",
            )
            .param("name", Type::String, "Its name.")
            .optional(
                "default",
                Type::Any,
                "What it is when not given; without one it must be \
                  given.",
            )
            .optional("doc", Type::String, "One sentence for whoever starts the script.")
            .returns(Type::Any)
            .error("usage", "It must be given and is not, or is of another type than the default.")
            .example(
                "let jobs = param(\"jobs\", 4, \"how many cells at once\");",
                "local jobs = param(\"jobs\", 4, \"how many cells at once\")",
            ),
        FnSpec::function("args", arguments)
            .doc("What stood after the script's name on the command line.")
            .returns(Type::list(Type::String))
            .example(
                "for word in args() { print(word); }",
                "for _, word in ipairs(args()) do print(word) end",
            ),
    ]
}
