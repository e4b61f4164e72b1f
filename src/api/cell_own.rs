//! What single cells of a matrix have of their own: by axes of certain names, or by a function.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::base::{BaseObject, is_cancel, source, source_of};
use super::matrix::{to_axis, to_value, told};
use super::{
    Args, Callable, Ctx, ErrorKind, Handle, Host, Map, Result, ScriptError, Value, cache, member,
    suggest,
};
use super::{egress, secret};
use crate::egress::Asked;
use crate::sandbox::{Error, parse_size};
use crate::workflow::{Broken, Cell, CellOwn, MatrixSpec, Source};

/// The axis that says what a cell is made from.
pub(super) const FROM: &str = "from";
/// The axes that are options of their cell, too.
const AXES: &[&str] =
    &["backend", "cpu", "disk", "egress", FROM, "host", "inodes", "memory", "pids", "target"];
/// What the function may give.
const KEYS: &[&str] = &[
    "backend", "caches", "cpu", "disk", "egress", "env", FROM, "host", "inodes", "label", "memory",
    "pids", "target", "weight",
];
/// How many cells' functions run at once.
const AT_ONCE: usize = 8;

/// What a cell wants.
#[derive(Default)]
struct Wish {
    own: CellOwn,
    from: Option<Value>,
    label: Option<String>,
    egress: Option<Asked>,
    backend: Option<String>,
    host: Option<String>,
}

/// Of cells that are on another backend than the run, by id, on which.
pub(super) type Homes = HashMap<String, Arc<Host>>;

/// Fills in what the selected cells are made from, and what they have of their own. Their backends
/// are open then, and their bases built.
pub(super) async fn fill(ctx: &Ctx, args: &Args, spec: &mut MatrixSpec) -> Result<Homes> {
    let named = spec.axes.iter().any(|(name, _)| AXES.contains(&name.as_str()))
        || spec.include.iter().flatten().any(|(name, _)| AXES.contains(&name.as_str()));
    let options = args.callback("options").map(|callback| callback.0.isolated());
    let from = args.callback(FROM).map(|callback| callback.0.isolated());
    if ctx.host.plan.only_lists() {
        return Ok(Homes::new());
    }
    if !named && options.is_none() && from.is_none() && !is_lazy(args.get(FROM)) {
        spec.source = source(ctx, args).await?;
        spec.cell.egress = egress::of(ctx, args, &spec.source).await?;
        return Ok(Homes::new());
    }
    let cells = spec.select().map_err(|error| ctx.error(error))?;
    let handles = handles(args);
    let mut wishes: Vec<Wish> =
        cells.iter().map(|cell| by_axes(cell, &handles)).collect::<Result<_>>()?;
    if let Some(options) = options {
        by_function(ctx, &options, &cells, &mut wishes).await?;
    }
    let mut homes = Homes::new();
    for (cell, wish) in cells.iter().zip(&mut wishes) {
        let (backend, host) = (wish.backend.as_deref(), wish.host.as_deref());
        if backend.is_none() && host.is_none() {
            continue;
        }
        let home = ctx.host.at(backend, host).await.map_err(|error| {
            let unknown = matches!(error, Error::NotFound { .. });
            let place = host.filter(|_| !unknown).or(backend).unwrap_or_default();
            ctx.error(error).focus(place)
        })?;
        if !Arc::ptr_eq(&home, &ctx.host) {
            wish.own.machine = home.as_machine();
            homes.insert(cell.id.clone(), home);
        }
    }
    let mut broken = HashMap::new();
    if let Some(from) = from {
        by_from(ctx, &from, &cells, &homes, &mut wishes, &mut broken).await?;
    }
    sources(ctx, args, &cells, &homes, &mut wishes, &mut broken).await?;
    for (index, wish) in wishes.iter_mut().enumerate() {
        if !broken.contains_key(&index) {
            let host = Arc::clone(homes.get(&cells[index].id).unwrap_or(&ctx.host));
            wish.resolve(&Ctx { host, ..ctx.clone() }, args).await?;
        }
    }
    for (index, (error, tail)) in broken {
        // Where no cell is to run, there is none that could tell of it.
        if spec.list {
            return Err(error);
        }
        wishes[index].own.broken = Some(Broken { failure: told(NOT_MADE, &error), tail });
    }
    for (cell, wish) in cells.into_iter().zip(wishes) {
        spec.own.insert(cell.id, wish.own);
    }
    Ok(homes)
}

/// What is in front of the message of a cell that has nothing to start from.
const NOT_MADE: &str = "what it starts from could not be made: ";

fn is_lazy(from: &Value) -> bool {
    match from {
        Value::Handle(handle) => handle.downcast::<BaseObject>().is_some_and(BaseObject::lazy),
        _ => false,
    }
}

