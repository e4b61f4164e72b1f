//! What a sandbox has besides its files: folders of the NAS, and a network card.

use std::net::IpAddr;
use std::path::Component;

use serde_json::{Value, json};

use super::super::guest::Record;
use super::api::{Api, doing};
use super::{BACKEND, Inner};
use crate::sandbox::{Capability, Error, Kind, Mount, Result};
use crate::transport::jsonrpc::RpcError;

/// The network of the NAS's own gateway, as a setting.
const LAN: &str = "lan";

/// What a network card is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nic {
    /// A bridge; else a card of its own beside the interface's.
    pub(super) bridged: bool,
    parent: String,
}

/// The interface of the NAS that has an address in its gateway's network.
fn to_gateway(interfaces: &Value, summary: &Value) -> Option<Nic> {
    let routes = summary["default_routes"].as_array()?;
    let routes: Vec<IpAddr> = routes.iter().filter_map(|at| at.as_str()?.parse().ok()).collect();
    routes.iter().find_map(|gateway| {
        let near = |one: &&Value| {
            let down = ["LINK_STATE_DOWN", "LINK_STATE_LOWERLAYERDOWN"];
            let up = !one["state"]["link_state"].as_str().is_some_and(|is| down.contains(&is));
            let mut all = one["state"]["aliases"].as_array().into_iter().flatten();
            up && all.any(|alias| holds(alias, *gateway))
        };
        nic(interfaces.as_array()?.iter().find(near)?)
    })
}

/// Whether an address is in the network of an interface's address.
fn holds(alias: &Value, address: IpAddr) -> bool {
    let own = alias["address"].as_str().and_then(|own| own.parse::<IpAddr>().ok());
    let bits = alias["netmask"].as_u64().and_then(|bits| u32::try_from(bits).ok());
    own.zip(bits).is_some_and(|(own, bits)| is_near(own, bits, address))
}

/// Whether an address is in the network that another one is in.
pub(super) fn is_near(own: IpAddr, bits: u32, address: IpAddr) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        bits > 0 && bits <= width && (one ^ other) >> (width - bits) == 0
    };
    match (own, address) {
        (IpAddr::V4(own), IpAddr::V4(at)) => same(u32::from(own).into(), u32::from(at).into(), 32),
        (IpAddr::V6(own), IpAddr::V6(at)) => same(own.into(), at.into(), 128),
        _ => false,
    }
}

impl Nic {
    /// The interface.
    pub fn parent(&self) -> &str {
        &self.parent
    }
}

/// How one is plugged into an interface.
fn nic(interface: &Value) -> Option<Nic> {
    let bridged = interface["type"] == "BRIDGE";
    Some(Nic { bridged, parent: interface["id"].as_str()?.to_owned() })
}

