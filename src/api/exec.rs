//! Running commands to their end.

use bytes::Bytes;

use super::sandbox::{SandboxObject, name_of};
use super::secret::{self, data_or_secret, scalar_or_secret};
use super::{Args, Ctx, ErrorKind, FnSpec, Handle, Object, Opt, Result, ScriptError, Type, Value};
use crate::sandbox::{self, Command, Exit, Output, Program, Signal, Stdin, WindowSize};
use crate::workflow::{self, CommandSecrets};

/// What a command left behind, in a script.
pub struct ResultObject {
    program: Program,
    output: Output,
}

impl ResultObject {
    /// The result of a command.
    pub fn new(program: Program, output: Output) -> Self {
        ResultObject { program, output }
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    fn error(self) -> ScriptError {
        const LINES: usize = 20;
        let mut message = format!("'{}' failed: {}", shorten(&self.program), self.output.exit);
        let from = if self.output.stderr.trim_ascii().is_empty() {
            &self.output.stdout
        } else {
            &self.output.stderr
        };
        let text = String::from_utf8_lossy(from);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            message.push('\n');
            message.push_str(line);
        }
        let hint = match self.output.exit {
            Exit::Code(127) => "the program was not found in the sandbox",
            Exit::Code(126) => "the program can't be executed in the sandbox",
            _ => "exec() gives the result instead of an error",
        };
        ScriptError::new(ErrorKind::Command(Some(Handle::new(self))), message).hint(hint)
    }
}

impl Object for ResultObject {
    fn type_name(&self) -> &'static str {
        "Result"
    }

    fn describe(&self) -> String {
        format!("result of '{}': {}", shorten(&self.program), self.output.exit)
    }
}

fn shorten(program: &Program) -> String {
    let text = program.to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None if line.len() < text.len() => format!("{line}…"),
        None => text,
    }
}

/// The options of a command; `spawn` has fewer.
pub(super) fn command_options() -> Vec<Opt> {
    let option = |name, ty, doc| Opt { name, ty, doc };
    vec![
        option("env", Type::map_of(scalar_or_secret()), "Added to its environment."),
        option("cwd", Type::String, "Working directory; the user's home when not given."),
        option("user", Type::String, "User name or number, with optional :group."),
        option("login", Type::Bool, "Source the user's profile first. Default: false."),
        option(
            "stdin",
            data_or_secret(),
            "What it reads from standard input; nothing when not given.",
        ),
        option("timeout", Type::Duration, "Kill it and all it started after this long."),
        option(
            "tty",
            Type::Bool,
            "Attach a terminal: stdout and stderr are then one. Default: \
                false.",
        ),
        option("max_output", Type::Size, "How much of each output stream is kept. Default: 64MiB."),
    ]
}

/// The command that the arguments describe.
pub(super) fn command(ctx: &Ctx, args: &Args) -> Result<Command> {
    Ok(command_with(ctx, args)?.0)
}

/// The same, and what of it is secret.
pub(super) fn command_with(ctx: &Ctx, args: &Args) -> Result<(Command, CommandSecrets)> {
    let (command, secrets) = like(ctx, args, args.program("command")?)?;
    command.check()?;
    Ok((command, secrets))
}

/// The same with another program than the arguments name.
pub(super) fn like(ctx: &Ctx, args: &Args, program: Program) -> Result<(Command, CommandSecrets)> {
    let mut secrets = CommandSecrets::default();
    let mut command = Command::new(program);
    secret::check_argv(ctx, &command.program)?;
    command.env = secret::env(args, &mut secrets)?;
    command.cwd = args.string("cwd").map(str::to_owned);
    command.user = args.string("user").map(str::to_owned);
    command.login = args.flag("login");
    command.tty = args.flag("tty").then_some(WindowSize { rows: 24, cols: 80 });
    command.timeout = args.duration("timeout")?;
    if let Some(bytes) = secret::data(args, "stdin") {
        command.stdin = Stdin::Bytes(bytes);
        secrets.stdin = secret::of(args.get("stdin")).map(|secret| secret.name().to_owned());
    }
    if let Some(max) = args.size("max_output")? {
        command.max_output = usize::try_from(max).unwrap_or(usize::MAX);
    }
    Ok((command, secrets))
}

async fn output(ctx: &Ctx, args: &Args) -> Result<ResultObject> {
    let (name, command) = (name_of(args)?, command(ctx, args)?);
    let (backend, cancel) = (ctx.backend(), ctx.cancel());
    let output = match args.this::<SandboxObject>()?.output() {
        Some(sink) => workflow::exec(backend, &name, &command, sink, cancel).await,
        None => sandbox::exec(backend, &name, &command, cancel).await,
    };
    let output = output.map_err(|e| ctx.error(e))?;
    Ok(ResultObject::new(command.program, output))
}

async fn exec(ctx: Ctx, args: Args) -> Result<Value> {
    Ok(Value::object(output(&ctx, &args).await?))
}

