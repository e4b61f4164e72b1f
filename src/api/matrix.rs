//! Matrices: one body in a clone for every combination of values.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::base::{BaseObject, failure, is_cancel, source_options};
use super::cell_own as own;
use super::ctx::Says;
use super::matrix_report::{report_map, values};
use super::memory::Cells;
use super::sandbox::{SandboxObject, limit_options, limits, scalar};
use super::{
    Args, Callable, Ctx, ErrorKind, FnSpec, Handle, Host, Object, Opt, Position, Result,
    ScriptError, Type, Value, cache, device, member,
};
use super::{egress, network, secret};
use crate::sandbox::{Error, ReadOptions};
use crate::workflow::{
    AxisValue, Cell, CellBody, CellContext, CellMemory, CellTemplate, Event, EventSink, Failure,
    MatrixSpec, Order, Place, Retries, Source, TestOutcome, read_results, run_matrix,
};

/// What the function of `matrix()` gets.
struct CellObject {
    events: EventSink,
    matrix: String,
    cell: Cell,
    attempt: usize,
    sandbox: Handle,
}

impl Object for CellObject {
    fn type_name(&self) -> &'static str {
        "Cell"
    }

    fn describe(&self) -> String {
        format!("cell {}", self.cell.id)
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.cell.get(name).map(to_value)
    }

    fn fields(&self) -> Vec<String> {
        self.cell.values.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The names that a cell has besides its values.
const OWN: &[&str] = &["attempt", "id", "matrix", "sandbox", "values"];

pub(super) fn to_value(value: &AxisValue) -> Value {
    match value {
        AxisValue::Bool(value) => (*value).into(),
        AxisValue::Int(value) => (*value).into(),
        AxisValue::Float(value) => (*value).into(),
        AxisValue::Text(text) => text.as_str().into(),
    }
}

pub(super) fn to_axis(value: &Value) -> Option<AxisValue> {
    Some(match value {
        Value::Handle(handle) => AxisValue::Text(match handle.downcast::<BaseObject>() {
            Some(base) => base.name().to_owned(),
            None => handle.downcast::<SandboxObject>()?.name().ok()?.to_owned(),
        }),
        Value::Bool(value) => AxisValue::Bool(*value),
        Value::Int(value) => AxisValue::Int(*value),
        Value::Float(value) => AxisValue::Float(*value),
        Value::String(text) => AxisValue::Text(text.clone()),
        _ => return None,
    })
}

struct Body {
    ctx: Ctx,
    setup: Option<Arc<dyn Callable>>,
    body: Arc<dyn Callable>,
    teardown: Option<Arc<dyn Callable>>,
    cells: Option<Arc<Cells>>,
    homes: own::Homes,
}

impl Body {
    /// The host of the cell's backend.
    fn home(&self, cell: &CellContext) -> &Arc<Host> {
        self.homes.get(&cell.cell.id).unwrap_or(&self.ctx.host)
    }

    /// What the functions of a cell are called with.
    fn object(ctx: &Ctx, cell: &CellContext) -> Handle {
        let sandbox = SandboxObject::in_cell(ctx, &cell.sandbox, cell.output.clone());
        let object = CellObject {
            events: cell.run.events.clone(),
            matrix: cell.matrix.clone(),
            cell: cell.cell.clone(),
            attempt: cell.attempt,
            sandbox: Handle::new(sandbox),
        };
        let object = Handle::new(object);
        if let Some(trace) = &ctx.trace {
            trace.own(&object);
        }
        object
    }
}

#[async_trait]
impl CellBody for Body {
    async fn run(&self, cell: CellContext) -> Result<(), Failure> {
        let mut ctx = self.ctx.in_cell(self.home(&cell), cell.cancel(), &cell.cell.id);
        ctx.trace = self.cells.as_ref().map(|cells| cells.trace(&cell.cell.id));
        let object = Body::object(&ctx, &cell);
        let setup = match &self.setup {
            Some(setup) => setup.call(&ctx, vec![object.clone().into()]).await.map(drop),
            None => Ok(()),
        };
        let (part, done) = match setup {
            Ok(()) => ("", self.body.call(&ctx, vec![object.into()]).await.map(drop)),
            Err(error) => ("the setup failed: ", Err(error)),
        };
        ctx.leave_cell().await;
        let says = ctx.says.as_deref();
        if let Some(reason) = says.and_then(|says| says.skip.get()) {
            return Err(Failure::Skipped { reason: reason.clone() });
        }
        let expected = says.and_then(|says| says.expect_fail.get());
        match (done, expected) {
            (Err(error), _) if is_cancel(&error) => Err(Error::Cancelled.into()),
            (Ok(()), _) if ctx.stop.check().is_err() => Err(Error::Cancelled.into()),
            (Ok(()), None) => Ok(()),
            (Err(error), None) => Err(told(part, &error)),
            (Ok(()), Some(reason)) => Err(Failure::Failed {
                message: format!("it passed, but was expected to fail: {reason}"),
                hint: Some("take expect_fail() out".into()),
            }),
            (Err(error), Some(reason)) => {
                let failure = Box::new(told(part, &error));
                Err(Failure::Expected { reason: reason.clone(), failure })
            }
        }
    }

    fn tears_down(&self) -> bool {
        self.teardown.is_some()
    }

    async fn teardown(&self, cell: CellContext) -> Result<(), Failure> {
        let Some(teardown) = &self.teardown else { return Ok(()) };
        let ctx = self.ctx.after_cell(self.home(&cell), cell.cancel(), &cell.cell.id);
        let object = Body::object(&ctx, &cell);
        let done = teardown.call(&ctx, vec![object.into()]).await;
        ctx.leave_cell().await;
        match done {
            Err(error) if is_cancel(&error) => Err(Error::Cancelled.into()),
            Err(error) => Err(told("", &error)),
            Ok(_) => Ok(()),
        }
    }
}

/// A cell's error: its first line and the place; what a command printed is in the cell's output.
pub(super) fn told(part: &str, error: &ScriptError) -> Failure {
    let (first, rest) = error.message.split_once('\n').unwrap_or((&error.message, ""));
    let mut message = match &error.position {
        Some(position) => format!("{part}{first} (at {position})"),
        None => format!("{part}{first}"),
    };
    if !rest.is_empty() && !matches!(error.kind, ErrorKind::Command(_)) {
        message = format!("{message}\n{rest}");
    }
    let hint = error.hint.clone().filter(|_| !matches!(error.kind, ErrorKind::Command(_)));
    let failure = Failure::Failed { message, hint };
    match &error.position {
        Some(Position { file, line, column }) => {
            let place = Place { file: file.clone(), line: *line, column: *column };
            Failure::At { place, failure: Box::new(failure) }
        }
        None => failure,
    }
}

fn axes(args: &Args) -> Result<Vec<(String, Vec<AxisValue>)>> {
    let Value::Map(map) = args.get("axes") else { return Ok(Vec::new()) };
    map.iter()
        .map(|(name, values)| {
            let values = match values {
                Value::List(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            let values = values.iter().map(|value| {
                let fits = name == own::FROM || !matches!(value, Value::Handle(_));
                to_axis(value).filter(|_| fits).ok_or_else(|| {
                    args.wrong("axes", format!("'{name}' holds a {}", value.type_name()))
                        .hint("a value is a string, a number, or true or false")
                })
            });
            Ok((checked(args, "axes", name)?, values.collect::<Result<_>>()?))
        })
        .collect()
}

fn checked(args: &Args, option: &str, name: &str) -> Result<String> {
    if OWN.contains(&name) {
        return Err(args
            .wrong(option, format!("'{name}' is what a cell has by itself"))
            .hint("name the axis otherwise")
            .focus(name));
    }
    Ok(name.to_owned())
}

fn combinations(args: &Args, option: &'static str) -> Result<Vec<Vec<(String, AxisValue)>>> {
    let each = |entry: &Value| {
        let Value::Map(map) = entry else {
            return Err(args.wrong(option, "each item is a map"));
        };
        map.iter()
            .map(|(name, value)| match to_axis(value) {
                Some(value) => Ok((checked(args, option, name)?, value)),
                None => Err(args.wrong(option, format!("'{name}' is a {}", value.type_name()))),
            })
            .collect()
    };
    args.list(option).iter().map(each).collect()
}

async fn matrix(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let Some(body) = args.callback("body") else { return Ok(Value::Unit) };
    let plan = &ctx.host.plan;
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let parallel = args.count("parallel")?.map(count);
    if parallel == Some(0) {
        return Err(args.wrong("parallel", "no cell could run").hint("use 1 or more"));
    }
    let name = args.need("name")?;
    let max_fail = match args.count("max_fail")?.map(count) {
        Some(0) => return Err(args.wrong("max_fail", "no cell could run").hint("use 1 or more")),
        None if args.flag("fail_fast") => Some(1),
        most => most,
    };
    let retries = Retries {
        count: plan.retries.or(args.count("retries")?.map(count)).unwrap_or(0),
        backoff: args.duration("backoff")?.unwrap_or_default(),
    };
    let order: Order = args.string("order").unwrap_or("longest").parse()?;
    let only = plan.only.as_ref().map(|only| {
        let own = only.iter().filter(|(matrix, _)| matrix == name);
        own.map(|(_, id)| id.clone()).collect()
    });
    let mut spec = MatrixSpec {
        name: name.to_owned(),
        source: Source::default(),
        axes: axes(&args)?,
        include: combinations(&args, "include")?,
        exclude: combinations(&args, "exclude")?,
        parallel: plan.parallel.or(parallel),
        pool: args.count("pool")?.map_or(0, count),
        timeout: args.duration("timeout")?,
        warn: args.duration("warn_after")?,
        retries,
        max_fail: plan.max_fail.or(max_fail),
        order: plan.order.unwrap_or(order),
        seed: plan.seed,
        times: plan.times(name),
        repeat: plan.repeat,
        partition: plan.partition,
        filter: plan.filter.clone(),
        only,
        memory: None,
        list: plan.list,
        own: HashMap::new(),
        artifacts: args.strings("artifacts"),
        cell: CellTemplate {
            limits: limits(&args)?,
            egress: None,
            networks: network::networks(&ctx, &args)?,
            caches: cache::caches(&args)?,
            devices: device::devices(&ctx, &args)?,
            nesting: args.flag("nesting"),
            env: args.string_map("env"),
            target: member::target(&args)?,
        },
    };
    let homes = own::fill(&ctx, &args, &mut spec).await?;
    let cells = Cells::of(&ctx, &spec).await;
    spec.memory = cells.clone().map(|cells| cells as Arc<dyn CellMemory>);
    let isolated = |name| args.callback(name).map(|callback| callback.0.isolated());
    let body = Arc::new(Body {
        ctx: ctx.clone(),
        setup: isolated("setup"),
        body: body.0.isolated(),
        teardown: isolated("teardown"),
        cells: cells.clone(),
        homes,
    });
    let report = run_matrix(&ctx.run(), spec, body)
        .await
        .map_err(|error| failure(&ctx, "the matrix", error.into()))?;
    if let Some(cells) = cells {
        cells.ended(&report);
    }
    let value = report_map(&report);
    ctx.host.reported(report);
    Ok(value)
}

async fn cell_id(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.cell.id.as_str().into())
}

async fn cell_matrix(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.matrix.as_str().into())
}

async fn cell_attempt(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.attempt.into())
}

