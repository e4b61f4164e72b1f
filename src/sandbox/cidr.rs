//! A range of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network: an address and how many of its leading bits count. All others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of that size which `address` lies in.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Cidr, String> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(format!("/{prefix} is more than the {longest} bits of an address"));
        }
        if let IpAddr::V6(six) = address
            && let Some(four) = six.to_ipv4_mapped()
        {
            return Err(format!("write {four} for {address}"));
        }
        let address = match address {
            IpAddr::V4(four) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(four) & mask).into())
            }
            IpAddr::V6(six) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(six) & mask).into())
            }
        };
        Ok(Cidr { address, prefix })
    }

    /// One address alone.
    pub fn single(address: IpAddr) -> Cidr {
        let address = address.to_canonical();
        Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether an address lies in it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.contains(&Cidr::single(address))
    }

    /// Whether all of `other` lies in it.
    pub fn contains(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix
            && self.is_ipv6() == other.is_ipv6()
            && Cidr::new(other.address, self.prefix).is_ok_and(|wide| wide.address == self.address)
    }

    fn is_single(&self) -> bool {
        self.prefix == if self.is_ipv6() { 128 } else { 32 }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("'{address}' is not an address"))?;
        let prefix = match prefix {
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|_| prefix.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| format!("'/{prefix}' is not a number of bits"))?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        let network = Cidr::new(address, prefix)?;
        match network.address == address {
            true => Ok(network),
            false => Err(format!("{text} is an address inside {network}")),
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Cidr, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(network: Cidr) -> String {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    fn net(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses() {
        assert!(net("10.0.0.0/8").has("10.255.0.1".parse().unwrap()));
        assert!(!net("10.0.0.0/8").has("11.0.0.0".parse().unwrap()));
        assert!(net("10.0.0.0/8").has("::ffff:10.0.0.1".parse().unwrap()));
        assert!(net("0.0.0.0/0").has("1.2.3.4".parse().unwrap()));
        assert!(!net("0.0.0.0/0").has("::1".parse().unwrap()));
        assert!(net("::/0").has("::1".parse().unwrap()));
        assert!(net("10.0.0.0/8").contains(&net("10.1.0.0/16")));
        assert!(!net("10.1.0.0/16").contains(&net("10.0.0.0/8")));
    }
}
