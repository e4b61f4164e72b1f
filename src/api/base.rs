//! Bases: cached steps that end in a snapshot to clone from.

use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::device;
use super::egress;
use super::exec::{command_options, command_with, like};
use super::files::write_options;
use super::lazy::Lazy;
use super::sandbox::{SandboxObject, limit_options, limits, scalar};
use super::secret::{self, data_or_secret};
use super::{
    Args, Callable, Ctx, ErrorKind, FnSpec, MachineName, Object, Opt, Result, ScriptError, Type,
    Value,
};
use crate::sandbox::{CacheMount, Error, Program};
use crate::transfer::PackOptions;
use crate::workflow::{
    BaseBuilder, BaseHandle, BaseOptions, CopyOptions, Failure, RunOptions, Source,
};

/// A base in a script.
pub struct BaseObject(Form);

enum Form {
    /// It is built, on this backend.
    Built(Box<BaseHandle>, MachineName),
    /// It is built when it is needed.
    Lazy(Arc<Lazy>),
    /// A snapshot point of one that is built when it is needed.
    Point(Arc<Lazy>, String),
}

impl BaseObject {
    fn built_on(ctx: &Ctx, base: BaseHandle) -> Value {
        Value::object(BaseObject(Form::Built(Box::new(base), ctx.host.machine.clone())))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match &self.0 {
            Form::Built(base, _) => &base.name,
            Form::Lazy(lazy) | Form::Point(lazy, _) => &lazy.name,
        }
    }

    /// The base, where it was built at once.
    pub fn built(&self) -> Option<&BaseHandle> {
        match &self.0 {
            Form::Built(base, _) => Some(base),
            Form::Lazy(_) | Form::Point(..) => None,
        }
    }

    /// Whether it is built when it is needed.
    pub(super) fn lazy(&self) -> bool {
        self.built().is_none()
    }

    /// The base, on the backend of whoever asks.
    pub(super) async fn get(&self, ctx: &Ctx) -> Result<BaseHandle> {
        match &self.0 {
            Form::Built(base, machine) if *machine == ctx.host.machine => Ok((**base).clone()),
            Form::Built(base, machine) => Err(ScriptError::runtime(format!(
                "base '{}' is on {machine}, and is wanted on {}",
                base.name, ctx.host.machine
            ))
            .hint("make it with lazy: true; then it is built wherever it is needed")),
            Form::Lazy(lazy) => lazy.get(ctx).await,
            Form::Point(lazy, name) => point(&lazy.get(ctx).await?, name),
        }
    }
}

impl Object for BaseObject {
    fn type_name(&self) -> &'static str {
        "Base"
    }

    fn describe(&self) -> String {
        format!("base '{}'", self.name())
    }
}

/// What the function of `base()` gets.
struct BuilderObject {
    name: String,
    builder: Mutex<Option<BaseBuilder>>,
}

impl Object for BuilderObject {
    fn type_name(&self) -> &'static str {
        "Builder"
    }

    fn describe(&self) -> String {
        format!("builder of base '{}'", self.name)
    }
}

/// What may stand at `from`: an image, a base, a sandbox.
pub(super) fn source_options() -> Vec<Opt> {
    let option = |name, ty, doc| Opt { name, ty, doc };
    vec![
        option(
            "from",
            Type::OneOf(vec![Type::String, Type::Object("Base"), Type::Object("Sandbox")]),
            "What it starts from: an image, a base, or a sandbox. Default: the backend's own \
             image.",
        ),
        option("image", Type::String, "Another word for from, for an image."),
        option("sha256", Type::String, "The checksum that an image given by URL must have."),
        option("label", Type::String, "Where from is a sandbox: the label of its snapshot."),
    ]
}