/// What the cell that calls says of itself.
fn says<'a>(ctx: &'a Ctx, function: &str) -> Result<&'a Says> {
    ctx.says.as_deref().ok_or_else(|| {
        ScriptError::runtime(format!("{function}() is called outside of a cell"))
            .hint("call it in the function that matrix() runs in each cell")
    })
}

/// A report of a guest is read up to this size.
const RESULTS: u64 = 64 << 20;

async fn results(ctx: Ctx, args: Args) -> Result<Value> {
    let (cell, path) = (args.this::<CellObject>()?, args.need("path")?);
    let sandbox = match cell.sandbox.downcast::<SandboxObject>() {
        Some(sandbox) => sandbox.name()?.to_owned(),
        None => return Err(ScriptError::runtime("the cell has no sandbox")),
    };
    let options = ReadOptions { length: Some(RESULTS), ..ReadOptions::default() };
    let mut reader = ctx
        .backend()
        .read(&sandbox, path, options, ctx.cancel())
        .await
        .map_err(|e| ctx.error(e))?;
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes)
        .await
        .map_err(|error| ScriptError::from(Error::Transport { message: error.to_string() }))?;
    let tests = read_results(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        let (message, hint) = (error.to_string(), error.hint().unwrap_or_default());
        ScriptError::runtime(format!("{path}: {message}")).hint(hint)
    })?;
    let count = |outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let value = Value::map([
        ("passed", count(TestOutcome::Passed).into()),
        ("failed", count(TestOutcome::Failed).into()),
        ("skipped", count(TestOutcome::Skipped).into()),
        ("total", tests.len().into()),
        (
            "failures",
            tests
                .iter()
                .filter(|test| test.outcome == TestOutcome::Failed)
                .map(|test| Value::from(test.name.as_str()))
                .collect::<Vec<_>>()
                .into(),
        ),
    ]);
    for test in tests {
        let (matrix, id) = (cell.matrix.clone(), cell.cell.id.clone());
        cell.events.send(Event::CellTest { matrix, cell: id, test });
    }
    Ok(value)
}