/// The values of a cell, and its id, for a function.
fn values(cell: &Cell) -> Value {
    let mut values: Map =
        cell.values.iter().map(|(name, value)| (name.clone(), to_value(value))).collect();
    values.insert("id".into(), cell.id.as_str().into());
    Value::Map(values)
}

/// Calls a function for each cell, several at once, and gives what came of it by the cell's place.
async fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    cells: impl IntoIterator<Item = usize>,
    call: impl Fn(usize) -> F,
) -> Vec<(usize, T)> {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for index in cells {
        let (gate, call) = (Arc::clone(&gate), call(index));
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            (index, call.await)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done);
    }
    all.sort_by_key(|(index, _)| *index);
    all
}

/// What the function in the option `options` says of each cell.
async fn by_function(
    ctx: &Ctx,
    function: &Arc<dyn Callable>,
    cells: &[Cell],
    wishes: &mut [Wish],
) -> Result<()> {
    let given = each(0..cells.len(), |index| {
        let (ctx, function, values) = (ctx.clone(), Arc::clone(function), values(&cells[index]));
        async move { function.call(&ctx, vec![values]).await }
    });
    for (index, given) in given.await {
        let map = match given? {
            Value::Unit => continue,
            Value::Map(map) => map,
            Value::List(items) if items.is_empty() => continue,
            other => {
                return Err(ScriptError::runtime(format!(
                    "the function in option 'options' of matrix() must give a map, got {} (cell \
                     '{}')",
                    other.quoted(),
                    cells[index].id
                ))
                .hint("it gives a map, such as #{ from: \"debian/12\", memory: \"1GiB\" }"));
            }
        };
        for (key, value) in &map {
            secret::check_kept_value(ctx, value)?;
            wishes[index].set(key, value)?;
        }
    }
    Ok(())
}

