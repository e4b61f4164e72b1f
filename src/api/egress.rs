//! Egress policies: what sandboxes may reach, changes of that, and the log.

use std::collections::BTreeMap;

use super::sandbox::name_of;
use super::{Args, Ctx, FnSpec, Opt, Result, ScriptError, Type, Value, suggest};
pub(super) use crate::egress::Origin;
use crate::egress::{Asked, Asker, changes};
use crate::sandbox::{Denied, EgressLog, Error, Policy, Rule, Ruleset};
use crate::workflow::{Event, Source};

/// What a map that describes a policy may hold.
const KEYS: [&str; 3] = ["preset", "allow", "deny"];

/// What a policy may be given as.
fn policy_type() -> Type {
    Type::OneOf(vec![Type::String, Type::list(Type::String), Type::Map])
}

/// The option `egress`.
pub(super) fn option(doc: &'static str) -> Opt {
    Opt { name: "egress", ty: policy_type(), doc }
}

/// A policy as a script writes it.
pub(crate) fn asked(value: &Value) -> Result<Asked> {
    let wrong = |error: Error| ScriptError::from(error).focus("egress");
    match value {
        Value::String(word) => Asked::word(word).map_err(wrong),
        Value::List(_) => Asked::list(texts("egress", value)?).map_err(wrong),
        Value::Map(map) => {
            if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
                return Err(unknown_key(key));
            }
            let preset = match map.get("preset") {
                None | Some(Value::Unit) => None,
                Some(Value::String(preset)) => Some(preset.as_str()),
                Some(other) => return Err(not_a("preset", "the name of a preset", other)),
            };
            let rules = |key| map.get(key).map_or(Ok(Vec::new()), |value| texts(key, value));
            Asked::merged(preset, rules("allow")?, rules("deny")?).map_err(wrong)
        }
        other => Err(not_a("egress", "a word, a list of rules or a map", other)),
    }
}

/// The error for a key that no policy has.
pub(crate) fn unknown_key(key: &str) -> ScriptError {
    ScriptError::runtime(format!("unknown key '{key}' of an egress policy"))
        .hint(suggest::hint(key, KEYS).unwrap_or_default())
        .focus(key)
}

fn not_a(key: &str, what: &str, value: &Value) -> ScriptError {
    ScriptError::runtime(format!("'{key}' must be {what}, got {}", value.quoted()))
        .hint("write it as #{ preset: \"agent\", allow: [\"example.com\"], deny: [\"*.example.org\"] }")
        .focus(key)
}

/// One rule, or a list of them.
fn texts(key: &str, value: &Value) -> Result<Vec<String>> {
    match value {
        Value::String(rule) => Ok(vec![rule.clone()]),
        Value::List(rules) => rules
            .iter()
            .map(|rule| match rule {
                Value::String(rule) => Ok(rule.clone()),
                other => Err(not_a(key, "a list of rules, each a string", other)),
            })
            .collect(),
        Value::Map(map) if map.is_empty() => Ok(Vec::new()),
        Value::Unit => Ok(Vec::new()),
        other => Err(not_a(key, "a list of rules", other)),
    }
}

/// Whose tools are asked, of what something is made from.
pub(super) fn origin(source: &Source) -> Origin {
    match source {
        Source::Image { image, sha256 } => {
            Origin::Image { image: image.clone(), sha256: sha256.clone() }
        }
        Source::Base(base) => {
            Origin::Base { sandbox: base.sandbox.clone(), label: base.label.clone() }
        }
        Source::Snapshot { sandbox, .. } => Origin::Sandbox(sandbox.clone()),
    }
}

/// The policy in the option `egress` of what is made from a source. Without the option it is that of
/// the source, and of an image the one that the profile says.
pub(super) async fn of(ctx: &Ctx, args: &Args, source: &Source) -> Result<Option<Policy>> {
    let standard = ctx.host.egress.standard();
    if !args.has("egress") && matches!(source, Source::Image { .. }) && standard != Asked::None {
        let (env, user) = (args.string_map("env"), args.string("user"));
        return resolve(ctx, &standard, &origin(source), env, user).await.map(Some);
    }
    from(ctx, args, origin(source)).await
}

/// The policy in the option `egress`, where it is given.
pub(super) async fn from(ctx: &Ctx, args: &Args, origin: Origin) -> Result<Option<Policy>> {
    let value = args.get("egress");
    if value.is_unit() {
        return Ok(None);
    }
    let asked = asked(value)?;
    resolve(ctx, &asked, &origin, args.string_map("env"), args.string("user")).await.map(Some)
}

