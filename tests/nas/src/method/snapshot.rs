//! `pool.snapshot.*` and `zfs.snapshot.*`

use serde_json::{Value, json};

use super::rights::{protected, refused};
use super::{missing, query, unhandled};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::release::Release;
use crate::zfs::{Refused, Snapshot, split};

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    super::sync(&call.nas).await;
    let nas = &call.nas;
    let options = call.arg(1);
    let on = |key: &str| options[key] == json!(true);
    match verb {
        "query" => query(call, rows(call)),
        "get_instance" => {
            let found = nas.zfs.tree().find(call.text(0)).map(|s| row(nas, call.text(0), s));
            found.map_err(|_| gone(call))
        }
        "create" => create(call).await,
        "update" => update(call),
        "delete" => {
            protected(nas, "pool.snapshot.delete", call.text(0))?;
            if nas.zfs.tree().find(call.text(0)).is_err() {
                return Err(gone(call));
            }
            super::busy(nas, call.text(0))?;
            for path in family(call, call.text(0), on("recursive")) {
                let how = super::Destroy { defer: on("defer"), clones: false };
                let done = nas.zfs.destroy_snapshot(&path, how).await;
                done.map_err(|r| refused(nas, "delete snapshot", r))?;
                removed(nas, &path);
            }
            Ok(true.into())
        }
        "clone" => {
            let data = call.arg(0);
            let text = |key: &str| data[key].as_str().unwrap_or_default();
            protected(nas, "pool.snapshot.clone", text("snapshot"))?;
            protected(nas, "pool.snapshot.clone", text("dataset_dst"))?;
            let done = super::clone_dataset(nas, text("snapshot"), text("dataset_dst")).await;
            done.map_err(|r| refused(nas, "clone", r))?;
            set(nas, text("dataset_dst"), &data["dataset_properties"]);
            Ok(true.into())
        }
        "rollback" => {
            protected(nas, "pool.snapshot.rollback", call.text(0))?;
            rollback(
                nas,
                call.text(0),
                on("recursive"),
                on("recursive_clones"),
                on("recursive_rollback"),
            )
            .await?;
            Ok(Value::Null)
        }
        "hold" | "release" => {
            protected(nas, &format!("pool.snapshot.{verb}"), call.text(0))?;
            let tag = (verb == "hold").then_some("truenas");
            let done = nas.zfs.hold(call.text(0), tag, verb == "hold", on("recursive"));
            done.map_err(|r| refused(nas, verb, r))?;
            nas.zfs
                .settle(Some(call.text(0).to_owned()))
                .await
                .map_err(|r| refused(nas, verb, r))?;
            Ok(Value::Null)
        }
        "rename" => {
            protected(nas, "pool.snapshot.rename", call.text(0))?;
            let to = options["new_name"].as_str().unwrap_or_default();
            let done = nas.zfs.rename_snapshot(call.text(0), to, on("recursive"));
            done.map_err(|r| refused(nas, "rename", r))?;
            Ok(Value::Null)
        }
        _ => Err(unhandled(call)),
    }
}

/// Takes a dataset back, for every method that can.
pub async fn rollback(
    nas: &Nas,
    path: &str,
    recursive: bool,
    clones: bool,
    children: bool,
) -> Result<(), Fail> {
    let (dataset, name) = split(path).unwrap_or((path, ""));
    let mut all = vec![path.to_owned()];
    if children {
        let below = nas.zfs.tree().below(dataset);
        all.extend(below.iter().map(|d| format!("{d}@{name}")));
    }
    for path in all {
        let used = super::in_use(nas, split(&path).map_or("", |(d, _)| d)).await;
        let done = nas.zfs.rollback(&path, recursive, clones, used).await;
        done.map_err(|r| match r {
            Refused::Clones(path, clones) if !nas.release.is_26() => Fail::fault(format!(
                "Failed to rollback snapshot: clones of '{path}' exist: {}",
                clones.join(", ")
            )),
            other => refused(nas, "rollback snapshot", other),
        })?;
    }
    Ok(())
}

/// The snapshots of this name on a dataset and, if `recursive`, on all below it.
pub fn family(call: &Call, path: &str, recursive: bool) -> Vec<String> {
    let Some((dataset, name)) = split(path) else { return Vec::new() };
    let tree = call.nas.zfs.tree();
    let mut all = vec![path.to_owned()];
    if recursive {
        let below = tree.below(dataset).into_iter().map(|d| format!("{d}@{name}"));
        all.extend(below.filter(|p| tree.find(p).is_ok()));
    }
    all
}

fn gone(call: &Call) -> Fail {
    let class = if call.nas.release == Release::V25_04 { "ZFSSnapshot" } else { "PoolSnapshot" };
    missing(call, class, call.arg(0))
}

