//! `container.*` and `lxc.*` of 26, on the real daemon.

use std::path::Path;

use serde_json::{Value, json};

use super::container_device as device;
use super::{busy, engine_name, link, missing, parent, query, unhandled, virt};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;
use crate::host::Host;
use crate::nas::Nas;
use crate::release::Release;
use crate::zfs::Refused;

const IMAGE: &str = "debian:bookworm:amd64:default";
const VERSION: &str = "20260801_05:24";

pub async fn run(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    match call.method.name.as_str() {
        "container.query" => query(call, rows(nas).await?),
        "container.get_instance" => match row(call) {
            Ok(row) => Ok(entry(nas, row).await),
            Err(fail) => Err(fail),
        },
        "container.create" => create(call).await,
        "container.create_with_dataset" => adopt(call).await,
        "container.update" => update(call).await,
        "container.delete" => delete(call).await,
        "container.start" => start(call).await,
        "container.stop" => stop(call).await,
        "container.pool_choices" => Ok(json!({nas.zfs.pool.clone(): nas.zfs.pool})),
        "container.migrate" => Ok(Value::Null),
        "container.nsenter" => {
            let uuid = call.arg(0)["uuid"].as_str().unwrap_or_default();
            let name = nas.rows.all("container").into_iter().find(|r| r["uuid"] == uuid);
            let name = name.ok_or_else(|| missing(call, "Container", &call.arg(0)["id"]))?;
            Ok(json!(["truenas-nsexec", name["name"], "--"]))
        }
        "container.image.query_registry" => {
            Ok(json!([{"name": IMAGE, "versions": [{"version": VERSION}]}]))
        }
        "lxc.config" => Ok(lxc(nas)),
        "lxc.update" => {
            let change = call.arg(0);
            if change["preferred_pool"].as_str().is_some_and(|p| p != nas.zfs.pool) {
                return Err(Fail::invalid("lxc_config_update.preferred_pool", "Pool not found."));
            }
            let mut change = change.clone();
            if change.get("bridge").is_some_and(|b| b == "" || b == "[AUTO]") {
                change["bridge"] = Value::Null;
            }
            nas.rows.update("lxc", 1, &change);
            Ok(lxc(nas))
        }
        "lxc.bridge_choices" => Ok(json!({"[AUTO]": "Automatic"})),
        name if name.starts_with("container.device.") => device::run(call).await,
        _ => Err(unhandled(call)),
    }
}

fn lxc(nas: &Nas) -> Value {
    nas.rows.get("lxc", 1).unwrap_or_default()
}

/// The row that a call is about.
fn row(call: &Call) -> Result<Value, Fail> {
    let rows = call.nas.rows.all("container");
    let id = call.arg(0);
    rows.into_iter().find(|r| r["id"] == *id).ok_or_else(|| missing(call, "Container", id))
}

async fn rows(nas: &Nas) -> Result<Vec<Value>, Fail> {
    let all = nas.rows.all("container").into_iter().map(|row| entry(nas, row));
    Ok(futures_util::future::join_all(all).await)
}

/// A row as a query shows it.
async fn entry(nas: &Nas, mut row: Value) -> Value {
    let state = match &nas.engine {
        Some(engine) => engine.state(&engine_name(&row)).await.unwrap_or_default(),
        None => Value::Null,
    };
    let devices: Vec<Value> =
        nas.rows.all(device::TABLE).into_iter().filter(|d| d["container"] == row["id"]).collect();
    let nic = devices.iter().any(|d| d["attributes"]["dtype"] == "NIC");
    row["devices"] = devices.into();
    row["default_network"] = if nic { Value::Null } else { device::BRIDGE.into() };
    let (name, domain, pid) = match state["status"].as_str() {
        Some("Running") => ("RUNNING", "RUNNING", state["pid"].clone()),
        Some("Frozen") if nas.release == Release::V26Rc => {
            ("SUSPENDED", "PAUSED", state["pid"].clone())
        }
        Some("Frozen") => ("RUNNING", "PAUSED", state["pid"].clone()),
        _ => ("STOPPED", "SHUTOFF", Value::Null),
    };
    row["status"] = json!({"state": name, "pid": pid, "domain_state": domain});
    if !nas.traps.on(35) {
        row["aliases"] = json!([]);
        row["image"] = IMAGE.into();
    }
    if !nas.traps.on(30) {
        row["id"] = row["name"].clone();
    }
    row
}

