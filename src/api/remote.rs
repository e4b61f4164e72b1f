//! The machine that the backend drives, by its own interface.

use std::sync::{Arc, Weak};

use super::json::{from_json, to_json};
use super::{Args, Ctx, FnSpec, Host, Object, Result, ScriptError, Type, Value};

/// The type of handle.
const HOST: &str = "Host";

/// The machine in a script.
struct HostObject {
    host: Weak<Host>,
    name: String,
}

impl Object for HostObject {
    fn type_name(&self) -> &'static str {
        HOST
    }

    fn describe(&self) -> String {
        format!("host '{}'", self.name)
    }

    fn home(&self) -> Option<Arc<Host>> {
        self.host.upgrade()
    }
}

async fn host(ctx: Ctx, _args: Args) -> Result<Value> {
    Ok(Value::object(HostObject {
        host: Arc::downgrade(&ctx.host),
        name: ctx.host.machine().to_string(),
    }))
}

async fn call(ctx: Ctx, args: Args) -> Result<Value> {
    let method = args.need("method")?;
    let params = args.list("params").iter().map(to_json).collect::<Result<Vec<_>>>();
    let params = params.map_err(|error: ScriptError| error.focus("params"))?;
    let answer = ctx.backend().call(method, params, ctx.host.allow_call, ctx.cancel()).await;
    answer.map(from_json).map_err(|error| ctx.error(error).focus(method))
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("host", host)
            .doc("The machine that the sandboxes run on, for what its own interface can do besides.")
            .returns(Type::Object(HOST))
            .example(
                "let nas = host();",
                "local nas = host()",
            ),
        FnSpec::method(HOST, "call", call)
            .doc(
                "Calls a method of a NAS, as its API documentation has it, and gives what it answers; a \
                  job is waited for. What only looks is called always, anything else needs --allow-call.",
            )
            .param("method", Type::String, "The method, such as \"pool.query\".")
            .optional("params", Type::list(Type::Any), "Its parameters, in order. Default: none.")
            .returns(Type::Any)
            .error("unsupported", "The backend has no such methods: only a NAS has.")
            .error("invalid_input", "It may change the NAS, and --allow-call was not given.")
            .example(
                "let name = backend().name;\nif name == \"truenas\" { print(host().call(\"pool.query\", [[[\"healthy\", \"=\", true]]])); }",
                "local name = backend().name\nif name == \"truenas\" then print(host():call(\"pool.query\", { { { \"healthy\", \"=\", true } } })) end",
            ),
    ]
}
