//! Sandboxes: making, finding, starting, stopping and deleting them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::base::{source, source_options};
use super::host::{DELETED, OVER};
use super::{
    Args, Ctx, FnSpec, HandlerFuture, Host, Map, Object, Opt, Result, ScriptError, Type, Value,
    cache, device, member, path, port,
};
use super::{egress, network, secret};
use crate::sandbox::{
    CloneSpec, Error, Hardware, Info, Kind, Limits, Mount, Setup, Spec, State, StopOptions,
    check_name,
};
use crate::workflow::{OutputSink, Source};

/// A sandbox in a script.
pub struct SandboxObject {
    name: String,
    /// Whose backend it is on.
    host: Weak<Host>,
    gone: Arc<AtomicU8>,
    output: Option<OutputSink>,
}

impl SandboxObject {
    /// A handle on the sandbox with this name.
    pub fn new(ctx: &Ctx, name: impl Into<String>) -> Self {
        let name = name.into();
        let (gone, host) = (ctx.host.gone(&name), Arc::downgrade(&ctx.host));
        SandboxObject { gone, name, host, output: None }
    }

    /// A handle whose commands' output goes to a cell's.
    pub(super) fn in_cell(ctx: &Ctx, name: &str, output: OutputSink) -> Self {
        SandboxObject { output: Some(output), ..Self::new(ctx, name) }
    }

    /// Where its commands' output is told as it comes.
    pub(super) fn output(&self) -> Option<&OutputSink> {
        self.output.as_ref()
    }

    /// Its name, or an error when the script has deleted it.
    pub fn name(&self) -> Result<&str> {
        let name = &self.name;
        match self.gone.load(Ordering::Relaxed) {
            DELETED => Err(ScriptError::from(Error::not_found(Kind::Sandbox, name))
                .hint("this script has deleted it; its handle is of no more use")),
            OVER => Err(ScriptError::runtime(format!(
                "the handle on sandbox '{name}' is of a run that has ended"
            ))
            .hint(format!("open(\"{name}\") finds the sandbox if it is still there"))),
            _ => Ok(name),
        }
    }
}

impl Object for SandboxObject {
    fn type_name(&self) -> &'static str {
        "Sandbox"
    }

    fn describe(&self) -> String {
        format!("sandbox '{}'", self.name)
    }

    fn home(&self) -> Option<Arc<Host>> {
        self.host.upgrade()
    }

    /// As at the end of the run: what the run made and nobody keeps is deleted.
    fn leave(&self, ctx: Ctx) -> Option<HandlerFuture> {
        let ctx = match self.home() {
            Some(host) => Ctx { host, ..ctx },
            None => ctx,
        };
        let live = self.gone.load(Ordering::Relaxed) == 0 && ctx.host.is_live(&self.name);
        let name = self.name.clone();
        live.then(|| Box::pin(async move { remove(ctx, &name, true).await }) as HandlerFuture)
    }
}

/// The name of the sandbox a method was called on.
pub(super) fn name_of(args: &Args) -> Result<String> {
    Ok(args.this::<SandboxObject>()?.name()?.to_owned())
}

/// The options that say how much a machine may use.
pub(super) fn limit_options() -> Vec<Opt> {
    let option = |name, ty, doc| Opt { name, ty, doc };
    vec![
        option("cpu", Type::Number, "CPUs it may use, such as 0.5 or 2."),
        option("memory", Type::Size, "Memory it may use."),
        option("pids", Type::Int, "How many processes it may have."),
        option("disk", Type::Size, "How much it may write to disk."),
        option("inodes", Type::Int, "How many files it may create."),
    ]
}