/// What the options of [`source_options`] say.
pub(super) async fn source(ctx: &Ctx, args: &Args) -> Result<Source> {
    let from = args.get("from");
    if !from.is_unit() && args.has("image") {
        return Err(args.wrong("image", "'from' is given, too").hint("leave one of them out"));
    }
    let found = match from {
        Value::Handle(_) => match source_of(ctx, from, args.string("label")).await? {
            Some(source) => source,
            None => return Err(args.wrong("from", "it is neither an image, a base nor a sandbox")),
        },
        other => Source::Image {
            image: other.as_str().or(args.string("image")).map(str::to_owned),
            sha256: args.string("sha256").map(str::to_owned),
        },
    };
    if args.has("label") && !matches!(found, Source::Snapshot { .. }) {
        return Err(args
            .wrong("label", "there is no sandbox whose snapshot it could be")
            .hint("give the sandbox as from"));
    }
    Ok(found)
}

/// What a value says that something starts from; none when it can't say that.
pub(super) async fn source_of(
    ctx: &Ctx,
    from: &Value,
    label: Option<&str>,
) -> Result<Option<Source>> {
    let handle = match from {
        Value::String(image) => return Ok(Some(Source::image(image.as_str()))),
        Value::Handle(handle) => handle,
        _ => return Ok(None),
    };
    if let Some(base) = handle.downcast::<BaseObject>() {
        return Ok(Some(base.get(ctx).await?.into()));
    }
    let Some(sandbox) = handle.downcast::<SandboxObject>() else { return Ok(None) };
    let (name, label) = (sandbox.name()?.to_owned(), label.map(str::to_owned));
    match sandbox.home() {
        Some(home) if home.machine != ctx.host.machine => Err(ScriptError::runtime(format!(
            "sandbox '{name}' is on {}, and is wanted on {}",
            home.machine, ctx.host.machine
        ))
        .hint("what is on one backend can't be cloned on another")),
        _ => Ok(Some(Source::Snapshot { sandbox: name, label })),
    }
}

/// A workflow's failure as a script error.
pub(super) fn failure(ctx: &Ctx, what: &str, failure: Failure) -> ScriptError {
    match failure {
        Failure::Error(error) => ctx.error(error),
        Failure::Exit { command, exit } => ScriptError::new(
            ErrorKind::Command(None),
            format!("'{command}' failed in {what}: {exit}"),
        ),
        other => {
            let hint = other.hint().unwrap_or_default();
            ScriptError::runtime(format!("{what}: {other}")).hint(hint)
        }
    }
}

async fn base(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let name = args.need("name")?.to_owned();
    if args.flag("lazy") && !ctx.host.plan.wants(&name) {
        let lazy = Lazy::new(name, args);
        return Ok(Value::object(BaseObject(Form::Lazy(Arc::new(lazy)))));
    }
    let source = source(&ctx, &args).await?;
    let steps = args.callback("steps").map(|steps| steps.0);
    Ok(BaseObject::built_on(&ctx, build(&ctx, &args, source, steps).await?))
}

/// Does what a call of `base()` says.
pub(super) async fn build(
    ctx: &Ctx,
    args: &Args,
    source: Source,
    steps: Option<Arc<dyn Callable>>,
) -> Result<BaseHandle> {
    let name = args.need("name")?;
    let wanted = ctx.host.plan.bases.clone();
    let egress = egress::of(ctx, args, &source).await?;
    let options = BaseOptions {
        source,
        egress,
        env: args.string_map("env"),
        user: args.string("user").map(str::to_owned),
        cwd: args.string("cwd").map(str::to_owned),
        limits: limits(args)?,
        expires: args.duration("expires")?,
        caches: Vec::new(),
        devices: device::devices(ctx, args)?,
        nesting: args.flag("nesting"),
        rebuild: wanted.as_ref().is_some_and(|wanted| wanted.rebuild && wanted.has(name)),
    };
    let opened = BaseBuilder::open(&ctx.run(), name, options).await;
    let object = BuilderObject {
        name: name.to_owned(),
        builder: Mutex::new(Some(opened.map_err(|e| ctx.error(e))?)),
    };
    let handle = super::Handle::new(object);
    let steps = match steps {
        Some(steps) => steps.call(ctx, vec![handle.clone().into()]).await.map(drop),
        None => Ok(()),
    };
    let builder = match handle.downcast::<BuilderObject>() {
        Some(object) => object.builder.lock().await.take(),
        None => None,
    };
    let Some(builder) = builder else {
        return Err(ScriptError::runtime(format!("base '{name}' is finished already")));
    };
    let tail = builder.tail();
    let tell_tail = || ctx.base_failed(&tail.lock().unwrap_or_else(PoisonError::into_inner));
    if let Err(error) = steps.and_then(|()| ctx.stop.check()) {
        builder.abandon().await;
        tell_tail();
        return Err(error);
    }
    match builder.finish().await {
        Ok(base) => {
            if base.volatile {
                // Not as a cell's own: other cells may go on with it.
                ctx.host.track(&base.sandbox, false);
            }
            if let Some(wanted) = wanted {
                wanted.add(name);
                if wanted.complete() {
                    ctx.host.run.cancel.cancel();
                    return Err(ctx.error(Error::Cancelled));
                }
            }
            Ok(base)
        }
        Err(failed) => {
            tell_tail();
            Err(failure(ctx, &format!("base '{name}'"), failed))
        }
    }
}

