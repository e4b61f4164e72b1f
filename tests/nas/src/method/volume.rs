//! `virt.volume.*` of 25.x: the real daemon's custom volumes, and the volumes of the pool that they
//! are made of.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::virt::{global, initialized};
use super::{instance, missing, query, unhandled};
use crate::dispatch::Call;
use crate::engine::Engine;
use crate::event::Change;
use crate::fail::{Fail, Fault};
use crate::nas::Nas;

const MIB: i64 = 1 << 20;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    match verb {
        "query" => query(call, rows(nas).await?),
        "get_instance" => instance(call, "VirtVolume", rows(nas).await?),
        "create" => create(call).await,
        "update" => update(call).await,
        "delete" => delete(call).await,
        "import_iso" => import_iso(call).await,
        "import_zvol" => import_zvol(call).await,
        _ => Err(unhandled(call)),
    }
}

fn path(nas: &Nas) -> String {
    format!("/1.0/storage-pools/{}/volumes/custom", nas.zfs.pool)
}

/// The volume of the pool that a custom volume is.
fn dataset(nas: &Nas, name: &str) -> String {
    format!("{}/.ix-virt/custom/default_{name}", nas.zfs.pool)
}

async fn rows(nas: &Nas) -> Result<Vec<Value>, Fail> {
    if global(nas)["state"] != "INITIALIZED" {
        return Ok(Vec::new());
    }
    let all = nas.engine()?.get(&format!("{}?recursion=1", path(nas))).await?;
    let all = all.as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(|volume| row(nas, volume)).collect())
}