/// Looks up what a policy stands for.
pub(super) async fn resolve(
    ctx: &Ctx,
    asked: &Asked,
    origin: &Origin,
    env: BTreeMap<String, String>,
    user: Option<&str>,
) -> Result<Policy> {
    if let (Some(trace), Asked::Rules { preset: Some(_), .. }) = (&ctx.trace, asked) {
        trace.doubt(|| "what an egress preset stands for is looked up in it".into());
    }
    let asker = Asker { env, user: user.map(str::to_owned), ..asker(ctx) };
    let found = ctx.host.egress.resolve(asked, &asker, origin).await;
    let found = found.map_err(|error| ctx.error(error).focus("egress"))?;
    found.notes.into_iter().for_each(|note| ctx.run().events.send(Event::warning(note)));
    Ok(found.policy)
}

fn asker(ctx: &Ctx) -> Asker<'_> {
    Asker {
        backend: ctx.backend(),
        cancel: ctx.cancel(),
        owner: Some(ctx.host.run.owner.clone()),
        env: BTreeMap::new(),
        user: None,
        dry: ctx.host.plan.dry,
        place: ctx.host.machine.to_string(),
    }
}

async fn egress(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let policy = ctx.backend().policy(&name, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(policy_map(&policy))
}

fn policy_map(policy: &Policy) -> Value {
    let (word, preset, rules) = match policy {
        Policy::None => ("none", None, &[][..]),
        Policy::Unrestricted => ("unrestricted", None, &[][..]),
        Policy::Rules(Ruleset { preset, rules }) => {
            let word = preset.as_ref().map_or("allowlist", |preset| &preset.name);
            (word, preset.as_ref(), rules.as_slice())
        }
    };
    let texts = |rules: &[Rule]| -> Value {
        rules.iter().map(|rule| Value::from(rule.to_string())).collect::<Vec<_>>().into()
    };
    Value::map([
        ("policy", word.into()),
        ("rules", texts(rules)),
        ("preset", Value::option(preset.map(|preset| preset.name.as_str()))),
        ("preset_rules", texts(preset.map(|preset| preset.rules.as_slice()).unwrap_or_default())),
    ])
}

async fn set(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, asked) = (name_of(&args)?, asked(args.get("policy"))?);
    let origin = Origin::Sandbox(name.clone());
    let policy = resolve(&ctx, &asked, &origin, BTreeMap::new(), None).await?;
    let set = ctx.backend().set_policy(&name, &policy, ctx.cancel()).await;
    set.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn refresh(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let old = ctx.backend().policy(&name, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    let origin = Origin::Sandbox(name.clone());
    let found = ctx.host.egress.refresh(&old, &asker(&ctx), &origin).await;
    let found = found.map_err(|e| ctx.error(e))?;
    found.notes.into_iter().for_each(|note| ctx.run().events.send(Event::warning(note)));
    let lines = changes(&old, &found.policy);
    if found.policy != old {
        let set = ctx.backend().set_policy(&name, &found.policy, ctx.cancel()).await;
        set.map_err(|e| ctx.error(e))?;
    }
    Ok(lines.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

fn rules(args: &Args) -> Result<Vec<Rule>> {
    let wrong = |error: Error| ScriptError::from(error).focus("rule");
    texts("rule", args.get("rule"))?.iter().map(|text| text.parse().map_err(wrong)).collect()
}

async fn allow(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    for rule in rules(&args)? {
        allow_one(&ctx, &name, &rule).await.map_err(|e| ctx.error(e))?;
    }
    Ok(Value::Unit)
}

async fn allow_one(ctx: &Ctx, name: &str, rule: &Rule) -> crate::sandbox::Result<()> {
    let (backend, catalog) = (ctx.backend(), &ctx.host.egress);
    if catalog.is_free(rule) {
        return backend.allow(name, rule, ctx.cancel()).await;
    }
    let policy = catalog.allow(&backend.policy(name, ctx.cancel()).await?, rule)?;
    backend.set_policy(name, &policy, ctx.cancel()).await
}

async fn deny(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    for rule in rules(&args)? {
        ctx.backend().deny(&name, &rule, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    }
    Ok(Value::Unit)
}

async fn log(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let log = ctx.backend().egress_log(&name, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(log_map(&log))
}

fn log_map(log: &EgressLog) -> Value {
    let denied = |denied: &Denied| {
        Value::map([
            ("host", denied.host().into()),
            ("name", Value::option(denied.name.clone())),
            ("address", Value::option(denied.address.map(|address| address.to_string()))),
            ("port", i64::from(denied.port).into()),
            ("protocol", denied.protocol.to_string().into()),
            ("process", Value::option(denied.process.clone())),
            ("reason", denied.reason.to_string().into()),
            ("count", denied.count.into()),
            ("first", denied.first.into()),
            ("last", denied.last.into()),
            ("rule", Value::option(denied.rule().map(|rule| rule.to_string()))),
        ])
    };
    let carried = |carried: &crate::sandbox::Carried| {
        Value::map([
            ("host", carried.host.as_str().into()),
            ("connections", carried.connections.into()),
            ("sent", carried.sent.into()),
            ("received", carried.received.into()),
        ])
    };
    Value::map([
        ("refused", log.refused().into()),
        ("denied", log.denied.iter().map(denied).collect::<Vec<_>>().into()),
        ("carried", log.carried.iter().map(carried).collect::<Vec<_>>().into()),
    ])
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Sandbox";
    let rule = || Type::OneOf(vec![Type::String, Type::list(Type::String)]);
    vec![
        FnSpec::method(on, "egress", egress)
            .doc(
                "What it may reach, as it was set: policy (\"none\", \"allowlist\", \
                  \"unrestricted\" or the name of a preset), rules (its own, in order), preset and \
                  preset_rules (what the preset stood for when it was set). The first rule that \
                  matches decides; what none matches is refused.",
            )
            .returns(Type::Map)
            .error("not_found", "It is not there any more.")
            .example("print(box.egress().policy);", "print(box:egress().policy)"),
        FnSpec::method(on, "set_egress", set)
            .doc(
                "Replaces what it may reach, all of it, at once. Connections that the new policy \
                  does not allow are cut.",
            )
            .param(
                "policy",
                policy_type(),
                "\"none\", \"unrestricted\", the name of a preset, a list of rules, or #{ preset, \
                  allow, deny }.",
            )
            .error("not_found", "It is not there any more.")
            .error("invalid_input", "It is no policy, or the profile forbids it.")
            .error("unsupported", "The backend can't enforce it; the old one stays.")
            .example("box.set_egress([\"deny tracker.example.com\", \"*.example.com:443\"]);", "box:set_egress({ \"deny tracker.example.com\", \"*.example.com:443\" })"),
        FnSpec::method(on, "allow", allow)
            .doc(
                "Allows what a rule matches, from now on and beside all that is allowed already. \
                  What is allowed stays so.",
            )
            .param(
                "rule",
                rule(),
                "A name, *.name, or a network, with :PORT or :FIRST-LAST and tcp:// or udp:// where \
                  that matters; or a list of rules.",
            )
            .error("not_found", "It is not there any more.")
            .error("invalid_input", "It is no rule, or the profile forbids it.")
            .example("box.allow(\"example.com:443\");", "box:allow(\"example.com:443\")"),
        FnSpec::method(on, "deny", deny)
            .doc(
                "Closes what a rule matches, at once: a rule of that text is taken away, what others \
                  allow of it is denied. Open connections are cut.",
            )
            .param("rule", rule(), "As allow() takes it.")
            .error("not_found", "It is not there any more.")
            .error("invalid_input", "It is no rule, or nothing of it is allowed.")
            .example("box.allow(\"example.com\");\nbox.deny(\"example.com\");", "box:allow(\"example.com\")\nbox:deny(\"example.com\")"),
        FnSpec::method(on, "refresh_egress", refresh)
            .doc(
                "Looks up again what the preset of its policy stands for, and asks the tools of what \
                  it was made from again where they fetch from; what happened in it since does not \
                  count. Gives what changed: \"+ rule\" and \"- rule\".",
            )
            .returns(Type::list(Type::String))
            .error("not_found", "It is not there any more.")
            .error("invalid_input", "Its policy has no preset.")
            .example("box.set_egress(\"git\");\nprint(box.refresh_egress());", "box:set_egress(\"git\")\nprint(#box:refresh_egress())"),
        FnSpec::method(on, "egress_log", log)
            .doc(
                "What it was refused and what it reached: refused (how many connections), denied \
                  (host, name, address, port, protocol, process, reason, count, first, last, and the \
                  rule that would allow it) and carried (host, connections, sent, received).",
            )
            .returns(Type::Map)
            .error("not_found", "It is not there any more.")
            .example("for one in box.egress_log().denied { print(one.rule); }", "for _, one in ipairs(box:egress_log().denied) do print(one.rule) end"),
    ]
}
