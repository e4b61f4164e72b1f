//! Commands that run while the script goes on.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::exec::{ResultObject, command, command_options};
use super::running::{Lines, Running, Which};
use super::sandbox::name_of;
use super::secret::{self, data_or_secret};
use super::{Args, Ctx, FnSpec, Object, Opt, Result, ScriptError, Type, Value};
use crate::sandbox::{Error, Output, Program, Signal, Stdin, Writer};

/// A process in a script. It lives on when the script lets go of the handle, until it ends, its
/// sandbox stops or the run ends.
pub struct ProcessObject {
    program: Program,
    pid: Option<u32>,
    stdin: Mutex<Option<Writer>>,
    running: Arc<Running>,
    started: Instant,
    output: Mutex<Option<tokio::task::JoinHandle<Result<()>>>>,
}

impl Object for ProcessObject {
    fn type_name(&self) -> &'static str {
        "Process"
    }

    fn describe(&self) -> String {
        let pid = self.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
        format!("process{pid} '{}'", self.program)
    }
}

/// What `lines()` gives.
struct LinesObject(Lines);

impl Object for LinesObject {
    fn type_name(&self) -> &'static str {
        "Lines"
    }

    fn describe(&self) -> String {
        "lines of a process".into()
    }

    fn iterable(&self) -> bool {
        true
    }
}

async fn spawn(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, mut command) = (name_of(&args)?, command(&ctx, &args)?);
    if matches!(command.stdin, Stdin::Null) {
        command.stdin = Stdin::Piped;
    }
    command.detached = args.flag("detached");
    let started = Instant::now();
    let mut process =
        ctx.backend().spawn(&name, &command, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::object(ProcessObject {
        pid: process.pid,
        stdin: Mutex::new(process.stdin.take()),
        running: Running::watch(process, &command, ctx.host.background()),
        program: command.program,
        started,
        output: Mutex::new(None),
    }))
}

async fn write(_ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    let data = secret::data(&args, "data").unwrap_or_default();
    let mut stdin = process.stdin.lock().await;
    let Some(writer) = stdin.as_mut() else {
        return Err(ScriptError::runtime(format!(
            "standard input of {} is closed",
            process.describe()
        )));
    };
    let done = async {
        writer.write_all(&data).await?;
        writer.flush().await
    };
    done.await.map_err(|error| {
        ScriptError::from(Error::Transport {
            message: format!("writing to {}: {error}", process.describe()),
        })
        .hint("it may have ended; wait() tells how")
    })?;
    Ok(Value::Unit)
}

async fn close_stdin(_ctx: Ctx, args: Args) -> Result<Value> {
    let stdin = args.this::<ProcessObject>()?.stdin.lock().await.take();
    if let Some(mut stdin) = stdin {
        let _ = stdin.shutdown().await;
    }
    Ok(Value::Unit)
}

fn which(args: &Args) -> Which {
    if args.string("stream") == Some("stderr") { Which::Stderr } else { Which::Stdout }
}

async fn lines(_ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    Ok(Value::object(LinesObject(Lines::new(&process.running, which(&args)))))
}

async fn next(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(Value::option(args.this::<LinesObject>()?.0.next().await))
}

async fn read_line(_ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    let lines = Lines::new(&process.running, which(&args));
    match args.duration("timeout")? {
        None => Ok(Value::option(lines.next().await)),
        Some(limit) => match tokio::time::timeout(limit, lines.next()).await {
            Ok(line) => Ok(Value::option(line)),
            Err(_) => {
                let what = format!("a line of {}", process.describe());
                Err(Error::Timeout { what, after: limit }.into())
            }
        },
    }
}

async fn read(_ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    let bytes = process.running.some(which(&args)).await;
    Ok(Value::option(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())))
}

async fn on_output(ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    let Some(callback) = args.callback("callback") else { return Ok(Value::Unit) };
    let mut output = process.output.lock().await;
    if output.is_some() {
        return Err(ScriptError::runtime(format!("{} has an on_output", process.describe())));
    }
    let running = Arc::clone(&process.running);
    *output = Some(tokio::spawn(async move {
        while let Some((which, line)) = running.line().await {
            callback.0.call(&ctx, vec![line.into(), which.name().into()]).await?;
        }
        Ok(())
    }));
    Ok(Value::Unit)
}

async fn signal(_ctx: Ctx, args: Args) -> Result<Value> {
    let signal = Signal::parse(&args.get("signal").to_string())?;
    args.this::<ProcessObject>()?.running.signal(Some(signal)).await?;
    Ok(Value::Unit)
}

async fn kill(_ctx: Ctx, args: Args) -> Result<Value> {
    args.this::<ProcessObject>()?.running.signal(None).await?;
    Ok(Value::Unit)
}

async fn wait(ctx: Ctx, args: Args) -> Result<Value> {
    let process = args.this::<ProcessObject>()?;
    if let Ok(mut stdin) = process.stdin.try_lock() {
        drop(stdin.take());
    }
    let ended = process.running.ended();
    let exit = match args.duration("timeout")? {
        None => ended.await,
        Some(limit) => match tokio::time::timeout(limit, ended).await {
            Ok(exit) => exit,
            Err(_) => {
                let what = process.describe();
                return Err(ScriptError::from(Error::Timeout { what, after: limit })
                    .hint("it still runs; kill() ends it"));
            }
        },
    };
    let exit = exit.map_err(|e| ctx.error(e))?;
    if let Some(output) = process.output.lock().await.take() {
        output.await.map_err(|error| ScriptError::runtime(error.to_string()))??;
    }
    let (stdout, stderr, truncated) = process.running.rest();
    let duration = process.started.elapsed();
    let output = Output { exit, stdout, stderr, truncated, duration };
    Ok(Value::object(ResultObject::new(process.program.clone(), output)))
}

