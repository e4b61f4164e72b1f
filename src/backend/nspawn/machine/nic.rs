//! `network` and `nics`: how the machine is on the network.

use std::net::IpAddr;

use super::error::{MachineError, Place, Result};
use super::reader::{Reader, domain};
use super::tree::{Node, Value};

/// Which network the machine is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Network {
    /// Its own, with nothing but `lo`: all that it sends goes through the gate, which keeps to its policy.
    #[default]
    Gate,
    /// Its own, with these interfaces.
    Own(Vec<Nic>),
    /// Its own, with nothing but `lo`.
    Nothing,
    /// The host's: it sees and can take the host's ports and addresses.
    Host,
}

/// What an interface is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A bridge of the host.
    Bridge(String),
    /// An interface of the host, with a MAC of its own; the host itself is not reached by it.
    Macvlan(String),
    /// An interface of the host, with its MAC.
    Ipvlan(String),
    /// An interface of the host, which leaves the host for as long as the machine runs.
    Interface(String),
    /// The host, by a pair of virtual cables.
    Veth,
    /// A bridge that all machines of one zone share.
    Zone(String),
}

/// An interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Nic {
    /// What it is plugged into.
    pub link: Link,
    /// What it is called in the machine; as systemd-nspawn calls it where it is not said.
    pub name: Option<String>,
    /// Its addresses with the length of the network's prefix. Without one it asks by DHCP.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where everything else is reached. Of a `veth`, it is the host's end.
    pub gateway: Option<IpAddr>,
    /// Whom it asks for names.
    pub dns: Vec<IpAddr>,
}

impl Nic {
    /// With nothing but a link.
    pub fn new(link: Link) -> Nic {
        Nic { link, name: None, addresses: Vec::new(), gateway: None, dns: Vec::new() }
    }

    /// Reads a table with one of `bridge`, `macvlan`, `ipvlan`, `interface`, `zone`, `veth = true`.
    fn read(node: &Node) -> Result<Nic> {
        let reader = Reader::new(node)?;
        let mut links = Vec::new();
        for (key, link) in LINKS {
            if let Some(name) = reader.text(key)? {
                check_name(&name, reader.place_of(key))?;
                links.push(link(name));
            }
        }
        if reader.flag("veth")?.unwrap_or(false) {
            links.push(Link::Veth);
        }
        let place = reader.place();
        let Ok([link]) = <[Link; 1]>::try_from(links) else {
            return Err(MachineError::invalid(place, "an interface is plugged into one thing")
                .or_hint("say one of bridge, macvlan, ipvlan, interface, zone, or veth = true"));
        };
        let name = reader.text("name")?;
        if let Some(name) = &name {
            check_name(name, reader.place_of("name"))?;
        }
        let address = |node: &Node| -> Result<(IpAddr, u8)> {
            let word = super::reader::text(node)?;
            address(&word).ok_or_else(|| {
                MachineError::invalid(
                    node.origin.place(),
                    format!("'{word}' is not an address with its network"),
                )
                .or_hint("write it as \"192.0.2.7/24\"")
            })
        };
        let ip = |node: &Node| -> Result<IpAddr> {
            let word = super::reader::text(node)?;
            word.parse().map_err(|_| {
                MachineError::invalid(node.origin.place(), format!("'{word}' is not an address"))
            })
        };
        let nic = Nic {
            link,
            name,
            addresses: reader.list("address")?.into_iter().map(address).collect::<Result<_>>()?,
            gateway: reader.node("gateway").map(ip).transpose()?,
            dns: reader.list("dns")?.into_iter().map(ip).collect::<Result<_>>()?,
        };
        if nic.gateway.is_some() && nic.addresses.is_empty() {
            return Err(MachineError::invalid(
                reader.place_of("gateway"),
                "a gateway needs an address to be reached from",
            )
            .or_hint("say address = \"192.0.2.7/24\", or leave both to DHCP"));
        }
        let fixed = matches!(nic.link, Link::Interface(_) | Link::Macvlan(_) | Link::Ipvlan(_));
        if nic.name.is_some() && fixed {
            return Err(MachineError::invalid(
                reader.place_of("name"),
                "systemd-nspawn names this interface itself",
            )
            .or_hint("a macvlan of eno1 is mv-eno1 in the machine, an ipvlan iv-eno1"));
        }
        reader.finish()?;
        Ok(nic)
    }
}

