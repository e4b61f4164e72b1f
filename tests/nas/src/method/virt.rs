//! `virt.global.*` and `virt.instance.*` of 25.x, on the real daemon.

use serde_json::{Map, Value, json};

use super::virt_device::{self, to_engine};
use super::{missing, query, unhandled};
use crate::dispatch::Call;
use crate::engine::Engine;
use crate::event::Change;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::release::Release;

const GLOBAL: &str = "virt.global";

/// The image that there is.
pub const IMAGE: &str = "debian/12";

pub async fn run(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    match call.method.name.as_str() {
        "virt.global.config" => Ok(global(nas)),
        "virt.global.update" => update_global(call),
        "virt.global.pool_choices" => {
            Ok(json!({"[DISABLED]": "[Disabled]", nas.zfs.pool.clone(): nas.zfs.pool}))
        }
        "virt.global.bridge_choices" => Ok(json!({"[AUTO]": "Automatic"})),
        "virt.global.get_network" => network(call),
        "virt.instance.query" => query(call, rows(call).await?),
        "virt.instance.get_instance" => {
            let found = rows(call).await?.into_iter().find(|r| r["id"] == *call.arg(0));
            found.ok_or_else(|| missing(call, "VirtInstance", call.arg(0)))
        }
        "virt.instance.image_choices" => Ok(json!({IMAGE: {
            "label": "Debian bookworm (amd64, default)", "os": "Debian", "release": "bookworm",
            "archs": ["amd64"], "variant": "default", "instance_types": ["CONTAINER", "VM"], "secureboot": null,
        }})),
        "virt.instance.create" => create(call).await,
        "virt.instance.update" => update(call).await,
        "virt.instance.delete" => delete(call).await,
        "virt.instance.start" => start(call).await,
        "virt.instance.stop" => stop(call, false).await,
        "virt.instance.restart" => stop(call, true).await,
        "virt.instance.set_bootable_disk" => {
            existing(call).await?;
            Err(Fail::invalid("virt.instance.set_bootable_disk", "Only supported for VMs"))
        }
        name if name.starts_with("virt.instance.device_") => virt_device::instance(call).await,
        _ => Err(unhandled(call)),
    }
}

/// What `virt.global.config` shows.
pub fn global(nas: &Nas) -> Value {
    let mut row = nas.rows.get(GLOBAL, 1).unwrap_or_default();
    let pool = row["pool"].as_str().map(str::to_owned);
    row["dataset"] = pool.as_ref().map(|p| format!("{p}/.ix-virt")).into();
    if row["state"].is_null() {
        let up = pool.is_some() && nas.engine.is_some();
        row["state"] = if up { "INITIALIZED" } else { "NO_POOL" }.into();
    }
    row
}

/// The daemon, where the pool is chosen and all is up.
pub fn initialized(nas: &Nas) -> Result<&Engine, Fail> {
    if global(nas)["state"] != "INITIALIZED" {
        return Err(Fail::fault("Virtualization not initialized."));
    }
    nas.engine()
}

fn update_global(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let mut change = call.arg(0).clone();
    if change["pool"] == "[DISABLED]" {
        change["pool"] = Value::Null;
    }
    if change["bridge"] == "[AUTO]" {
        change["bridge"] = Value::Null;
    }
    if let Some(pool) = change["pool"].as_str().filter(|p| *p != nas.zfs.pool) {
        let text = format!("Invalid pool: {pool}");
        return Err(Fail::invalid("virt_global_update.pool", text));
    }
    if change["bridge"].is_string() {
        return Err(Fail::invalid("virt_global_update.bridge", "Invalid bridge"));
    }
    let change: Map<String, Value> =
        change.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut change = Value::Object(change);
    // Reading a missing key made it null: keep only what was given.
    if let Some(map) = change.as_object_mut() {
        map.retain(|k, _| call.arg(0).get(k).is_some());
    }
    nas.rows.update(GLOBAL, 1, &change);
    call.progress(100, "Virtualization settings applied");
    Ok(global(nas))
}

