//! Ports of sandboxes on the host.

use std::net::{Ipv4Addr, SocketAddr};

use super::sandbox::name_of;
use super::{Args, Ctx, FnSpec, Result, ScriptError, Type, Value};
use crate::sandbox::{Error, Published, parse_place, parse_port};
use crate::workflow::Event;

fn port(args: &Args) -> Result<u16> {
    parse_port(&args.get("port").to_string()).map_err(|error| focus(error, "port"))
}

fn place(args: &Args) -> Result<Option<SocketAddr>> {
    let at = match args.get("at") {
        Value::Unit => return Ok(None),
        Value::String(text) => parse_place(text),
        other => parse_port(&other.to_string()).map(|port| (Ipv4Addr::LOCALHOST, port).into()),
    };
    at.map(Some).map_err(|error| focus(error, "at"))
}

fn focus(error: Error, on: &str) -> ScriptError {
    ScriptError::from(error).focus(on)
}

async fn forward(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let (port, at) = (port(&args)?, place(&args)?);
    let opened = ctx.backend().publish(&name, port, at, ctx.cancel()).await;
    let at = opened.map_err(|error| ctx.error(error))?;
    if let Some(exposure) = (Published { port, at }).exposure() {
        ctx.run().events.send(Event::warning(exposure));
    }
    Ok(at.to_string().into())
}

async fn unforward(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let (port, at) = (port(&args)?, place(&args)?);
    let closed = ctx.backend().unpublish(&name, port, at, ctx.cancel()).await;
    closed.map_err(|error| ctx.error(error))?;
    Ok(Value::Unit)
}

/// The ports of a sandbox, for `info()`.
pub(super) fn list(ports: &[Published]) -> Value {
    let map = |open: &Published| {
        Value::map([("port", i64::from(open.port).into()), ("at", open.at.to_string().into())])
    };
    ports.iter().map(map).collect::<Vec<_>>().into()
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::method("Sandbox", "forward", forward)
            .doc(
                "Opens a port of this machine for one that its programs listen on, and says where \
                  it is reached, such as \"127.0.0.1:40123\". It is open under every egress policy, \
                  opens nothing outward, and ends with the sandbox: at a stop, a restart, a restore \
                  or a delete. A port that is open for it already is told again.",
            )
            .param("port", Type::Int, "The port that its programs listen on.")
            .option(
                "at",
                Type::OneOf(vec![Type::Int, Type::String]),
                "Where on this machine: a port (9000), an address (\"0.0.0.0\" is for everybody who \
                  reaches this machine) or both (\"127.0.0.1:9000\"). Default: a free port, for this \
                  machine only.",
            )
            .returns(Type::String)
            .error("invalid_input", "It is no port, or no place that can be had on this machine.")
            .error("not_found", "It is not there any more.")
            .error("not_running", "It does not run.")
            .error("unsupported", "The backend can't.")
            .example(
                "print(\"http://\" + box.forward(8080));",
                "print(\"http://\" .. box:forward(8080))",
            ),
        FnSpec::method("Sandbox", "unforward", unforward)
            .doc(
                "Closes what forward() has opened for a port, and cuts what is connected there: at \
                  one place of this machine, or wherever it is open.",
            )
            .param("port", Type::Int, "The port that its programs listen on.")
            .option(
                "at",
                Type::OneOf(vec![Type::Int, Type::String]),
                "Where on this machine, as forward() takes and gives it. Default: wherever it is open.",
            )
            .error("invalid_input", "It is no port, or it is not open.")
            .error("not_found", "It is not there any more.")
            .error("unsupported", "The backend can't.")
            .example(
                "let at = box.forward(8080);\nbox.unforward(8080, #{ at: at });",
                "local at = box:forward(8080)\nbox:unforward(8080, { at = at })",
            ),
    ]
}
