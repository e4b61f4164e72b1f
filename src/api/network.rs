//! Networks that sandboxes of one run share.

use super::{Args, Ctx, FnSpec, Object, Opt, Result, SandboxObject, ScriptError, Type, Value};
use crate::sandbox::{Network, State};

/// The type of handle.
const NETWORK: &str = "Network";

/// A network in a script.
pub struct NetworkObject(Network);

impl Object for NetworkObject {
    fn type_name(&self) -> &'static str {
        NETWORK
    }

    fn describe(&self) -> String {
        format!("network '{}'", self.0)
    }
}

/// The option `network`.
pub(super) fn option(doc: &'static str) -> Opt {
    let network = || Type::Object(NETWORK);
    Opt { name: "network", ty: Type::OneOf(vec![network(), Type::list(network())]), doc }
}

/// The networks in the option `network`.
pub(super) fn networks(ctx: &Ctx, args: &Args) -> Result<Vec<Network>> {
    let value = args.get("network");
    let given = match value {
        Value::Unit => return Ok(Vec::new()),
        Value::List(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let of = |value: &Value| match value {
        Value::Handle(handle) => handle.downcast::<NetworkObject>().map(|one| one.0.clone()),
        _ => None,
    };
    let networks: Vec<Network> = given.iter().filter_map(of).collect();
    let can = ctx.backend().capabilities().require_networks(&networks);
    can.map_err(|error| ctx.error(error).focus("network"))?;
    for (index, network) in networks.iter().enumerate() {
        if networks[..index].contains(network) {
            return Err(args.wrong("network", format!("'{network}' is given twice")));
        }
    }
    Ok(networks)
}

/// The names of a sandbox's networks, for `info()`.
pub(super) fn names(networks: &[Network]) -> Value {
    networks.iter().map(|one| Value::from(one.name.as_str())).collect::<Vec<_>>().into()
}

async fn network(ctx: Ctx, args: Args) -> Result<Value> {
    let network = Network::new(&ctx.host.run.run, args.need("name")?);
    network.check().map_err(|error| ScriptError::from(error).focus("name"))?;
    Ok(Value::object(NetworkObject(network)))
}

async fn name(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<NetworkObject>()?.0.name.as_str().into())
}

async fn members(ctx: Ctx, args: Args) -> Result<Value> {
    let network = &args.this::<NetworkObject>()?.0;
    let all = ctx.backend().list(ctx.cancel()).await.map_err(|error| ctx.error(error))?;
    let runs = |state: &State| matches!(state, State::Running | State::Frozen);
    let members = all.into_iter().filter(|one| one.networks.contains(network) && runs(&one.state));
    let handles = members.map(|one| Value::object(SandboxObject::new(&ctx, one.name)));
    Ok(Value::List(handles.collect()))
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("network", network)
            .doc(
                "A network of this run, for the option network of sandbox(), clone() and matrix(). \
                  Sandboxes that are in it reach each other by their names or host names, \
                  whatever their egress policies are; nobody else reaches them by it, and a network \
                  of that name in another run is another one. One that stops is gone from it, and \
                  there again when it starts.",
            )
            .param("name", Type::String, "Its name in this run: a-z, 0-9 and '-'.")
            .returns(Type::Object(NETWORK))
            .error("invalid_input", "It is no name of a network.")
            .example(
                "let net = network(\"net\");\nlet db = sandbox(\"db\", #{ network: net });\nlet app = sandbox(\"app\", #{ network: net, env: #{ DB: \"db:5432\" } });",
                "local net = network(\"net\")\nlocal db = sandbox(\"db\", { network = net })\nlocal app = sandbox(\"app\", { network = net, env = { DB = \"db:5432\" } })",
            ),
        FnSpec::property(NETWORK, "name", name)
            .doc("Its name.")
            .returns(Type::String)
            .example("print(network(\"net\").name);", "print(network(\"net\").name)"),
        FnSpec::method(NETWORK, "members", members)
            .doc("The sandboxes in it that run, by name.")
            .returns(Type::list(Type::Object("Sandbox")))
            .example(
                "for one in network(\"net\").members() { print(one.name); }",
                "for _, one in ipairs(network(\"net\"):members()) do print(one.name) end",
            ),
    ]
}