/// The daemon says that one of its instances changed by itself.
pub async fn changed(nas: &Nas, instance: &str) {
    let Some(row) = nas.rows.all("container").into_iter().find(|r| engine_name(r) == instance)
    else {
        return;
    };
    let id = row["id"].clone();
    let fields = entry(nas, row).await;
    nas.events.emit("container.query", Change::Changed, id, fields);
}

fn valid(nas: &Nas, name: &str, at: &str, own: &Value) -> Result<(), Fail> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 100 || !name.split('.').all(label) || name.parse::<std::net::Ipv4Addr>().is_ok()
    {
        return Err(Fail::invalid(&format!("{at}.name"), "Name must be a valid hostname."));
    }
    let taken = nas.rows.all("container").iter().any(|r| r["name"] == name && r["id"] != *own);
    if taken {
        let errno = if nas.traps.on(24) { 17 } else { 22 };
        let text = "A container with this name already exists.";
        return Err(Fail::invalid_errno(&format!("{at}.name"), text, errno));
    }
    Ok(())
}

/// What a new row holds.
fn fresh(data: &Value, dataset: &str) -> Value {
    let mut row = json!({
        "uuid": crate::random::uuid(), "name": data["name"], "dataset": dataset,
        "idmap": data.get("idmap").cloned().unwrap_or(json!({"type": "DEFAULT"})),
    });
    for key in [
        "description",
        "cpuset",
        "autostart",
        "time",
        "shutdown_timeout",
        "init",
        "initdir",
        "initenv",
        "inituser",
        "initgroup",
        "capabilities_policy",
        "capabilities_state",
    ] {
        row[key] = data[key].clone();
    }
    if let Some(uuid) = data["uuid"].as_str() {
        row["uuid"] = uuid.into();
    }
    row
}

fn body(row: &Value, source: Value) -> Value {
    let mut config = json!({"user.nas-sim": row["name"]});
    if row["idmap"].is_null() {
        config["security.privileged"] = "true".into();
    }
    json!({
        "name": engine_name(row), "type": "container", "profiles": ["default"], "config": config,
        "source": source,
    })
}

async fn create(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let at = "container_create";
    let name = data["name"].as_str().unwrap_or_default();
    valid(nas, name, at, &Value::Null)?;
    let pool = data["pool"]
        .as_str()
        .map(str::to_owned)
        .or_else(|| lxc(nas)["preferred_pool"].as_str().map(str::to_owned));
    let Some(pool) = pool else {
        let text = "Either configure a preferred pool in lxc settings or provide a pool name.";
        return Err(Fail::invalid(&format!("{at}.pool"), text));
    };
    if pool != nas.zfs.pool {
        return Err(Fail::invalid(&format!("{at}.pool"), "Pool not found."));
    }
    if data["image"]["name"] != IMAGE {
        let text = "Image does not exist in the registry.";
        return Err(Fail::invalid(&format!("{at}.image.name"), text));
    }
    if data["image"]["version"] != VERSION {
        let text = "Image version does not exist in the registry.";
        return Err(Fail::invalid(&format!("{at}.image.version"), text));
    }
    if nas.faults(|f| f.full) {
        return Err(Fail::Call(28, "Failed to create container dataset: out of space".into()));
    }
    let engine = nas.engine()?;
    call.progress(80, "Extracting image");
    let dataset = format!("{}/{name}", parent(nas));
    let row = nas.rows.add("container", fresh(data, &dataset));
    let source = json!({"type": "image", "alias": virt::IMAGE});
    let made = engine.send("POST", "/1.0/instances", body(&row, source)).await;
    if let Err(fail) = made {
        nas.rows.remove("container", row["id"].as_i64().unwrap_or_default());
        return Err(fail);
    }
    call.progress(95, "Configuring container");
    let folder = format!("/mnt/incus/containers/{}", engine_name(&row));
    nas.zfs.tree().insert(&dataset, folder, None, nas.now());
    link(nas, &dataset);
    call.progress(98, "Registering container");
    let id = row["id"].clone();
    let row = entry(nas, row).await;
    nas.events.emit("container.query", Change::Added, id, row.clone());
    call.progress(100, "Container created");
    Ok(row)
}

/// `create_with_dataset`: a container on a dataset that is there already.
async fn adopt(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let name = data["name"].as_str().unwrap_or_default();
    let dataset = data["dataset"].as_str().unwrap_or_default();
    valid(nas, name, "container_create", &Value::Null)?;
    let engine = nas.engine()?;
    let row = nas.rows.add("container", fresh(data, dataset));
    // It is mounted by name: a dataset elsewhere is not found before it starts.
    if dataset == format!("{}/{name}", parent(nas)) && nas.zfs.tree().get(dataset).is_ok() {
        let done = take_over(nas, &row, dataset).await;
        if let Err(fail) = done {
            let _ = engine.delete(&engine_name(&row)).await;
            nas.rows.remove("container", row["id"].as_i64().unwrap_or_default());
            return Err(fail);
        }
    }
    let id = row["id"].clone();
    let row = entry(nas, row).await;
    nas.events.emit("container.query", Change::Added, id, row.clone());
    Ok(row)
}

