//! A sandbox's machine: the pool that its disk is on, its card's hardware address and its address.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::Inner;
use super::client::escape;
use super::devices::Pool;
use super::record::Record;
use crate::sandbox::{Capability, Error, Hardware, Limits, Policy, Result, parse_address};

/// Whether something is asked of a sandbox's card, so that it must have one.
pub(super) fn has_card(hardware: &Hardware) -> bool {
    hardware.mac.is_some() || hardware.address.is_some()
}

/// What is asked of a card goes with the policy that lets it be there.
pub(super) fn drop_card(record: &mut Record) {
    if record.egress != Policy::Unrestricted {
        (record.hardware.mac, record.hardware.address) = (None, None);
    }
}

/// The name of the card that a sandbox has by the profile: `eth0`, or the first one.
fn card(pool: &Pool) -> Option<(&String, &Value)> {
    pool.networks.get_key_value("eth0").or_else(|| pool.networks.iter().next())
}

/// Gives a sandbox's card what is asked of it.
pub(super) fn set_card(cards: &mut Map<String, Value>, hardware: &Hardware, pool: &Pool) {
    let Some(card) = card(pool).and_then(|(name, _)| cards.get_mut(name)) else { return };
    if let Some(mac) = &hardware.mac {
        card["hwaddr"] = mac.as_str().into();
    }
    let address = hardware.address.as_ref().and_then(|text| parse_address(text).ok());
    match address {
        Some((IpAddr::V4(address), _)) => card["ipv4.address"] = address.to_string().into(),
        Some((IpAddr::V6(address), _)) => card["ipv6.address"] = address.to_string().into(),
        None => {}
    }
}

/// What a refusal of the server's says about what was asked of a card.
pub(super) fn blame(hardware: &Hardware, pool: &Pool, said: &str) -> Option<Error> {
    let (name, _) = card(pool)?;
    let (_, why) = said.rsplit_once(&format!("\"{name}\": "))?;
    let what = match (&hardware.mac, &hardware.address) {
        (Some(_), _) if why.contains("MAC") || why.contains("hwaddr") => "mac",
        (_, Some(_)) => "address",
        (Some(_), None) => "mac",
        (None, None) => return None,
    };
    let hint = "choose another one, or leave it out: then the server does";
    Some(Error::invalid_hint(what, format!("the server refuses it: {why}"), hint))
}