/// An address with the length of its prefix.
pub fn address(word: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = word.split_once('/')?;
    let (ip, length): (IpAddr, u8) = (ip.parse().ok()?, length.parse().ok()?);
    (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
}

/// A key, and the link that it makes of a name.
type Named = (&'static str, fn(String) -> Link);

/// The links that have a name, by their keys.
const LINKS: &[Named] = &[
    ("bridge", Link::Bridge),
    ("macvlan", Link::Macvlan),
    ("ipvlan", Link::Ipvlan),
    ("interface", Link::Interface),
    ("zone", Link::Zone),
];

/// Refuses what the kernel takes for no name of an interface.
pub fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.chars().all(|c| c.is_ascii_graphic() && !"/:%".contains(c))
}

fn check_name(name: &str, place: Place) -> Result<()> {
    if is_interface(name) {
        return Ok(());
    }
    let shown = name.escape_debug();
    Err(MachineError::invalid(place, format!("'{shown}' can't be the name of an interface"))
        .or_hint("it has 1 to 15 characters, and no space, '/', ':' or '%'"))
}

/// Whether `network = "gate"` stands in a file that is laid over the one that says `nics`.
fn is_over(root: &Reader<'_>) -> bool {
    let source = |key| root.node(key).map(|node| node.origin.source.name.clone());
    root.text("network").is_ok_and(|word| word.as_deref() == Some("gate"))
        && source("network") != source("nics")
}

/// Keys by which systemd-nspawn is told of interfaces.
const PASSED: &[&str] = &[
    "Bridge",
    "IPVLAN",
    "Interface",
    "MACVLAN",
    "VirtualEthernet",
    "VirtualEthernetExtra",
    "Zone",
];

/// Whether interfaces are said by systemd-nspawn's own names.
fn is_passed(root: &Reader<'_>) -> bool {
    let Some(Node { value: Value::Table(table), .. }) = root.node("nspawn") else { return false };
    match table.get("Network").map(|node| &node.value) {
        Some(Value::Table(table)) => PASSED.iter().any(|key| table.get(key).is_some()),
        _ => false,
    }
}

/// Reads `network = "gate"`, `"own"`, `"host"` or `"none"`, and `nics`.
pub(super) fn read(root: &Reader<'_>) -> Result<Network> {
    let nics = match root.node("nics") {
        None => None,
        Some(node @ Node { value: Value::List(list), .. }) => {
            let nics: Vec<Nic> = list.iter().map(Nic::read).collect::<Result<_>>()?;
            check_names(&nics, node)?;
            (!is_over(root)).then_some(nics)
        }
        Some(node) => return Err(super::reader::wrong(node, "a list", node.value.kind())),
    };
    let word = root.text("network")?;
    let place = root.place_of("network");
    match (word.as_deref(), nics) {
        (None, None) if !is_passed(root) => Ok(Network::Gate),
        (None | Some("own"), None) => Ok(Network::Own(vec![Nic::new(Link::Veth)])),
        (None | Some("own"), Some(nics)) if nics.is_empty() => Ok(Network::Nothing),
        (None | Some("own"), Some(nics)) => Ok(Network::Own(nics)),
        (Some("gate" | "host" | "none"), Some(nics)) if !nics.is_empty() => {
            Err(MachineError::invalid(place, "a machine with nics has a network of its own")
                .or_hint("leave network out, or say nics = []"))
        }
        (Some("gate"), _) => Ok(Network::Gate),
        (Some("host"), _) => Ok(Network::Host),
        (Some("none"), _) => Ok(Network::Nothing),
        (Some(other), _) => {
            let error = crate::sandbox::Error::invalid_hint(
                "network",
                format!("there is no network '{other}'"),
                "it is gate, own, host or none; bridges and others are nics",
            );
            let node = root.node("network");
            Err(node.map_or_else(
                || MachineError::invalid(place, error.to_string()),
                |node| domain(node, &error),
            ))
        }
    }
}

fn check_names(nics: &[Nic], node: &Node) -> Result<()> {
    for (at, nic) in nics.iter().enumerate() {
        let twice = nics[..at].iter().any(|other| nic.name.is_some() && other.name == nic.name);
        if let (true, Some(name)) = (twice, &nic.name) {
            let message = format!("two interfaces are called '{name}'");
            return Err(MachineError::invalid(node.origin.place(), message));
        }
    }
    Ok(())
}
