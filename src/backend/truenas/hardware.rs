//! What a machine is like besides what the API's call for making it takes: its quota, its card, and what is
//! put into it.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::guest::Ask;
use super::Inner;
use super::api::Api;
use super::devices::{Nic, is_near};
use super::guard::{bridged, of_bridge};
use super::row::Row;
use super::snapshots::{instance, refused};
use crate::sandbox::{Cancel, Error, Hardware, Policy, Result, Setup, Spec, parse_address};

/// The gateway that is in the network of an address.
fn near(summary: &Value, at: IpAddr, bits: u32) -> Option<IpAddr> {
    let routes = summary["default_routes"].as_array()?;
    let mut all = routes.iter().filter_map(|route| route.as_str()?.parse().ok());
    all.find(|gateway| is_near(at, bits, *gateway) && *gateway != at)
}

/// A set of CPUs as 25.x has it, where one number alone is how many there are.
pub(super) fn pinned(cpus: &str) -> String {
    match cpus.contains([',', '-']) {
        true => cpus.to_owned(),
        false => format!("{cpus}-{cpus}"),
    }
}

/// So much more than what is there already.
fn over(there: u64, disk: u64) -> Result<u64> {
    there
        .checked_add(disk)
        .ok_or_else(|| Error::invalid("disk", format!("{disk} bytes are more than any disk has")))
}

/// How often what is put into a guest is gone on with, where the line to it breaks.
const TRIES: u32 = 4;

impl Inner {
    /// Whether a machine can be like that here.
    pub(super) fn check_hardware(&self, spec: &Spec) -> Result<()> {
        self.capabilities.require_machine(spec)?;
        let closed = spec.egress == Policy::None;
        if closed && !spec.setup.tools.is_empty() {
            return Err(Error::invalid_hint(
                "tools",
                "packages come from a network, and egress is \"none\"",
                "give it egress, or build a base with them and clone that",
            ));
        }
        if closed && spec.hardware.address.is_some() {
            return Err(Error::invalid("address", "there is no network with egress \"none\""));
        }
        Ok(())
    }

    /// Whether an address can be one of the network that its card is plugged into, as far as the NAS says what
    /// that is.
    pub(super) async fn check_address(&self, hardware: &Hardware, nic: Option<&Nic>) -> Result<()> {
        let Some(address) = &hardware.address else { return Ok(()) };
        let (at, _) = parse_address(address)?;
        let config = match self.api {
            Api::Virt => "virt.global.config",
            Api::Container => "lxc.config",
        };
        let config = self.client.read(config, json!([])).await.unwrap_or_default();
        let bridge = config["bridge"].as_str().filter(|name| !name.is_empty());
        let networks: Vec<(IpAddr, u32)> = match nic.map(Nic::parent).or(bridge) {
            None => bridged(&config),
            Some(name) => {
                let all = self.client.read("interface.query", json!([])).await.unwrap_or_default();
                let all = all.as_array().into_iter().flatten().filter(|one| one["id"] == name);
                let aliases = all.flat_map(|one| one["state"]["aliases"].as_array()).flatten();
                let read = |one: &Value| {
                    let bits = u32::try_from(one["netmask"].as_u64()?).ok()?;
                    Some((one["address"].as_str()?.parse().ok()?, bits))
                };
                aliases.filter_map(read).collect()
            }
        };
        let wrong =
            |message: String, hint: String| Err(Error::invalid_hint("address", message, hint));
        let own = nic.is_none() && bridge.is_none() && of_bridge(&config).contains(&at);
        if own || networks.iter().any(|(own, _)| *own == at) {
            return wrong(
                format!("{at} is the NAS's own address"),
                "choose one that nobody has".into(),
            );
        }
        let same: Vec<_> =
            networks.iter().filter(|(own, _)| own.is_ipv4() == at.is_ipv4()).collect();
        if same.is_empty() || same.iter().any(|(own, bits)| is_near(*own, *bits, at)) {
            return Ok(());
        }
        let all: Vec<String> = same.iter().map(|(own, bits)| format!("{own}/{bits}")).collect();
        let hint = format!(
            "choose one of {}; or plug it in elsewhere: network = \"lan\" for that NAS in your config.toml",
            all.join(", ")
        );
        wrong(format!("{address} is not in the network of this NAS's sandboxes"), hint)
    }