fn network(call: &Call) -> Result<Value, Fail> {
    let engine = initialized(&call.nas)?;
    if call.text(0) != "incusbr0" {
        return Err(Fail::Call(2, format!("Network {:?} not found", call.text(0))));
    }
    Ok(json!({
        "type": "BRIDGE", "managed": true, "ipv4_address": format!("{}.1/24", engine.network()),
        "ipv4_nat": true, "ipv6_address": "", "ipv6_nat": false,
    }))
}

async fn rows(call: &Call) -> Result<Vec<Value>, Fail> {
    let nas = &call.nas;
    let Some(engine) = &nas.engine else { return Ok(Vec::new()) };
    if global(nas)["state"] != "INITIALIZED" && nas.traps.on(25) {
        return Ok(Vec::new());
    }
    let raw = [0, 1].iter().any(|i| call.arg(*i)["extra"]["raw"] == json!(true));
    let all = engine.instances().await?;
    Ok(all.iter().map(|instance| row(nas, instance, &instance["state"], raw)).collect())
}

/// One container as a query shows it.
pub async fn entry(nas: &Nas, name: &str) -> Option<Value> {
    let engine = nas.engine.as_ref()?;
    let instance = engine.instance(name).await.ok()??;
    let state = engine.state(name).await.unwrap_or_default();
    Some(row(nas, &instance, &state, false))
}

fn row(nas: &Nas, instance: &Value, state: &Value, raw: bool) -> Value {
    let config = &instance["config"];
    let text = |key: &str| config[key].as_str();
    let name = instance["name"].as_str().unwrap_or_default();
    let running = instance["status"] == "Running";
    let aliases = if running { addresses(state) } else { Vec::new() };
    let environment: Map<String, Value> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.strip_prefix("environment.")?.to_owned(), v.clone())))
        .collect();
    let image = |key: &str| text(&format!("image.{key}"));
    let mut row = json!({
        "id": if nas.traps.on(30) { Value::from(name) } else { 1.into() }, "name": name, "type": "CONTAINER",
        "status": instance["status"].as_str().unwrap_or_default().to_uppercase(),
        "cpu": text("limits.cpu"), "memory": text("limits.memory").and_then(|m| m.parse::<i64>().ok()),
        "autostart": text("user.autostart") == Some("true"), "environment": environment, "aliases": aliases,
        "image": {
            "architecture": image("architecture"), "description": image("description"), "os": image("os"),
            "release": image("release"), "serial": image("serial"), "type": image("type"),
            "variant": image("variant"), "secureboot": null,
        },
        "userns_idmap": running.then(|| idmap(text("volatile.idmap.current").unwrap_or_default())),
        "raw": if raw { instance.clone() } else { Value::Null }, "vnc_enabled": false, "vnc_port": null,
        "vnc_password": null, "secure_boot": null, "root_disk_size": null, "root_disk_io_bus": null,
        "storage_pool": nas.zfs.pool,
    });
    if nas.release >= Release::V25_10 {
        row["privileged_mode"] = (text("security.privileged") == Some("true")).into();
    }
    row
}

fn idmap(text: &str) -> Value {
    let all: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let of = |key: &str| {
        let found = all.iter().find(|m| m[key] == json!(true));
        found.map(|m| json!({"hostid": m["Hostid"], "maprange": m["Maprange"], "nsid": m["Nsid"]}))
    };
    match (of("Isuid"), of("Isgid")) {
        (Some(uid), Some(gid)) => json!({"uid": uid, "gid": gid}),
        _ => Value::Null,
    }
}

fn addresses(state: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for (card, about) in state["network"].as_object().into_iter().flatten() {
        for address in about["addresses"].as_array().into_iter().flatten() {
            if address["scope"] == "global" && card != "lo" {
                let kind = if address["family"] == "inet6" { "INET6" } else { "INET" };
                let mask = address["netmask"].as_str().and_then(|m| m.parse::<i64>().ok());
                found.push(json!({"type": kind, "address": address["address"], "netmask": mask}));
            }
        }
    }
    found
}

