//! `pool.*` and `pool.dataset.*`, and what else makes and moves datasets.

use serde_json::{Value, json};

use super::rights::{self, refused};
use super::{instance, missing, query, unhandled};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::zfs::{Dataset, Refused};

const SIZE: i64 = 8 << 30;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    super::sync(&call.nas).await;
    if call.method.name == "pool.query" {
        return query(call, vec![pool(&call.nas)]);
    }
    let nas = &call.nas;
    match verb {
        "query" => query(call, rows(call)),
        "get_instance" => instance(call, "PoolDataset", rows(call)),
        "create" => create(call).await,
        "update" => update(call),
        "delete" => {
            let name = call.text(0);
            if nas.zfs.tree().get(name).is_err() {
                return Err(missing(call, "PoolDataset", call.arg(0)));
            }
            let internal = [".truenas_containers", ".ix-virt"];
            if nas.release.is_26()
                && nas.traps.on(36)
                && name.split('/').any(|p| internal.contains(&p))
            {
                return Err(Fail::invalid("path", format!("{name} is an invalid location")));
            }
            busy(nas, name)?;
            let recursive = call.arg(1)["recursive"] == json!(true);
            let done = super::destroy_dataset(nas, name, recursive, false).await;
            done.map_err(|r| refused(nas, "delete dataset", r))?;
            nas.events.emit("pool.dataset.query", Change::Removed, name, Value::Null);
            Ok(true.into())
        }
        "promote" => {
            if nas.zfs.tree().get(call.text(0)).is_err() {
                return Err(missing(call, "PoolDataset", call.arg(0)));
            }
            nas.zfs.promote(call.text(0)).map_err(|r| refused(nas, "promote", r))?;
            Ok(Value::Null)
        }
        "rename" => {
            let options = call.arg(1);
            if options["force"] != json!(true) {
                let text = "Renaming a dataset can break what uses it: pass force";
                return Err(Fail::invalid("pool.dataset.rename.force", text));
            }
            let to = options["new_name"].as_str().unwrap_or_default();
            let done = super::rename_dataset(nas, call.text(0), to).await;
            done.map_err(|r| refused(nas, "rename", r))?;
            Ok(Value::Null)
        }
        _ => Err(unhandled(call)),
    }
}

/// Storage that is busy for a moment, on demand.
pub fn busy(nas: &Nas, name: &str) -> Result<(), Fail> {
    let busy = nas.faults(|f| {
        let busy = f.busy_deletes > 0;
        f.busy_deletes = f.busy_deletes.saturating_sub(1);
        busy
    });
    match busy {
        true => Err(Fail::Call(
            16,
            format!("Failed to delete dataset: cannot destroy '{name}': dataset is busy"),
        )),
        false => Ok(()),
    }
}

fn rows(call: &Call) -> Vec<Value> {
    let nas = &call.nas;
    let tree = nas.zfs.tree();
    let shown = tree.datasets.iter().filter(|(n, _)| !rights::hidden(nas, n));
    shown.map(|(n, d)| row(nas, n, d)).collect()
}

/// A value as `zfs` properties are shown.
pub fn property(value: &str, raw: &str, parsed: Value, source: &str) -> Value {
    json!({"value": value, "rawvalue": raw, "parsed": parsed, "source": source, "source_info": null})
}

fn row(nas: &Nas, name: &str, dataset: &Dataset) -> Value {
    let size = |n: i64| property(&format!("{n}"), &n.to_string(), n.into(), "NONE");
    let text = |key: &str, default: &str| match dataset.properties.get(key) {
        Some(value) => property(&value.to_uppercase(), value, value.as_str().into(), "LOCAL"),
        None => property(&default.to_uppercase(), default, default.into(), "DEFAULT"),
    };
    let created = dataset.created;
    let user: serde_json::Map<_, _> = dataset
        .properties
        .iter()
        .filter(|(k, _)| k.contains(':'))
        .map(|(k, v)| (k.clone(), property(v, v, v.as_str().into(), "LOCAL")))
        .collect();
    let origin = dataset.origin.clone().unwrap_or_default();
    json!({
        "id": name, "type": "FILESYSTEM", "name": name, "pool": nas.zfs.pool, "encrypted": false,
        "encryption_root": null, "key_loaded": false, "children": [], "user_properties": user,
        "locked": false, "mountpoint": super::mountpoint(nas, name, &dataset.folder),
        "origin": property(&origin, &origin, origin.as_str().into(), "NONE"),
        "used": size(0), "available": size(SIZE), "usedbysnapshots": size(0), "referenced": size(0),
        "creation": property(&crate::time::zfs(created), &(created / 1000).to_string(), nas.date(created), "NONE"),
        "comments": text("comments", ""), "quota": text("quota", "none"), "refquota": text("refquota", "none"),
        "readonly": text("readonly", "off"), "atime": text("atime", "off"), "sync": text("sync", "standard"),
        "compression": text("compression", "lz4"), "deduplication": text("deduplication", "off"),
        "exec": text("exec", "on"), "recordsize": text("recordsize", "128K"),
    })
}

