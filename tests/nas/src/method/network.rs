//! `interface.*` and `network.*`: one network card, on the network that the containers are on.

use serde_json::{Value, json};

use super::{instance, query, unhandled};
use crate::dispatch::Call;
use crate::fail::Fail;
use crate::nas::Nas;

/// The card.
pub const CARD: &str = "eno1";

pub async fn run(call: &Call) -> Result<Value, Fail> {
    let nas = &call.nas;
    match call.method.name.as_str() {
        "interface.query" => query(call, vec![card(nas)]),
        "interface.get_instance" => instance(call, "Interface", vec![card(nas)]),
        "network.general.summary" => Ok(json!({
            "ips": {CARD: {"IPV4": [format!("{}.2/24", network(nas))], "IPV6": []}},
            "default_routes": [gateway(nas)], "nameservers": [gateway(nas)],
        })),
        "network.configuration.config" => Ok(configuration(nas)),
        _ => Err(unhandled(call)),
    }
}

fn network(nas: &Nas) -> String {
    nas.engine.as_ref().map_or_else(|| "192.168.1".to_owned(), |e| e.network())
}

fn gateway(nas: &Nas) -> String {
    format!("{}.1", network(nas))
}

fn card(nas: &Nas) -> Value {
    let address = format!("{}.2", network(nas));
    let mac = "0c:c4:7a:00:00:02";
    let mut card = json!({
        "id": CARD, "name": CARD, "fake": false, "type": "PHYSICAL",
        "state": {
            "name": CARD, "orig_name": CARD, "description": "", "mtu": 1500, "cloned": false,
            "flags": ["UP", "BROADCAST", "RUNNING", "MULTICAST", "LOWER_UP"], "nd6_flags": [],
            "capabilities": [], "link_state": "LINK_STATE_UP", "media_type": "Ethernet",
            "media_subtype": "autoselect", "active_media_type": "Ethernet",
            "active_media_subtype": "1000Mb/s Twisted Pair", "supported_media": [], "media_options": null,
            "link_address": mac, "permanent_link_address": mac, "hardware_link_address": mac,
            "rx_queues": 1, "tx_queues": 1,
            "aliases": [
                {"type": "LINK", "address": mac},
                {"type": "INET", "address": address, "netmask": 24, "broadcast": format!("{}.255", network(nas))},
            ],
            "vrrp_config": [],
        },
        "aliases": [], "ipv4_dhcp": true, "ipv6_auto": true, "description": "", "mtu": null,
    });
    let more = nas.options.addresses.iter().filter_map(|one| alias(one));
    if let Some(aliases) = card["state"]["aliases"].as_array_mut() {
        aliases.extend(more);
    }
    card
}

/// An address as interfaces have it.
fn alias(text: &str) -> Option<Value> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let own: std::net::Ipv4Addr = address.parse().ok()?;
    let last = u32::from(own) | u32::MAX.checked_shr(bits).unwrap_or(0);
    let broadcast = std::net::Ipv4Addr::from(last).to_string();
    Some(json!({"type": "INET", "address": address, "netmask": bits, "broadcast": broadcast}))
}

fn configuration(nas: &Nas) -> Value {
    let gateway = gateway(nas);
    json!({
        "id": 1, "hostname": "truenas", "domain": "local", "ipv4gateway": "", "ipv6gateway": "",
        "nameserver1": "", "nameserver2": "", "nameserver3": "", "httpproxy": "", "hosts": [], "domains": [],
        "service_announcement": {"netbios": false, "mdns": true, "wsd": true},
        "activity": {"type": "DENY", "activities": []}, "hostname_local": "truenas", "hostname_b": null,
        "hostname_virtual": null,
        "state": {
            "ipv4gateway": gateway, "ipv6gateway": "", "nameserver1": gateway, "nameserver2": "",
            "nameserver3": "", "hosts": [],
        },
    })
}
