//! Devices of the machine that a sandbox is on, given to it when it is made.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::spec::check_target;
use super::{Error, Policy, Protocol, Result, check_label, check_name, parse_place, parse_port};

/// What is asked for, in the words of scripts and of the command line: a type, and keys of that type.
pub type DeviceKeys = BTreeMap<String, String>;

/// A device in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the sandbox: as that of a sandbox, 32 letters at most.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: DeviceKind,
}

/// The kinds of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum DeviceKind {
    /// A folder of the machine, or a volume of one of its storage pools.
    Disk {
        /// The folder's absolute path; with a pool, the volume's name.
        source: String,
        /// The storage pool that has the volume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<String>,
        /// Absolute path in the guest.
        target: String,
        /// The guest can't write to it.
        #[serde(default)]
        readonly: bool,
    },
    /// A graphics processor, or all of them.
    Gpu {
        /// Its PCI address, such as `0000:01:00.0`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pci: Option<String>,
    },
    /// An interface in a network of the machine's.
    Nic {
        /// The network.
        network: String,
        /// The address that it always has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// Its hardware address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
    },
    /// What connects to a port of the machine's reaches one of the guest's.
    Proxy {
        /// Where the machine listens.
        listen: SocketAddr,
        /// Where in the guest it leads to.
        connect: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// USB devices.
    Usb {
        /// The maker: four hex digits.
        vendor: String,
        /// The model: four hex digits. All of the maker's when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        product: Option<String>,
    },
}

/// Each type with its keys; those before the bar must be given.
const TYPES: [(&str, &[&str], &[&str]); 5] = [
    ("disk", &["source", "target"], &["pool", "readonly"]),
    ("gpu", &[], &["pci"]),
    ("nic", &["network"], &["address", "mac"]),
    ("proxy", &["listen", "connect"], &["protocol"]),
    ("usb", &["vendor"], &["product"]),
];

