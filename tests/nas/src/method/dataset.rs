//! `pool.*` and `pool.dataset.*`, and what else makes and moves datasets.

use serde_json::{Value, json};

use super::rights::{self, refused};
use super::{instance, missing, query, unhandled};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::zfs::{Dataset, Refused, human};

/// An empty dataset takes this much.
pub const EMPTY: i64 = 96 << 10;

/// How much room the pool has, and how much of it is free.
pub fn space(nas: &Nas) -> (i64, i64) {
    let folder = nas.zfs.storage.here(&nas.zfs.mount);
    let Ok(found) = rustix::fs::statvfs(&folder) else { return (0, 0) };
    let bytes = |blocks: u64| (blocks * found.f_frsize) as i64;
    match nas.faults(|f| f.full) {
        true => (bytes(found.f_blocks), 0),
        false => (bytes(found.f_blocks), bytes(found.f_bavail)),
    }
}

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
    let space = space(nas);
    let mut rows: Vec<Value> = shown.map(|(n, d)| row(nas, n, d, space)).collect();
    let extra = [0, 1].map(|i| &call.arg(i)["extra"]);
    let off = |key: &str| extra.iter().any(|e| e[key] == json!(false));
    if !off("retrieve_children") {
        // Each holds all below it, and unless asked otherwise those are rows of their own, too.
        for i in (0..rows.len()).rev() {
            let name = rows[i]["name"].as_str().unwrap_or_default().to_owned();
            let below = |r: &&Value| {
                let rest =
                    r["name"].as_str().and_then(|n| n.strip_prefix(&name)?.strip_prefix('/'));
                rest.is_some_and(|rest| !rest.contains('/'))
            };
            let children: Vec<Value> = rows[i + 1..].iter().filter(below).cloned().collect();
            rows[i]["children"] = children.into();
        }
    }
    if off("flat") {
        rows.retain(|r| r["name"].as_str().is_some_and(|n| !n.contains('/')));
    }
    rows
}

/// A value as `zfs` properties are shown.
pub fn property(value: &str, raw: &str, parsed: Value, source: &str) -> Value {
    json!({"value": value, "rawvalue": raw, "parsed": parsed, "source": source, "source_info": null})
}

