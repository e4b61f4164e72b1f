//! Devices of an instance: its disk, its network, host folders.

use serde_json::{Map, Value, json};

use super::client::{Client, escape};
use crate::sandbox::{Error, Policy, Result};

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
        devices.extend(pool.networks.clone());
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
    Value::Object(devices)
}