impl Device {
    /// What a name, a type and keys say, checked.
    pub fn new(name: &str, mut keys: DeviceKeys) -> Result<Device> {
        let wrong = |message: String, hint: String| {
            Error::invalid_hint("devices", format!("'{}': {message}", name.escape_debug()), hint)
        };
        let types = || TYPES.map(|(known, ..)| known).join(", ");
        let Some(ty) = keys.remove("type") else {
            return Err(wrong("it has no type".into(), format!("the types are {}", types())));
        };
        let Some((_, needed, others)) = TYPES.iter().find(|(known, ..)| *known == ty) else {
            let message = format!("'{}' is no type of device", ty.escape_debug());
            return Err(wrong(message, format!("the types are {}", types())));
        };
        let known: Vec<&str> = needed.iter().chain(*others).copied().collect();
        if let Some(key) = keys.keys().find(|key| !known.contains(&key.as_str())) {
            let message = format!("a {ty} has no '{}'", key.escape_debug());
            return Err(wrong(message, format!("it has {}", known.join(", "))));
        }
        if let Some(key) = needed.iter().find(|key| !keys.contains_key(**key)) {
            return Err(wrong(
                format!("a {ty} needs '{key}'"),
                format!("it has {}", known.join(", ")),
            ));
        }
        let mut take = |key: &str| keys.remove(key);
        let mut text = |key: &str| take(key).unwrap_or_default();
        let kind = match ty.as_str() {
            "disk" => DeviceKind::Disk {
                source: text("source"),
                target: text("target"),
                readonly: match text("readonly").as_str() {
                    "" | "false" => false,
                    "true" => true,
                    other => {
                        let message = format!("readonly is '{}'", other.escape_debug());
                        return Err(wrong(message, "it is true or false".into()));
                    }
                },
                pool: take("pool"),
            },
            "gpu" => DeviceKind::Gpu { pci: take("pci") },
            "nic" => DeviceKind::Nic {
                network: text("network"),
                address: match take("address") {
                    None => None,
                    Some(text) => Some(text.parse().map_err(|_| {
                        let message = format!("'{}' is no IP address", text.escape_debug());
                        wrong(message, "write it as 192.0.2.7".into())
                    })?),
                },
                mac: take("mac"),
            },
            "proxy" => DeviceKind::Proxy {
                listen: {
                    let text = text("listen");
                    parse_place(&text).map_err(|_| {
                        let message = format!("it can't listen at '{}'", text.escape_debug());
                        wrong(message, "write it as 9000, 127.0.0.1:9000 or 0.0.0.0:9000".into())
                    })?
                },
                connect: {
                    let text = text("connect");
                    guest_place(&text).ok_or_else(|| {
                        let message = format!("'{}' is no place in the guest", text.escape_debug());
                        wrong(message, "write it as 80 or 127.0.0.1:80".into())
                    })?
                },
                protocol: match text("protocol").as_str() {
                    "" | "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    other => {
                        let message = format!("'{}' is no protocol", other.escape_debug());
                        return Err(wrong(message, "it is tcp or udp".into()));
                    }
                },
            },
            _ => DeviceKind::Usb { vendor: text("vendor"), product: take("product") },
        };
        let device = Device { name: name.to_owned(), kind };
        device.check()?;
        Ok(device)
    }

    /// Refuses what no backend can give.
    fn check(&self) -> Result<()> {
        let wrong = |message: String, hint: &str| {
            Error::invalid_hint(
                "devices",
                format!("'{}': {message}", self.name.escape_debug()),
                hint,
            )
        };
        if check_name(&self.name).is_err() || self.name.len() > 32 {
            let hint =
                "use 1 to 32 of a-z, 0-9 and '-', starting with a letter and not ending in '-'";
            return Err(wrong("it is not a name of a device".into(), hint));
        }
        let named = |what: &str, text: &str| match check_label(text) {
            Ok(()) => Ok(()),
            Err(_) => Err(wrong(
                format!("'{}' is not a name of a {what}", text.escape_debug()),
                "use letters, digits, '.', '_' and '-'",
            )),
        };
        let hex = |text: &str, parts: &[usize], between: &[char]| {
            let all: Vec<&str> = text.split(between).collect();
            all.len() == parts.len()
                && all.iter().zip(parts).all(|(part, length)| {
                    part.len() == *length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
                })
        };
        match &self.kind {
            DeviceKind::Disk { source, pool, target, .. } => {
                check_target("devices", target)?;
                match pool {
                    Some(pool) => named("pool", pool).and_then(|()| named("volume", source)),
                    None if source.starts_with('/') && !source.contains('\0') => Ok(()),
                    None => Err(wrong(
                        format!("source '{}' is not an absolute path", source.escape_debug()),
                        "a volume of the server's has a pool",
                    )),
                }
            }
            DeviceKind::Gpu { pci: None } => Ok(()),
            DeviceKind::Gpu { pci: Some(pci) } => {
                let fits =
                    hex(pci, &[4, 2, 2, 1], &[':', '.']) || hex(pci, &[2, 2, 1], &[':', '.']);
                match fits {
                    true => Ok(()),
                    false => Err(wrong(
                        format!("'{}' is no PCI address", pci.escape_debug()),
                        "write it as 0000:01:00.0",
                    )),
                }
            }
            DeviceKind::Nic { network, mac, .. } => {
                named("network", network)?;
                match mac {
                    Some(mac) if !super::hardware::is_mac(mac) => Err(wrong(
                        format!("'{}' is no hardware address of one machine", mac.escape_debug()),
                        "write it as 02:00:5e:00:53:01; the first pair is even",
                    )),
                    _ => Ok(()),
                }
            }
            DeviceKind::Proxy { listen, .. } if listen.port() == 0 => Err(wrong(
                "nobody would know its port".into(),
                "name the port it listens on; publish() finds a free one",
            )),
            DeviceKind::Proxy { .. } => Ok(()),
            DeviceKind::Usb { vendor, product } => {
                let odd = [Some(vendor), product.as_ref()]
                    .into_iter()
                    .flatten()
                    .find(|id| !hex(id, &[4], &[':']));
                match odd {
                    None => Ok(()),
                    Some(id) => Err(wrong(
                        format!("'{}' is no id of a USB device", id.escape_debug()),
                        "write it as lsusb shows it: four hex digits",
                    )),
                }
            }
        }
    }

    /// Whether two sandboxes may have it at the same time.
    pub fn can_be_had_twice(&self) -> bool {
        !matches!(self.kind, DeviceKind::Proxy { .. })
    }

    /// As a clone has it; none where there can be one of it only. An interface has addresses of its own
    /// there.
    pub fn of_clone(&self) -> Option<Device> {
        let mut device = self.clone();
        if let DeviceKind::Nic { address, mac, .. } = &mut device.kind {
            (*address, *mac) = (None, None);
        }
        self.can_be_had_twice().then_some(device)
    }

    /// Those of a clone: its source's and over them its own.
    pub fn all_of_clone(source: &[Device], own: &[Device]) -> Vec<Device> {
        let replaced = |device: &Device| own.iter().any(|one| one.name == device.name);
        let kept = source.iter().filter(|device| !replaced(device)).filter_map(Device::of_clone);
        kept.chain(own.iter().cloned()).collect()
    }

    /// Whether it reaches a network past the egress policy.
    pub fn is_nic(&self) -> bool {
        matches!(self.kind, DeviceKind::Nic { .. })
    }
}

