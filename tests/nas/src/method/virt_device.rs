//! The devices of 25.x' containers, and `virt.device.*`.

use serde_json::{Map, Value, json};

use super::network::CARD;
use super::{unhandled, virt, volume};
use crate::dispatch::Call;
use crate::engine::Engine;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::release::Release;

/// Where a device's own words are kept in the instance's configuration.
const KEPT: &str = "user.nas-sim.";

pub fn run(call: &Call) -> Result<Value, Fail> {
    match call.method.name.as_str() {
        "virt.device.nic_choices" => Ok(match call.text(0) {
            "MACVLAN" => json!({CARD: CARD}),
            _ => json!({}),
        }),
        "virt.device.disk_choices" => {
            let all = volume::zvols(&call.nas).into_iter();
            Ok(all.map(|z| (z.clone(), z.into())).collect::<Map<_, _>>().into())
        }
        "virt.device.usb_choices" | "virt.device.pci_choices" => Ok(json!({})),
        "virt.device.gpu_choices" => Ok(json!({})),
        _ => Err(unhandled(call)),
    }
}

pub async fn instance(call: &Call) -> Result<Value, Fail> {
    let found = virt::existing(call).await?;
    let verb = call.method.name.rsplit('.').next().unwrap_or_default();
    match verb {
        "device_list" => return Ok(list(&call.nas, &found)),
        "device_add" | "device_update" => change(call, &found, verb == "device_update").await?,
        _ => remove(call, &found).await?,
    }
    Ok(if call.nas.traps.on(29) { true.into() } else { 1.into() })
}

fn list(nas: &Nas, found: &Value) -> Value {
    let own = &found["devices"];
    let readonly = nas.traps.on(28);
    let mut all = Vec::new();
    let inherited = found["expanded_devices"].as_object().into_iter().flatten();
    for (name, device) in inherited.filter(|(n, _)| own.get(n.as_str()).is_none()) {
        if device["type"] == "nic" {
            let mut nic = json!({
                "name": name, "description": "incusbr0", "readonly": readonly, "dev_type": "NIC",
                "network": "incusbr0", "nic_type": null, "parent": null,
            });
            if nas.release >= Release::V25_10 {
                nic["mac"] = Value::Null;
            }
            all.push(nic);
        }
    }
    all.push(json!({
        "name": "root", "description": "None -> /", "readonly": false, "dev_type": "DISK", "source": null,
        "destination": "/", "boot_priority": null, "io_bus": null, "storage_pool": nas.zfs.pool,
    }));
    for (name, _) in own.as_object().into_iter().flatten().filter(|(n, _)| *n != "root") {
        let kept = found["config"][format!("{KEPT}{name}")].as_str().unwrap_or("{}");
        if let Ok(mut device) = serde_json::from_str::<Value>(kept) {
            device["name"] = name.as_str().into();
            device["readonly"] = false.into();
            let text = |key: &str| device[key].as_str().unwrap_or("None").to_owned();
            device["description"] = match device["dev_type"].as_str() {
                Some("DISK") => format!("{} -> {}", text("source"), text("destination")).into(),
                Some("NIC") => device["network"].clone(),
                Some("PROXY") => format!(
                    "{}/{} -> {}/{}",
                    text("source_proto"),
                    device["source_port"],
                    text("dest_proto"),
                    device["dest_port"]
                )
                .into(),
                _ => Value::Null,
            };
            all.push(device);
        }
    }
    all.into()
}