/// The container that a call is about, as the daemon has it.
pub async fn existing(call: &Call) -> Result<Value, Fail> {
    let engine = initialized(&call.nas)?;
    let found = engine.instance(call.text(0)).await?;
    found.ok_or_else(|| missing(call, "VirtInstance", call.arg(0)))
}

fn config(data: &Value) -> Map<String, Value> {
    let mut config = Map::new();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    for (key, ours) in [
        ("cpu", "limits.cpu"),
        ("memory", "limits.memory"),
        ("autostart", "user.autostart"),
        ("privileged_mode", "security.privileged"),
    ] {
        match data.get(key) {
            Some(Value::Null) if key == "autostart" => {}
            Some(Value::Null) => drop(config.insert(ours.into(), Value::Null)),
            Some(value) => drop(config.insert(ours.into(), text(value).into())),
            None => {}
        }
    }
    config
}

async fn create(call: &Call) -> Result<Value, Fail> {
    let (nas, data) = (&call.nas, call.arg(0));
    let engine = initialized(nas)?;
    let name = data["name"].as_str().unwrap_or_default();
    let at = |field: &str| format!("virt_instance_create.{field}");
    call.progress(Value::Null, "Creating instance");
    if engine.instance(name).await.is_ok_and(|i| i.is_some()) {
        let errno = if nas.traps.on(24) { 22 } else { 17 };
        return Err(Fail::invalid_errno(
            &at("name"),
            format!("Name {name:?} already exists"),
            errno,
        ));
    }
    limits(data, &at)?;
    if data["storage_pool"].as_str().is_some_and(|p| p != nas.zfs.pool) {
        return Err(Fail::invalid(&at("storage_pool"), "Not a valid ZFS pool"));
    }
    if nas.faults(|f| f.full) {
        return Err(Fail::fault("Failed creating instance: out of space"));
    }
    if data["image"].as_str().map(|i| i.trim_end_matches("/default")) != Some(IMAGE) {
        let text =
            "Failed creating instance: Failed getting image: The requested image couldn't be found";
        return Err(Fail::fault(text));
    }
    let mut config = config(data);
    config.retain(|_, v| !v.is_null());
    for (key, value) in data["environment"].as_object().into_iter().flatten() {
        config.insert(format!("environment.{key}"), value.clone());
    }
    let mut devices = Map::new();
    for device in data["devices"].as_array().into_iter().flatten() {
        let (name, device) = to_engine(nas, engine, device, &devices, &mut config)?;
        devices.insert(name, device);
    }
    let body = json!({
        "name": name, "type": "container", "config": config, "devices": devices, "profiles": ["default"],
        "source": {"type": "image", "alias": IMAGE},
    });
    call.progress(Value::Null, "rootfs: 100% (unpacking)");
    engine.send("POST", "/1.0/instances", body).await.map_err(|f| failed("create", f))?;
    if data["autostart"] != json!(false) {
        prepare(nas, name);
        if let Err(fail) = engine.act(name, "start", -1, false).await {
            let _ = engine.delete(name).await;
            return Err(failed("start", fail));
        }
        settle(nas, name).await;
    }
    super::sync(nas).await;
    let row = entry(nas, name).await.unwrap_or_default();
    nas.events.emit("virt.instance.query", Change::Added, name, row.clone());
    Ok(row)
}