/// The options that say what a machine may use and do; shared by `sandbox` and `clone`.
pub(super) fn machine_options() -> Vec<Opt> {
    let option = |name, ty, doc| Opt { name, ty, doc };
    let mut options = limit_options();
    options.extend([
        cache::option(),
        device::option(
            "Devices of the machine's in it, by name; of a clone, beside its source's.",
        ),
        device::nesting(),
        option("hostname", Type::String, "Its host name; the sandbox's name when not given."),
        egress::option(
            "What it may reach: \"none\", \"unrestricted\", a preset such as \"agent\", a list of rules, or #{ preset, allow, deny }. Default: \
             nothing; of a clone, what its source may.",
        ),
        network::option(
            "Networks that it is in, a network or a list: it reaches the others in them by name, whatever egress says. Default: none, of a clone, too.",
        ),
        option("env", Type::map_of(scalar()), "Environment of every command in it."),
        option("labels", Type::map_of(scalar()), "Labels of your own, kept with it."),
        option("keep", Type::Bool, "Keep it when the run ends. Default: false."),
        option("expires", Type::Duration, "After this long gc may delete it."),
        option("bare", Type::Bool, "Leave it stopped. Default: false."),
        member::option(
            "Where in a cluster: a member's name, or @ and a group's, of which the cluster picks a member. Default: where the cluster puts it; a clone is beside its source.",
        ),
    ]);
    options
}

/// What an environment variable or a label may be given as.
pub(super) fn scalar() -> Type {
    Type::OneOf(vec![Type::String, Type::Number, Type::Bool])
}

/// The limits among the options, over those in `base`; none when no option names one.
pub(super) fn limits(args: &Args) -> Result<Option<Limits>> {
    let limits = Limits {
        cpu: args.number("cpu"),
        memory: args.size("memory")?,
        pids: args.count("pids")?,
        disk: args.size("disk")?,
        inodes: args.count("inodes")?,
    };
    Ok((limits != Limits::default()).then_some(limits))
}

/// When it may be deleted, from the option `expires`.
pub(super) fn expires(args: &Args) -> Result<Option<SystemTime>> {
    Ok(args.duration("expires")?.and_then(|after| crate::sandbox::wall_clock().checked_add(after)))
}

/// A name nobody else has.
pub(super) fn fresh_name(prefix: &str) -> String {
    format!("{prefix}-{}", &super::new_run_id()[1..9])
}

fn mounts(ctx: &Ctx, args: &Args) -> Result<Vec<Mount>> {
    args.list("mounts")
        .iter()
        .map(|value| {
            let Value::Map(map) = value else {
                return Err(args.wrong("mounts", "each mount is a map"));
            };
            if let Some(key) =
                map.keys().find(|key| !["source", "target", "readonly"].contains(&key.as_str()))
            {
                let hint = super::suggest::hint(key, ["source", "target", "readonly"]);
                return Err(args
                    .wrong("mounts", format!("unknown key '{key}'"))
                    .focus(key)
                    .hint(hint.unwrap_or_default()));
            }
            let text = |key: &str| match map.get(key) {
                Some(Value::String(text)) => Ok(text.clone()),
                _ => Err(args
                    .wrong("mounts", format!("'{key}' must be a string"))
                    .hint("write it as #{ source: \"data\", target: \"/data\", readonly: true }")),
            };
            let readonly = match map.get("readonly") {
                None => false,
                Some(Value::Bool(readonly)) => *readonly,
                Some(_) => return Err(args.wrong("mounts", "'readonly' must be true or false")),
            };
            Ok(Mount {
                source: match ctx.backend().mounts_its_own() {
                    true => text("source")?.into(),
                    false => path::there(ctx, &text("source")?)?,
                },
                target: text("target")?,
                readonly,
            })
        })
        .collect()
}

/// The options that say what a new machine is like and what is put into it.
fn hardware_options() -> Vec<Opt> {
    let option = |name, ty, doc| Opt { name, ty, doc };
    let texts = || Type::list(Type::String);
    vec![
        option("pool", Type::String, "The storage pool that its files are on."),
        option("cpus", Type::String, "The CPUs that it runs on, such as \"0-3\" or \"0,2\"."),
        option("mac", Type::String, "Its card's hardware address."),
        option(
            "address",
            Type::String,
            "A fixed address with the length of its network, such as \"192.168.1.50/24\".",
        ),
        option("users", texts(), "Accounts to make in it, each with a home."),
        option("keys", texts(), "Public keys that let one in by SSH, as root and each of users."),
        option("dns", texts(), "Addresses of the servers that it asks for names."),
        option(
            "tools",
            texts(),
            "Packages of its distribution to install. It needs egress for that.",
        ),
    ]
}

