//! Options of a script's own functions.

use super::{Args, Ctx, FnSpec, Map, Result, ScriptError, Type, Value, suggest};

/// What may not stand for one another; everything else the function that uses it checks.
fn alike(default: &Value, given: &Value) -> bool {
    match (default, given) {
        (Value::Bool(_), given) => matches!(given, Value::Bool(_)),
        // Some languages can't tell an empty list from an empty map.
        (Value::List(items), Value::Map(_)) => items.is_empty(),
        (Value::List(_), given) => Type::list(Type::Any).accepts(given),
        (Value::Map(_), given) => Type::Map.accepts(given),
        (_, given) => !matches!(given, Value::Bool(_) | Value::List(_) | Value::Map(_)),
    }
}

async fn check_options(_ctx: Ctx, args: Args) -> Result<Value> {
    let map = |name| match args.get(name) {
        Value::Map(map) => map.clone(),
        _ => Map::new(),
    };
    let (mut all, given) = (map("defaults"), map("given"));
    let also = args.strings("also");
    for (key, value) in given {
        let default = all.get(&key);
        if default.is_none() && !also.contains(&key) {
            let known = all.keys().chain(&also).map(String::as_str);
            return Err(ScriptError::runtime(format!("unknown option '{key}'"))
                .hint(suggest::hint(&key, known).unwrap_or_default())
                .focus(key));
        }
        if let Some(default) = default.filter(|default| !alike(default, &value)) {
            let wanted = default.type_name();
            let article = if wanted.starts_with('i') { "an" } else { "a" };
            return Err(ScriptError::runtime(format!(
                "option '{key}' must be {article} {wanted}, got {}",
                value.quoted()
            ))
            .focus(key));
        }
        all.insert(key, value);
    }
    Ok(all.into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("check_options", check_options)
            .doc(
                "For functions of your own that take options: the defaults with what is given \
                  over them. An option that is in neither the defaults nor also is an error with \
                  a suggestion, as is one of another type than its default.",
            )
            .param("given", Type::Map, "The options that the function got.")
            .param("defaults", Type::Map, "Every option that has a default.")
            .optional("also", Type::list(Type::String), "The names of options that have none.")
            .returns(Type::Map)
            .error("runtime", "An option is unknown or of another type.")
            .example(
                "let options = check_options(#{ jobs: 4 }, #{ jobs: 1, clean: true }, [\"only\"]);",
                "local options = check_options({ jobs = 4 }, { jobs = 1, clean = true }, { \"only\" })",
            ),
    ]
}