/// The network of an address, in bits.
fn network(address: IpAddr, length: u8) -> u128 {
    let (number, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    number.checked_shr(width - u32::from(length)).unwrap_or(0)
}

/// Why an address can't be of a network whose own is this; nothing where it can.
fn misfit(asked: (IpAddr, u8), own: &str) -> Option<String> {
    let (address, length) = own.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let fits = asked.0.is_ipv4() == address.is_ipv4()
        && asked.1 == length
        && network(asked.0, length) == network(address, length);
    match (fits, asked.0 == address) {
        (true, false) => None,
        (true, true) => Some("is the network's own".into()),
        (false, _) => Some(format!("is not in it: it has {own}")),
    }
}

impl Inner {
    /// How the storage works that a sandbox's disk is on.
    pub(super) async fn driver(&self, hardware: &Hardware) -> Result<String> {
        let Some(pool) = hardware.pool.as_ref().filter(|pool| **pool != self.pool.name) else {
            return Ok(self.pool.driver.clone());
        };
        let found = self.client.get(&format!("/1.0/storage-pools/{}", escape(pool))).await;
        match found {
            Ok(found) => Ok(found["driver"].as_str().unwrap_or_default().to_owned()),
            Err(fail) if fail.is_missing() => {
                let all = self.client.get("/1.0/storage-pools").await.unwrap_or_default();
                Err(Error::invalid_hint(
                    "pool",
                    format!("there is no storage pool '{pool}' on the server"),
                    format!("its pools are {}", names(&all).join(", ")),
                ))
            }
            Err(fail) => Err(fail.plain("reading the storage pool")),
        }
    }

    /// Refuses what a sandbox's machine can't be like here, and limits that its pool does not keep.
    pub(super) async fn check_hardware(&self, record: &Record) -> Result<()> {
        let hardware = &record.hardware;
        if hardware.pool.is_some() {
            let driver = self.driver(hardware).await?;
            if record.limits.disk.is_some() && !super::disk::WITH_QUOTAS.contains(&&*driver) {
                return Err(Error::unsupported(
                    Capability::LimitDisk.as_str(),
                    super::BACKEND,
                    format!(
                        "storage of the kind '{driver}' has no quotas of its own: use btrfs, ZFS or LVM"
                    ),
                ));
            }
        }
        if !has_card(hardware) {
            return Ok(());
        }
        let what = if hardware.mac.is_some() { "mac" } else { "address" };
        let carded = match self.host {
            Ok(_) => record.egress == Policy::Unrestricted,
            Err(_) => record.egress != Policy::None,
        };
        if !carded {
            return Err(Error::invalid_hint(
                what,
                format!("a sandbox has no card here under the egress policy '{}'", record.egress),
                "leave it out, or say egress: \"unrestricted\"",
            ));
        }
        if !record.networks.is_empty() {
            return Err(Error::invalid_hint(
                what,
                "a sandbox with a card of its own can't be in networks of sandscript's, too",
                "leave one of them out",
            ));
        }
        match &hardware.address {
            Some(address) => self.check_address(parse_address(address)?).await,
            None => Ok(()),
        }
    }

    async fn check_address(&self, asked: (IpAddr, u8)) -> Result<()> {
        let wrong = |why: String, hint: &str| {
            Err(Error::invalid_hint("address", format!("'{}/{}' {why}", asked.0, asked.1), hint))
        };
        let Some(network) = card(&self.pool).and_then(|(_, card)| card["network"].as_str()) else {
            return wrong(
                "can't be given by the server: the profile's interface is in no network of its own"
                    .into(),
                "give it in the guest, or put the interface of the profile 'default' into a managed network",
            );
        };
        let found = self.client.get(&format!("/1.0/networks/{}", escape(network))).await;
        let found = found.map_err(|fail| fail.plain("reading the network"))?;
        let key = if asked.0.is_ipv4() { "ipv4.address" } else { "ipv6.address" };
        match found["config"][key].as_str() {
            None | Some("" | "none" | "auto") => {
                let kind = if asked.0.is_ipv4() { "IPv4" } else { "IPv6" };
                wrong(format!("is for no network here: '{network}' has no {kind}"), "leave it out")
            }
            Some(own) => match misfit(asked, own) {
                None => Ok(()),
                Some(why) => wrong(
                    format!("is no address for a sandbox in the network '{network}': it {why}"),
                    "choose one of the network, with its length",
                ),
            },
        }
    }

    /// Refuses limits of a new sandbox. Whether its disk can be limited is the business of its own pool.
    pub(super) fn check_limits_on(&self, limits: &Limits, hardware: &Hardware) -> Result<()> {
        match hardware.pool {
            None => self.check_limits(limits),
            Some(_) => self
                .check_limits(&Limits { disk: None, ..limits.clone() })
                .and_then(|()| limits.check()),
        }
    }
}

/// The last parts of paths.
pub(super) fn names(paths: &Value) -> Vec<String> {
    let all = paths.as_array().into_iter().flatten().filter_map(Value::as_str);
    let last = |path: &str| path.split('?').next()?.rsplit('/').next().map(str::to_owned);
    all.filter_map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_network_or_not() {
        let asked = |text: &str| parse_address(text).unwrap();
        assert_eq!(misfit(asked("10.1.2.7/24"), "10.1.2.1/24"), None);
        assert_eq!(misfit(asked("fd00::7/64"), "fd00::1/64"), None);
        for (text, own) in [
            ("10.1.3.7/24", "10.1.2.1/24"),
            ("10.1.2.7/16", "10.1.2.1/24"),
            ("10.1.2.1/24", "10.1.2.1/24"),
            ("fd00:0:0:1::7/64", "fd00::1/64"),
        ] {
            assert!(misfit(asked(text), own).is_some(), "{text}");
        }
    }
}
