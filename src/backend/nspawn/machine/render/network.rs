//! Interfaces as systemd-nspawn makes them, what is left to do on the host, and files that tell the
//! machine's networkd its addresses. Nothing of the host's own network is changed, and no networkd is
//! needed there.

use std::path::{Path, PathBuf};

use crate::backend::nspawn::machine::file::Machine;
use crate::backend::nspawn::machine::nic::{Link, Network, Nic};

/// The program that plugs interfaces in.
const IP: &str = "/usr/sbin/ip";
/// The name that systemd-nspawn gives the first pair of cables in the machine.
const HOST0: &str = "host0";
/// The longest name of a machine for which systemd-nspawn's own name of an interface is whole.
const WHOLE: usize = 12;

/// What the interfaces come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// Whether there is the pair of cables that systemd-nspawn names by itself.
    pub veth: bool,
    /// Keys of the section `Network`.
    pub settings: Vec<(&'static str, String)>,
    /// Commands on the host, when the interfaces are there.
    pub attach: Vec<Vec<String>>,
    /// Files: where on the host, what is in them, and their permissions.
    pub files: Vec<(PathBuf, String, u32)>,
    /// Which of them are bound where.
    pub binds: Vec<(PathBuf, String)>,
}

/// Makes them.
pub fn make(machine: &Machine, folder: &Path) -> Made {
    let mut made = Made::default();
    if let Network::Own(nics) = &machine.network {
        for (at, nic) in nics.iter().enumerate() {
            one(&mut made, machine, nic, at, folder);
        }
    }
    if let Some(text) = machine.resolv.file() {
        let path = folder.join("resolv.conf");
        made.files.push((path.clone(), text, 0o644));
        made.binds.push((path, "/etc/resolv.conf".into()));
    }
    for (target, text) in machine.cloud_init.iter().flat_map(|cloud| cloud.files(&machine.name)) {
        let name = target.rsplit('/').next().unwrap_or_default();
        let path = folder.join(format!("cloud-init-{name}"));
        made.files.push((path.clone(), text, 0o644));
        made.binds.push((path, target));
    }
    made
}

fn one(made: &mut Made, machine: &Machine, nic: &Nic, at: usize, folder: &Path) {
    let first = !made.veth && nic.name.as_deref().is_none_or(|name| name == HOST0);
    let cables = |made: &mut Made| -> (String, String) {
        let outer = outer(&machine.name, at);
        let inner = nic.name.clone().unwrap_or_else(|| format!("host{at}"));
        made.settings.push(("VirtualEthernetExtra", format!("{outer}:{inner}")));
        (outer, inner)
    };
    let set = |words: &[&str]| -> Vec<String> {
        [IP].iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    let inner = match &nic.link {
        Link::Bridge(bridge) if first => {
            made.veth = true;
            made.settings.push(("Bridge", bridge.clone()));
            HOST0.to_owned()
        }
        Link::Bridge(bridge) => {
            let (outer, inner) = cables(made);
            made.attach.push(set(&["link", "set", &outer, "master", bridge, "up"]));
            inner
        }
        Link::Zone(zone) if first => {
            made.veth = true;
            made.settings.push(("Zone", zone.clone()));
            HOST0.to_owned()
        }
        Link::Zone(zone) => {
            let (outer, inner) = cables(made);
            let bridge = format!("vz-{zone}");
            made.attach.push(set(&["link", "set", &outer, "master", &bridge, "up"]));
            inner
        }
        Link::Veth => {
            let (outer, inner) = if first && machine.name.len() <= WHOLE {
                made.veth = true;
                (format!("ve-{}", machine.name), HOST0.to_owned())
            } else if first {
                let outer = outer(&machine.name, at);
                made.settings.push(("VirtualEthernetExtra", format!("{outer}:{HOST0}")));
                (outer, HOST0.to_owned())
            } else {
                cables(made)
            };
            // The machine's gateway is the host's end.
            let ends = nic.gateway.iter().flat_map(|gateway| {
                let same = nic.addresses.iter().filter(|(ip, _)| ip.is_ipv4() == gateway.is_ipv4());
                same.map(move |(_, length)| format!("{gateway}/{length}"))
            });
            for end in ends.take(1) {
                made.attach.push(set(&["address", "replace", &end, "dev", &outer]));
            }
            made.attach.push(set(&["link", "set", &outer, "up"]));
            inner
        }
        Link::Macvlan(parent) => {
            made.settings.push(("MACVLAN", parent.clone()));
            format!("mv-{}*", cut(parent))
        }
        Link::Ipvlan(parent) => {
            made.settings.push(("IPVLAN", parent.clone()));
            format!("iv-{}*", cut(parent))
        }
        Link::Interface(name) => {
            made.settings.push(("Interface", name.clone()));
            name.clone()
        }
    };
    // The rule that comes with systemd asks by DHCP on host0 alone.
    if inner != HOST0 || !nic.addresses.is_empty() || !nic.dns.is_empty() {
        let path = folder.join(format!("{at}.network"));
        made.files.push((path.clone(), rule(nic, &inner), 0o644));
        made.binds.push((path, format!("/etc/systemd/network/50-sandscript-{at}.network")));
    }
}

/// The host's end of a pair that we name: by the machine, however long its name is.
fn outer(machine: &str, at: usize) -> String {
    format!("sv{}-{at}", &blake3::hash(machine.as_bytes()).to_hex()[..8])
}

/// As much of an interface's name as is left of it behind a prefix of three.
fn cut(parent: &str) -> &str {
    parent.get(..12.min(parent.len())).unwrap_or(parent)
}

/// What the machine's networkd is told.
fn rule(nic: &Nic, inner: &str) -> String {
    let mut text = format!("[Match]\nVirtualization=container\nName={inner}\n\n[Network]\n");
    if nic.addresses.is_empty() {
        text.push_str("DHCP=yes\nLinkLocalAddressing=ipv6\n");
    }
    for (ip, length) in &nic.addresses {
        text.push_str(&format!("Address={ip}/{length}\n"));
    }
    if let Some(gateway) = nic.gateway {
        text.push_str(&format!("Gateway={gateway}\n"));
    }
    for server in &nic.dns {
        text.push_str(&format!("DNS={server}\n"));
    }
    if nic.addresses.is_empty() {
        text.push_str("\n[DHCPv4]\nUseTimezone=yes\n");
    }
    text
}