/// Makes an empty instance and puts the dataset's folder in place of its own.
async fn take_over(nas: &Nas, row: &Value, dataset: &str) -> Result<(), Fail> {
    let engine = nas.engine()?;
    let name = engine_name(row);
    engine.send("POST", "/1.0/instances", body(row, json!({"type": "none"}))).await?;
    let fails = |r: Refused| Fail::fault(r.to_string());
    let storage = &nas.zfs.storage;
    let folder = format!("/mnt/incus/containers/{name}");
    let old = nas.zfs.tree().get(dataset).map(|d| d.folder.clone()).map_err(fails)?;
    storage.remove(&folder).await.map_err(fails)?;
    storage.rename(&old, &folder).await.map_err(fails)?;
    if let Ok(found) = nas.zfs.tree().get_mut(dataset) {
        found.folder = folder;
    }
    link(nas, dataset);
    // What is on the disk is not shifted.
    engine.edit(&name, |whole| whole["config"]["volatile.last_state.idmap"] = "[]".into()).await
}

async fn update(call: &Call) -> Result<Value, Fail> {
    let (nas, change) = (&call.nas, call.arg(1));
    let old = row(call)?;
    if let Some(name) = change["name"].as_str().filter(|n| old["name"] != **n) {
        valid(nas, name, "container_update", &old["id"])?;
        if nas.engine()?.running(&engine_name(&old)).await {
            return Err(Fail::fault("Container must be stopped before renaming."));
        }
        let (from, to) =
            (old["dataset"].as_str().unwrap_or_default(), format!("{}/{name}", parent(nas)));
        let done = super::rename_dataset(nas, from, &to).await;
        done.map_err(|r| super::rights::refused(nas, "rename", r))?;
        nas.rows.update("container", call.number(0), &json!({"dataset": to}));
    }
    let row = nas.rows.update("container", call.number(0), change).unwrap_or_default();
    let row = entry(nas, row).await;
    nas.events.emit("container.query", Change::Changed, call.number(0), row.clone());
    Ok(row)
}

async fn delete(call: &Call) -> Result<Value, Fail> {
    let (nas, id) = (&call.nas, call.number(0));
    let row = row(call)?;
    let engine = nas.engine()?;
    let (name, dataset) =
        (engine_name(&row), row["dataset"].as_str().unwrap_or_default().to_owned());
    let on = |key: &str| call.arg(1)[key] == json!(true);
    let job = call.method.job;
    let running = engine.running(&name).await;
    if job && running && !on("force") {
        return Err(Fail::invalid_errno(
            "container_delete.force",
            "Container must be stopped before deletion",
            16,
        ));
    }
    let blocked =
        nas.zfs.tree().get(&dataset).is_ok_and(|d| !d.snapshots.is_empty()) && nas.traps.on(34);
    if job && blocked && !on("recursive") {
        let text = "Container dataset has snapshots or children";
        return Err(Fail::invalid_errno("container_delete.recursive", text, 39));
    }
    if running {
        engine.act(&name, "stop", -1, true).await?;
    }
    busy(nas, &dataset)?;
    if job || !blocked {
        let recursive = on("recursive") || !nas.traps.on(34);
        let done = nas.zfs.destroy(&dataset, recursive, recursive).await;
        if let Err(refused) = done
            && !matches!(refused, Refused::Missing(_))
        {
            let text = format!(
                "Failed to delete container '{}' dataset: {refused}",
                row["name"].as_str().unwrap_or_default()
            );
            return Err(Fail::fault(text));
        }
        let _ = engine.delete(&name).await;
        link(nas, &dataset);
    } else {
        orphan(nas, &name, &dataset).await?;
    }
    for device in nas.rows.all(device::TABLE).iter().filter(|d| d["container"] == row["id"]) {
        nas.rows.remove(device::TABLE, device["id"].as_i64().unwrap_or_default());
    }
    nas.rows.remove("container", id);
    nas.events.emit("container.query", Change::Removed, id, Value::Null);
    if !job && blocked {
        let text = format!("cannot destroy '{dataset}': filesystem has children");
        return Err(Fail::fault(text));
    }
    Ok(Value::Null)
}