async fn create(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let data = call.arg(0);
    let dataset = data["dataset"].as_str().unwrap_or_default();
    protected(nas, "pool.snapshot.create", dataset)?;
    let name = match data["name"].as_str() {
        Some(name) => name.to_owned(),
        None => {
            let (y, m, d, h, min, s) = crate::time::civil(nas.now());
            let pattern = data["naming_schema"].as_str().unwrap_or_default();
            [
                ("%Y", y),
                ("%m", m.into()),
                ("%d", d.into()),
                ("%H", h.into()),
                ("%M", min.into()),
                ("%S", s.into()),
            ]
            .iter()
            .fold(pattern.to_owned(), |t, (k, v)| t.replace(k, &format!("{v:02}")))
        }
    };
    if nas.faults(|f| f.full) {
        return Err(refused(nas, "snapshot", Refused::Full));
    }
    let exclude: Vec<String> = data["exclude"]
        .as_array()
        .map(|a| a.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let recursive = data["recursive"] == json!(true);
    let done = nas.zfs.snapshot(dataset, &name, recursive, &exclude, nas.now()).await;
    done.map_err(|r| refused(nas, "snapshot", r))?;
    let path = format!("{dataset}@{name}");
    set(nas, &path, &data["properties"]);
    added(nas, &path);
    let tree = nas.zfs.tree();
    tree.find(&path).map(|s| row(nas, &path, s)).map_err(|r| refused(nas, "snapshot", r))
}

/// Sets properties on a dataset or snapshot.
pub fn set(nas: &Nas, path: &str, properties: &Value) {
    let all = properties.as_object().into_iter().flatten();
    let all =
        all.map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)));
    let mut tree = nas.zfs.tree();
    match path.contains('@') {
        true => drop(tree.find_mut(path).map(|s| s.properties.extend(all))),
        false => drop(tree.get_mut(path).map(|d| d.properties.extend(all))),
    }
}

fn update(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let data = call.arg(1);
    let mut tree = nas.zfs.tree();
    let Ok(snapshot) = tree.find_mut(call.text(0)) else { return Err(gone(call)) };
    // In 26 it does nothing.
    if !nas.release.is_26() {
        for change in data["user_properties_update"].as_array().into_iter().flatten() {
            let key = change["key"].as_str().unwrap_or_default();
            match change["value"].as_str() {
                Some(value) => drop(snapshot.properties.insert(key.into(), value.into())),
                None => drop(snapshot.properties.remove(key)),
            }
        }
        for key in data["user_properties_remove"].as_array().into_iter().flatten() {
            snapshot.properties.remove(key.as_str().unwrap_or_default());
        }
    }
    let snapshot = snapshot.clone();
    drop(tree);
    Ok(row(nas, call.text(0), &snapshot))
}

fn collection(nas: &Nas) -> &'static str {
    if nas.release == Release::V25_04 { "zfs.snapshot.query" } else { "pool.snapshot.query" }
}

/// Tells that there is a new snapshot.
pub fn added(nas: &Nas, path: &str) {
    let row = nas.zfs.tree().find(path).map(|s| row(nas, path, s)).unwrap_or_default();
    nas.events.emit(collection(nas), Change::Added, path, row);
}

/// Tells that a snapshot is gone.
pub fn removed(nas: &Nas, path: &str) {
    nas.events.emit(collection(nas), Change::Removed, path, Value::Null);
}

fn rows(call: &Call) -> Vec<Value> {
    let nas = &call.nas;
    let extra = &call.arg(1)["extra"];
    let named = |dataset: &str| call.arg(0).to_string().contains(dataset);
    let tree = nas.zfs.tree();
    let (least, most) =
        (extra["min_txg"].as_u64().unwrap_or(0), extra["max_txg"].as_u64().filter(|m| *m > 0));
    let mut rows = Vec::new();
    for (dataset, d) in &tree.datasets {
        let internal = dataset.contains(".truenas_containers");
        if internal && nas.release == Release::V26Rc && nas.traps.on(36) && !named(dataset) {
            continue;
        }
        for s in d.snapshots.iter().filter(|s| s.txg >= least && most.is_none_or(|m| s.txg <= m)) {
            let mut row = row(nas, &format!("{dataset}@{}", s.name), s);
            if extra["holds"] == json!(true) || nas.release.is_26() {
                row["holds"] = holds(s);
            }
            if extra["retention"] == json!(true) {
                row["retention"] = Value::Null;
            }
            rows.push(row);
        }
    }
    rows
}

fn holds(snapshot: &Snapshot) -> Value {
    if snapshot.holds.contains("truenas") { json!({"truenas": 1}) } else { json!({}) }
}

/// A snapshot as the wire shows it.
pub fn row(nas: &Nas, path: &str, snapshot: &Snapshot) -> Value {
    let (dataset, name) = split(path).unwrap_or((path, ""));
    let date = snapshot.created;
    let mut properties = json!({"creation": {
        "value": crate::time::zfs(date), "rawvalue": (date / 1000).to_string(), "source": "NONE",
        "parsed": nas.date(date),
    }});
    let txg = snapshot.txg.to_string();
    if nas.release.is_26() {
        properties["createtxg"] =
            json!({"value": txg, "rawvalue": txg, "source": "NONE", "parsed": snapshot.txg});
    } else {
        for (key, value) in &snapshot.properties {
            properties[key] =
                json!({"value": value, "rawvalue": value, "source": "LOCAL", "parsed": value});
        }
    }
    let txg = if nas.traps.on(40) { Value::from(txg) } else { snapshot.txg.into() };
    json!({
        "id": path, "name": path, "pool": nas.zfs.pool, "type": "SNAPSHOT", "snapshot_name": name,
        "dataset": dataset, "createtxg": txg, "properties": properties,
    })
}