fn setup(args: &Args) -> Result<Setup> {
    let address = |text: String| {
        text.parse().map_err(|_| args.wrong("dns", format!("'{text}' is no address")))
    };
    Ok(Setup {
        dns: args.strings("dns").into_iter().map(address).collect::<Result<_>>()?,
        keys: args.strings("keys"),
        tools: args.strings("tools"),
        users: args.strings("users"),
    })
}

async fn create(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let keep = args.flag("keep");
    let name = args.string("name").map_or_else(|| fresh_name("box"), str::to_owned);
    let limits = limits(&args)?;
    let source = source(&ctx, &args).await?;
    let egress = egress::of(&ctx, &args, &source).await?;
    let hostname = args.string("hostname").map(str::to_owned);
    let (owner, expires) = (ctx.host.owner(keep), expires(&args)?);
    let caches = cache::caches(&args)?;
    let devices = device::devices(&ctx, &args)?;
    let nesting = args.flag("nesting");
    let networks = network::networks(&ctx, &args)?;
    let target = member::target(&args)?;
    let (image, sha256) = match source {
        Source::Image { image, sha256 } => (image, sha256),
        other => {
            let own = hardware_options().into_iter().map(|option| option.name);
            let fixed =
                ["mounts", "user", "cwd"].into_iter().chain(own).find(|name| args.has(name));
            if let Some(fixed) = fixed {
                return Err(args
                    .wrong(fixed, "a clone has what its source has")
                    .hint(format!("leave {fixed} out, or start from an image")));
            }
            let (sandbox, label, env) = match other {
                Source::Base(base) => (base.sandbox, Some(base.label), base.env),
                Source::Snapshot { sandbox, label } => (sandbox, label, BTreeMap::new()),
                Source::Image { .. } => return Ok(Value::Unit),
            };
            let spec = CloneSpec {
                label,
                hostname,
                limits,
                egress,
                networks,
                caches,
                devices,
                nesting,
                env: env.into_iter().chain(args.string_map("env")).collect(),
                labels: args.string_map("labels"),
                owner,
                expires,
                bare: args.flag("bare"),
                target,
                ..CloneSpec::new(name)
            };
            check_name(&spec.name)?;
            let clone = || ctx.backend().clone(&sandbox, &spec, ctx.cancel());
            return Ok(made(&ctx, cache::when_free(&ctx, &spec.name, clone).await?, keep));
        }
    };
    let spec = Spec {
        image,
        sha256,
        hostname,
        limits: limits.unwrap_or_default(),
        hardware: Hardware {
            address: args.string("address").map(str::to_owned),
            cpus: args.string("cpus").map(str::to_owned),
            mac: args.string("mac").map(str::to_owned),
            pool: args.string("pool").map(str::to_owned),
        },
        setup: setup(&args)?,
        mounts: mounts(&ctx, &args)?,
        caches,
        devices,
        nesting,
        egress: egress.unwrap_or_default(),
        networks,
        env: args.string_map("env"),
        user: args.string("user").map(str::to_owned),
        cwd: args.string("cwd").map(str::to_owned),
        labels: args.string_map("labels"),
        owner,
        expires,
        bare: args.flag("bare"),
        target,
        ..Spec::new(name)
    };
    spec.check()?;
    let checked = ctx.run().check_image(spec.image.as_deref(), spec.sha256.as_deref()).await;
    checked.map_err(|e| ctx.error(e))?;
    let create = || ctx.backend().create(&spec, ctx.cancel());
    let info = cache::when_free(&ctx, &spec.name, create).await?;
    if let Some(trace) = &ctx.trace {
        trace.image(spec.image.as_deref(), spec.sha256.as_deref(), &info.fingerprint);
        if !spec.mounts.is_empty() {
            trace.doubt(|| "it mounts a folder of the host".into());
        }
    }
    Ok(made(&ctx, info, keep))
}

/// A handle on a sandbox that the run has made.
pub(super) fn made(ctx: &Ctx, info: Info, keep: bool) -> Value {
    ctx.track(&info.name, keep);
    Value::object(SandboxObject::new(ctx, info.name))
}

