//! Clusters: the option `target`, and the members there are.

use super::{Args, Ctx, FnSpec, Opt, Result, ScriptError, Type, Value};
use crate::sandbox::Placement;

/// The option that says where in a cluster something is.
pub(super) fn option(doc: &'static str) -> Opt {
    Opt { name: "target", ty: Type::String, doc }
}

/// What the option says.
pub(super) fn target(args: &Args) -> Result<Option<Placement>> {
    args.string("target").map(of_text).transpose()
}

/// A member's name, or a group's.
pub(super) fn of_text(text: &str) -> Result<Placement> {
    text.parse().map_err(|error| ScriptError::from(error).focus(text))
}

async fn members(ctx: Ctx, _args: Args) -> Result<Value> {
    let all = ctx.backend().members(ctx.cancel()).await.map_err(|error| ctx.error(error))?;
    let member = |member: &crate::sandbox::Member| {
        Value::map([
            ("name", member.name.as_str().into()),
            ("groups", member.groups.clone().into()),
            ("state", member.state.to_string().into()),
            ("cpus", member.cpus.into()),
            ("load", member.load.into()),
        ])
    };
    Ok(Value::List(all.iter().map(member).collect()))
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("members", members)
            .doc(
                "The members of the cluster that the sandboxes run on, each with name, groups, state \
                  (\"online\", \"offline\" or \"evacuated\"), cpus and load (of the last minute). An \
                  empty list where there is one machine only.",
            )
            .returns(Type::list(Type::Map))
            .example(
                "for member in members() { print(member.name); }",
                "for _, member in ipairs(members()) do print(member.name) end",
            ),
    ]
}
