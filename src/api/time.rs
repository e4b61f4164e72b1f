//! Time.

use super::{Args, Ctx, FnSpec, Result, Type, Value};

async fn sleep(_ctx: Ctx, args: Args) -> Result<Value> {
    tokio::time::sleep(args.duration("duration")?.unwrap_or_default()).await;
    Ok(Value::Unit)
}

async fn now(_ctx: Ctx, _args: Args) -> Result<Value> {
    Ok(crate::sandbox::wall_clock().into())
}

async fn seconds(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.duration("duration")?.unwrap_or_default().into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("sleep", sleep)
            .doc("Waits. Ends at once when the run is cancelled.")
            .param("duration", Type::Duration, "How long.")
            .example("sleep(\"20ms\");", "sleep(\"20ms\")"),
        FnSpec::function("now", now)
            .doc("The time: seconds since 1970, with a fraction.")
            .returns(Type::Number)
            .example("let started = now();", "local started = now()"),
        FnSpec::function("seconds", seconds)
            .doc("How many seconds a duration is.")
            .param("duration", Type::Duration, "The duration.")
            .returns(Type::Number)
            .example("assert_eq(seconds(\"1m30s\"), 90);", "assert_eq(seconds(\"1m30s\"), 90)"),
    ]
}
