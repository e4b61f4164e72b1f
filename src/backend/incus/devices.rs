//! Devices of an instance: its disk, its network, host folders.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::client::{Client, Fail, escape};
use crate::sandbox::{
    CacheMount, Capabilities, Capability, Device, DeviceKind, Error, Kind, Policy, Result,
    check_devices,
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
    let root = root(record, pool);
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
    devices.extend(caches(record, pool, false));
    for device in &record.devices {
        if !device.is_nic() || record.egress == Policy::Unrestricted && !record.gate {
            devices.insert(format!("{OWN}{}", device.name), rendered(device));
        }
    }
    Value::Object(devices)
}

/// The volumes of its caches: those that are in no other, or those that are.
pub(super) fn caches(record: &Record, pool: &Pool, inner: bool) -> Map<String, Value> {
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
    };
    let is_inner = |cache: &CacheMount| {
        let own = parts(&cache.target);
        record.caches.iter().any(|other| other != cache && own.starts_with(&parts(&other.target)))
    };
    let all = record.caches.iter().enumerate().filter(|(_, cache)| is_inner(cache) == inner);
    let all = all.map(|(at, cache)| {
        let volume = super::caches::volume(&cache.name);
        let disk =
            json!({"type": "disk", "pool": pool.name, "source": volume, "path": cache.target});
        (super::caches::device(at), disk)
    });
    all.collect()
}

/// Its disk.
pub(super) fn root(record: &Record, pool: &Pool) -> Value {
    json!({"type": "disk", "path": "/", "pool": record.hardware.pool.as_ref().unwrap_or(&pool.name)})
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
    let mut cards = others.map(|(name, network)| (name.clone(), network.clone())).collect();
    super::hardware::set_card(&mut cards, &record.hardware, pool);
    cards
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

/// Refuses devices that would undo what keeps a sandbox in, and folders that are not there, where those of the
/// server are `here`.
pub(super) async fn check(record: &Record, capabilities: &Capabilities, here: bool) -> Result<()> {
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
            None if here && tokio::fs::metadata(source).await.is_err() => {
                return Err(Error::not_found(Kind::File, source));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong with a sandbox's devices, by what the server says of one of them.
pub(super) fn blame(record: &Record, pool: &Pool, fail: &Fail) -> Option<Error> {
    let (Fail::Failed(said, _) | Fail::Refused(_, said)) = fail else { return None };
    let named = |device: &&Device| said.contains(&format!("\"{OWN}{}\"", device.name));
    // The server does not say which of them can't listen.
    let listening = |device: &&Device| {
        matches!(device.kind, DeviceKind::Proxy { .. }) && said.contains("proxy device")
    };
    let found = record.devices.iter().find(named);
    let Some(device) = found.or_else(|| record.devices.iter().find(listening)) else {
        return super::hardware::blame(&record.hardware, pool, said);
    };
    let quoted = format!("\"{OWN}{}\"", device.name);
    let words = match said.rsplit_once(&quoted) {
        Some((_, rest)) if rest.len() > 2 => rest.trim_start_matches(": "),
        Some((before, _)) => before.rsplit(": ").next().unwrap_or(before),
        None => said.rsplit(": ").next().unwrap_or(said),
    };
    let words = words.replace(&quoted, "it").replace('"', "'");
    let (why, hint) = match &device.kind {
        DeviceKind::Disk { pool: Some(pool), source, .. } => (
            format!("volume '{source}' of the pool '{pool}' can't be had"),
            format!("see which there are: incus storage volume list {pool}"),
        ),
        DeviceKind::Disk { source, .. } => (
            format!("folder '{source}' of the server's machine can't be had"),
            "name one that is there".to_owned(),
        ),
        DeviceKind::Gpu { .. } => (
            "the server has no such graphics processor".to_owned(),
            "see which there are: incus info --resources".to_owned(),
        ),
        DeviceKind::Nic { network, .. } => (
            format!("the interface in the network '{network}' can't be had"),
            "see which networks there are: incus network list".to_owned(),
        ),
        DeviceKind::Proxy { listen, protocol, .. } => (
            format!("the server can't listen at {listen}/{protocol}"),
            "name another port, or another of the server's addresses".to_owned(),
        ),
        DeviceKind::Usb { .. } => (
            "the USB device can't be had".to_owned(),
            "see which there are: incus info --resources".to_owned(),
        ),
    };
    let message = format!("'{}': {why}: {}", device.name, words.trim());
    Some(Error::invalid_hint("devices", message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Spec;

    #[test]
    fn what_the_server_says_is_about_a_device() {
        let device = |name: &str, keys: &str| {
            let pairs = keys.split(',').filter_map(|pair| pair.split_once('='));
            Device::new(name, pairs.map(|(key, value)| (key.into(), value.into())).collect())
        };
        let mut spec = Spec::new("a");
        spec.devices = vec![
            device("data", "type=disk,pool=fast,source=vol,target=/data").unwrap(),
            device("dir", "type=disk,source=/no/such,target=/dir").unwrap(),
            device("card", "type=gpu,pci=0000:7f:00.0").unwrap(),
            device("lan", "type=nic,network=nope").unwrap(),
            device("web", "type=proxy,listen=9000,connect=80").unwrap(),
        ];
        spec.hardware.mac = Some("00:16:3e:00:00:01".into());
        let record = Record::new(&spec, "i".into(), "f".into());
        let pool = Pool {
            name: "default".into(),
            driver: "btrfs".into(),
            networks: Map::from_iter([("eth0".to_owned(), json!({"type": "nic"}))]),
            ids: Map::new(),
        };
        let said: Vec<String> = [
            "Failed initializing instance: Failed add validation for device \"own-data\": Failed loading custom volume: Storage volume not found",
            "Failed initializing instance: Failed add validation for device \"own-dir\": Missing source path \"/no/such\" for disk \"own-dir\"",
            "Failed to start device \"own-card\": Invalid PCI address (no device found): 0000:7f:00.0",
            "Invalid devices: Device validation failed for \"own-lan\": Failed loading device \"own-lan\": Failed to load network \"nope\" for project \"default\": Network not found",
            "Error occurred when starting proxy device: Error: Failed to listen on 127.0.0.1:9000: listen tcp 127.0.0.1:9000: bind: address already in use",
            "Invalid devices: Device validation failed for \"eth0\": MAC address \"00:16:3e:00:00:01\" already defined on another NIC",
        ]
        .iter()
        .map(|said| {
            let error = blame(&record, &pool, &Fail::Failed((*said).into(), None)).unwrap();
            format!("{error}; {}", error.hint().unwrap_or_default())
        })
        .collect();
        insta::assert_snapshot!(said.join("\n"));
        assert!(blame(&record, &pool, &Fail::Failed("No space left".into(), None)).is_none());
        assert!(blame(&record, &pool, &Fail::Lost("\"own-lan\"".into())).is_none());
    }
}
