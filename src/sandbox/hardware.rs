//! What a machine is to be like that another one holds: its card, its pool, its CPUs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// The highest number of a CPU.
const CPUS: u32 = 4095;

/// What a sandbox's machine is to be like. A backend that can't have it so refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// A fixed address with the length of its network, as in `192.168.1.50/24`. Clones have one of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The CPUs that it runs on, as in `0-3,6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Its card's hardware address. Clones have one of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The pool that its files are on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

impl Hardware {
    /// Whether nothing is asked for.
    pub fn is_plain(&self) -> bool {
        *self == Hardware::default()
    }

    /// What a clone has of it.
    pub fn of_clone(&self) -> Hardware {
        Hardware { address: None, mac: None, ..self.clone() }
    }

    /// Refuses what no machine can have.
    pub fn check(&self) -> Result<()> {
        if let Some(address) = &self.address {
            parse_address(address)?;
        }
        if let Some(cpus) = &self.cpus
            && !are_cpus(cpus)
        {
            return Err(Error::invalid_hint(
                "cpus",
                format!("'{cpus}' is no set of CPUs"),
                "write it as \"0-3\" or \"0,2,4-5\"",
            ));
        }
        if let Some(mac) = &self.mac
            && !is_mac(mac)
        {
            return Err(Error::invalid_hint(
                "mac",
                format!("'{mac}' is no hardware address of one machine"),
                "write it as \"00:16:3e:12:34:56\"; the first pair is even",
            ));
        }
        match &self.pool {
            Some(pool) if !is_pool(pool) => {
                Err(Error::invalid("pool", format!("'{pool}' is no name of a pool")))
            }
            _ => Ok(()),
        }
    }

    /// In words, for people.
    pub fn said(&self) -> String {
        let parts = [
            ("pool", &self.pool),
            ("cpus", &self.cpus),
            ("mac", &self.mac),
            ("address", &self.address),
        ];
        let part = |(what, value): (&str, &Option<String>)| {
            value.as_ref().map(|value| format!("{what} {value}"))
        };
        parts.into_iter().filter_map(part).collect::<Vec<_>>().join(", ")
    }
}

/// An address of one machine, and the length of its network.
pub fn parse_address(text: &str) -> Result<(IpAddr, u8)> {
    let wrong = |why: &str| {
        Error::invalid_hint("address", format!("'{text}' {why}"), "write it as \"192.168.1.50/24\"")
    };
    let (address, bits) =
        text.split_once('/').ok_or_else(|| wrong("has no length of its network"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong("is no address"))?;
    let bits: u8 = bits.parse().map_err(|_| wrong("is no address"))?;
    let (width, number) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address))),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    if bits == 0 || bits > width {
        return Err(wrong("is no address"));
    }
    let host = number & !(u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or(0));
    let whole = (1u128.checked_shl(u32::from(width - bits)).unwrap_or(0)).wrapping_sub(1);
    let network = width - bits > 1 && (host == 0 || width == 32 && host == whole);
    if network || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(wrong("is no address of one machine"));
    }
    Ok((address, bits))
}

fn are_cpus(text: &str) -> bool {
    let number = |text: &str| {
        let plain = !text.is_empty() && text.len() < 5 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number <= CPUS)
    };
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| a <= b),
    })
}

/// Whether text is a hardware address that one machine can have.
pub(super) fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    let first = |pair: &str| u8::from_str_radix(pair, 16).unwrap_or(1);
    pairs.len() == 6
        && pairs.iter().all(pair)
        && first(pairs[0]) & 1 == 0
        && pairs.iter().any(|pair| *pair != "00")
}

fn is_pool(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    text.len() <= 50
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_machine_can_have_is_taken() {
        for good in ["192.168.1.50/24", "10.0.0.1/31", "10.0.0.1/32", "fd00::2/64"] {
            assert!(parse_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "x/24",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "fd00::/64",
            "::/64",
            "10.0.0.1/24 dev eth0",
            "fd00::1/129",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        for good in ["0", "0-3", "0,2,4-5"] {
            assert!(are_cpus(good), "{good}");
        }
        for bad in ["", "-", "3-1", "0,", "a", "0-", "99999", "0 1", "0;id"] {
            assert!(!are_cpus(bad), "{bad}");
        }
        assert!(is_mac("00:16:3e:12:34:56") && is_mac("02:AB:cd:00:00:01"));
        for bad in [
            "",
            "00:00:00:00:00:00",
            "01:16:3e:12:34:56",
            "00-16-3e-12-34-56",
            "00:16:3e:12:34",
            "0:16:3e:12:34:56",
        ] {
            assert!(!is_mac(bad), "{bad}");
        }
        assert!(is_pool("tank") && is_pool("tank-2.a"));
        for bad in ["", "-r", "2tank", "a b", "a/b", "a@b", "$(id)"] {
            assert!(!is_pool(bad), "{bad}");
        }
    }
}
