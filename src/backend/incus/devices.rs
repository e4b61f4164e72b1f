//! Devices of an instance: its disk, its network, host folders.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::client::{Client, escape};
use crate::sandbox::{
    Capabilities, Capability, Device, DeviceKind, Error, Kind, Policy, Result, check_devices,
};

use super::record::Record;

/// The storage pool of new sandboxes.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub name: String,
    pub driver: String,
    /// The network interfaces of the default profile.
    pub networks: Map<String, Value>,
    /// Whether each sandbox has user ids that no other has, and how many: keys of the default profile.
    pub ids: Map<String, Value>,
}

/// What the default profile says: a pool for the root disk, and a network.
pub(super) async fn pool(client: &Client, profile: Value, server: &Value) -> Result<Pool> {
    let devices = profile["devices"].as_object().cloned().unwrap_or_default();
    let root = devices.values().find(|device| device["type"] == "disk" && device["path"] == "/");
    let Some(name) = root.and_then(|root| root["pool"].as_str()) else {
        return Err(Error::unsupported(
            "making sandboxes",
            super::BACKEND,
            "the profile 'default' has no root disk: run `incus admin init` on the server",
        ));
    };
    // The pool itself is only asked where there is more than one kind: it tells of all that uses it,
    // which takes the server longer than anything else here.
    let kinds = server["environment"]["storage"].as_str().unwrap_or_default();
    let driver = match kinds.contains('|') || kinds.is_empty() {
        false => kinds.to_owned(),
        true => {
            let path = format!("/1.0/storage-pools/{}", escape(name));
            let pool = client.get(&path).await;
            let pool = pool.map_err(|fail| fail.plain("reading the storage pool"))?;
            pool["driver"].as_str().unwrap_or_default().to_owned()
        }
    };
    let networks = devices.iter().filter(|(_, device)| device["type"] == "nic");
    Ok(Pool {
        name: name.to_owned(),
        driver,
        networks: networks.map(|(name, device)| (name.clone(), device.clone())).collect(),
        ids: ["security.idmap.isolated", "security.idmap.size"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), profile["config"].get(key)?.clone())))
            .collect(),
    })
}

/// The devices of a sandbox.
pub(super) fn devices(record: &Record, pool: &Pool) -> Value {
    let root = json!({"type": "disk", "path": "/", "pool": pool.name});
    let mut devices = Map::from_iter([("root".to_owned(), root)]);
    if record.egress == Policy::Unrestricted && !record.gate {
        devices.extend(cards(record, pool));
    }
    for (at, mount) in record.mounts.iter().enumerate() {
        devices.insert(
            format!("mount{at}"),
            json!({
                "type": "disk", "source": mount.source.to_string_lossy(), "path": mount.target,
                "readonly": mount.readonly.to_string(), "shift": "true",
            }),
        );
    }
    for device in &record.devices {
        if !device.is_nic() || record.egress == Policy::Unrestricted && !record.gate {
            devices.insert(format!("{OWN}{}", device.name), rendered(device));
        }
    }
    Value::Object(devices)
}

/// The interfaces that a sandbox has of the profile's: in one network an instance has one only.
pub(super) fn cards(record: &Record, pool: &Pool) -> Map<String, Value> {
    let own = |network: &Value| {
        let mut nics = record.devices.iter().filter_map(|device| match &device.kind {
            DeviceKind::Nic { network, .. } => Some(network.as_str()),
            _ => None,
        });
        nics.any(|nic| network["network"] == nic)
    };
    let others = pool.networks.iter().filter(|(_, network)| !own(network));
    others.map(|(name, network)| (name.clone(), network.clone())).collect()
}

/// Takes the interfaces that were asked for out of an instance's settings.
pub(super) fn without_nics(instance: &mut Value, record: &Record) {
    if let Some(devices) = instance["devices"].as_object_mut() {
        for nic in record.devices.iter().filter(|device| device.is_nic()) {
            devices.remove(&format!("{OWN}{}", nic.name));
        }
    }
}

/// Before the name of a device that was asked for: it is no other's.
const OWN: &str = "own-";
/// Before the name of a volume that is ours.
pub(super) const VOLUME: &str = "sandscript-";

/// A device as the server has it.
fn rendered(device: &Device) -> Value {
    let mut all = Map::new();
    let mut set = |key: &str, value: String| drop(all.insert(key.to_owned(), value.into()));
    match &device.kind {
        DeviceKind::Disk { source, pool, target, readonly } => {
            set("type", "disk".into());
            set("source", source.clone());
            set("path", target.clone());
            set("readonly", readonly.to_string());
            match pool {
                Some(pool) => set("pool", pool.clone()),
                None => set("shift", "true".into()),
            }
        }
        DeviceKind::Gpu { pci } => {
            set("type", "gpu".into());
            if let Some(pci) = pci {
                set("pci", pci.clone());
            }
        }
        DeviceKind::Nic { network, address, mac } => {
            set("type", "nic".into());
            set("network", network.clone());
            match address {
                Some(IpAddr::V4(address)) => set("ipv4.address", address.to_string()),
                Some(IpAddr::V6(address)) => set("ipv6.address", address.to_string()),
                None => {}
            }
            if let Some(mac) = mac {
                set("hwaddr", mac.clone());
            }
        }
        DeviceKind::Proxy { listen, connect, protocol } => {
            set("type", "proxy".into());
            set("bind", "host".into());
            set("listen", format!("{protocol}:{listen}"));
            set("connect", format!("{protocol}:{connect}"));
        }
        DeviceKind::Usb { vendor, product } => {
            set("type", "usb".into());
            set("vendorid", vendor.clone());
            if let Some(product) = product {
                set("productid", product.clone());
            }
        }
    }
    Value::Object(all)
}

/// Refuses devices that would undo what keeps a sandbox in.
pub(super) async fn check(record: &Record, capabilities: &Capabilities) -> Result<()> {
    check_devices(&record.devices, &record.egress)?;
    if !record.networks.is_empty() && record.devices.iter().any(Device::is_nic) {
        return Err(Error::invalid_hint(
            "devices",
            "a sandbox with an interface of its own can't be in networks of sandscript's, too",
            "leave one of them out",
        ));
    }
    for device in &record.devices {
        let DeviceKind::Disk { source, pool, readonly, .. } = &device.kind else { continue };
        if *readonly {
            capabilities.require(Capability::Mounts)?;
        }
        match pool {
            Some(_) if source.starts_with(VOLUME) => {
                return Err(Error::invalid_hint(
                    "devices",
                    format!("volume '{source}' is sandscript's own"),
                    "name another volume; what outlives sandboxes is a cache",
                ));
            }
            None if tokio::fs::metadata(source).await.is_err() => {
                return Err(Error::not_found(Kind::File, source));
            }
            _ => {}
        }
    }
    Ok(())
}
