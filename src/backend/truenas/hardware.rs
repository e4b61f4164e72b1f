//! What a machine is like besides what the API's call for making it takes: its quota, its card, and what is
//! put into it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::guest::Ask;
use super::Inner;
use super::api::Api;
use super::row::Row;
use super::snapshots::{instance, refused};
use crate::sandbox::{Cancel, Error, Hardware, Policy, Result, Setup, Spec, parse_address};

/// A set of CPUs as 25.x has it, where one number alone is how many there are.
pub(super) fn pinned(cpus: &str) -> String {
    match cpus.contains([',', '-']) {
        true => cpus.to_owned(),
        false => format!("{cpus}-{cpus}"),
    }
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
                    let mut root = before["expanded_devices"]["root"].clone();
                    root["size"] = disk.to_string().into();
                    change["devices"] = json!({"root": root});
                }
                let done = self.incus(&what, "PATCH", &path, Some(&change)).await?;
                done.map(drop).map_err(|said| refused(&what, said))
            }
            Api::Container => match disk {
                None => Ok(()),
                Some(disk) => {
                    let quota = format!("refquota={disk}");
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
                    tokio::time::sleep(Duration::from_millis(50 << tries)).await;
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
        let first = match at {
            std::net::IpAddr::V4(at) => {
                let network = u32::from(at) & (u32::MAX << (32 - u32::from(bits)));
                std::net::Ipv4Addr::from(network + 1).to_string()
            }
            // Routers of IPv6 say who they are.
            std::net::IpAddr::V6(_) => String::new(),
        };
        self.insist(name, &["address", address, &first], None).await.map(drop)
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
