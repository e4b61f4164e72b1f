//! Secrets: values that a script passes on and never sees.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::sandbox::scalar;
use super::{Args, Ctx, FnSpec, Object, Result, ScriptError, Type, Value};
use crate::sandbox::Program;
use crate::workflow::{CommandSecrets, Secret};

/// A secret in a script: it has a name, and can be given to a command or a file.
pub struct SecretObject(pub Secret);

impl Object for SecretObject {
    fn type_name(&self) -> &'static str {
        "Secret"
    }

    fn describe(&self) -> String {
        Secret::shown(self.0.name())
    }
}

/// What to do with a secret instead.
pub(super) const WAYS: &str =
    "give it to a command as env or stdin, or write it to a file of a sandbox";

/// What a command's environment variable may be given as.
pub(super) fn scalar_or_secret() -> Type {
    let Type::OneOf(mut types) = scalar() else { return scalar() };
    types.push(Type::Object("Secret"));
    Type::OneOf(types)
}

/// Text, bytes, or a secret.
pub(super) fn data_or_secret() -> Type {
    Type::OneOf(vec![Type::Data, Type::Object("Secret")])
}

/// The secret in a value, when it is one.
pub(super) fn of(value: &Value) -> Option<&Secret> {
    match value {
        Value::Handle(handle) => handle.downcast::<SecretObject>().map(|object| &object.0),
        _ => None,
    }
}

/// Whether a value is a secret, or a list or map that holds one.
pub(super) fn within(value: &Value) -> bool {
    match value {
        Value::List(items) => items.iter().any(within),
        Value::Map(map) => map.values().any(within),
        value => of(value).is_some(),
    }
}

/// The environment in option `env`, and which of it are secrets.
pub(super) fn env(args: &Args, secrets: &mut CommandSecrets) -> Result<BTreeMap<String, String>> {
    let mut env = args.string_map("env");
    if let Value::Map(map) = args.get("env") {
        for (name, value) in map {
            if let Some(secret) = of(value) {
                env.insert(name.clone(), secret.text()?.to_owned());
                secrets.env.insert(name.clone(), secret.name().to_owned());
            }
        }
    }
    Ok(env)
}

/// What `data` gives, for a parameter that may be a secret, too.
pub(super) fn data(args: &Args, name: &str) -> Option<Bytes> {
    match of(args.get(name)) {
        Some(secret) => Some(Bytes::copy_from_slice(secret.expose())),
        None => args.data(name),
    }
}

/// Refuses a command that has a secret among its arguments: everybody on the machine may read these.
pub(super) fn check_argv(ctx: &Ctx, program: &Program) -> Result<()> {
    let mask = ctx.host.run.events.mask();
    for word in program.argv() {
        if let Some(name) = mask.found(&word) {
            let message = format!("the secret '{name}' is in the command's arguments");
            return Err(ScriptError::runtime(message)
                .hint(format!("arguments can be seen by every process of the sandbox: {WAYS}")));
        }
        let known = ctx.host.secrets_used();
        if let Some(name) = known.iter().find(|name| word.contains(&Secret::shown(name))) {
            let message = format!("the secret '{name}' can't be put into a text");
            return Err(ScriptError::runtime(message).hint(WAYS));
        }
    }
    Ok(())
}

/// Refuses a call of which something is kept and has a secret's value in a text: in a name, a label,
/// an environment, what a step is known by.
pub(super) fn check_kept(ctx: &Ctx, args: &Args) -> Result<()> {
    args.values().try_for_each(|value| check_kept_value(ctx, value))
}

/// The same for one value.
pub(super) fn check_kept_value(ctx: &Ctx, value: &Value) -> Result<()> {
    let mask = ctx.host.run.events.mask();
    match found(value, &|text| mask.found(text)) {
        Some(name) => Err(ScriptError::runtime(format!(
            "the secret '{name}' is in a text that would be kept with what is made"
        ))
        .hint(WAYS)),
        None => Ok(()),
    }
}

fn found(value: &Value, within: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match value {
        Value::String(text) => within(text),
        Value::Bytes(bytes) => within(&String::from_utf8_lossy(bytes)),
        Value::List(items) => items.iter().find_map(|item| found(item, within)),
        Value::Map(map) => {
            map.iter().find_map(|(key, item)| within(key).or_else(|| found(item, within)))
        }
        _ => None,
    }
}

async fn secret(ctx: Ctx, args: Args) -> Result<Value> {
    let name = args.need("name")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(args
            .wrong("name", format!("'{}' is no name of a secret", name.escape_debug()))
            .hint("use letters, digits, '_', '-' and '.'"));
    }
    Ok(Value::object(SecretObject(ctx.host.secret(name).await.map_err(|e| ctx.error(e))?)))
}

async fn name(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<SecretObject>()?.0.name().into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    vec![
        FnSpec::function("secret", secret)
            .doc(
                "A secret of the host: a value that can be given to a command, as a variable of its \
                  environment or as standard input, and written to a file of a sandbox, and that \
                  is never shown. Where it stands in what is printed or reported there is *** \
                  instead, in base64 and URL-encoded, too. The settings say where it comes from, \
                  under secrets; without them it is the environment variable of that name.",
            )
            .param("name", Type::String, "Its name.")
            .returns(Type::Object("Secret"))
            .error("invalid_input", "It is not set, too short, or can't be read.")
            .error("not_found", "The file it comes from is not there.")
            .example(
                "let token = secret(\"API_TOKEN\");\nbox.run(\"test -n \\\"$TOKEN\\\"\", #{ env: #{ TOKEN: token } });",
                "local token = secret(\"API_TOKEN\")\nbox:run(\"test -n \\\"$TOKEN\\\"\", { env = { TOKEN = token } })",
            ),
        FnSpec::property("Secret", "name", name)
            .doc("Its name.")
            .returns(Type::String)
            .example("print(secret(\"API_TOKEN\").name);", "print(secret(\"API_TOKEN\").name)"),
    ]
}
