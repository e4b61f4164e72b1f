//! The methods, by name space.

mod api_key;
mod auth;
mod container;
mod container_device;
mod core;
mod cron;
mod dataset;
mod files;
mod network;
mod placing;
mod resource;
mod rights;
mod schedule;
mod snapshot;
mod system;
mod virt;
mod virt_device;
mod volume;

use serde_json::{Value, json};

use crate::dispatch::Call;
use crate::fail::{Fail, Fault};
use crate::job::State;
use crate::nas::Nas;
use crate::schema::{self, Method};
use crate::session::Session;

pub use container::changed as container_changed;
pub use dataset::{EMPTY, busy, create_dataset, space};
pub use network::CARD;
pub use placing::{
    clone_dataset, destroy_dataset, engine_name, in_use, link, locate, mountpoint, parent,
    rename_dataset, sync,
};
pub use schedule::follow as schedule;
pub use snapshot::{added as snapshot_added, removed as snapshot_removed};
pub use virt::entry as virt_entry;

use crate::zfs::Destroy;

/// Runs a method whose parameters were checked.
pub async fn run(call: &Call) -> Result<Value, Fail> {
    let result = route(call).await?;
    if call.nas.options.check_results && call.nas.traps.all() {
        // An older version's method gives what the newest does; what that version does not have
        // is left out later.
        let newest = call.nas.table(None).get(&call.method.name).unwrap_or(&call.method);
        fits(newest, &call.args, &result)?;
    }
    Ok(result)
}

/// Holds a result against its model.
pub fn fits(method: &Method, args: &[Value], result: &Value) -> Result<(), Fail> {
    let misfits = schema::misfits(method, args, result);
    if misfits.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = misfits
        .iter()
        .map(|f| format!("{} {}", f.attribute.as_deref().unwrap_or_default(), f.message))
        .collect();
    let text = format!("the result of {} does not fit its model: {}", method.name, all.join("; "));
    Err(Fail::Raised("Misfit", text))
}

async fn route(call: &Call) -> Result<Value, Fail> {
    let name = call.method.name.as_str();
    let (space, verb) = name.rsplit_once('.').unwrap_or(("", name));
    match space {
        "api_key" => api_key::run(call, verb),
        "auth" => auth::run(call, verb).await,
        "core" => core::run(call, verb).await,
        "cronjob" => cron::run(call, verb).await,
        "initshutdownscript" => cron::script(call, verb),
        "filesystem" => files::run(call, verb).await,
        "interface" | "network.general" | "network.configuration" => network::run(call).await,
        "pool" | "pool.dataset" => dataset::run(call, verb).await,
        "pool.snapshot" | "zfs.snapshot" => snapshot::run(call, verb).await,
        "zfs.resource" | "zfs.resource.snapshot" => resource::run(call).await,
        "system" | "system.global" => system::run(call, verb),
        "virt.global" | "virt.instance" => virt::run(call).await,
        "virt.device" => virt_device::run(call),
        "virt.volume" => volume::run(call, verb).await,
        "container" | "container.image" | "container.device" | "lxc" => container::run(call).await,
        _ => Err(unhandled(call)),
    }
}

const VOLUME_NAME: &str = "Name can contain only letters, numbers, dashes, underscores and dots. \
    Name must start with a letter, and must not end with a dash.";

fn volume_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() > 1
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(good)
}

/// What the model checks beyond types.
pub fn check(nas: &Nas, method: &str, args: &[Value], faults: &mut Vec<Fault>) {
    let mut wrong = |at: &str, text: &str| faults.push(Fault::new(at, text.into(), 22));
    match method {
        "virt.instance.create" | "virt.instance.update" => {
            let (at, data) = match args {
                [data] => ("virt_instance_create", data),
                [_, data] => ("virt_instance_update", data),
                _ => return,
            };
            if data["memory"].as_i64().is_some_and(|m| m < 33_554_432) {
                wrong(&format!("{at}.memory"), "Value error, Value must be 32MiB or larger");
            }
            for (key, value) in data["environment"].as_object().into_iter().flatten() {
                let fits = key.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_')
                    && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '/');
                if !fits || value.as_str().is_none_or(str::is_empty) {
                    wrong(&format!("{at}.environment.{key}"), "Value error, Invalid environment");
                }
            }
        }
        "virt.volume.create" | "virt.volume.import_iso" => {
            let at = method.replace('.', "_");
            let Some(data) = args.first() else { return };
            if let Some(name) = data["name"].as_str().filter(|n| !volume_name(n)) {
                wrong(&format!("{at}.name"), &format!("Value error, {name}: {VOLUME_NAME}"));
            }
            let iso = data["iso_location"].as_str();
            if iso.is_some_and(|path| nas.host.look(path).is_err()) {
                let text = "Value error, Specified ISO location does not exist";
                wrong(&format!("{at}.iso_location"), text);
            }
        }
        "virt.volume.import_zvol" => {
            let all = args.first().and_then(|a| a["to_import"].as_array()).into_iter().flatten();
            for (i, entry) in all.enumerate() {
                let at = format!("virt_volume_import_iso.to_import.{i}");
                let text = |key: &str| entry[key].as_str().unwrap_or_default();
                if !volume_name(text("virt_volume_name")) {
                    wrong(
                        &format!("{at}.virt_volume_name"),
                        &format!("Value error, {VOLUME_NAME}"),
                    );
                }
                if !text("zvol_path").starts_with("/dev/zvol/") {
                    wrong(&format!("{at}.zvol_path"), "Value error, Not a valid /dev/zvol path");
                }
            }
        }
        "virt.instance.stop" | "virt.instance.restart" if nas.traps.on(23) => {
            let stop = args.get(1).unwrap_or(&Value::Null);
            let timeout = stop["timeout"].as_i64().unwrap_or(-1);
            if timeout < 0 && stop["force"] != json!(true) {
                wrong("", "Value error, Timeout should be set if force is disabled");
            }
        }
        _ => {}
    }
}

/// A connection closed.
pub fn closed(session: &Session) {
    session.nas.shells.leave(&session.id);
    if session.nas.traps.on(6) {
        return;
    }
    for job in session.nas.jobs.all() {
        if job.state() == State::Running {
            job.abort.notify_one();
        }
    }
}

/// The rows of a query: filters and options are the first two parameters.
fn query(call: &Call, rows: Vec<Value>) -> Result<Value, Fail> {
    crate::query::run(rows, call.arg(0), call.arg(1), call.nas.traps)
}

/// One row of a query, by its id.
fn instance(call: &Call, class: &str, rows: Vec<Value>) -> Result<Value, Fail> {
    let id = call.arg(0);
    let row = rows.into_iter().find(|r| r["id"] == *id);
    row.ok_or_else(|| missing(call, class, id))
}

fn missing(call: &Call, class: &str, id: &Value) -> Fail {
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    Fail::missing(call.nas.traps, class, id)
}

fn unhandled(call: &Call) -> Fail {
    Fail::Raised("NotImplementedError", format!("{} is not simulated", call.method.name))
}