fn row(nas: &Nas, volume: &Value) -> Value {
    let mut config = volume["config"].clone();
    if let Some(size) = config["size"].as_str().and_then(|s| s.parse::<i64>().ok()) {
        config["size"] = (size / MIB).into();
    } else if let Some(config) = config.as_object_mut() {
        config.remove("size");
    }
    let users = volume["used_by"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let users: Vec<&str> = users.map(|u| u.trim_start_matches("/1.0/instances/")).collect();
    json!({
        "id": volume["name"], "name": volume["name"], "storage_pool": nas.zfs.pool,
        "content_type": volume["content_type"].as_str().unwrap_or_default().to_uppercase(),
        "created_at": volume["created_at"], "type": volume["type"], "config": config, "used_by": users,
    })
}

async fn one(call: &Call, name: &str) -> Result<Value, Fail> {
    let found = rows(&call.nas).await?.into_iter().find(|r| r["id"] == name);
    found.ok_or_else(|| missing(call, "VirtVolume", &name.into()))
}

/// The pool that was asked for, or that of the containers.
fn pool(nas: &Nas, data: &Value) -> Result<(), String> {
    let global = global(nas);
    let pool = if data["storage_pool"].is_null() { &global["pool"] } else { &data["storage_pool"] };
    let choices = global["storage_pools"].as_array().cloned().unwrap_or_default();
    if choices.contains(pool) {
        return Ok(());
    }
    let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
    Err(format!("Not a valid storage pool. Choices are: {}", names.join(", ")))
}

async fn create(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let engine = initialized(nas)?;
    let name = data["name"].as_str().unwrap_or_default();
    let mut faults = Vec::new();
    let mut wrong = |field: &str, text: String| {
        faults.push(Fault::new(&format!("virt_volume_create.{field}"), text, 22));
    };
    if one(call, name).await.is_ok() {
        wrong("name", "Volume with this name already exists".into());
    }
    if let Err(text) = pool(nas, data) {
        wrong("storage_pool", text);
    }
    if !faults.is_empty() {
        return Err(Fail::Validation(faults));
    }
    let bytes = data["size"].as_i64().unwrap_or(1024) * MIB;
    make(nas, engine, name, bytes).await.map_err(|f| failed("create", f))?;
    shown(nas, name, bytes);
    told(call, name, Change::Added).await
}

async fn make(nas: &Nas, engine: &Engine, name: &str, bytes: i64) -> Result<(), Fail> {
    if nas.faults(|f| f.full) {
        return Err(Fail::fault("out of space"));
    }
    let body =
        json!({"name": name, "content_type": "block", "config": {"size": bytes.to_string()}});
    engine.send("POST", &path(nas), body).await.map(|_| ())
}

/// Shows a custom volume as a volume of the pool.
fn shown(nas: &Nas, name: &str, bytes: i64) {
    let mut tree = nas.zfs.tree();
    let dataset = dataset(nas, name);
    if tree.get(&dataset).is_err() {
        tree.insert(&dataset, format!("/mnt/incus/custom/default_{name}"), None, nas.now());
    }
    if let Ok(dataset) = tree.get_mut(&dataset) {
        dataset.properties.insert("volsize".into(), bytes.to_string());
        dataset.properties.insert("incus:content_type".into(), "block".into());
    }
}

async fn told(call: &Call, name: &str, change: Change) -> Result<Value, Fail> {
    let row = one(call, name).await?;
    call.nas.events.emit("virt.volume.query", change, name, row.clone());
    Ok(row)
}

async fn update(call: &Call) -> Result<Value, Fail> {
    let (nas, name) = (&call.nas, call.text(0));
    let found = one(call, name).await?;
    let Some(size) = call.arg(1)["size"].as_i64() else { return Ok(found) };
    let bytes = size * MIB;
    let body = json!({"config": {"size": bytes.to_string()}});
    let done = nas.engine()?.send("PATCH", &format!("{}/{name}", path(nas)), body).await;
    done.map_err(|f| failed("update", f))?;
    shown(nas, name, bytes);
    told(call, name, Change::Changed).await
}

async fn delete(call: &Call) -> Result<Value, Fail> {
    let (nas, name) = (&call.nas, call.text(0));
    let found = one(call, name).await?;
    let users: Vec<&str> =
        found["used_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !users.is_empty() {
        let users = users.join(", ");
        return Err(Fail::fault(format!("Volume '{name}' is in use by instances: {users}")));
    }
    super::busy(nas, &dataset(nas, name))?;
    let done = nas.engine()?.send("DELETE", &format!("{}/{name}", path(nas)), Value::Null).await;
    done.map_err(|f| failed("delete", f))?;
    nas.zfs.tree().datasets.remove(&dataset(nas, name));
    nas.events.emit("virt.volume.query", Change::Removed, name, Value::Null);
    Ok(true.into())
}

fn failed(what: &str, fail: Fail) -> Fail {
    let text = match fail {
        Fail::Call(_, text) => text,
        other => other.reason(),
    };
    Fail::fault(format!("Failed to {what} volume: {text}"))
}

async fn import_iso(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let engine = initialized(nas)?;
    let name = data["name"].as_str().unwrap_or_default();
    if pool(nas, data).is_err() {
        return Err(Fail::fault("Not a valid storage pool"));
    }
    let piped = call.job.as_ref().and_then(|j| j.pipe.as_ref()).and_then(|p| p.read());
    let from = match (data["upload_iso"] == json!(true), data["iso_location"].as_str()) {
        (true, _) => {
            piped.ok_or_else(|| Fail::Raised("ValueError", "Pipe 'input' is not open".into()))?
        }
        (false, Some(file)) => read(call, file).await?,
        (false, None) => {
            return Err(Fail::fault("Either upload iso or provide iso_location"));
        }
    };
    if one(call, name).await.is_ok() {
        return Err(Fail::Call(17, "Volume with this name already exists".into()));
    }
    if nas.faults(|f| f.full) {
        return Err(Fail::fault("out of space"));
    }
    call.progress(25, "Importing ISO as incus volume");
    let headers = format!("X-Incus-type: iso\r\nX-Incus-name: {name}\r\n");
    engine.upload(&path(nas), &headers, from).await?;
    call.progress(95, "ISO successfully imported as incus volume");
    told(call, name, Change::Added).await
}

/// A file of the NAS, in pieces.
async fn read(call: &Call, file: &str) -> Result<mpsc::Receiver<Vec<u8>>, Fail> {
    use std::io::Read as _;
    let located = super::locate(&call.nas, file).await;
    let opened = call.nas.host.open(&located, rustix::fs::OFlags::RDONLY, false);
    let mut opened = opened.map_err(|e| Fail::os(&e, file))?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; 65536];
        while let Ok(count @ 1..) = opened.read(&mut piece) {
            if sender.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

async fn import_zvol(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let engine = initialized(nas)?;
    let all = data["to_import"].as_array().cloned().unwrap_or_default();
    let mut faults = Vec::new();
    let mut wrong = |at: String, text: String| {
        faults.push(Fault::new(&format!("virt_volume_import_zvol.import{at}"), text, 22));
    };
    if all.is_empty() {
        wrong(String::new(), "At least one entry is required.".into());
    }
    let choices = zvols(nas);
    let volume = |entry: &Value| {
        let path = entry["zvol_path"].as_str().unwrap_or_default().to_owned();
        (path.trim_start_matches("/dev/zvol/").to_owned(), path)
    };
    for (i, entry) in all.iter().enumerate() {
        let (zvol, path) = volume(entry);
        let pool = zvol.split('/').next().unwrap_or_default();
        let at = format!(".{i}.entry.zvol_path");
        if pool != nas.zfs.pool {
            let text = "zvol is not located in pool configured as a virt storage pool.";
            wrong(at, format!("{pool}: {text}"));
        } else if !choices.contains(&path) {
            wrong(at, format!("{path}: not an available zvol choice."));
        }
    }
    if !faults.is_empty() {
        return Err(Fail::Validation(faults));
    }
    call.progress(5, "Preparing to rename zvols");
    for entry in &all {
        let (zvol, _) = volume(entry);
        let name = entry["virt_volume_name"].as_str().unwrap_or_default();
        let size =
            nas.zfs.tree().get(&zvol).ok().and_then(|d| d.properties.get("volsize").cloned());
        let bytes = size.and_then(|s| s.parse::<i64>().ok()).unwrap_or_default();
        make(nas, engine, name, bytes).await?;
        if data["clone"] != json!(true) {
            let _ = nas.zfs.destroy(&zvol, true, false).await;
            nas.events.emit("pool.dataset.query", Change::Removed, zvol.as_str(), Value::Null);
        }
        shown(nas, name, bytes);
        told(call, name, Change::Added).await?;
    }
    call.progress(50, "Updating volume metadata");
    Ok(Value::Null)
}

/// The pool's volumes that a machine may use as disks.
pub fn zvols(nas: &Nas) -> Vec<String> {
    let tree = nas.zfs.tree();
    let volumes = tree.datasets.iter().filter(|(_, d)| d.properties.contains_key("volsize"));
    volumes
        .filter(|(n, _)| !n.contains("/.ix-virt/"))
        .map(|(n, _)| format!("/dev/zvol/{n}"))
        .collect()
}