async fn build_bases(ctx: Ctx, args: Args) -> Result<Value> {
    let mut tasks = JoinSet::new();
    for value in args.list("bases") {
        let (ctx, value) = (ctx.clone(), value.clone());
        tasks.spawn(async move {
            match value {
                Value::Handle(handle) => match handle.downcast::<BaseObject>() {
                    Some(base) => base.get(&ctx).await.map(drop),
                    None => Ok(()),
                },
                _ => Ok(()),
            }
        });
    }
    // The others go on: what they do is kept.
    let mut first = Ok(());
    while let Some(done) = tasks.join_next().await {
        first =
            first.and(done.unwrap_or_else(|error| Err(ScriptError::runtime(error.to_string()))));
    }
    first.map(|()| Value::Unit)
}

/// The builder that a step belongs to, for as long as the step takes.
struct Step<'a> {
    name: &'a str,
    builder: tokio::sync::MutexGuard<'a, Option<BaseBuilder>>,
}

impl<'a> Step<'a> {
    async fn of(args: &'a Args) -> Result<Step<'a>> {
        let object = args.this::<BuilderObject>()?;
        Ok(Step { name: &object.name, builder: object.builder.lock().await })
    }

    fn builder(&mut self) -> Result<&mut BaseBuilder> {
        let name = self.name;
        self.builder.as_mut().ok_or_else(|| {
            ScriptError::runtime(format!("base '{name}' is finished"))
                .hint("its steps belong into the function that base() is called with")
        })
    }

    fn done(&self, ctx: &Ctx, done: Result<(), Failure>) -> Result<Value> {
        match done {
            Ok(()) => Ok(Value::Unit),
            Err(failed) => Err(failure(ctx, &format!("base '{}'", self.name), failed)),
        }
    }
}

async fn run(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let (command, secrets) = command_with(&ctx, &args)?;
    let options = RunOptions { secrets, volatile: args.flag("volatile") };
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.run_with(command, options).await;
    step.done(&ctx, done)
}

async fn script(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let words = args.strings("args");
    let (command, secrets) = like(&ctx, &args, Program::Argv(words.clone()))?;
    let options = RunOptions { secrets, volatile: args.flag("volatile") };
    let from = args.need("path")?;
    let path = super::path::existing(&ctx, from).await?;
    let reading = ctx.reading(&path, &PackOptions::default()).await;
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.script(from, words, command, options).await;
    if let Some(reading) = reading {
        reading.done().await;
    }
    step.done(&ctx, done)
}

async fn fetch(ctx: Ctx, args: Args) -> Result<Value> {
    let options = write_options(&args, true)?;
    let (url, sha256, to) = (args.need("url")?, args.need("sha256")?, args.need("to")?);
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.fetch(url, sha256, to, options).await;
    step.done(&ctx, done)
}

async fn git(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let (url, wanted, to) = (args.need("url")?, args.need("ref")?, args.need("to")?);
    let owner = args.string("owner").map(str::to_owned);
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.git(url, wanted, to, owner).await;
    step.done(&ctx, done)
}

async fn snapshot(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.snapshot(args.need("name")?).await;
    step.done(&ctx, done)
}

async fn at(ctx: Ctx, args: Args) -> Result<Value> {
    let (base, name) = (args.this::<BaseObject>()?, args.need("name")?);
    match &base.0 {
        Form::Lazy(lazy) => {
            Ok(Value::object(BaseObject(Form::Point(Arc::clone(lazy), name.to_owned()))))
        }
        _ => Ok(BaseObject::built_on(&ctx, point(&base.get(&ctx).await?, name)?)),
    }
}

fn point(base: &BaseHandle, name: &str) -> Result<BaseHandle> {
    base.at(name).ok_or_else(|| {
        let message = format!("base '{}' has no snapshot point '{name}'", base.name);
        let known = base.points.keys().map(String::as_str);
        let hint = match base.points.is_empty() {
            true => Some("its steps make one with b.snapshot(…)".to_owned()),
            false => super::suggest::hint(name, known),
        };
        ScriptError::runtime(message).hint(hint.unwrap_or_default()).focus(name)
    })
}

async fn copy(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let written = write_options(&args, true)?;
    let options = CopyOptions {
        pack: PackOptions {
            exclude: args.strings("exclude"),
            ignore_files: !args.flag("all"),
            ..PackOptions::default()
        },
        owner: written.owner,
        mode: written.mode,
    };
    let (from, to) = (args.need("from")?, args.need("to")?);
    let path = super::path::existing(&ctx, from).await?;
    let reading = ctx.reading(&path, &options.pack).await;
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.copy(from, to, options).await;
    if let Some(reading) = reading {
        reading.done().await;
    }
    step.done(&ctx, done)
}

async fn write(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let options = write_options(&args, true)?;
    if let Some(secret) = secret::of(args.get("content")) {
        let message = format!("the secret '{}' would stay in the base", secret.name());
        return Err(ScriptError::runtime(message).hint(
            "a base is kept and shared: give it to the step that needs it as env or stdin, or \
             write it in the sandboxes that are made from the base",
        ));
    }
    let content = args.data("content").unwrap_or_default();
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.write(args.need("path")?, content, options).await;
    step.done(&ctx, done)
}

async fn env(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let value = args.get("value").to_string();
    Step::of(&args).await?.builder()?.env(args.need("name")?, value);
    Ok(Value::Unit)
}

async fn cache(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let (name, target) = (args.need("name")?, args.need("path")?);
    let cache = CacheMount { shared: args.flag("share"), ..CacheMount::new(name, target) };
    let mut step = Step::of(&args).await?;
    let done = step.builder()?.cache(cache).await;
    step.done(&ctx, done)
}

async fn user(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    Step::of(&args).await?.builder()?.user(args.need("user")?);
    Ok(Value::Unit)
}

async fn workdir(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    Step::of(&args).await?.builder()?.workdir(args.need("path")?);
    Ok(Value::Unit)
}

/// A property of a base that is done.
fn property(
    name: &'static str,
    ty: Type,
    doc: &'static str,
    (rhai, lua): (&'static str, &'static str),
    get: fn(&BaseHandle) -> Value,
) -> FnSpec {
    let read = move |ctx: Ctx, args: Args| async move {
        Ok(get(&args.this::<BaseObject>()?.get(&ctx).await?))
    };
    FnSpec::property("Base", name, read).graceful().doc(doc).returns(ty).example(rhai, lua)
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Builder";
    let mode = || Type::OneOf(vec![Type::Int, Type::String]);
    let mut step_options = command_options();
    step_options.retain(|option| option.name != "tty");
    step_options.push(Opt {
        name: "volatile",
        ty: Type::Bool,
        doc: "Run it each time the base is asked for; the steps after it are cached as if it were \
              not there. Default: false.",
    });
    vec![
        FnSpec::function("base", base)
            .graceful()
            .doc(
                "Builds a base out of steps, each of which ends in a snapshot that is kept. When \
                  nothing that a step depends on has changed, it is not done again: not in the \
                  next run either, nor in another script.",
            )
            .param("name", Type::String, "Its name, for people.")
            .options(source_options())
            .options(vec![egress::option(
                "What its steps may reach, and what is cloned from it: \"none\", \"unrestricted\", a preset such as \"agent\", a list of rules, or #{ preset, allow, deny }. Default: nothing.",
            )])
            .option(
                "env",
                Type::map_of(scalar()),
                "Environment of its steps, and of what is \
                  cloned from it.",
            )
            .option("user", Type::String, "User of its steps.")
            .option("cwd", Type::String, "Working directory of its steps.")
            .option(
                "lazy",
                Type::Bool,
                "Build it when it is needed first: by a sandbox, a matrix or another base that starts \
                  from it, by one of its properties, or by build_bases. So bases that don't depend \
                  on each other are built side by side, and on each backend that needs them. In Rhai \
                  its function gets copies of the variables it uses. Default: false.",
            )
            .options(limit_options())
            .options(vec![
                device::option("Devices of the machine's that its steps have, by name."),
                device::nesting(),
            ])
            .option(
                "expires",
                Type::Duration,
                "After this long without use gc may delete it. Default: what the settings say, \
                 else 30 days.",
            )
            .param("steps", Type::Callback(vec![("b", Type::Object(on))]), "Does the steps.")
            .returns(Type::Object("Base"))
            .error("command_failed", "A step does not return 0.")
            .error("not_found", "What it starts from is not there.")
            .example("let app = base(\"app\", #{ env: #{ LANG: \"C\" } }, |b| {\n    b.run(\"mkdir -p /opt/app\");\n    b.copy(\"requirements.txt\", \"/opt/app/requirements.txt\");\n});\nlet fresh = sandbox(#{ from: app });", "local app = base(\"app\", { env = { LANG = \"C\" } }, function(b)\n    b:run(\"mkdir -p /opt/app\")\n    b:copy(\"requirements.txt\", \"/opt/app/requirements.txt\")\nend)\nlocal fresh <close> = sandbox({ from = app })"),
        FnSpec::function("build_bases", build_bases)
            .graceful()
            .doc(
                "Builds lazy bases, several at once, each after the one that it starts from. What is \
                  built already is left as it is.",
            )
            .param("bases", Type::list(Type::Object("Base")), "The bases.")
            .error("command_failed", "A step does not return 0; the other bases are built.")
            .error("runtime", "A base needs itself.")
            .example(
                "let cc = base(\"cc\", #{ lazy: true }, |b| b.run(\"mkdir /cc\"));\nlet py = base(\"py\", #{ lazy: true }, |b| b.run(\"mkdir /py\"));\nbuild_bases([cc, py]);",
                "local cc = base(\"cc\", { lazy = true }, function(b) b:run(\"mkdir /cc\") end)\nlocal py = base(\"py\", { lazy = true }, function(b) b:run(\"mkdir /py\") end)\nbuild_bases({ cc, py })",
            ),
        FnSpec::method(on, "run", run)
            .graceful()
            .doc("A step that runs a command, which must return 0.")
            .param(
                "command",
                Type::Command,
                "A string is run by sh -c, a list is delivered \
                  exactly as it is.",
            )
            .options(step_options.clone())
            .error("command_failed", "It does not return 0.")
            .error("timeout", "It took longer than timeout.")
            .example("b.run(\"echo built > version\", #{ cwd: \"/opt\" });", "b:run(\"echo built > version\", { cwd = \"/opt\" })"),
        FnSpec::method(on, "script", script)
            .graceful()
            .doc(
                "A step that runs a script of the host inside, which must return 0. It is run by \
                  what its first line names, else by sh, and is not there any more afterwards.",
            )
            .param("path", Type::String, "A host path, relative to the project folder.")
            .option("args", Type::list(Type::String), "Its arguments.")
            .options(step_options)
            .error("command_failed", "It does not return 0.")
            .error("not_found", "The host path is not there.")
            .error("runtime", "The host path is not in the project folder.")
            .error("timeout", "It took longer than timeout.")
            .example("b.script(\"setup.sh\", #{ args: [\"--quick\"] });", "b:script(\"setup.sh\", { args = { \"--quick\" } })"),
        FnSpec::method(on, "fetch", fetch)
            .graceful()
            .doc(
                "A step that puts a file from a URL into the base. The host fetches it, so the base \
                  needs no network inside; it counts by its digest, wherever it comes from.",
            )
            .param("url", Type::String, "An https:, http: or file: URL.")
            .param("sha256", Type::String, "The digest that its bytes must have, in hex.")
            .param("to", Type::String, "An absolute path in the base; a folder when it ends in /.")
            .option("mode", mode(), "Permission bits, such as 0o755 or \"755\".")
            .option("owner", Type::String, "Owner in the base; root when not given.")
            .error("invalid_input", "It has another digest.")
            .error("not_found", "There is nothing at the URL.")
            .error("transport", "The download failed.")
            .example(
                "b.fetch(\"file://requirements.txt\", \"7cc4959877dbe6b6c63a8eb1bfe3bfb545fa8fe5b28b1b2c13e4a7c1c0d1c4d4\", \"/opt/\");",
                "b:fetch(\"file://requirements.txt\", \"7cc4959877dbe6b6c63a8eb1bfe3bfb545fa8fe5b28b1b2c13e4a7c1c0d1c4d4\", \"/opt/\")",
            ),
        FnSpec::method(on, "git", git)
            .graceful()
            .doc(
                "A step that puts the tree of a git commit into the base, without its history. The \
                  host's git fetches it, so the base needs no network inside; it counts by the \
                  commit. A branch or tag is looked up each time; a commit named by all its digits \
                  needs no network at all once it is here.",
            )
            .param("url", Type::String, "The repository, or the path of one in the project folder.")
            .param("ref", Type::String, "A branch, a tag, or a whole commit id.")
            .param("to", Type::String, "An absolute path in the base.")
            .option("owner", Type::String, "Owner in the base; root when not given.")
            .error("invalid_input", "The repository has no such branch, tag or commit.")
            .error("not_found", "The host has no git, or no such path.")
            .error("transport", "The repository can't be reached.")
            .example("b.git(\"vendor/lib.git\", \"v1.0\", \"/opt/lib\");", "b:git(\"vendor/lib.git\", \"v1.0\", \"/opt/lib\")"),
        FnSpec::method(on, "snapshot", snapshot)
            .graceful()
            .doc(
                "A snapshot point: gives what was done so far a name, by which Base.at finds it. \
                  What volatile steps did is not in it.",
            )
            .param("name", Type::String, "Its name.")
            .error("invalid_input", "There is one of that name.")
            .example("b.run(\"mkdir -p /opt/deps\");\nb.snapshot(\"deps\");", "b:run(\"mkdir -p /opt/deps\")\nb:snapshot(\"deps\")"),
        FnSpec::method(on, "copy", copy)
            .graceful()
            .doc("A step that copies a host file or folder, as Sandbox.push does.")
            .param("from", Type::String, "A host path, relative to the project folder.")
            .param("to", Type::String, "An absolute path in the base.")
            .option("all", Type::Bool, "Copy what ignore files name, too. Default: false.")
            .option(
                "exclude",
                Type::list(Type::String),
                "Patterns of what is left out, as in \
                  .gitignore.",
            )
            .option("mode", mode(), "Permission bits of a single file.")
            .option("owner", Type::String, "Owner in the base; root when not given.")
            .error("runtime", "The host path is not in the project folder.")
            .error("not_found", "The host path is not there.")
            .example("b.copy(\"requirements.txt\", \"/opt/requirements.txt\");", "b:copy(\"requirements.txt\", \"/opt/requirements.txt\")"),
        FnSpec::method(on, "write", write)
            .graceful()
            .doc("A step that writes a file; missing folders are made.")
            .param("path", Type::String, "An absolute path in the base.")
            .param("content", data_or_secret(), "Text or bytes; a secret is refused.")
            .option("mode", mode(), "Permission bits, such as 0o755 or \"755\".")
            .option("owner", Type::String, "Owner: \"user\" or \"user:group\".")
            .example("b.write(\"/etc/app.conf\", \"port = 80\\n\");", "b:write(\"/etc/app.conf\", \"port = 80\\n\")"),
        FnSpec::method(on, "env", env)
            .doc(
                "From here on, steps have this in their environment, and so has what is cloned \
                  from the base.",
            )
            .param("name", Type::String, "The variable.")
            .param("value", scalar(), "Its value.")
            .example("b.env(\"CC\", \"clang\");", "b:env(\"CC\", \"clang\")"),
        FnSpec::method(on, "cache", cache)
            .graceful()
            .doc(
                "From here on, steps have this folder, which outlives the base: it is in no key, in \
                  no snapshot and in no clone, and other bases, cells and runs that name it find \
                  in it what was left there. One at a time has it, the others wait; a step must \
                  come out the same when it is empty.",
            )
            .param("name", Type::String, "Which cache; made when there is none.")
            .param("path", Type::String, "An absolute path in the base.")
            .option("share", Type::Bool, "Others that share it may have it at the same time. Default: false.")
            .error("invalid_input", "The base has it already, or something else at that path.")
            .error("unsupported", "The backend keeps no caches.")
            .example("b.cache(\"pip\", \"/root/.cache/pip\");\nb.run(\"ls /root/.cache/pip\");", "b:cache(\"pip\", \"/root/.cache/pip\")\nb:run(\"ls /root/.cache/pip\")"),
        FnSpec::method(on, "user", user)
            .doc("From here on, steps run as this user.")
            .param("user", Type::String, "User name or number, with optional :group.")
            .example("b.user(\"nobody\");", "b:user(\"nobody\")"),
        FnSpec::method(on, "workdir", workdir)
            .doc("From here on, steps run in this directory.")
            .param("path", Type::String, "An absolute path.")
            .example("b.workdir(\"/opt\");", "b:workdir(\"/opt\")"),
        FnSpec::method("Base", "at", at)
            .doc("The base as it was at a snapshot point.")
            .param("name", Type::String, "The point's name.")
            .returns(Type::Object("Base"))
            .error("runtime", "It has no such point.")
            .example(
                "let app = base(\"app\", |b| { b.run(\"mkdir /deps\"); b.snapshot(\"deps\"); b.run(\"mkdir /app\"); });\nlet deps = sandbox(#{ from: app.at(\"deps\") });",
                "local app = base(\"app\", function(b) b:run(\"mkdir /deps\") b:snapshot(\"deps\") b:run(\"mkdir /app\") end)\nlocal deps <close> = sandbox({ from = app:at(\"deps\") })",
            ),
        FnSpec::property("Base", "name", |_ctx, args: Args| async move {
            Ok(args.this::<BaseObject>()?.name().into())
        })
        .doc("Its name.")
        .returns(Type::String)
        .example("print(tools.name);", "print(tools.name)"),
        property(
            "sandbox",
            Type::String,
            "The name of the sandbox that holds it.",
            ("print(tools.sandbox);", "print(tools.sandbox)"),
            |base| base.sandbox.as_str().into(),
        ),
        property("label", Type::String, "The label of its snapshot.", ("print(tools.label);", "print(tools.label)"), |base| {
            base.label.as_str().into()
        }),
        property(
            "fingerprint",
            Type::String,
            "The digest of the image it started from.",
            ("print(tools.fingerprint);", "print(tools.fingerprint)"),
            |base| base.fingerprint.as_str().into(),
        ),
        property("steps", Type::Int, "How many steps it has.", ("print(tools.steps);", "print(tools.steps)"), |base| {
            base.steps.into()
        }),
        property(
            "hits",
            Type::Int,
            "How many of its steps had been done before.",
            (
                "print(`${tools.hits} of ${tools.steps} steps were cached`);",
                "print(tools.hits .. \" of \" .. tools.steps .. \" steps were cached\")",
            ),
            |base| base.hits.into(),
        ),
        property(
            "duration",
            Type::Number,
            "How long it took to have it, in seconds.",
            ("print(tools.duration);", "print(tools.duration)"),
            |base| base.duration.into(),
        ),
    ]
}

/// The error for a domain call inside a base or a matrix.
pub(super) fn is_cancel(error: &ScriptError) -> bool {
    matches!(
        error.kind,
        ErrorKind::Cancelled
            | ErrorKind::Limit
            | ErrorKind::Timeout
            | ErrorKind::Sandbox(Error::Cancelled)
    )
}
