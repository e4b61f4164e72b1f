//! What a script can ask a caught error.

use super::{Args, Ctx, ErrorKind, ErrorObject, FnSpec, Result, Type, Value};

async fn code(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ErrorObject>()?.0.code().into())
}

async fn message(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ErrorObject>()?.0.message.clone().into())
}

async fn hint(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(Value::option(args.this::<ErrorObject>()?.0.hint.clone()))
}

async fn result(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(match &args.this::<ErrorObject>()?.0.kind {
        ErrorKind::Command(Some(result)) => result.clone().into(),
        _ => Value::Unit,
    })
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Error";
    vec![
        FnSpec::property(on, "code", code)
            .doc(
                "A stable word for the kind of error: \"not_found\", \"already_exists\", \
                  \"not_running\", \"busy\", \"timeout\", \"auth\", \"unsupported\", \
                  \"invalid_input\", \"permission\", \"exhausted\", \"transport\", \"internal\", \
                  \"command_failed\", \"assert\", \"runtime\", \"usage\" or \"thrown\".",
            )
            .returns(Type::String)
            .example(
                "try { open(\"x\"); } catch (e) { print(e.code); }",
                "local ok, e = pcall(open, \"x\")\nprint(e.code)",
            ),
        FnSpec::property(on, "message", message)
            .doc("What is wrong, in a sentence.")
            .returns(Type::String)
            .example(
                "try { open(\"x\"); } catch (e) { print(e.message); }",
                "local ok, e = pcall(open, \"x\")\nprint(e.message)",
            ),
        FnSpec::property(on, "hint", hint)
            .doc("What to do about it, when that is known.")
            .returns(Type::option(Type::String))
            .example(
                "try { open(\"x\"); } catch (e) { print(e.hint); }",
                "local ok, e = pcall(open, \"x\")\nprint(e.hint)",
            ),
        FnSpec::property(on, "result", result)
            .doc("For a command that failed: its result.")
            .returns(Type::option(Type::Object("Result")))
            .example(
                "try { box.run(\"exit 3\"); } catch (e) { print(e.result.code); }",
                "local ok, e = pcall(function() box:run(\"exit 3\") end)\nprint(e.result.code)",
            ),
    ]
}