async fn pid(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(Value::option(args.this::<ProcessObject>()?.pid))
}

async fn running(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<ProcessObject>()?.running.exit().is_none().into())
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Process";
    let stream = || Opt {
        name: "stream",
        ty: Type::Word(&["stdout", "stderr"]),
        doc: "Which stream. Default: stdout.",
    };
    vec![
        FnSpec::method("Sandbox", "spawn", spawn)
            .doc(
                "Starts a command and goes on. It lives until it ends, its sandbox stops or the \
                  run ends.",
            )
            .param(
                "command",
                Type::Command,
                "A string is run by sh -c, a list is delivered \
                  exactly as it is.",
            )
            .options(command_options())
            .option("detached", Type::Bool, "Let it live on when the run ends. Default: false.")
            .returns(Type::Object(on))
            .error("not_found", "It is not there any more.")
            .error("not_found", "The program of a list is not there.")
            .error("not_running", "It does not run.")
            .example("let server = box.spawn(\"sleep 60\");\nprint(server.running);", "local server = box:spawn(\"sleep 60\")\nprint(server.running)"),
        FnSpec::method(on, "write", write)
            .doc("Writes to its standard input.")
            .param("data", data_or_secret(), "Text or bytes.")
            .error("runtime", "Its standard input is closed.")
            .example("process.write(\"hello\\n\");", "process:write(\"hello\\n\")"),
        FnSpec::method(on, "close_stdin", close_stdin)
            .doc("Ends its standard input.")
            .example("process.close_stdin();", "process:close_stdin()"),
        FnSpec::method(on, "lines", lines)
            .doc("Its output line by line, as it comes; use it in a for loop.")
            .options(vec![stream()])
            .returns(Type::Object("Lines"))
            .example("let make = box.spawn(\"echo one; echo two\");\nfor line in make.lines() { print(line); }", "local make = box:spawn(\"echo one; echo two\")\nfor line in make:lines() do print(line) end"),
        FnSpec::method("Lines", "next", next)
            .doc("The next line without its end; nothing when there is no more.")
            .returns(Type::option(Type::String))
            .example("let line = box.spawn(\"echo one\").lines().next();", "local line = box:spawn(\"echo one\"):lines():next()"),
        FnSpec::method(on, "read_line", read_line)
            .doc("Waits for the next line of its output; nothing when there is no more.")
            .optional(
                "timeout",
                Type::Duration,
                "How long to wait; as long as it takes when not \
                  given.",
            )
            .options(vec![stream()])
            .returns(Type::option(Type::String))
            .error("timeout", "It took longer than timeout.")
            .example("process.write(\"hello\\n\");\nlet greeting = process.read_line(\"5s\");", "process:write(\"hello\\n\")\nlocal greeting = process:read_line(\"5s\")"),
        FnSpec::method(on, "read", read)
            .doc("Waits for output and gives what is there; nothing when there is no more.")
            .options(vec![stream()])
            .returns(Type::option(Type::String))
            .example("process.write(\"hello\\n\");\nprint(process.read());", "process:write(\"hello\\n\")\nprint(process:read())"),
        FnSpec::method(on, "on_output", on_output)
            .doc(
                "Calls a function for each line of its output as it comes, one after the other. \
                  An error in it comes out of wait().",
            )
            .param(
                "callback",
                Type::Callback(vec![("line", Type::String), ("stream", Type::String)]),
                "Gets the line and \"stdout\" or \"stderr\".",
            )
            .example("process.on_output(|line, stream| print(`${stream}: ${line}`));", "process:on_output(function(line, stream) print(stream .. \": \" .. line) end)"),
        FnSpec::method(on, "signal", signal)
            .doc("Sends it a signal.")
            .param("signal", Type::OneOf(vec![Type::String, Type::Int]), "\"TERM\" or 15.")
            .error("not_running", "It does not run.")
            .example("process.signal(\"HUP\");", "process:signal(\"HUP\")"),
        FnSpec::method(on, "kill", kill)
            .doc("Kills it and all it started.")
            .example("process.kill();", "process:kill()"),
        FnSpec::method(on, "wait", wait)
            .doc(
                "Ends its standard input, waits for its end and gives its result, with the \
                  output that nobody has read.",
            )
            .optional(
                "timeout",
                Type::Duration,
                "How long to wait; as long as it takes when not \
                  given.",
            )
            .returns(Type::Object("Result"))
            .error("timeout", "It took longer than timeout.")
            .example("let result = process.wait(\"1m\");", "local result = process:wait(\"1m\")"),
        FnSpec::property(on, "pid", pid)
            .doc("Its process id in the sandbox, when known.")
            .returns(Type::option(Type::Int))
            .example("print(process.pid);", "print(process.pid)"),
        FnSpec::property(on, "running", running)
            .doc("Whether it has not ended yet.")
            .returns(Type::Bool)
            .example("assert(process.running);", "assert(process.running)"),
    ]
}