async fn create(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let data = call.arg(0);
    let name = data["name"].as_str().unwrap_or_default();
    if name.split('/').any(|p| p == ".ix-virt" || p == ".truenas_containers") {
        let text = format!(
            "{name} is using system internal managed dataset. Please specify a different location."
        );
        return Err(Fail::invalid("pool_dataset_create.name", text));
    }
    if data["type"] == "VOLUME" {
        return Err(Fail::invalid("pool_dataset_create.type", "volumes are not simulated"));
    }
    if nas.zfs.tree().get(name).is_ok() {
        return Err(Fail::invalid("pool_dataset_create.name", format!("{name} already exists")));
    }
    let ancestors = data["create_ancestors"] == json!(true);
    let parent = name.rsplit_once('/').map(|(p, _)| p);
    if !ancestors && parent.is_none_or(|p| nas.zfs.tree().get(p).is_err()) {
        let text =
            format!("Please specify a pool which exists for the dataset to be created: {name}");
        return Err(Fail::invalid("pool_dataset_create.name", text));
    }
    let done = create_dataset(nas, name, ancestors, &properties(data)).await;
    done.map_err(|r| refused(nas, "pool_dataset", r))?;
    let row = nas.zfs.tree().get(name).map(|d| row(nas, name, d)).unwrap_or_default();
    nas.events.emit("pool.dataset.query", Change::Added, name, row.clone());
    Ok(row)
}

fn properties(data: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut all = Vec::new();
    for key in [
        "comments",
        "sync",
        "compression",
        "atime",
        "exec",
        "quota",
        "refquota",
        "readonly",
        "recordsize",
    ] {
        if let Some(value) = data.get(key).filter(|v| !v.is_null()) {
            all.push((key.to_owned(), text(value).to_lowercase()));
        }
    }
    for pair in data["user_properties"].as_array().into_iter().flatten() {
        all.push((text(&pair["key"]), text(&pair["value"])));
    }
    all
}

fn update(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let name = call.text(0);
    let data = call.arg(1);
    let row = {
        let mut tree = nas.zfs.tree();
        let Ok(dataset) = tree.get_mut(name) else {
            return Err(missing(call, "PoolDataset", call.arg(0)));
        };
        dataset.properties.extend(properties(data));
        for change in data["user_properties_update"].as_array().into_iter().flatten() {
            let key = change["key"].as_str().unwrap_or_default();
            match change["value"].as_str() {
                Some(value) => drop(dataset.properties.insert(key.into(), value.into())),
                None => drop(dataset.properties.remove(key)),
            }
        }
        row(nas, name, dataset)
    };
    nas.events.emit("pool.dataset.query", Change::Changed, name, row.clone());
    Ok(row)
}

fn pool(nas: &Nas) -> Value {
    let name = &nas.zfs.pool;
    json!({
        "id": 1, "name": name, "guid": "12345678901234567890", "path": format!("/mnt/{name}"),
        "status": "ONLINE", "scan": null, "expand": null,
        "topology": {"data": [], "log": [], "cache": [], "spare": [], "special": [], "dedup": []},
        "healthy": true, "warning": false, "status_code": "OK", "status_detail": null,
        "size": SIZE, "allocated": 0, "free": SIZE, "freeing": 0, "dedup_table_size": 0,
        "dedup_table_quota": "auto", "fragmentation": "0", "size_str": SIZE.to_string(),
        "allocated_str": "0", "free_str": SIZE.to_string(), "freeing_str": "0",
        "autotrim": property("off", "off", "off".into(), "DEFAULT"),
    })
}

/// Makes a dataset, and those above it if `ancestors`.
pub async fn create_dataset(
    nas: &Nas,
    name: &str,
    ancestors: bool,
    properties: &[(String, String)],
) -> Result<(), Refused> {
    if nas.faults(|f| f.full) {
        return Err(Refused::Full);
    }
    if ancestors {
        let ends: Vec<usize> = name.match_indices('/').map(|(i, _)| i).collect();
        for end in ends {
            if nas.zfs.tree().get(&name[..end]).is_err() {
                nas.zfs.create(&name[..end], nas.now()).await?;
            }
        }
    }
    nas.zfs.create(name, nas.now()).await?;
    nas.zfs.tree().get_mut(name)?.properties.extend(properties.iter().cloned());
    Ok(())
}