async fn run(ctx: Ctx, args: Args) -> Result<Value> {
    let result = output(&ctx, &args).await?;
    if result.output.exit.ok() { Ok(Value::object(result)) } else { Err(result.error()) }
}

async fn code(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(match args.this::<ResultObject>()?.output.exit {
        Exit::Code(code) => code.into(),
        Exit::Signal(_) => Value::Unit,
    })
}

async fn signal(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(match args.this::<ResultObject>()?.output.exit {
        Exit::Code(_) => Value::Unit,
        Exit::Signal(number) => match Signal(number).name() {
            Some(name) => name.into(),
            None => number.to_string().into(),
        },
    })
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into_owned().into()
}

async fn stdout(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(text(&args.this::<ResultObject>()?.output.stdout))
}

async fn stderr(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(text(&args.this::<ResultObject>()?.output.stderr))
}

async fn stdout_bytes(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(Bytes::copy_from_slice(&args.this::<ResultObject>()?.output.stdout).into())
}

async fn ok(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ResultObject>()?.output.exit.ok().into())
}

async fn duration(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ResultObject>()?.output.duration.into())
}

async fn truncated(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ResultObject>()?.output.truncated.into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    let (on, result) = ("Sandbox", "Result");
    let doc = "A string is run by sh -c, a list is delivered exactly as it is.";
    vec![
        FnSpec::method(on, "run", run)
            .doc(
                "Runs a command to its end. One that does not return 0 is an error that shows \
                  the end of its output.",
            )
            .param("command", Type::Command, doc)
            .options(command_options())
            .returns(Type::Object(result))
            .error("command_failed", "It does not return 0.")
            .error("not_found", "It is not there any more.")
            .error("not_found", "The program of a list is not there.")
            .error("not_running", "It does not run.")
            .error("timeout", "It took longer than timeout.")
            .example("box.run(\"echo hello > greeting\", #{ cwd: \"/tmp\", timeout: \"5m\" });\nbox.run([\"cat\", \"/tmp/greeting\"]);", "box:run(\"echo hello > greeting\", { cwd = \"/tmp\", timeout = \"5m\" })\nbox:run({ \"cat\", \"/tmp/greeting\" })"),
        FnSpec::method(on, "exec", exec)
            .doc("Runs a command to its end and gives its result, whatever it is.")
            .param("command", Type::Command, doc)
            .options(command_options())
            .returns(Type::Object(result))
            .error("not_found", "It is not there any more.")
            .error("not_found", "The program of a list is not there.")
            .error("not_running", "It does not run.")
            .error("timeout", "It took longer than timeout.")
            .example("let found = box.exec([\"test\", \"-e\", \"/etc/passwd\"]).ok;", "local found = box:exec({ \"test\", \"-e\", \"/etc/passwd\" }).ok"),
        FnSpec::property(result, "code", code)
            .doc("The exit code; nothing when a signal ended the command.")
            .returns(Type::option(Type::Int))
            .example("assert_eq(box.exec(\"exit 3\").code, 3);", "assert_eq(box:exec(\"exit 3\").code, 3)"),
        FnSpec::property(result, "signal", signal)
            .doc("The signal that ended the command, such as \"SIGKILL\"; else nothing.")
            .returns(Type::option(Type::String))
            .example("print(box.exec(\"kill -9 $$\").signal);", "print(box:exec(\"kill -9 $$\").signal)"),
        FnSpec::property(result, "stdout", stdout)
            .doc("Standard output as text; bytes that are no text are replaced.")
            .returns(Type::String)
            .example("print(box.run(\"hostname\").stdout);", "print(box:run(\"hostname\").stdout)"),
        FnSpec::property(result, "stdout_bytes", stdout_bytes)
            .doc("Standard output as it was.")
            .returns(Type::Bytes)
            .example("let bytes = box.run(\"cat /etc/passwd\").stdout_bytes;", "local bytes = box:run(\"cat /etc/passwd\").stdout_bytes"),
        FnSpec::property(result, "stderr", stderr)
            .doc("Standard error as text; bytes that are no text are replaced.")
            .returns(Type::String)
            .example("print(box.exec(\"ls /missing\").stderr);", "print(box:exec(\"ls /missing\").stderr)"),
        FnSpec::property(result, "ok", ok)
            .doc("Whether the command returned 0.")
            .returns(Type::Bool)
            .example("if box.exec(\"test -d /opt\").ok { print(\"there\"); }", "if box:exec(\"test -d /opt\").ok then print(\"there\") end"),
        FnSpec::property(result, "duration", duration)
            .doc("How long it took, in seconds.")
            .returns(Type::Number)
            .example("print(box.run(\"true\").duration);", "print(box:run(\"true\").duration)"),
        FnSpec::property(result, "truncated", truncated)
            .doc("Whether output was cut off at max_output.")
            .returns(Type::Bool)
            .example("assert(!box.run(\"ls /\").truncated);", "assert(not box:run(\"ls /\").truncated)"),
    ]
}
