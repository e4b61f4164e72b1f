//! `container.device.*`

use serde_json::{Map, Value, json};

use super::network::CARD;
use super::{engine_name, instance, missing, query, unhandled};
use crate::dispatch::Call;
use crate::fail::Fail;
use crate::nas::Nas;
use crate::release::Release;

/// The rows' table.
pub const TABLE: &str = "container.device";
/// The bridge, as 26 calls it.
pub const BRIDGE: &str = "truenasbr0";

pub async fn run(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    match call.method.name.trim_start_matches("container.device.") {
        "query" => query(call, nas.rows.all(TABLE)),
        "get_instance" => instance(call, "ContainerDevice", nas.rows.all(TABLE)),
        "nic_attach_choices" => Ok(json!({"BRIDGE": [BRIDGE], "MACVLAN": [CARD]})),
        "usb_choices" | "gpu_choices" => Ok(json!({})),
        "create" => {
            let data = call.arg(0);
            let owner = data["container"].clone();
            if !nas.rows.all("container").iter().any(|r| r["id"] == owner) {
                return Err(missing(call, "Container", &owner));
            }
            let attributes = complete(nas, data["attributes"].clone(), "container_device_create")?;
            Ok(nas.rows.add(TABLE, json!({"container": owner, "attributes": attributes})))
        }
        "update" => update(call),
        "delete" => delete(call).await,
        _ => Err(unhandled(call)),
    }
}

fn complete(nas: &Nas, mut attributes: Value, at: &str) -> Result<Value, Fail> {
    let wrong = |field: &str, text: &str| Fail::invalid(&format!("{at}.attributes.{field}"), text);
    match attributes["dtype"].as_str() {
        Some("NIC") => {
            let random = crate::random::bytes(3);
            match attributes["mac"].as_str().map(str::to_lowercase) {
                None => {
                    let mac =
                        format!("00:a0:98:{:02x}:{:02x}:{:02x}", random[0], random[1], random[2]);
                    attributes["mac"] = mac.into();
                }
                Some(mac) if nas.release == Release::V26Rc => {
                    let hex: String = mac.chars().filter(char::is_ascii_hexdigit).collect();
                    if hex.len() != 12
                        || mac.chars().any(|c| !c.is_ascii_hexdigit() && !":-.".contains(c))
                    {
                        return Err(wrong("mac", "MAC address is not valid."));
                    }
                    let pairs: Vec<&str> = (0..6).map(|i| &hex[i * 2..i * 2 + 2]).collect();
                    attributes["mac"] = pairs.join(":").into();
                }
                Some(_) => {}
            }
            match attributes["nic_attach"].as_str() {
                None => attributes["nic_attach"] = BRIDGE.into(),
                Some(name) if [BRIDGE, CARD].contains(&name) => {}
                Some(_) => return Err(wrong("nic_attach", "Not a valid choice.")),
            }
        }
        Some("FILESYSTEM") => {
            let source = attributes["source"].as_str().unwrap_or_default();
            if !source.starts_with("/mnt/") || source.starts_with("/mnt/.") {
                return Err(wrong("source", "The path must reside within a pool mount point"));
            }
            if nas.host.look(source).is_err() {
                return Err(wrong("source", "Source path does not exist."));
            }
        }
        _ => return Err(wrong("dtype", "This kind of device is not simulated.")),
    }
    Ok(attributes)
}

fn update(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let old = nas
        .rows
        .get(TABLE, call.number(0))
        .ok_or_else(|| missing(call, "ContainerDevice", call.arg(0)))?;
    let mut attributes = old["attributes"].clone();
    for (key, value) in call.arg(1)["attributes"].as_object().into_iter().flatten() {
        if key == "dtype" && attributes["dtype"] != *value {
            return Err(Fail::invalid(
                "container_device_update.attributes.dtype",
                "Device type cannot be changed",
            ));
        }
        attributes[key] = value.clone();
    }
    let attributes = complete(nas, attributes, "container_device_update")?;
    let changed = nas.rows.update(TABLE, call.number(0), &json!({"attributes": attributes}));
    Ok(changed.unwrap_or_default())
}

async fn delete(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    let row = nas
        .rows
        .get(TABLE, call.number(0))
        .ok_or_else(|| missing(call, "ContainerDevice", call.arg(0)))?;
    let owner = json!({"id": row["container"]});
    if nas.engine()?.running(&engine_name(&owner)).await {
        return Err(Fail::fault(
            "Please stop/resume associated CONTAINER before deleting CONTAINER device.",
        ));
    }
    Ok(nas.rows.remove(TABLE, call.number(0)).into())
}

/// A container's devices in the daemon's words.
pub fn of(nas: &Nas, container: &Value) -> Result<Value, Fail> {
    let engine = nas.engine()?;
    let mut all = Map::new();
    let (mut cards, mut disks) = (0, 0);
    for row in nas.rows.all(TABLE).iter().filter(|d| d["container"] == container["id"]) {
        let attributes = &row["attributes"];
        if attributes["dtype"] == "NIC" {
            let name = format!("eth{cards}");
            cards += 1;
            let nic = json!({
                "type": "nic", "network": engine.bridge, "name": name, "hwaddr": attributes["mac"],
            });
            all.insert(name, nic);
        } else {
            let source = attributes["source"].as_str().unwrap_or_default();
            let disk = json!({
                "type": "disk", "source": format!("/mnt/host{source}"), "path": attributes["target"],
            });
            all.insert(format!("disk{disks}"), disk);
            disks += 1;
        }
    }
    Ok(all.into())
}