/// A place in the guest: a port of its loopback interface, or an address and a port.
fn guest_place(text: &str) -> Option<SocketAddr> {
    if let Ok(port) = parse_port(text) {
        return Some((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().ok().filter(|place: &SocketAddr| place.port() != 0)
}

/// Refuses devices that no sandbox can have, alone or beside each other.
pub(super) fn check(devices: &[Device]) -> Result<()> {
    for (at, device) in devices.iter().enumerate() {
        device.check()?;
        if devices[..at].iter().any(|other| other.name == device.name) {
            let message = format!("'{}' is given twice", device.name);
            return Err(Error::invalid("devices", message));
        }
    }
    Ok(())
}

/// Refuses an interface where the policy is not that everything may be reached: nobody would enforce it.
pub fn check_devices(devices: &[Device], egress: &Policy) -> Result<()> {
    match devices.iter().find(|device| device.is_nic()) {
        Some(nic) if *egress != Policy::Unrestricted => Err(Error::invalid_hint(
            "devices",
            format!("'{}': an interface reaches what the egress policy forbids", nic.name),
            "leave it out, or say egress: \"unrestricted\"",
        )),
        _ => Ok(()),
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        match &self.kind {
            DeviceKind::Disk { source, pool, target, readonly } => {
                let pool = pool.as_ref().map(|pool| format!("{pool}/")).unwrap_or_default();
                let end = if *readonly { ":ro" } else { "" };
                write!(f, "disk {pool}{source}:{target}{end}")
            }
            DeviceKind::Gpu { pci: None } => f.write_str("gpu"),
            DeviceKind::Gpu { pci: Some(pci) } => write!(f, "gpu {pci}"),
            DeviceKind::Nic { network, address: None, .. } => write!(f, "nic {network}"),
            DeviceKind::Nic { network, address: Some(address), .. } => {
                write!(f, "nic {network} {address}")
            }
            DeviceKind::Proxy { listen, connect, protocol } => {
                write!(f, "proxy {listen} -> {connect}/{protocol}")
            }
            DeviceKind::Usb { vendor, product: None } => write!(f, "usb {vendor}"),
            DeviceKind::Usb { vendor, product: Some(product) } => {
                write!(f, "usb {vendor}:{product}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, text: &str) -> Result<Device> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Device::new(name, pairs.map(|(key, value)| (key.into(), value.into())).collect())
    }

    #[test]
    fn as_they_are_written() {
        let said: Vec<String> = [
            "type=disk,source=/srv/data,target=/data,readonly=true",
            "type=disk,source=vol,pool=fast,target=/data",
            "type=gpu",
            "type=gpu,pci=0000:01:00.0",
            "type=nic,network=lan,address=192.0.2.7,mac=02:00:5e:00:53:01",
            "type=proxy,listen=9000,connect=80",
            "type=proxy,listen=0.0.0.0:53,connect=127.0.0.1:5353,protocol=udp",
            "type=usb,vendor=046d,product=c52b",
        ]
        .iter()
        .map(|text| device("d", text).unwrap().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        d=disk /srv/data:/data:ro
        d=disk fast/vol:/data
        d=gpu
        d=gpu 0000:01:00.0
        d=nic lan 192.0.2.7
        d=proxy 127.0.0.1:9000 -> 127.0.0.1:80/tcp
        d=proxy 0.0.0.0:53 -> 127.0.0.1:5353/udp
        d=usb 046d:c52b
        ");
    }

    #[test]
    fn what_is_none_is_told() {
        let said: Vec<String> = [
            ("d", ""),
            ("d", "type=tpm"),
            ("D", "type=gpu"),
            ("raw.lxc", "type=gpu"),
            ("d", "type=disk,source=/a"),
            ("d", "type=disk,source=a,target=/a"),
            ("d", "type=disk,source=../a,pool=p,target=/a"),
            ("d", "type=disk,source=/a,target=/proc/x"),
            ("d", "type=disk,source=/a,target=/a,readonly=maybe"),
            ("d", "type=disk,source=/a,target=/a,raw.mount.options=dev"),
            ("d", "type=gpu,pci=1"),
            ("d", "type=nic,network=a b"),
            ("d", "type=nic,network=a,mac=1"),
            ("d", "type=nic,network=a,mac=00:00:00:00:00:00"),
            ("d", "type=nic,network=a,mac=ff:ff:ff:ff:ff:ff"),
            ("d", "type=nic,network=a,mac=01:00:5e:00:53:01"),
            ("d", "type=nic,network=a,address=1"),
            ("d", "type=proxy,listen=unix:/run/x,connect=80"),
            ("d", "type=proxy,listen=127.0.0.1,connect=80"),
            ("d", "type=proxy,listen=9000,connect=unix:/run/x"),
            ("d", "type=proxy,listen=9000,connect=80,bind=instance"),
            ("d", "type=usb"),
            ("d", "type=usb,vendor=0x1"),
        ]
        .iter()
        .map(|(name, text)| {
            let error = device(name, text).unwrap_err();
            format!("{error}; {}", error.hint().unwrap_or_default())
        })
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_clone_has_no_address_twice() {
        let nic = device("n", "type=nic,network=lan,address=192.0.2.7").unwrap();
        let proxy = device("p", "type=proxy,listen=9000,connect=80").unwrap();
        let gpu = device("g", "type=gpu").unwrap();
        let own = device("g", "type=gpu,pci=0000:01:00.0").unwrap();
        let all = Device::all_of_clone(&[nic, proxy, gpu], std::slice::from_ref(&own));
        let said: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["n=nic lan", "g=gpu 0000:01:00.0"]);
    }

    #[test]
    fn an_interface_needs_a_policy_that_allows_it() {
        let nic = [device("n", "type=nic,network=lan").unwrap()];
        check_devices(&nic, &Policy::Unrestricted).unwrap();
        assert!(check_devices(&nic, &Policy::None).is_err());
    }
}
