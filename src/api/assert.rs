//! Assertions.

use super::{Args, Ctx, ErrorKind, FnSpec, Result, ScriptError, Type, Value};

fn failed(args: &Args, what: String) -> ScriptError {
    let message = match args.has("message") {
        true => format!("{}\n{what}", args.get("message")),
        false => what,
    };
    ScriptError::new(ErrorKind::Assert, message)
}

async fn assert(ctx: Ctx, args: Args) -> Result<Value> {
    if ctx.host.plan.dry || args.flag("condition") {
        return Ok(Value::Unit);
    }
    Err(failed(&args, "the assertion does not hold".into()))
}

async fn assert_eq(ctx: Ctx, args: Args) -> Result<Value> {
    let (left, right) = (args.get("left"), args.get("right"));
    if ctx.host.plan.dry || left == right {
        return Ok(Value::Unit);
    }
    let what = format!("left:  {}\nright: {}", left.quoted(), right.quoted());
    Err(failed(&args, format!("the two are not equal\n{what}")))
}

async fn fail(ctx: Ctx, args: Args) -> Result<Value> {
    if ctx.host.plan.dry {
        return Ok(Value::Unit);
    }
    let message = args.get("message").to_string();
    let hint = args.string("hint").unwrap_or_default();
    Err(ScriptError::new(ErrorKind::Assert, message).hint(hint))
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("assert", assert)
            .doc("Fails unless the condition holds.")
            .param("condition", Type::Bool, "What must hold.")
            .optional("message", Type::Any, "What to say when it does not.")
            .error("assert", "It does not hold.")
            .example(
                "assert(box.exists(\"/etc/passwd\"), \"no users\");",
                "assert(box:exists(\"/etc/passwd\"), \"no users\")",
            ),
        FnSpec::function("assert_eq", assert_eq)
            .doc("Fails unless both are equal; shows both.")
            .param("left", Type::Any, "One value.")
            .param("right", Type::Any, "The other.")
            .optional("message", Type::Any, "What to say when they are not.")
            .error("assert", "They are not equal.")
            .example(
                "assert_eq(box.exec(\"false\").code, 1);",
                "assert_eq(box:exec(\"false\").code, 1)",
            ),
        FnSpec::function("fail", fail)
            .doc("Fails with a message, as an assertion that does not hold.")
            .param("message", Type::Any, "What is wrong, in a sentence.")
            .optional("hint", Type::String, "What to do about it.")
            .error("assert", "Always.")
            .example(
                "if !box.exists(\"/etc/passwd\") { fail(\"no users\", \"use another image\"); }",
                "if not box:exists(\"/etc/passwd\") then fail(\"no users\", \"use another image\") end",
            ),
    ]
}