/// What the function in the option `from` gives for each cell, on the cell's backend. Where it
/// throws, that is the end of this cell only.
async fn by_from(
    ctx: &Ctx,
    function: &Arc<dyn Callable>,
    cells: &[Cell],
    homes: &Homes,
    wishes: &mut [Wish],
    broken: &mut HashMap<usize, (ScriptError, String)>,
) -> Result<()> {
    let left = (0..cells.len()).filter(|index| wishes[*index].from.is_none());
    let given = each(left, |index| {
        let cell = &cells[index];
        let tail = Arc::<Mutex<String>>::default();
        let host = Arc::clone(homes.get(&cell.id).unwrap_or(&ctx.host));
        let ctx = Ctx { host, tail: Some(Arc::clone(&tail)), ..ctx.clone() };
        let (function, values) = (Arc::clone(function), values(cell));
        async move {
            let given = function.call(&ctx, vec![values]).await;
            (given, tail.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }
    });
    for (index, (given, tail)) in given.await {
        match given {
            Ok(Value::Unit) => {}
            Ok(value) => wishes[index].from = Some(value),
            Err(error) if is_cancel(&error) => return Err(error),
            Err(error) => drop(broken.insert(index, (error, tail))),
        }
    }
    Ok(())
}

/// Finds what the cells start from. Bases that are not there are built, side by side, each once; one
/// that can't be is the end of its cells only.
async fn sources(
    ctx: &Ctx,
    args: &Args,
    cells: &[Cell],
    homes: &Homes,
    wishes: &mut [Wish],
    broken: &mut HashMap<usize, (ScriptError, String)>,
) -> Result<()> {
    // Of cells with the same source on the same backend the first asks.
    let mut same: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (index, wish) in wishes.iter().enumerate().filter(|(index, _)| !broken.contains_key(index))
    {
        let from = match &wish.from {
            Some(Value::Handle(Handle(object))) => {
                format!("{:p} {:?}", Arc::as_ptr(object), wish.label)
            }
            Some(other) => other.quoted(),
            None => String::new(),
        };
        let place = wish.own.machine.as_ref().map(|machine| machine.name.clone());
        same.entry((place.unwrap_or_default(), from)).or_default().push(index);
    }
    let groups: Vec<Vec<usize>> = same.into_values().collect();
    let of_all = &args.get(FROM);
    let mut tasks = JoinSet::new();
    for (at, group) in groups.iter().enumerate() {
        let (wish, cell) = (&wishes[group[0]], &cells[group[0]]);
        let tail = Arc::<Mutex<String>>::default();
        let host = Arc::clone(homes.get(&cell.id).unwrap_or(&ctx.host));
        let ctx = Ctx { host, tail: Some(Arc::clone(&tail)), ..ctx.clone() };
        let from = match &wish.from {
            Some(from) => from.clone(),
            None if matches!(of_all, Value::Handle(_)) => Value::clone(of_all),
            // A name costs nothing to look at.
            None => {
                if !matches!(of_all, Value::Callback(_)) {
                    let source = source(&ctx, args).await?;
                    group.iter().for_each(|index| wishes[*index].own.source = Some(source.clone()));
                }
                continue;
            }
        };
        let label = wish.label.clone().or_else(|| args.string("label").map(str::to_owned));
        tasks.spawn(async move {
            let found = source_of(&ctx, &from, label.as_deref()).await;
            (at, from, found, tail.lock().unwrap_or_else(PoisonError::into_inner).clone())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let Ok((at, from, found, tail)) = done else { continue };
        for index in &groups[at] {
            match &found {
                Ok(Some(source)) => wishes[*index].own.source = Some(Source::clone(source)),
                Ok(None) => return Err(wrong(FROM, "an image, a base or a sandbox", &from)),
                Err(error) if is_cancel(error) => return Err(error.clone()),
                Err(error) => drop(broken.insert(*index, (error.clone(), tail.clone()))),
            }
        }
    }
    Ok(())
}

/// The bases and sandboxes among the values of the axis `from`, by name.
fn handles(args: &Args) -> HashMap<String, Value> {
    let mut found = HashMap::new();
    let Value::Map(axes) = args.get("axes") else { return found };
    let values = match axes.get(FROM) {
        Some(Value::List(values)) => values.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    for value in values {
        if let (Value::Handle(_), Some(name)) = (value, to_axis(value)) {
            found.insert(name.to_string(), value.clone());
        }
    }
    found
}

fn by_axes(cell: &Cell, handles: &HashMap<String, Value>) -> Result<Wish> {
    let mut wish = Wish::default();
    for (name, value) in &cell.values {
        if AXES.contains(&name.as_str()) {
            let plain = to_value(value);
            let value = if name == FROM { handles.get(&value.to_string()) } else { None };
            wish.set(name, value.unwrap_or(&plain))?;
        }
    }
    Ok(wish)
}

fn wrong(key: &str, what: &str, value: &Value) -> ScriptError {
    let message = format!("'{key}' of a cell must be {what}, got {}", value.quoted());
    ScriptError::new(ErrorKind::Runtime, message).focus(key)
}

impl Wish {
    /// Looks up the cell's policy, for what the cell is made from and where.
    async fn resolve(&mut self, ctx: &Ctx, args: &Args) -> Result<()> {
        let source = self.own.source.clone().unwrap_or_default();
        self.own.egress = match &self.egress {
            Some(asked) => {
                let mut env = args.string_map("env");
                env.extend(self.own.env.clone());
                Some(egress::resolve(ctx, asked, &egress::origin(&source), env, None).await?)
            }
            None => egress::of(ctx, args, &source).await?,
        };
        Ok(())
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        let wrong = |what: &str| wrong(key, what, value);
        let count = || match value {
            Value::Int(number) => u64::try_from(*number).ok().filter(|number| *number > 0),
            _ => None,
        };
        let size = || match value {
            Value::String(text) => parse_size(text).ok(),
            _ => count(),
        };
        let own = &mut self.own;
        match key {
            FROM => match value {
                Value::String(_) | Value::Handle(_) => self.from = Some(value.clone()),
                _ => return Err(wrong("an image, a base or a sandbox")),
            },
            "backend" => {
                self.backend = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned());
            }
            "host" => self.host = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned()),
            "label" => {
                self.label = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned())
            }
            "egress" => self.egress = Some(egress::asked(value)?),
            "cpu" => {
                own.limits.cpu = Some(match value {
                    Value::Int(number) => *number as f64,
                    Value::Float(number) => *number,
                    _ => return Err(wrong("a number of CPUs")),
                });
            }
            "target" => {
                let text =
                    value.as_str().ok_or_else(|| wrong("a member of a cluster or a group"))?;
                own.target = Some(member::of_text(text)?);
            }
            "memory" => own.limits.memory = Some(size().ok_or_else(|| wrong("a size"))?),
            "disk" => own.limits.disk = Some(size().ok_or_else(|| wrong("a size"))?),
            "pids" => own.limits.pids = Some(count().ok_or_else(|| wrong("a number"))?),
            "inodes" => own.limits.inodes = Some(count().ok_or_else(|| wrong("a number"))?),
            "weight" => {
                let weight = count().ok_or_else(|| wrong("a number from 1 on"))?;
                own.weight = usize::try_from(weight).unwrap_or(usize::MAX);
            }
            "env" => match value {
                Value::Map(map) => {
                    own.env =
                        map.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
                }
                _ => return Err(wrong("a map")),
            },
            "caches" => match value {
                Value::Map(map) => own.caches = cache::of_map(map)?,
                _ => return Err(wrong("a map")),
            },
            other => {
                let hint = suggest::hint(other, KEYS.iter().copied()).unwrap_or_default();
                return Err(ScriptError::runtime(format!("a cell has no option '{other}'"))
                    .hint(hint)
                    .focus(other));
            }
        }
        own.limits.check().map_err(ScriptError::from)
    }
}