/// A device in the daemon's words, and its name. Its own words go to `config`.
pub fn to_engine(
    nas: &Nas,
    engine: &Engine,
    device: &Value,
    others: &Map<String, Value>,
    config: &mut Map<String, Value>,
) -> Result<(String, Value), Fail> {
    let text = |key: &str| device[key].as_str().unwrap_or_default();
    let stem = match text("dev_type") {
        "DISK" => "disk",
        "NIC" => "eth",
        "PROXY" => "proxy",
        other => {
            return Err(Fail::fault(format!("{other} devices are not simulated")));
        }
    };
    let free = |n: &usize| !others.contains_key(&format!("{stem}{n}"));
    let name = match device["name"].as_str() {
        Some(name) => name.to_owned(),
        None => format!("{stem}{}", (0..).find(free).unwrap_or_default()),
    };
    let theirs = match text("dev_type") {
        "DISK" => {
            let source = text("source");
            if !source.starts_with("/mnt/") {
                return Err(Fail::invalid("source", "Only pool paths are allowed."));
            }
            if source.starts_with("/mnt/.ix-apps") {
                return Err(Fail::invalid("source", "Invalid source"));
            }
            if text("destination").is_empty() {
                return Err(Fail::invalid(
                    "destination",
                    "Destination is required for containers.",
                ));
            }
            if nas.host.look(source).is_err() {
                return Err(Fail::invalid("source", "Source path does not exist."));
            }
            json!({"type": "disk", "source": format!("/mnt/host{source}"), "path": text("destination")})
        }
        "NIC" => {
            if device["nic_type"].is_null() {
                return Err(Fail::Raised(
                    "AttributeError",
                    "'NoneType' object has no attribute 'lower'".into(),
                ));
            }
            let choices: &[&str] = if text("nic_type") == "MACVLAN" { &[CARD] } else { &[] };
            if !choices.contains(&text("parent")) {
                return Err(Fail::invalid("parent", "Invalid parent interface"));
            }
            // Everybody is on the one network that there is.
            let mut nic = json!({"type": "nic", "network": engine.bridge, "name": name});
            if let Some(mac) = device["mac"].as_str() {
                nic["hwaddr"] = mac.into();
            }
            nic
        }
        _ => json!({
            "type": "proxy", "bind": "host",
            "listen": format!("{}:0.0.0.0:{}", text("source_proto").to_lowercase(), device["source_port"]),
            "connect": format!("{}:0.0.0.0:{}", text("dest_proto").to_lowercase(), device["dest_port"]),
        }),
    };
    config.insert(format!("{KEPT}{name}"), device.to_string().into());
    Ok((name, theirs))
}

async fn change(call: &Call, found: &Value, exists: bool) -> Result<(), Fail> {
    let nas = &call.nas;
    let engine = nas.engine()?;
    let none = Map::new();
    let own = found["devices"].as_object().unwrap_or(&none);
    let device = call.arg(1);
    if exists && device["name"].as_str().is_none_or(|n| !own.contains_key(n)) {
        return Err(Fail::Call(2, "Device not found.".into()));
    }
    let mut taken = own.clone();
    if let Some(expanded) = found["expanded_devices"].as_object() {
        taken.extend(expanded.clone());
    }
    let mut config = Map::new();
    let (name, theirs) = to_engine(nas, engine, device, &taken, &mut config)?;
    if !exists && own.contains_key(&name) {
        return Err(Fail::invalid("virt_device_add.name", "Name already exists"));
    }
    engine
        .edit(call.text(0), |whole| {
            whole["devices"][name] = theirs;
            for (key, value) in config {
                whole["config"][key] = value;
            }
        })
        .await
}

async fn remove(call: &Call, found: &Value) -> Result<(), Fail> {
    let name = call.text(1);
    if found["devices"].get(name).is_none() {
        let inherited = found["expanded_devices"].get(name).is_some();
        return Err(match inherited {
            true => Fail::fault("Device cannot be deleted, it is inherited from the profile."),
            false => Fail::Call(2, "Device not found.".into()),
        });
    }
    call.nas
        .engine()?
        .edit(call.text(0), |whole| {
            whole["devices"].as_object_mut().map(|d| d.remove(name));
            whole["config"].as_object_mut().map(|c| c.remove(&format!("{KEPT}{name}")));
        })
        .await
}