async fn open(ctx: Ctx, args: Args) -> Result<Value> {
    let name = args.need("name")?;
    check_name(name)?;
    let found = ctx.backend().get(name, ctx.cancel()).await;
    let info = match found {
        Err(Error::NotFound { .. }) => {
            let all = ctx.backend().list(ctx.cancel()).await.unwrap_or_default();
            let near = super::suggest::nearest(name, all.iter().map(|info| info.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("sandbox(\"{name}\") makes it"),
            };
            return Err(ScriptError::from(Error::not_found(Kind::Sandbox, name)).hint(hint));
        }
        other => other.map_err(|e| ctx.error(e))?,
    };
    Ok(Value::object(SandboxObject::new(&ctx, info.name)))
}

async fn list(ctx: Ctx, _args: Args) -> Result<Value> {
    let all = ctx.backend().list(ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    let handles = all.into_iter().map(|info| Value::object(SandboxObject::new(&ctx, info.name)));
    Ok(Value::List(handles.collect()))
}

async fn name(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<SandboxObject>()?.name.clone().into())
}

async fn state(ctx: Ctx, args: Args) -> Result<Value> {
    let info = ctx.backend().get(&name_of(&args)?, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(info.state.word().into())
}

async fn info(ctx: Ctx, args: Args) -> Result<Value> {
    let info = ctx.backend().get(&name_of(&args)?, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(info_map(info))
}

/// Starts it, as soon as its caches are free.
async fn started(ctx: &Ctx, name: &str) -> Result<()> {
    cache::when_free(ctx, name, || ctx.backend().start(name, ctx.cancel())).await
}

async fn start(ctx: Ctx, args: Args) -> Result<Value> {
    started(&ctx, &name_of(&args)?).await?;
    Ok(Value::Unit)
}

fn stop_options(args: &Args) -> Result<StopOptions> {
    let standard = StopOptions::default();
    let grace = args.duration("grace")?.unwrap_or(standard.grace);
    Ok(StopOptions { grace, force: args.flag("force") })
}

async fn stop(ctx: Ctx, args: Args) -> Result<Value> {
    let options = stop_options(&args)?;
    ctx.backend().stop(&name_of(&args)?, options, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn restart(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, options) = (name_of(&args)?, stop_options(&args)?);
    ctx.backend().stop(&name, options, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    started(&ctx, &name).await?;
    Ok(Value::Unit)
}

async fn remove(ctx: Ctx, name: &str, missing_ok: bool) -> Result<Value> {
    match ctx.backend().delete(name, ctx.cancel()).await {
        Err(Error::NotFound { .. }) if missing_ok => {}
        done => done.map_err(|e| ctx.error(e))?,
    }
    ctx.host.forget(name);
    Ok(Value::Unit)
}

async fn delete(ctx: Ctx, args: Args) -> Result<Value> {
    let missing_ok = args.flag("missing_ok");
    match name_of(&args) {
        Err(_) if missing_ok => Ok(Value::Unit),
        name => remove(ctx, &name?, missing_ok).await,
    }
}

async fn delete_by_name(ctx: Ctx, args: Args) -> Result<Value> {
    let name = args.need("name")?;
    check_name(name)?;
    remove(ctx, name, args.flag("missing_ok")).await
}

async fn ready(ctx: Ctx, args: Args) -> Result<Value> {
    let limit = args.duration("timeout")?.unwrap_or(Duration::from_secs(60));
    ctx.backend().ready(&name_of(&args)?, limit, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn freeze(ctx: Ctx, args: Args) -> Result<Value> {
    ctx.backend().freeze(&name_of(&args)?, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn thaw(ctx: Ctx, args: Args) -> Result<Value> {
    ctx.backend().thaw(&name_of(&args)?, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn keep(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    ctx.backend().keep(&name, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    ctx.host.keep(&name);
    Ok(Value::Unit)
}

fn info_map(info: Info) -> Value {
    let why = match &info.state {
        State::Transitional(why) | State::Error(why) => Some(why.clone()),
        _ => None,
    };
    let size = |size: Option<u64>| Value::option(size);
    let limits = Value::map([
        ("cpu", Value::option(info.limits.cpu)),
        ("memory", size(info.limits.memory)),
        ("pids", size(info.limits.pids)),
        ("disk", size(info.limits.disk)),
        ("inodes", size(info.limits.inodes)),
    ]);
    let hardware = Value::map([
        ("pool", Value::option(info.hardware.pool)),
        ("cpus", Value::option(info.hardware.cpus)),
        ("mac", Value::option(info.hardware.mac)),
        ("address", Value::option(info.hardware.address)),
    ]);
    let mounts: Vec<Value> = info
        .mounts
        .iter()
        .map(|mount| {
            Value::map([
                ("source", mount.source.display().to_string().into()),
                ("target", mount.target.as_str().into()),
                ("readonly", mount.readonly.into()),
            ])
        })
        .collect();
    let caches: Vec<Value> = info
        .caches
        .iter()
        .map(|cache| {
            Value::map([
                ("name", cache.name.as_str().into()),
                ("path", cache.target.as_str().into()),
                ("share", cache.shared.into()),
            ])
        })
        .collect();
    let map: Map = BTreeMap::from([
        ("name".into(), info.name.into()),
        ("state".into(), info.state.word().into()),
        ("why".into(), Value::option(why)),
        ("image".into(), info.image.into()),
        ("fingerprint".into(), info.fingerprint.into()),
        ("hostname".into(), info.hostname.into()),
        ("created".into(), info.created.into()),
        ("used".into(), info.used.into()),
        ("source".into(), Value::option(info.source)),
        ("limits".into(), limits),
        ("hardware".into(), hardware),
        ("mounts".into(), mounts.into()),
        ("caches".into(), caches.into()),
        ("devices".into(), device::map(&info.devices)),
        ("nesting".into(), info.nesting.into()),
        ("egress".into(), info.egress.to_string().into()),
        ("networks".into(), network::names(&info.networks)),
        ("env".into(), info.env.into()),
        ("user".into(), Value::option(info.user)),
        ("cwd".into(), Value::option(info.cwd)),
        ("labels".into(), info.labels.into()),
        ("run".into(), Value::option(info.owner.map(|owner| owner.run))),
        ("expires".into(), Value::option(info.expires)),
        ("addresses".into(), info.addresses.into()),
        ("ports".into(), port::list(&info.ports)),
        ("member".into(), Value::option(info.member)),
        ("dataset".into(), Value::option(info.dataset)),
        ("exec".into(), Value::option(info.exec)),
    ]);
    map.into()
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Sandbox";
    vec![
        FnSpec::function("sandbox", create)
            .doc(
                "Makes a sandbox and waits until a command has run in it. It is deleted when the \
                  run ends, however it ends, unless it is kept.",
            )
            .optional(
                "name",
                Type::String,
                "Its name: 1 to 63 of a-z, 0-9 and '-'. Made up when \
                  not given.",
            )
            .options(source_options())
            .option(
                "mounts",
                Type::list(Type::Map),
                "Host folders in it: a list of \
                  #{ source, target, readonly }.",
            )
            .option("user", Type::String, "User of every command that names none.")
            .option("cwd", Type::String, "Working directory of every command that names none.")
            .options(hardware_options())
            .options(machine_options())
            .returns(Type::Object(on))
            .error("already_exists", "There is one of that name.")
            .error("invalid_input", "A name, size or path is none.")
            .error("not_found", "The image, base or sandbox it starts from is not there.")
            .error("unsupported", "The backend can't do what an option asks.")
            .example("let tmp = sandbox(\"tmp\", #{ memory: \"1GiB\", env: #{ CI: true } });\nprint(tmp.state);", "local tmp <close> = sandbox(\"tmp\", { memory = \"1GiB\", env = { CI = true } })\nprint(tmp.state)"),
        FnSpec::function("open", open)
            .doc("Finds a sandbox that is there already. It is not deleted when the run ends.")
            .param("name", Type::String, "Its name.")
            .returns(Type::Object(on))
            .error("not_found", "There is none of that name.")
            .example("let web = open(\"web\");", "local web = open(\"web\")"),
        FnSpec::function("sandboxes", list)
            .doc("All sandboxes of the backend, by name.")
            .returns(Type::list(Type::Object(on)))
            .example("for one in sandboxes() { print(one.name); }", "for _, one in ipairs(sandboxes()) do print(one.name) end"),
        FnSpec::function("delete", delete_by_name)
            .doc("Deletes a sandbox with its snapshots. Clones of it live on.")
            .param("name", Type::String, "Its name.")
            .option("missing_ok", Type::Bool, "Do nothing when there is none. Default: false.")
            .error("not_found", "There is none of that name.")
            .example("delete(\"scratch\", #{ missing_ok: true });", "delete(\"scratch\", { missing_ok = true })"),
        FnSpec::property(on, "name", name)
            .doc("Its name.")
            .returns(Type::String)
            .example("print(box.name);", "print(box.name)"),
        FnSpec::property(on, "state", state)
            .doc("Its state: \"running\", \"stopped\", \"frozen\", \"transitional\" or \"error\".")
            .returns(Type::String)
            .error("not_found", "It is not there any more.")
            .example("assert_eq(box.state, \"running\");", "assert_eq(box.state, \"running\")"),
        FnSpec::method(on, "info", info)
            .doc(
                "All that is known about it: name, state, image, fingerprint, hostname, created, \
                  used, source, limits, mounts, caches, egress, networks (their names), env, user, cwd, labels, run, expires, \
                  addresses, ports (its own, each with where it is reached: port and at).",
            )
            .returns(Type::Map)
            .error("not_found", "It is not there any more.")
            .example("print(box.info().image);", "print(box:info().image)"),
        FnSpec::method(on, "start", start)
            .doc(
                "Starts it and waits until a command has run. A running one is left as it is; a \
                  frozen one is thawed.",
            )
            .error("not_found", "It is not there any more.")
            .example("box.start();", "box:start()"),
        FnSpec::method(on, "stop", stop)
            .doc("Stops it. A stopped one is left as it is.")
            .option(
                "grace",
                Type::Duration,
                "How long its processes get to end by themselves. \
                  Default: 10s.",
            )
            .option("force", Type::Bool, "Kill them at once. Default: false.")
            .error("not_found", "It is not there any more.")
            .example("box.stop(#{ grace: \"2s\" });", "box:stop({ grace = \"2s\" })"),
        FnSpec::method(on, "restart", restart)
            .doc("Stops and starts it.")
            .option(
                "grace",
                Type::Duration,
                "How long its processes get to end by themselves. \
                  Default: 10s.",
            )
            .option("force", Type::Bool, "Kill them at once. Default: false.")
            .error("not_found", "It is not there any more.")
            .example("box.restart();", "box:restart()"),
        FnSpec::method(on, "delete", delete)
            .doc("Deletes it with its snapshots. Clones of it live on.")
            .option("missing_ok", Type::Bool, "Do nothing when it is gone. Default: false.")
            .error("not_found", "It is not there any more.")
            .example("box.delete();", "box:delete()"),
        FnSpec::method(on, "ready", ready)
            .doc("Waits until a command has run in it.")
            .optional("timeout", Type::Duration, "How long. Default: 60s.")
            .error("not_found", "It is not there any more.")
            .error("not_running", "It does not run.")
            .error("timeout", "It took longer than timeout.")
            .example("box.ready(\"30s\");", "box:ready(\"30s\")"),
        FnSpec::method(on, "freeze", freeze)
            .doc("Lets its processes stand still.")
            .error("not_found", "It is not there any more.")
            .error("not_running", "It does not run.")
            .example("box.freeze();", "box:freeze()"),
        FnSpec::method(on, "thaw", thaw).doc("Lets them go on.").error("not_found", "It is not there any more.")
            .error("not_running", "It does not run.")
            .example("box.freeze();\nbox.thaw();", "box:freeze()\nbox:thaw()"),
        FnSpec::method(on, "keep", keep).doc("Keeps it when the run ends.").error("not_found", "It is not there any more.")
            .example("box.keep();", "box:keep()"),
    ]
}