/// The betas remove the row first: the dataset stays behind.
async fn orphan(nas: &Nas, instance: &str, dataset: &str) -> Result<(), Fail> {
    let fails = |r: Refused| Fail::fault(r.to_string());
    let folder = nas.zfs.tree().get(dataset).map(|d| d.folder.clone()).map_err(fails)?;
    let aside = format!("/mnt/incus/loose/{}", crate::random::text(12));
    nas.zfs.storage.rename(&folder, &aside).await.map_err(fails)?;
    if let Ok(found) = nas.zfs.tree().get_mut(dataset) {
        found.folder = aside;
    }
    let _ = nas.engine()?.delete(instance).await;
    link(nas, dataset);
    Ok(())
}

async fn start(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let row = row(call)?;
    let engine = nas.engine()?;
    let (name, shown) = (engine_name(&row), row["name"].as_str().unwrap_or_default());
    let dataset = format!("{}/{shown}", parent(nas));
    if nas.zfs.tree().get(&dataset).is_err() {
        return Err(Fail::Call(20, format!("Dataset '{dataset}' not found")));
    }
    if engine.running(&name).await {
        let text = format!("Domain '{shown}' is already started (1)");
        return Err(match nas.release {
            Release::V26Rc => Fail::fault(text),
            _ => Fail::Raised("Error", text),
        });
    }
    let devices = device::of(nas, &row)?;
    let limits = row["cpuset"].clone();
    engine
        .edit(&name, |whole| {
            whole["devices"] = devices;
            if let Some(config) = whole["config"].as_object_mut() {
                config.retain(|k, _| !k.starts_with("environment.") && k != "limits.cpu");
                for (key, value) in row["initenv"].as_object().into_iter().flatten() {
                    config.insert(format!("environment.{key}"), value.clone());
                }
                // The image's templates would write the daemon's name into it.
                config.remove("volatile.apply_template");
                // Its hostname is its name's first label, not what the daemon calls it.
                let label = shown.split('.').next().unwrap_or(shown);
                config.insert("raw.lxc".into(), format!("lxc.uts.name = {label}").into());
                if let Some(set) = limits.as_str() {
                    // A single number is a count to the daemon and a set to libvirt.
                    let set = if set.contains(['-', ',']) {
                        set.to_owned()
                    } else {
                        format!("{set}-{set}")
                    };
                    config.insert("limits.cpu".into(), set.into());
                }
            }
        })
        .await?;
    virt::prepare(nas, &name);
    if nas.traps.on(50) {
        let root = nas.zfs.storage.here(&format!("/mnt/incus/containers/{name}/rootfs"));
        write(&root, "/etc/hostname", &format!("{shown}\n"));
        let hosts = Host { root: root.clone(), pid: None };
        let text = hosts
            .open("/etc/hosts", rustix::fs::OFlags::RDONLY, false)
            .and_then(std::io::read_to_string)
            .unwrap_or_default();
        let kept = text.lines().filter(|l| !l.starts_with("127.0.1.1"));
        let text: String = kept.map(|l| format!("{l}\n")).collect();
        write(&root, "/etc/hosts", &format!("{text}127.0.1.1\t{shown}\n"));
    }
    engine.act(&name, "start", -1, false).await?;
    Ok(if nas.traps.on(31) { Value::Null } else { 1.into() })
}

async fn stop(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let row = row(call)?;
    let engine = nas.engine()?;
    let (name, shown) = (engine_name(&row), row["name"].as_str().unwrap_or_default());
    if !engine.running(&name).await {
        return Err(Fail::Raised("Error", format!("Domain '{shown}' is not active")));
    }
    let on = |key: &str| call.arg(1)[key] == json!(true);
    if on("force") {
        engine.act(&name, "stop", -1, true).await?;
        return Ok(Value::Null);
    }
    let timeout = row["shutdown_timeout"].as_i64().unwrap_or(90);
    match engine.act(&name, "stop", timeout, false).await {
        Err(_) if on("force_after_timeout") => engine.act(&name, "stop", -1, true).await?,
        Err(fail) if !nas.traps.on(32) => return Err(fail),
        _ => {}
    }
    Ok(Value::Null)
}

/// Writes a file of a guest, below its own root whatever it planted there.
pub fn write(root: &Path, path: &str, text: &str) {
    use std::io::Write as _;
    let guest = Host { root: root.to_owned(), pid: None };
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::TRUNC;
    if let Ok(mut file) = guest.open(path, flags, false) {
        let _ = file.write_all(text.as_bytes());
    }
}
