//! Matrices: one body in a clone for every combination of values.

use std::sync::Arc;

use async_trait::async_trait;

use super::base::{failure, is_cancel, source, source_options};
use super::memory::Cells;
use super::sandbox::{SandboxObject, egress, limit_options, limits, scalar};
use super::{
    Args, Callable, Ctx, ErrorKind, FnSpec, Handle, Object, Result, ScriptError, Type, Value,
};
use crate::sandbox::Error;
use crate::workflow::{
    AxisValue, Cell, CellBody, CellContext, CellMemory, CellReport, CellTemplate, Failure,
    MatrixReport, MatrixSpec, Outcome, run_matrix,
};

/// What the function of `matrix()` gets.
struct CellObject {
    matrix: String,
    cell: Cell,
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
const OWN: &[&str] = &["id", "matrix", "sandbox", "values"];

fn to_value(value: &AxisValue) -> Value {
    match value {
        AxisValue::Bool(value) => (*value).into(),
        AxisValue::Int(value) => (*value).into(),
        AxisValue::Float(value) => (*value).into(),
        AxisValue::Text(text) => text.as_str().into(),
    }
}

fn to_axis(value: &Value) -> Option<AxisValue> {
    Some(match value {
        Value::Bool(value) => AxisValue::Bool(*value),
        Value::Int(value) => AxisValue::Int(*value),
        Value::Float(value) => AxisValue::Float(*value),
        Value::String(text) => AxisValue::Text(text.clone()),
        _ => return None,
    })
}

struct Body {
    ctx: Ctx,
    body: Arc<dyn Callable>,
    cells: Option<Arc<Cells>>,
}

#[async_trait]
impl CellBody for Body {
    async fn run(&self, cell: CellContext) -> Result<(), Failure> {
        let mut ctx = self.ctx.in_cell(cell.cancel(), &cell.cell.id);
        ctx.trace = self.cells.as_ref().map(|cells| cells.trace(&cell.cell.id));
        let sandbox = SandboxObject::in_cell(&ctx, &cell.sandbox, cell.output.clone());
        let object = CellObject {
            matrix: cell.matrix.clone(),
            cell: cell.cell.clone(),
            sandbox: Handle::new(sandbox),
        };
        let object = Handle::new(object);
        if let Some(trace) = &ctx.trace {
            trace.own(&object);
        }
        let done = self.body.call(&ctx, vec![object.into()]).await;
        ctx.leave_cell().await;
        match done {
            Ok(_) => ctx.stop.check().map_err(|_| Error::Cancelled.into()),
            Err(error) if is_cancel(&error) => Err(Error::Cancelled.into()),
            Err(error) => Err(told(&error)),
        }
    }
}

/// A cell's error: its first line and the place; what a command printed is in the cell's output.
fn told(error: &ScriptError) -> Failure {
    let (first, rest) = error.message.split_once('\n').unwrap_or((&error.message, ""));
    let mut message = match &error.position {
        Some(position) => format!("{first} (at {position})"),
        None => first.to_owned(),
    };
    if !rest.is_empty() && !matches!(error.kind, ErrorKind::Command(_)) {
        message = format!("{message}\n{rest}");
    }
    let hint = error.hint.clone().filter(|_| !matches!(error.kind, ErrorKind::Command(_)));
    Failure::Failed { message, hint }
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
                to_axis(value).ok_or_else(|| {
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
    let Some(body) = args.callback("body") else { return Ok(Value::Unit) };
    let plan = &ctx.host.plan;
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let parallel = args.count("parallel")?.map(count);
    if parallel == Some(0) {
        return Err(args.wrong("parallel", "no cell could run").hint("use 1 or more"));
    }
    let name = args.need("name")?;
    let only = plan.only.as_ref().map(|only| {
        let own = only.iter().filter(|(matrix, _)| matrix == name);
        own.map(|(_, id)| id.clone()).collect()
    });
    let mut spec = MatrixSpec {
        name: name.to_owned(),
        source: source(&args)?,
        axes: axes(&args)?,
        include: combinations(&args, "include")?,
        exclude: combinations(&args, "exclude")?,
        parallel: plan.parallel.or(parallel),
        timeout: args.duration("timeout")?,
        fail_fast: plan.fail_fast || args.flag("fail_fast"),
        filter: plan.filter.clone(),
        only,
        memory: None,
        list: plan.list,
        cell: CellTemplate {
            limits: limits(&args)?,
            egress: egress(&args)?,
            env: args.string_map("env"),
        },
    };
    let cells = Cells::of(&ctx, &spec).await;
    spec.memory = cells.clone().map(|cells| cells as Arc<dyn CellMemory>);
    let body = Arc::new(Body { ctx: ctx.clone(), body: body.0.isolated(), cells: cells.clone() });
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

fn report_map(report: &MatrixReport) -> Value {
    let counts = report.counts();
    Value::map([
        ("name", report.name.as_str().into()),
        ("ok", report.ok().into()),
        ("passed", counts.passed.into()),
        ("failed", counts.failed.into()),
        ("timed_out", counts.timed_out.into()),
        ("cancelled", counts.cancelled.into()),
        ("not_run", counts.not_run.into()),
        ("total", report.total.into()),
        ("listed", report.listed.into()),
        ("duration", report.duration.into()),
        ("cells", report.cells.iter().map(cell_map).collect::<Vec<_>>().into()),
    ])
}

fn cell_map(report: &CellReport) -> Value {
    let outcome = match report.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
        Outcome::NotRun => "not_run",
    };
    Value::map([
        ("id", report.cell.id.as_str().into()),
        ("values", values(&report.cell)),
        ("ok", (report.outcome == Outcome::Passed).into()),
        ("outcome", outcome.into()),
        ("duration", report.duration.into()),
        ("message", Value::option(report.failure.as_ref().map(ToString::to_string))),
        ("output", report.tail.as_str().into()),
        ("kept", Value::option(report.kept.clone())),
    ])
}

fn values(cell: &Cell) -> Value {
    Value::map(cell.values.iter().map(|(name, value)| (name.clone(), to_value(value))))
}

async fn cell_id(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.cell.id.as_str().into())
}

async fn cell_matrix(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.matrix.as_str().into())
}

async fn cell_sandbox(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(args.this::<CellObject>()?.sandbox.clone().into())
}

async fn cell_values(_ctx: Ctx, args: Args) -> Result<Value> {
    Ok(values(&args.this::<CellObject>()?.cell))
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Cell";
    let list_of_maps = || Type::list(Type::map_of(scalar()));
    vec![
        FnSpec::function("matrix", matrix)
            .graceful()
            .doc(
                "Runs a function in a fresh clone for every combination of values, several at \
                  once. A cell whose function fails is reported, and the run then ends with exit \
                  code 1. In Rhai the function gets copies of the variables it uses: what it \
                  sets in them, no other cell sees; in Lua all cells share them. Gives a report: name, ok, passed, failed, timed_out, \
                  cancelled, not_run, total, listed, duration and cells, each with id, values, \
                  ok, outcome, duration, message, output and kept.",
            )
            .param("name", Type::String, "Its name, for people.")
            .options(source_options())
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
            .option("timeout", Type::Duration, "How long one cell may take.")
            .option("fail_fast", Type::Bool, "End all when one fails. Default: false.")
            .option("egress", Type::String, "What cells may reach: \"none\" or \"unrestricted\".")
            .option("env", Type::map_of(scalar()), "Added to the environment of their commands.")
            .options(limit_options())
            .param("body", Type::Callback(vec![("cell", Type::Object(on))]), "Is run in each cell.")
            .returns(Type::Map)
            .error("not_found", "What it starts from is not there.")
            .example("let report = matrix(\"tests\", #{ from: tools, axes: #{ level: [\"O0\", \"O2\"] } }, |cell| {\n    cell.sandbox.run([\"echo\", \"cc\", \"-\" + cell.level]);\n});\nprint(report.passed);", "local report = matrix(\"tests\", { from = tools, axes = { level = { \"O0\", \"O2\" } } }, function(cell)\n    cell.sandbox:run({ \"echo\", \"cc\", \"-\" .. cell.level })\nend)\nprint(report.passed)"),
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
