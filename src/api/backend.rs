//! The backend: what it is and can do, and tidying up on it.

use super::{Args, Ctx, FnSpec, Result, Type, Value};
use crate::sandbox::Enforcer;

async fn backend(ctx: Ctx, _args: Args) -> Result<Value> {
    let can = ctx.backend().capabilities();
    let has: Vec<String> = can.has.iter().map(ToString::to_string).collect();
    let missing = can.missing.iter().map(|(what, why)| (what.to_string(), why.as_str().into()));
    let egress = match can.egress {
        Enforcer::Host => "host",
        Enforcer::Guest => "guest",
    };
    Ok(Value::map([
        ("name", can.backend.as_str().into()),
        ("default_image", can.default_image.as_str().into()),
        ("egress", egress.into()),
        ("capabilities", has.into()),
        ("missing", Value::map(missing)),
        ("parallelism", can.parallelism.into()),
    ]))
}

async fn gc(ctx: Ctx, args: Args) -> Result<Value> {
    let report =
        ctx.backend().gc(args.flag("dry_run"), ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::map([
        ("sandboxes", report.sandboxes.into()),
        ("leftovers", report.leftovers.into()),
        ("bytes", report.bytes.into()),
    ]))
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("backend", backend)
            .doc(
                "What the sandboxes run on: name, default_image, egress (who enforces it: \
                  \"host\" or \"guest\"), capabilities, missing (why, for what it can't do), \
                  parallelism.",
            )
            .returns(Type::Map)
            .example("print(backend().default_image);", "print(backend().default_image)"),
        FnSpec::function("gc", gc)
            .doc(
                "Deletes what dead runs left and what has expired; never what a live run owns. \
                  Gives sandboxes (names), leftovers and bytes.",
            )
            .option("dry_run", Type::Bool, "Only say what would be deleted. Default: false.")
            .returns(Type::Map)
            .example(
                "print(gc(#{ dry_run: true }).sandboxes);",
                "print(gc({ dry_run = true }).leftovers)",
            ),
    ]
}