impl Inner {
    /// Whether a sandbox can have these folders.
    pub(super) fn check_mounts(&self, mounts: &[Mount]) -> Result<()> {
        if mounts.is_empty() {
            return Ok(());
        }
        self.capabilities.require(Capability::Mounts)?;
        for Mount { source, target, readonly } in mounts {
            let text = source.display();
            let plain = source.components().all(|part| !matches!(part, Component::ParentDir));
            let known = self.mounts.iter().any(|folder| source.starts_with(folder));
            if !plain || !known {
                return Err(Error::invalid_hint(
                    "mounts",
                    format!("'{text}' is none of the folders of the NAS that sandboxes may have"),
                    format!(
                        "these are {}: mounts of the NAS in your config.toml",
                        self.mounts.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                ));
            }
            if *readonly {
                return Err(Error::unsupported(
                    format!("mounting '{text}' read-only"),
                    BACKEND,
                    "a NAS knows no such thing: mount a copy, or leave readonly out",
                ));
            }
            if [text.to_string().as_str(), target].iter().any(|path| path.contains(['{', '}'])) {
                return Err(Error::invalid("mounts", "a NAS takes no braces in paths"));
            }
        }
        Ok(())
    }

    /// Whether these folders are there, and no links that lead elsewhere: guests write to them.
    pub(super) async fn look_at_mounts(&self, mounts: &[Mount]) -> Result<()> {
        for Mount { source, .. } in mounts {
            let text = source.to_string_lossy();
            let stat = self.client.read("filesystem.stat", json!([text])).await;
            let stat = stat.map_err(|error| doing(error, &format!("looking at '{text}'")))?;
            if stat["realpath"].as_str() != Some(text.trim_end_matches('/')) {
                return Err(Error::invalid_hint(
                    "mounts",
                    format!("'{text}' is a link, or below one"),
                    "name the folder that it leads to",
                ));
            }
        }
        Ok(())
    }

    /// What the settings say of the network card; none for the NAS's own choice.
    pub(super) async fn nic(&self) -> Result<Option<Nic>> {
        let Some(wanted) = self.network.as_deref() else { return Ok(None) };
        let looking = |error: RpcError| doing(error, "looking at the NAS's network");
        let interfaces = self.client.read("interface.query", json!([]));
        if wanted == LAN {
            let summary = self.client.read("network.general.summary", json!([]));
            let (interfaces, summary) = tokio::try_join!(interfaces, summary).map_err(looking)?;
            return match to_gateway(&interfaces, &summary) {
                Some(nic) => Ok(Some(nic)),
                None => Err(Error::unsupported(
                    "network \"lan\"",
                    BACKEND,
                    "no interface of the NAS is in its gateway's network; name one in your config.toml, such as \
                     network = \"br0\"",
                )),
            };
        }
        let interfaces = interfaces.await.map_err(looking)?;
        let all = interfaces.as_array().into_iter().flatten();
        let names: Vec<&str> = all.clone().filter_map(|one| one["id"].as_str()).collect();
        match all.clone().find(|one| one["id"] == wanted).and_then(nic) {
            Some(nic) => Ok(Some(nic)),
            None => {
                let hint = format!("the NAS has {}; or use \"lan\"", names.join(", "));
                Err(Error::not_found_hint(Kind::File, wanted, hint))
            }
        }
    }

    /// The devices as `virt.instance.create` takes them.
    pub(super) fn virt_devices(record: &Record, nic: Option<&Nic>) -> Vec<Value> {
        let mount = |mount: &Mount| json!({"dev_type": "DISK", "source": mount.source, "destination": mount.target});
        let card = |nic: &Nic| {
            let kind = if nic.bridged { "BRIDGED" } else { "MACVLAN" };
            json!({"dev_type": "NIC", "name": "eth0", "nic_type": kind, "parent": nic.parent})
        };
        nic.map(card).into_iter().chain(record.mounts.iter().map(mount)).collect()
    }

    /// Adds the devices to a container of 26, which is made without.
    pub(super) async fn add_devices(
        &self,
        id: i64,
        record: &Record,
        nic: Option<&Nic>,
    ) -> Result<(), RpcError> {
        debug_assert_eq!(self.api, Api::Container);
        let mount = |mount: &Mount| json!({"dtype": "FILESYSTEM", "source": mount.source, "target": mount.target});
        let mut card = json!({"dtype": "NIC", "type": "VIRTIO"});
        let mac = record.hardware.mac.as_ref();
        if let Some(nic) = nic {
            card["nic_attach"] = nic.parent.as_str().into();
        }
        if let Some(mac) = mac {
            card["mac"] = mac.to_lowercase().into();
        }
        let card = (nic.is_some() || mac.is_some()).then_some(card);
        for attributes in card.into_iter().chain(record.mounts.iter().map(mount)) {
            let device = json!([{"container": id, "attributes": attributes}]);
            self.client.call("container.device.create", device).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, kind: &str, state: &str, address: &str, netmask: u8) -> Value {
        json!({"id": name, "type": kind, "state": {"link_state": state, "aliases": [
            {"type": "LINK", "address": "0c:c4:7a:00:00:02"},
            {"type": if address.contains(':') { "INET6" } else { "INET" }, "address": address, "netmask": netmask}]}})
    }

    #[test]
    fn the_gateways_interface_is_found_whatever_it_is() {
        let up = "LINK_STATE_UP";
        let other = interface("eno2", "PHYSICAL", up, "10.9.0.2", 16);
        let routes = json!({"default_routes": ["192.168.1.1"]});
        for (name, kind, bridged) in [
            ("eno1", "PHYSICAL", false),
            ("br0", "BRIDGE", true),
            ("bond0", "LINK_AGGREGATION", false),
            ("vlan20", "VLAN", false),
        ] {
            let all = json!([other, interface(name, kind, up, "192.168.1.10", 24)]);
            let found = to_gateway(&all, &routes);
            assert_eq!(found, Some(Nic { bridged, parent: name.into() }));
        }
        let down = interface("eno1", "PHYSICAL", "LINK_STATE_DOWN", "192.168.1.10", 24);
        assert_eq!(to_gateway(&json!([down, other]), &routes), None);
        let near = interface("eno1", "PHYSICAL", up, "192.168.0.10", 23);
        assert!(to_gateway(&json!([near]), &routes).is_some());
        assert_eq!(to_gateway(&json!([other]), &json!({"default_routes": []})), None);
        let six = interface("eno1", "PHYSICAL", "LINK_STATE_UNKNOWN", "fd00::2", 64);
        let routes = json!({"default_routes": ["10.0.0.1", "fd00::1"]});
        assert_eq!(to_gateway(&json!([six]), &routes).unwrap().parent, "eno1");
        let all = interface("eno1", "PHYSICAL", up, "10.0.0.2", 0);
        assert_eq!(to_gateway(&json!([all]), &routes), None);
    }
}