    /// Gives a machine that was just made, and does not run yet, what only the NAS's shell can.
    pub(super) async fn fit(self: &Arc<Self>, row: &Row) -> Result<()> {
        let what = format!("making sandbox '{}'", row.name);
        let disk = row.record.limits.disk;
        match self.api {
            Api::Virt => {
                let mac = row.record.hardware.mac.as_ref();
                if disk.is_none() && mac.is_none() {
                    return Ok(());
                }
                let path = instance(&row.name);
                let before = self.incus(&what, "GET", &path, None).await?;
                let before = before.map_err(|said| refused(&what, said))?;
                let mut change = json!({});
                if let Some(mac) = mac {
                    change["config"] = json!({"volatile.eth0.hwaddr": mac.to_lowercase()});
                }
                if let Some(disk) = disk {
                    let state = self.incus(&what, "GET", &format!("{path}/state"), None).await?;
                    let state = state.map_err(|said| refused(&what, said))?;
                    let there = state["disk"]["root"]["usage"].as_u64().unwrap_or_default();
                    let mut root = before["expanded_devices"]["root"].clone();
                    root["size"] = over(there, disk)?.to_string().into();
                    change["devices"] = json!({"root": root});
                }
                let done = self.incus(&what, "PATCH", &path, Some(&change)).await?;
                done.map(drop).map_err(|said| refused(&what, said))
            }
            Api::Container => match disk {
                None => Ok(()),
                Some(disk) => {
                    // What it shares with its image or its source counts, too.
                    let ask = ["zfs", "get", "-H", "-p", "-o", "value", "referenced", &row.dataset];
                    let said = self.host(&what, &ask, None).await?;
                    let said = said.map_err(|said| refused(&what, said))?;
                    let there = String::from_utf8_lossy(&said).trim().parse().unwrap_or_default();
                    let quota = format!("refquota={}", over(there, disk)?);
                    let done =
                        self.host(&what, &["zfs", "set", &quota, &row.dataset], None).await?;
                    done.map(drop).map_err(|said| refused(&what, said))
                }
            },
        }
    }

    /// Asks for something that may be done twice, and again where the line breaks.
    pub(super) async fn insist(
        &self,
        name: &str,
        request: &[&str],
        cancel: Option<&Cancel>,
    ) -> Result<Vec<Vec<u8>>> {
        let never = Cancel::new();
        let cancel = cancel.unwrap_or(&never);
        let mut tries = 0;
        loop {
            let asked = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Cancelled),
                asked = self.ask_once(name, request) => asked,
            };
            match asked {
                Err(Error::Transport { .. }) if tries + 1 < TRIES => {
                    tokio::time::sleep(super::lifecycle::pause(tries)).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Gives its card the address that it always has.
    pub(super) async fn address(&self, name: &str, hardware: &Hardware) -> Result<()> {
        let Some(address) = &hardware.address else { return Ok(()) };
        let (at, bits) = parse_address(address)?;
        let gateway = match at {
            IpAddr::V4(at) => {
                let network = u32::from(at) & (u32::MAX << (32 - u32::from(bits)));
                let first = std::net::Ipv4Addr::from(network + 1);
                let near = self.gateway_in(at.into(), bits.into()).await?;
                near.unwrap_or(first.into()).to_string()
            }
            // Routers of IPv6 say who they are.
            IpAddr::V6(_) => String::new(),
        };
        self.insist(name, &["address", address, &gateway], None).await.map(drop)
    }

    /// The NAS's own gateway, where it is in the network of an address: its sandboxes' one, too, where they are
    /// in that network. A key that may not read that has no answer.
    async fn gateway_in(&self, at: IpAddr, bits: u32) -> Result<Option<IpAddr>> {
        if self.network.is_none() {
            return Ok(None);
        }
        let summary = self.look("network.general.summary", "NETWORK_GENERAL_READ").await?;
        Ok(summary.ok().and_then(|summary| near(&summary, at, bits)))
    }

    /// Puts into a guest what it is asked for. What is done is noted there, so that it is gone on with where
    /// the line breaks.
    pub(super) async fn set_up(&self, name: &str, setup: &Setup, cancel: &Cancel) -> Result<()> {
        if setup.is_empty() {
            return Ok(());
        }
        let steps: Vec<(&str, String)> = setup.steps().collect();
        let mut request = vec!["setup", name];
        request.extend(steps.iter().flat_map(|(what, of)| [*what, of.as_str()]));
        let fields = self.insist(name, &request, Some(cancel)).await?;
        let text =
            |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field).into_owned());
        match text(0).as_deref() {
            Some("done") => Ok(()),
            _ => Err(Error::internal(format!(
                "setting up sandbox '{name}': {}: {}",
                text(1).unwrap_or_default(),
                text(2).unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_in_the_network_of_the_address() {
        let summary = json!({"default_routes": ["fe80::1", "192.168.1.254"]});
        let of =
            |at: &str, bits| near(&summary, at.parse().unwrap(), bits).map(|at| at.to_string());
        assert_eq!(of("192.168.1.50", 24).as_deref(), Some("192.168.1.254"));
        assert_eq!(of("192.168.2.50", 24), None);
        assert_eq!(of("192.168.1.254", 24), None);
    }
}
