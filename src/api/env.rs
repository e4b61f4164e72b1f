//! The host's environment and the run's log.

use super::{Args, Ctx, FnSpec, Result, ScriptError, Type, Value};
use crate::workflow::Level;

async fn env(ctx: Ctx, args: Args) -> Result<Value> {
    let name = args.need("name")?;
    let found = ctx.host.env(name);
    if let Some(trace) = &ctx.trace {
        trace.env(name, found.as_deref());
    }
    match found {
        Some(value) => Ok(value.into()),
        None if args.has("default") => Ok(args.get("default").clone()),
        None => Err(ScriptError::runtime(format!("environment variable '{name}' is not set"))
            .hint(format!("set it, or give a default: env(\"{name}\", \"\")"))),
    }
}

async fn log(ctx: Ctx, args: Args) -> Result<Value> {
    let level = match args.string("level") {
        Some("debug") => Level::Debug,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        _ => Level::Info,
    };
    ctx.log(level, args.get("message").to_string());
    Ok(Value::Unit)
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("env", env)
            .doc(
                "A variable of the host's environment. One that is not set is an error unless \
                  there is a default.",
            )
            .param("name", Type::String, "Its name.")
            .optional("default", Type::Any, "What it is when not set.")
            .returns(Type::Any)
            .error("runtime", "It is not set, and there is no default.")
            .example(
                "let user = env(\"USER\", \"nobody\");",
                "local user = env(\"USER\", \"nobody\")",
            ),
        FnSpec::function("log", log)
            .doc("Says something in the run's log.")
            .param("message", Type::Any, "What to say.")
            .option(
                "level",
                Type::Word(&["debug", "info", "warn", "error"]),
                "How loud. \
                  Default: info.",
            )
            .example(
                "log(\"no cache, this will take a while\", #{ level: \"warn\" });",
                "log(\"no cache, this will take a while\", { level = \"warn\" })",
            ),
    ]
}
