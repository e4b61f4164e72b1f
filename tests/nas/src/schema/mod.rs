//! Which methods a release has, what they take and give, and who may call them.

mod check;
mod json;
mod ty;

use std::collections::HashMap;
use std::sync::Arc;

pub use check::{arguments, check, misfits, project};
pub use json::{parameter, schema};
pub use ty::{Field, Ty, parse};

use crate::release::Release;

/// One method.
#[derive(Debug, Clone)]
pub struct Method {
    /// Its name, such as `virt.instance.query`.
    pub name: String,
    /// Whether it answers with the id of a job.
    pub job: bool,
    /// Whether only a full administrator may call it, and only at the newest version.
    pub private: bool,
    /// Whether it may be called before login.
    pub open: bool,
    /// Whether its parameters are passed on unchecked.
    pub raw: bool,
    /// Any of these roles will do. None: any session that is logged in.
    pub roles: Vec<String>,
    /// The lock of its job, with `{0}` or `{0.name}` for parts of the arguments.
    pub lock: Option<String>,
    /// How many jobs may wait for the lock.
    pub queue: usize,
    /// Whether its job has a log.
    pub logs: bool,
    /// Whether its job reads what is uploaded.
    pub input: bool,
    /// Whether its job writes what is downloaded.
    pub output: bool,
    /// Whether it can be called without that, too.
    pub loose: bool,
    /// Its parameters.
    pub accepts: Vec<Field>,
    /// What it gives, where it is known.
    pub returns: Option<Ty>,
    /// What a row of its query looks like.
    pub entry: Option<Ty>,
}

/// The methods of one API version.
pub type Table = HashMap<String, Arc<Method>>;

const QUERY: &str = "{filters?:[any]=[], options?:@options}";
const OPTIONS: &str = "{extra?:object, order_by?:[string]=[], select?:[string|[any]]=[], \
    count?:boolean=false, get?:boolean=false, offset?:integer=0, limit?:integer=0, \
    force_sql_filters?:boolean=false}";
const OLD_OPTIONS: &str = "{relationships?:boolean=true, extend?:string|null=null, \
    extend_context?:string|null=null, prefix?:string|null=null, ";

/// A property of a dataset or snapshot, as `pool.*` shows it.
const PROPERTY: &str =
    "{value:string|null, rawvalue:string|null, parsed:any, source:string|null, source_info:any}";
/// All properties, as `zfs.resource.*` shows them.
const PROPERTIES: &str = "map({raw:string, source:{type:NONE/DEFAULT/TEMPORARY/LOCAL/INHERITED/RECEIVED, value:string|null}|null, value:any})";

const BASE: &str = include_str!("../../schema/base.txt");
const V25_04: &str = include_str!("../../schema/25.04.txt");
const V25_10: &str = include_str!("../../schema/25.10.txt");
const V26: &str = include_str!("../../schema/26.txt");
const V26_BETA: &str = include_str!("../../schema/26-beta.txt");

/// The methods of a release at its newest version.
pub fn table(release: Release) -> Result<Table, String> {
    let layers: &[&str] = match release {
        Release::V25_04 => &[BASE, V25_04],
        Release::V25_10 => &[BASE, V25_04, V25_10],
        Release::V26Beta => &[BASE, V25_04, V25_10, V26, V26_BETA],
        Release::V26Rc => &[BASE, V25_04, V25_10, V26],
    };
    let options = match release {
        Release::V25_04 => format!("{OLD_OPTIONS}{}", &OPTIONS[1..]),
        _ => OPTIONS.to_owned(),
    };
    let mut table = Table::new();
    for layer in layers {
        read(layer, &options, &mut table)?;
    }
    // One row, a new one and a changed one look as those of a query do.
    let rows: HashMap<String, Ty> = table
        .values()
        .filter_map(|m| Some((m.name.strip_suffix(".query")?.to_owned(), m.entry.clone()?)))
        .collect();
    for method in table.values_mut() {
        let Some((space, verb)) = method.name.rsplit_once('.') else { continue };
        if ["get_instance", "create", "update"].contains(&verb)
            && matches!(method.returns, Some(Ty::Map))
            && let Some(row) = rows.get(space)
        {
            Arc::make_mut(method).returns = Some(row.clone());
        }
    }
    Ok(table)
}

fn read(text: &str, options: &str, table: &mut Table) -> Result<(), String> {
    let mut lines = text.lines().filter(|l| !l.trim().is_empty()).peekable();
    while let Some(line) = lines.next() {
        if let Some(prefix) = line.strip_prefix('-') {
            table.retain(|name, _| !name.starts_with(prefix));
            continue;
        }
        let mut method = head(line);
        while let Some((kind, text)) =
            lines.next_if(|l| l.starts_with("  ")).and_then(|l| l.trim().split_once(": "))
        {
            let text = text.replace("@query", QUERY).replace("@options", options);
            let text = text.replace("@properties", PROPERTIES).replace("@property", PROPERTY);
            let longest = if kind == "accepts" { ty::SHORT } else { usize::MAX };
            let ty = parse(&text, longest).map_err(|e| format!("{}, {kind}: {e}", method.name))?;
            match (kind, ty) {
                ("accepts", Ty::Object(fields)) => method.accepts = fields,
                ("returns", Ty::Object(mut fields)) if fields.len() == 1 => {
                    method.returns = fields.pop().map(|f| f.ty);
                }
                ("entry", ty) => method.entry = Some(ty),
                (kind, _) => return Err(format!("{}: {kind} is not an object", method.name)),
            }
        }
        table.insert(method.name.clone(), Arc::new(method));
    }
    Ok(())
}

fn head(line: &str) -> Method {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let mut method = Method {
        open: name.starts_with("auth.login"),
        name,
        job: false,
        private: false,
        raw: false,
        roles: Vec::new(),
        lock: None,
        queue: 5,
        logs: false,
        input: false,
        output: false,
        loose: false,
        accepts: Vec::new(),
        returns: None,
        entry: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("lock", lock)) => method.lock = Some(lock.to_owned()),
            Some(("queue", n)) => method.queue = n.parse().unwrap_or(5),
            Some(("role", roles)) => method.roles = roles.split(',').map(Into::into).collect(),
            _ => match word {
                "job" => method.job = true,
                "private" => method.private = true,
                "open" => method.open = true,
                "raw" => method.raw = true,
                "logs" => method.logs = true,
                "input" => method.input = true,
                "output" => method.output = true,
                "loose" => method.loose = true,
                _ => {}
            },
        }
    }
    method
}

/// What about a result of a method, called with these parameters, does not fit its model.
pub fn misfits_of(
    release: Release,
    method: &str,
    params: &serde_json::Value,
    result: &serde_json::Value,
) -> Vec<String> {
    let table = match table(release) {
        Ok(table) => table,
        Err(text) => return vec![text],
    };
    let Some(method) = table.get(method) else { return vec!["no such method".into()] };
    let params = params.as_array().map(Vec::as_slice).unwrap_or_default();
    let faults = misfits(method, params, result);
    faults
        .into_iter()
        .map(|f| format!("{}: {}", f.attribute.unwrap_or_default(), f.message))
        .collect()
}
