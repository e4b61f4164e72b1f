//! `zfs.resource.*`

use serde_json::{Value, json};

use super::rights::{hidden, protected, refused};
use super::{missing, snapshot, unhandled};
use crate::dispatch::Call;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::zfs::{Dataset, Refused, Snapshot, split};

pub async fn run(call: &Call) -> Result<Value, Fail> {
    super::sync(&call.nas).await;
    let nas = &call.nas;
    let name = call.method.name.as_str();
    let data = call.arg(0);
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    let on = |key: &str| data[key] == json!(true);
    match name.trim_start_matches("zfs.resource.") {
        "query" => Ok(query(nas, data)),
        "snapshot.query" => Ok(snapshots(nas, data)),
        "snapshot.count" => {
            let mut counts = serde_json::Map::new();
            for row in snapshots(nas, data).as_array().into_iter().flatten() {
                let dataset = row["dataset"].as_str().unwrap_or_default();
                let count = counts.get(dataset).and_then(Value::as_u64).unwrap_or(0);
                counts.insert(dataset.to_owned(), (count + 1).into());
            }
            Ok(counts.into())
        }
        "snapshot.holds" => {
            let tree = nas.zfs.tree();
            let found = tree.find(text("path")).map_err(|r| refused(nas, "holds", r))?;
            Ok(json!(found.holds))
        }
        "destroy" => {
            protected(nas, name, text("path"))?;
            if nas.zfs.tree().get(text("path")).is_err() {
                return Err(refused(nas, "destroy", Refused::Missing(text("path").into())));
            }
            super::busy(nas, text("path"))?;
            let done =
                super::destroy_dataset(nas, text("path"), on("recursive"), on("recursive")).await;
            done.map_err(|r| refused(nas, "destroy", r))?;
            Ok(Value::Null)
        }
        "snapshot.create" => {
            let (dataset, snap) = (text("dataset"), text("name"));
            protected(nas, name, dataset)?;
            let exclude: Vec<String> = data["exclude"]
                .as_array()
                .map(|a| a.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            let done = nas.zfs.snapshot(dataset, snap, on("recursive"), &exclude, nas.now()).await;
            done.map_err(|r| refused(nas, "snapshot", r))?;
            let path = format!("{dataset}@{snap}");
            snapshot::set(nas, &path, &data["user_properties"]);
            snapshot::added(nas, &path);
            let tree = nas.zfs.tree();
            tree.find(&path)
                .map(|s| row(nas, &path, s, data))
                .map_err(|r| refused(nas, "snapshot", r))
        }
        "snapshot.destroy" => {
            protected(nas, name, text("path"))?;
            let all = match on("all_snapshots") {
                true => {
                    let tree = nas.zfs.tree();
                    let dataset = tree.get(text("path")).map_err(|r| refused(nas, "destroy", r))?;
                    dataset
                        .snapshots
                        .iter()
                        .map(|s| format!("{}@{}", text("path"), s.name))
                        .collect()
                }
                false => snapshot::family(call, text("path"), on("recursive")),
            };
            for path in all {
                let how = super::Destroy { defer: on("defer"), clones: false };
                let done = nas.zfs.destroy_snapshot(&path, how).await;
                done.map_err(|r| match r {
                    Refused::Missing(path) => missing(call, "PoolSnapshot", &path.into()),
                    other => refused(nas, "destroy", other),
                })?;
                snapshot::removed(nas, &path);
            }
            Ok(Value::Null)
        }
        "snapshot.clone" => {
            protected(nas, name, text("snapshot"))?;
            protected(nas, name, text("dataset"))?;
            let done = super::clone_dataset(nas, text("snapshot"), text("dataset")).await;
            done.map_err(|r| refused(nas, "zfs.resource.snapshot.clone", r))?;
            snapshot::set(nas, text("dataset"), &data["properties"]);
            Ok(Value::Null)
        }
        "snapshot.rollback" => {
            protected(nas, name, text("path"))?;
            let flags = (on("recursive"), on("recursive_clones"), on("recursive_rollback"));
            snapshot::rollback(nas, text("path"), flags.0, flags.1, flags.2).await?;
            Ok(Value::Null)
        }
        "snapshot.rename" => {
            protected(nas, name, text("current_name"))?;
            let done =
                nas.zfs.rename_snapshot(text("current_name"), text("new_name"), on("recursive"));
            done.map_err(|r| refused(nas, "rename", r))?;
            Ok(Value::Null)
        }
        "snapshot.hold" | "snapshot.release" => {
            protected(nas, name, text("path"))?;
            let hold = name.ends_with("hold");
            let done = nas.zfs.hold(text("path"), data["tag"].as_str(), hold, on("recursive"));
            done.map_err(|r| refused(nas, "hold", r))?;
            let settled = nas.zfs.settle(Some(text("path").to_owned())).await;
            settled.map_err(|r| refused(nas, "release", r))?;
            Ok(Value::Null)
        }
        _ => Err(unhandled(call)),
    }
}

fn paths(data: &Value) -> Vec<&str> {
    data["paths"]
        .as_array()
        .map(|p| p.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn value(raw: &str, value: Value) -> Value {
    json!({"raw": raw, "source": null, "value": value})
}

/// What of the properties was asked for: an empty list means all, null none.
fn wanted(mut all: Value, data: &Value) -> Value {
    if let Some(map) = all.as_object_mut() {
        match data.get("properties") {
            Some(Value::Null) => map.clear(),
            Some(Value::Array(names)) if !names.is_empty() => {
                map.retain(|key, _| names.iter().any(|n| n == key));
            }
            _ => {}
        }
        if data["get_source"] == json!(true) {
            for property in map.values_mut() {
                property["source"] = json!({"type": "NONE", "value": null});
            }
        }
    }
    all
}

fn user(all: &std::collections::BTreeMap<String, String>, wanted: bool) -> Value {
    if wanted {
        json!(
            all.iter()
                .filter(|(k, _)| k.contains(':'))
                .collect::<std::collections::BTreeMap<_, _>>()
        )
    } else {
        Value::Null
    }
}

fn query(nas: &Nas, data: &Value) -> Value {
    let (paths, tree) = (paths(data), nas.zfs.tree());
    let deep = data["get_children"] == json!(true);
    let depth = data["max_depth"].as_u64().filter(|d| *d > 0).unwrap_or(u64::MAX);
    let near = |name: &str, top: &str| name[top.len()..].matches('/').count() as u64 <= depth;
    let shown = |name: &str| match paths.is_empty() {
        true => !hidden(nas, name) && (deep || !name.contains('/')) && near(name, ""),
        false => paths.iter().any(|p| {
            name == *p
                || (deep
                    && name.starts_with(&format!("{p}/"))
                    && near(name, p)
                    && !hidden(nas, name))
        }),
    };
    let (total, free) = super::dataset::space(nas);
    let one = |(name, d): (&String, &Dataset)| {
        let mount = super::mountpoint(nas, name, &d.folder);
        let seconds = d.created / 1000;
        json!({
            "createtxg": d.txg, "guid": d.guid, "name": name, "pool": nas.zfs.pool, "type": "FILESYSTEM",
            "properties": wanted(json!({
                "creation": value(&seconds.to_string(), seconds.into()), "mounted": value("yes", true.into()),
                "mountpoint": value(&mount, mount.as_str().into()), "used": value(&(total - free).to_string(), (total - free).into()),
                "referenced": value("98304", 98304.into()), "available": value(&free.to_string(), free.into()),
                "origin": value(d.origin.as_deref().unwrap_or(""), json!(d.origin)), "type": value("filesystem", "filesystem".into()),
                "compression": value(text(d, "compression", "lz4"), text(d, "compression", "lz4").into()),
                "readonly": value(text(d, "readonly", "off"), (text(d, "readonly", "off") == "on").into()),
                "quota": value("0", 0.into()), "refquota": value("0", 0.into()),
                "recordsize": value("131072", 131_072.into()), "encryption": value("off", Value::Null),
            }), data),
            "user_properties": user(&d.properties, data["get_user_properties"] == json!(true)),
            "children": null,
        })
    };
    let rows: Vec<Value> = tree.datasets.iter().filter(|(n, _)| shown(n)).map(one).collect();
    if data["nest_results"] == json!(true) { nest(rows) } else { rows.into() }
}

/// Rows within the rows that they are below of.
fn nest(rows: Vec<Value>) -> Value {
    let mut done: Vec<Value> = Vec::new();
    // Children come after their parents: from the end, each is whole before it is moved.
    let mut rows = rows;
    while let Some(mut row) = rows.pop() {
        if row["children"].is_null() {
            row["children"] = json!([]);
        }
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        let above = name.rsplit_once('/').map_or("", |(p, _)| p);
        match rows.iter_mut().find(|r| r["name"] == above) {
            Some(parent) => {
                if parent["children"].is_null() {
                    parent["children"] = json!([]);
                }
                if let Some(children) = parent["children"].as_array_mut() {
                    children.insert(0, row);
                }
            }
            None => done.insert(0, row),
        }
    }
    done.into()
}

fn text<'a>(dataset: &'a Dataset, key: &str, default: &'a str) -> &'a str {
    dataset.properties.get(key).map_or(default, String::as_str)
}

fn snapshots(nas: &Nas, data: &Value) -> Value {
    let (paths, tree) = (paths(data), nas.zfs.tree());
    let deep = data["recursive"] == json!(true);
    let (least, most) =
        (data["min_txg"].as_u64().unwrap_or(0), data["max_txg"].as_u64().filter(|m| *m > 0));
    let mut rows = Vec::new();
    for (dataset, d) in &tree.datasets {
        for s in d.snapshots.iter().filter(|s| s.txg >= least && most.is_none_or(|m| s.txg <= m)) {
            let path = format!("{dataset}@{}", s.name);
            let shown = match paths.is_empty() {
                true => !hidden(nas, dataset),
                false => paths.iter().any(|p| {
                    path == *p
                        || dataset == p
                        || (deep && dataset.starts_with(&format!("{p}/")) && !hidden(nas, dataset))
                }),
            };
            if shown {
                rows.push(row(nas, &path, s, data));
            }
        }
    }
    rows.into()
}

fn row(nas: &Nas, path: &str, s: &Snapshot, data: &Value) -> Value {
    let (dataset, name) = split(path).unwrap_or((path, ""));
    let seconds = s.created / 1000;
    json!({
        "createtxg": s.txg, "guid": s.guid, "name": path, "pool": nas.zfs.pool, "dataset": dataset,
        "snapshot_name": name, "type": "SNAPSHOT",
        "holds": if data["get_holds"] == json!(true) { json!(s.holds) } else { Value::Null },
        "properties": wanted(json!({
            "type": value("snapshot", "snapshot".into()), "creation": value(&seconds.to_string(), seconds.into()),
            "used": value("0", 0.into()), "referenced": value("0", 0.into()),
            "createtxg": value(&s.txg.to_string(), s.txg.into()), "guid": value(&s.guid.to_string(), s.guid.into()),
        }), data),
        "user_properties": user(&s.properties, data["get_user_properties"] == json!(true)),
    })
}