fn row(nas: &Nas, name: &str, dataset: &Dataset, (total, free): (i64, i64)) -> Value {
    let size = |n: i64| property(&human(n), &n.to_string(), n.into(), "NONE");
    let used = if name.contains('/') { EMPTY } else { (total - free).max(EMPTY) };
    let none = |key: &str| match dataset.properties.get(key).and_then(|v| v.parse::<i64>().ok()) {
        Some(n) if n > 0 => property(&human(n), &n.to_string(), n.into(), "LOCAL"),
        _ => property("none", "0", Value::Null, "DEFAULT"),
    };
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
    let number = |n: i64| property(&n.to_string(), &n.to_string(), n.into(), "DEFAULT");
    let nothing = property("", "", Value::Null, "INHERITED");
    let mut row = json!({
        "id": name, "type": "FILESYSTEM", "name": name, "pool": nas.zfs.pool, "encrypted": false,
        "encryption_root": null, "key_loaded": false, "children": [], "user_properties": user,
        "locked": false, "mountpoint": super::mountpoint(nas, name, &dataset.folder),
        "origin": property(&origin, &origin, origin.as_str().into(), "NONE"),
        "used": size(used), "available": size(free), "usedbysnapshots": size(0), "referenced": size(EMPTY),
        "usedbychildren": size(used - EMPTY), "usedbydataset": size(EMPTY), "usedbyrefreservation": size(0),
        "creation": property(&crate::time::zfs(created), &(created / 1000).to_string(), nas.date(created), "NONE"),
        "comments": text("comments", ""), "quota": none("quota"), "refquota": none("refquota"),
        "readonly": text("readonly", "off"), "atime": text("atime", "off"), "sync": text("sync", "standard"),
        "compression": text("compression", "lz4"), "deduplication": text("deduplication", "off"),
        "exec": text("exec", "on"), "recordsize": text("recordsize", "128K"),
        "reservation": none("reservation"), "refreservation": none("refreservation"),
        "aclmode": text("aclmode", "discard"), "acltype": text("acltype", "posix"),
        "xattr": text("xattr", "sa"), "casesensitivity": text("casesensitivity", "sensitive"),
        "checksum": text("checksum", "on"), "copies": text("copies", "1"),
        "snapdir": text("snapdir", "hidden"), "snapdev": text("snapdev", "hidden"),
    });
    // `json!` takes only so much at once.
    for (key, value) in [
        ("compressratio", property("1.00x", "1.00", "1.00".into(), "NONE")),
        ("special_small_block_size", property("0", "0", "0".into(), "DEFAULT")),
        ("key_format", property("none", "none", Value::Null, "DEFAULT")),
        ("encryption_algorithm", property("off", "off", Value::Null, "DEFAULT")),
        ("pbkdf2iters", property("0", "0", "0".into(), "DEFAULT")),
        ("quota_warning", number(80)),
        ("quota_critical", number(95)),
        ("refquota_warning", number(80)),
        ("refquota_critical", number(95)),
        ("managedby", nothing),
    ] {
        row[key] = value;
    }
    if let Some(bytes) = dataset.properties.get("volsize").and_then(|s| s.parse::<i64>().ok()) {
        row["type"] = "VOLUME".into();
        row["mountpoint"] = Value::Null;
        row["volsize"] = property(&human(bytes), &bytes.to_string(), bytes.into(), "LOCAL");
        row["volblocksize"] = text("volblocksize", "16K");
        row["sparse"] = none("sparse");
        for key in ["recordsize", "quota", "refquota", "atime", "exec", "aclmode", "acltype"] {
            row.as_object_mut().map(|r| r.remove(key));
        }
    }
    row
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
    let volume = data["type"] == "VOLUME";
    if volume && data["volsize"].is_null() {
        return Err(Fail::invalid("pool_dataset_create.volsize", "Field required"));
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
    let mut properties = properties(data);
    if volume {
        let size = data["volsize"].as_i64().unwrap_or_default();
        let block = data["volblocksize"].as_str().unwrap_or("16K").to_owned();
        properties.extend([("volsize".into(), size.to_string()), ("volblocksize".into(), block)]);
    }
    let done = create_dataset(nas, name, ancestors, &properties).await;
    done.map_err(|r| refused(nas, "pool_dataset", r))?;
    let row = {
        let space = space(nas);
        nas.zfs.tree().get(name).map(|d| row(nas, name, d, space)).unwrap_or_default()
    };
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
        "acltype",
        "aclmode",
        "reservation",
        "refreservation",
        "copies",
        "snapdir",
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
    let space = space(nas);
    let row = {
        let mut tree = nas.zfs.tree();
        let Ok(dataset) = tree.get_mut(name) else {
            return Err(missing(call, "PoolDataset", call.arg(0)));
        };
        dataset.properties.extend(properties(data));
        if let Some(size) = data["volsize"].as_i64() {
            dataset.properties.insert("volsize".into(), size.to_string());
        }
        for change in data["user_properties_update"].as_array().into_iter().flatten() {
            let key = change["key"].as_str().unwrap_or_default();
            match change["value"].as_str() {
                Some(value) => drop(dataset.properties.insert(key.into(), value.into())),
                None => drop(dataset.properties.remove(key)),
            }
        }
        row(nas, name, dataset, space)
    };
    nas.events.emit("pool.dataset.query", Change::Changed, name, row.clone());
    Ok(row)
}

fn pool(nas: &Nas) -> Value {
    let name = &nas.zfs.pool;
    let (total, free) = space(nas);
    let allocated = total - free;
    let disk = json!({
        "name": "9d2a6c1e-3b52-4f0e-8a53-0f6f6b1f0a01", "type": "DISK", "path": "/dev/disk/by-partuuid/9d2a6c1e-3b52-4f0e-8a53-0f6f6b1f0a01",
        "guid": "9876543210987654321", "status": "ONLINE",
        "stats": {
            "timestamp": 0, "read_errors": 0, "write_errors": 0, "checksum_errors": 0, "ops": [0, 0, 0, 0, 0, 0, 0],
            "bytes": [0, 0, 0, 0, 0, 0, 0], "size": total, "allocated": allocated, "fragmentation": 0,
            "self_healed": 0, "configured_ashift": 12, "logical_ashift": 9, "physical_ashift": 12,
        },
        "children": [], "device": "sda1", "disk": "sda", "unavail_disk": null,
    });
    json!({
        "id": 1, "name": name, "guid": "12345678901234567890", "path": format!("/mnt/{name}"),
        "status": "ONLINE", "scan": null, "expand": null,
        "topology": {"data": [disk], "log": [], "cache": [], "spare": [], "special": [], "dedup": []},
        "healthy": true, "warning": false, "status_code": "OK", "status_detail": null,
        "size": total, "allocated": allocated, "free": free, "freeing": 0, "dedup_table_size": 0,
        "dedup_table_quota": "auto", "fragmentation": "0", "size_str": total.to_string(),
        "allocated_str": allocated.to_string(), "free_str": free.to_string(), "freeing_str": "0",
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
    // A volume is no folder that one sees.
    let volume = properties.iter().any(|(k, _)| k == "volsize");
    let folder = volume.then(|| nas.zfs.hidden());
    nas.zfs.create_at(name, folder, nas.now()).await?;
    nas.zfs.tree().get_mut(name)?.properties.extend(properties.iter().cloned());
    Ok(())
}