async fn skip(ctx: Ctx, args: Args) -> Result<Value> {
    let reason = args.string("reason").unwrap_or("no reason was given");
    let _ = says(&ctx, "skip")?.skip.set(reason.to_owned());
    // Ends the function; whoever catches it gets no further with it.
    Err(ScriptError::new(ErrorKind::Assert, format!("skipped: {reason}")))
}

async fn expect_fail(ctx: Ctx, args: Args) -> Result<Value> {
    let reason = args.need("reason")?;
    let _ = says(&ctx, "expect_fail")?.expect_fail.set(reason.to_owned());
    Ok(Value::Unit)
}

async fn cell_sandbox(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.sandbox.clone().into())
}

async fn cell_values(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(values(&args.this::<CellObject>()?.cell))
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Cell";
    let on_cell = || Type::Callback(vec![("cell", Type::Object(on))]);
    let list_of_maps = || Type::list(Type::map_of(scalar()));
    let mut sources = source_options();
    sources.retain(|option| option.name != own::FROM);
    let from = Opt {
        name: own::FROM,
        ty: Type::OneOf(vec![
            Type::String,
            Type::Object("Base"),
            Type::Object("Sandbox"),
            Type::Callback(vec![("cell", Type::Map)]),
        ]),
        doc: "What cells start from: an image, a base, a sandbox, or a function that gives one of \
              these for a map of a cell's values and its id. Bases are built before any cell begins, \
              side by side, each once; when one can't be, its cells fail and the others run. \
              Default: the backend's own image.",
    };
    sources.insert(0, from);
    vec![
        FnSpec::function("matrix", matrix)
            .graceful()
            .doc(
                "Runs a function in a fresh clone for every combination of values, several at \
                  once. A cell whose function fails is reported, and the run then ends with exit \
                  code 1. In Rhai the function gets copies of the variables it uses: what it \
                  sets in them, no other cell sees; in Lua all cells share them. Gives a report: \
                  name, ok, passed, flaky, expected_failure, skipped, failed, timed_out, \
                  cancelled, not_run, total, listed, duration and cells, each with id, values, \
                  ok, outcome, attempts, duration, message, output, kept and moved \
                  (members of a cluster that went away under it). Of more than 3000 \
                  cells it has those that did not pass, 3000 at most.",
            )
            .param("name", Type::String, "Its name, for people.")
            .options(sources)
            .option(
                "axes",
                Type::Map,
                "For each axis its values: #{ db: [\"sqlite\", \
                  \"postgres\"] }. Axes are ordered by name.",
            )
            .option("include", list_of_maps(), "Cells to add, or values to add to those that fit.")
            .option("exclude", list_of_maps(), "Combinations to leave out.")
            .option(
                "parallel",
                Type::Int,
                "How many run at once. Default: what the backend can \
                  do.",
            )
            .option(
                "pool",
                Type::Int,
                "How many started clones are to wait for the cells of the next run, which then begin at \
                  once: cells take them, and more are made beside as they do. They go \
                  with gc after an hour. No more than the matrix has cells. Cells with caches or networks, and those that are not cloned \
                  from a snapshot or a base, are never made ahead. Where clones take milliseconds it \
                  does nothing. Default: 0.",
            )
            .option("timeout", Type::Duration, "How long one attempt of a cell may take.")
            .option(
                "warn_after",
                Type::Duration,
                "After how long a cell that still runs is told of, again and again. Default: half \
                  of its timeout.",
            )
            .option("retries", Type::Int, "How often a cell that failed is tried again, each time in a fresh sandbox. One that then passes is flaky. Default: 0.")
            .option(
                "backoff",
                Type::Duration,
                "The pause before the second attempt; before each further one it is twice as long.",
            )
            .option("fail_fast", Type::Bool, "End all when one fails: max_fail of 1. Default: false.")
            .option("max_fail", Type::Int, "End all when so many failed. Default: run all.")
            .option(
                "order",
                Type::Word(Order::WORDS),
                "In which order cells start: \"longest\" first, by the times of earlier runs, as \
                  \"given\", or \"random\". Default: longest.",
            )
            .option(
                "artifacts",
                Type::list(Type::String),
                "Files and folders to copy out of each cell when its function is over, where they \
                  are there: to --artifacts, else into the record of the run.",
            )
            .option(
                "options",
                Type::Callback(vec![("cell", Type::Map)]),
                "Is run for each cell before any of them begins, several at once, with a map of \
                  its values and its id; gives what the cell has of its own: backend, host (the \
                  machine that the backend drives), from, label, egress, cpu, memory, pids, disk, \
                  inodes, env, caches, target, and weight, of how many others it takes the place. Axes of \
                  these names, but for label, env, caches and weight, are the same.",
            )
            .option("setup", on_cell(), "Is run in each cell before its function.")
            .option(
                "teardown",
                on_cell(),
                "Is run in each cell after its function, however that ended, a minute at most.",
            )
            .options(vec![egress::option(
                "What cells may reach: \"none\", \"unrestricted\", a preset such as \"agent\", a list of rules, or #{ preset, allow, deny }. Default: what their source may.",
            )])
            .option("env", Type::map_of(scalar()), "Added to the environment of their commands.")
            .options(vec![cache::option(), device::option("Devices of the machine's that every cell has, by name."), device::nesting(), network::option("Networks that all cells are in, a network or a list: they reach each other, too. Default: none."), member::option("Where in a cluster the cells are: a member's name, or @ and a group's. Default: where the cluster puts them. When a member goes away, its cells begin again elsewhere.")])
            .options(limit_options())
            .param("body", on_cell(), "Is run in each cell.")
            .returns(Type::Map)
            .error("not_found", "What it starts from is not there.")
            .example("let report = matrix(\"tests\", #{ from: tools, axes: #{ level: [\"O0\", \"O2\"] } }, |cell| {\n    cell.sandbox.run([\"echo\", \"cc\", \"-\" + cell.level]);\n});\nprint(report.passed);", "local report = matrix(\"tests\", { from = tools, axes = { level = { \"O0\", \"O2\" } } }, function(cell)\n    cell.sandbox:run({ \"echo\", \"cc\", \"-\" .. cell.level })\nend)\nprint(report.passed)"),
        FnSpec::function("skip", skip)
            .doc("Ends the cell that calls: there is nothing to do in it. It counts as skipped.")
            .optional("reason", Type::String, "Why, in a few words.")
            .error("assert", "Always; to catch it does not undo it.")
            .example(
                "matrix(\"m\", #{ axes: #{ db: [\"sqlite\", \"oracle\"] } }, |cell| {\n    if cell.db == \"oracle\" { skip(\"no licence\"); }\n});",
                "matrix(\"m\", { axes = { db = { \"sqlite\", \"oracle\" } } }, function(cell)\n    if cell.db == \"oracle\" then skip(\"no licence\") end\nend)",
            ),
        FnSpec::function("expect_fail", expect_fail)
            .doc(
                "Says that the cell that calls will fail. When it does, it counts as an expected \
                  failure, which is none of the run; when it does not, it fails.",
            )
            .param("reason", Type::String, "Why, in a few words.")
            .example(
                "matrix(\"m\", #{ axes: #{ db: [\"sqlite\", \"mysql\"] } }, |cell| {\n    if cell.db == \"mysql\" { expect_fail(\"not ported yet\"); fail(\"no driver\"); }\n});",
                "matrix(\"m\", { axes = { db = { \"sqlite\", \"mysql\" } } }, function(cell)\n    if cell.db == \"mysql\" then expect_fail(\"not ported yet\") fail(\"no driver\") end\nend)",
            ),
        FnSpec::method(on, "results", results)
            .doc(
                "Reads the report that a test runner wrote in the cell's sandbox: JUnit XML, or \
                  the JSON lines of Rust's libtest. Its tests then stand under their cell in all \
                  reports, failures as annotations at their own file and line. They don't decide \
                  how the cell ends. Gives passed, failed, skipped, total, and failures: the names \
                  of those that failed.",
            )
            .param("path", Type::String, "The report, in the sandbox.")
            .returns(Type::Map)
            .error("not_found", "There is no such file.")
            .error("runtime", "It is no such report.")
            .example(
                "cell.sandbox.write(\"/tmp/junit.xml\", \"<testsuite><testcase name='a'/></testsuite>\");\nprint(cell.results(\"/tmp/junit.xml\").passed);",
                "cell.sandbox:write(\"/tmp/junit.xml\", \"<testsuite><testcase name='a'/></testsuite>\")\nprint(cell:results(\"/tmp/junit.xml\").passed)",
            ),
        FnSpec::property(on, "attempt", cell_attempt)
            .doc("Which attempt this is, from 1; more than 1 only with the option retries.")
            .returns(Type::Int)
            .example("print(cell.attempt);", "print(cell.attempt)"),
        FnSpec::property(on, "id", cell_id)
            .doc("Its id, which is a filter that selects it, such as \"db=sqlite,locale=C\".")
            .returns(Type::String)
            .example("print(cell.id);", "print(cell.id)"),
        FnSpec::property(on, "matrix", cell_matrix)
            .doc("The name of its matrix.")
            .returns(Type::String)
            .example("print(cell.matrix);", "print(cell.matrix)"),
        FnSpec::property(on, "sandbox", cell_sandbox)
            .doc("Its sandbox, which is deleted after it.")
            .returns(Type::Object("Sandbox"))
            .example("cell.sandbox.run(\"echo test\");", "cell.sandbox:run(\"echo test\")"),
        FnSpec::property(on, "values", cell_values)
            .doc("Its values by axis. Each is a property of the cell, too: cell.db.")
            .returns(Type::Map)
            .example("print(cell.values);\nprint(cell.db);", "print(cell.values.db)\nprint(cell.db)"),
    ]
}