fn limits(data: &Value, at: &impl Fn(&str) -> String) -> Result<(), Fail> {
    let machine = rustix::system::sysinfo();
    let most = machine.totalram as i64 * i64::from(machine.mem_unit);
    if data["memory"].as_i64().is_some_and(|m| m > most) {
        return Err(Fail::invalid(&at("memory"), "Cannot reserve more than physical memory"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if data["cpu"].as_str().and_then(|c| c.parse::<usize>().ok()).is_some_and(|c| c > cores.max(8))
    {
        return Err(Fail::invalid(&at("cpu"), "Cannot reserve more than system cores"));
    }
    Ok(())
}

fn failed(what: &str, fail: Fail) -> Fail {
    let text = match fail {
        Fail::Call(_, text) => text,
        other => other.reason(),
    };
    Fail::fault(format!("Failed to {what} instance: {text}. Please check job logs."))
}

/// Writes into a guest what faults on demand ask for.
pub fn prepare(nas: &Nas, name: &str) {
    let root = nas.zfs.storage.here(&format!("/mnt/incus/containers/{name}/rootfs"));
    let (dhcp, sshd) = nas.faults(|f| (f.dhcp_delay, f.sshd_delay));
    super::container::write(
        &root,
        "/etc/sshd-delay",
        &match sshd.is_zero() {
            true => String::new(),
            false => format!("{}\n", sshd.as_secs_f64()),
        },
    );
    let wait = match dhcp.is_zero() {
        true => String::new(),
        false => format!("  pre-up sleep {}\n", dhcp.as_secs_f64()),
    };
    let text = format!("auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n{wait}");
    super::container::write(&root, "/etc/network/interfaces", &text);
}

/// Without trap 27 a start ends only when there is an address.
async fn settle(nas: &Nas, name: &str) {
    let Some(engine) = nas.engine.as_ref().filter(|_| !nas.traps.on(27)) else { return };
    for _ in 0..400 {
        if !addresses(&engine.state(name).await.unwrap_or_default()).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn update(call: &Call) -> Result<Value, Fail> {
    let (nas, name, data) = (&call.nas, call.text(0), call.arg(1));
    existing(call).await?;
    limits(data, &|field| format!("virt_instance_update.{field}"))?;
    let engine = nas.engine()?;
    engine
        .edit(name, |whole| {
            for (key, value) in config(data) {
                match value {
                    Value::Null => drop(whole["config"].as_object_mut().map(|c| c.remove(&key))),
                    value => whole["config"][key] = value,
                }
            }
            if let (Some(new), Some(config)) =
                (data["environment"].as_object(), whole["config"].as_object_mut())
            {
                config.retain(|k, _| !k.starts_with("environment."));
                config.extend(new.iter().map(|(k, v)| (format!("environment.{k}"), v.clone())));
            }
        })
        .await?;
    let row = entry(nas, name).await.unwrap_or_default();
    nas.events.emit("virt.instance.query", Change::Changed, name, row.clone());
    Ok(row)
}

async fn delete(call: &Call) -> Result<Value, Fail> {
    let (nas, name) = (&call.nas, call.text(0));
    let found = existing(call).await?;
    let engine = nas.engine()?;
    if found["status"] != "Stopped" {
        engine.act(name, "stop", -1, true).await.map_err(|f| failed("stop", f))?;
    }
    super::busy(nas, &format!("{}/{name}", super::parent(nas)))?;
    engine.delete(name).await.map_err(|f| failed("delete", f))?;
    super::sync(nas).await;
    nas.events.emit("virt.instance.query", Change::Removed, name, Value::Null);
    Ok(true.into())
}

async fn start(call: &Call) -> Result<Value, Fail> {
    let (nas, name) = (&call.nas, call.text(0));
    existing(call).await?;
    prepare(nas, name);
    let done = nas.engine()?.act(name, "start", -1, false).await;
    done.map_err(|f| failed("start", f))?;
    settle(nas, name).await;
    Ok(true.into())
}

async fn stop(call: &Call, again: bool) -> Result<Value, Fail> {
    let (nas, name, data) = (&call.nas, call.text(0), call.arg(1));
    let found = existing(call).await?;
    if again && found["status"] != "Running" {
        return Err(Fail::invalid(
            &format!("virt.instance.restart.{name}"),
            format!("{name}: instance is not running"),
        ));
    }
    let (timeout, force) = (data["timeout"].as_i64().unwrap_or(-1), data["force"] == json!(true));
    let action = if again { "restart" } else { "stop" };
    let done = nas.engine()?.act(name, action, timeout, force).await;
    done.map_err(|f| failed(action, f))?;
    Ok(true.into())
}
