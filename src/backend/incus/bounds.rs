//! A policy as the addresses that it lets a guest reach: what a network ACL can say. An ACL has no order, so
//! what is refused is cut out of what is allowed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::egress::special_ranges;
use crate::sandbox::{Action, Cidr, Policy, Protocol, Rule, Target};

const ALL_PORTS: (u16, u16) = (0, u16::MAX);
const ALL: (u32, u32) = (0, u32::MAX);

/// The addresses that names have.
pub(super) type Found = BTreeMap<String, Vec<IpAddr>>;

/// First and last addresses.
type Ranges = Vec<(u32, u32)>;

struct Piece {
    protocol: Protocol,
    ports: (u16, u16),
    to: Ranges,
}

/// The names whose addresses a policy needs; nothing where addresses can't say what it means: with names below
/// others, and with names that are refused, behind whose addresses there may be allowed ones.
pub(super) fn names(policy: &Policy) -> Option<Vec<&str>> {
    if !matches!(policy, Policy::Rules(_)) {
        return None;
    }
    let mut names = Vec::new();
    for rule in policy.rules() {
        match &rule.target {
            Target::Name { pattern, .. }
                if rule.action == Action::Deny || pattern.starts_with("*.") =>
            {
                return None;
            }
            Target::Name { pattern, .. } => names.push(pattern.as_str()),
            Target::Any | Target::Network(_) => {}
        }
    }
    Some(names)
}

/// Whether every name may be asked for.
pub(super) fn is_open(policy: &Policy) -> bool {
    policy.rules().any(|rule| rule.action == Action::Allow && rule.target == Target::Any)
}

fn number(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(_) => None,
    }
}

fn range(network: &Cidr) -> Option<(u32, u32)> {
    let first = number(network.address())?;
    let rest = u32::MAX.checked_shr(u32::from(network.prefix())).unwrap_or(0);
    Some((first, first | rest))
}

fn without<T: Copy + Ord>(
    all: &[(T, T)],
    cut: (T, T),
    below: impl Fn(T) -> T,
    above: impl Fn(T) -> T,
) -> Vec<(T, T)> {
    let parts = all.iter().flat_map(|one| {
        if one.1 < cut.0 || cut.1 < one.0 {
            return [Some(*one), None];
        }
        let before = (one.0 < cut.0).then(|| (one.0, below(cut.0)));
        let behind = (cut.1 < one.1).then(|| (above(cut.1), one.1));
        [before, behind]
    });
    parts.flatten().collect()
}

fn minus(all: &[(u32, u32)], cut: (u32, u32)) -> Ranges {
    without(all, cut, |at| at - 1, |at| at + 1)
}

/// What a rule means beside addresses that are closed unless they are named.
fn reach(rule: &Rule, found: &Found, hosts: &[IpAddr]) -> Ranges {
    let foreign = |mut all: Ranges| {
        for host in hosts.iter().filter_map(|host| number(*host)) {
            all = minus(&all, (host, host));
        }
        all
    };
    let public = |all: Ranges| {
        let special = special_ranges().filter_map(|network| range(&network));
        foreign(special.fold(all, |all, cut| minus(&all, cut)))
    };
    match &rule.target {
        Target::Any => public(vec![ALL]),
        Target::Network(network) => {
            let all: Ranges = range(network).into_iter().collect();
            if hosts.iter().any(|host| Cidr::single(*host) == *network) {
                all
            } else if special_ranges().any(|range| range.contains(network)) {
                foreign(all)
            } else {
                public(all)
            }
        }
        Target::Name { pattern, within } => {
            let addresses = found.get(pattern).into_iter().flatten();
            let open = addresses.filter(|address| {
                let special =
                    hosts.contains(address) || special_ranges().any(|range| range.has(**address));
                !special || within.is_some_and(|within| within.has(**address))
            });
            let mut all: Ranges =
                open.filter_map(|address| number(*address)).map(|one| (one, one)).collect();
            all.sort_unstable();
            all.dedup();
            all
        }
    }
}

fn protocols(rule: &Rule) -> impl Iterator<Item = Protocol> {
    let named = matches!(rule.target, Target::Name { .. });
    [Protocol::Tcp, Protocol::Udp].into_iter().filter(move |protocol| match rule.protocol {
        Some(own) => own == *protocol,
        // Nobody sees which name a datagram is for: only a rule that says so opens it.
        None => !named || *protocol == Protocol::Tcp,
    })
}

/// The rules of an ACL that lets through what the policy does, by IPv4, with these addresses for its names.
/// `hosts` are the addresses of the server's machine, and `own` the range of networks that are ours.
pub(super) fn rules(policy: &Policy, found: &Found, hosts: &[IpAddr], own: &Cidr) -> Vec<Value> {
    let mut pieces: Vec<Piece> = Vec::new();
    let rules: Vec<&Rule> = policy.rules().collect();
    // The first one decides: so what comes earlier is done later.
    for rule in rules.into_iter().rev() {
        let ports = rule.ports.unwrap_or(ALL_PORTS);
        if rule.action == Action::Allow {
            let mut to = reach(rule, found, hosts);
            if let Some(own) = range(own) {
                to = minus(&to, own);
            }
            pieces.extend(protocols(rule).map(|protocol| Piece {
                protocol,
                ports,
                to: to.clone(),
            }));
            continue;
        }
        let cut = match &rule.target {
            Target::Network(network) => range(network),
            Target::Any => Some(ALL),
            Target::Name { .. } => None,
        };
        let Some(cut) = cut else { continue };
        let denied: Vec<Protocol> = protocols(rule).collect();
        let mut left = Vec::new();
        for piece in pieces {
            if !denied.contains(&piece.protocol)
                || piece.ports.1 < ports.0
                || ports.1 < piece.ports.0
            {
                left.push(piece);
                continue;
            }
            let spared = without(&[piece.ports], ports, |at| at - 1, |at| at + 1);
            let both = (piece.ports.0.max(ports.0), piece.ports.1.min(ports.1));
            left.extend(spared.into_iter().map(|ports| Piece {
                ports,
                to: piece.to.clone(),
                ..piece
            }));
            left.push(Piece { ports: both, to: minus(&piece.to, cut), ..piece });
        }
        pieces = left;
    }
    pieces.reverse();
    let mut all: Vec<Value> = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.to.is_empty()) {
        let one = |(first, last): &(u32, u32)| match first == last {
            true => Ipv4Addr::from(*first).to_string(),
            false => format!("{}-{}", Ipv4Addr::from(*first), Ipv4Addr::from(*last)),
        };
        let to: Vec<String> = piece.to.iter().map(one).collect();
        let mut rule = json!({
            "action": "allow", "state": "enabled", "protocol": piece.protocol.to_string(),
            "destination": to.join(","),
        });
        match piece.ports {
            ALL_PORTS => {}
            (first, last) if first == last => rule["destination_port"] = first.to_string().into(),
            (first, last) => rule["destination_port"] = format!("{first}-{last}").into(),
        }
        if !all.contains(&rule) {
            all.push(rule);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> String {
        let policy = Policy::allowlist(lines).unwrap();
        let found = Found::from([
            (
                "a.test".to_owned(),
                vec!["203.0.113.9".parse().unwrap(), "10.1.2.3".parse().unwrap()],
            ),
            ("b.test".to_owned(), vec!["203.0.113.1".parse().unwrap(), "::1".parse().unwrap()]),
        ]);
        let hosts = ["203.0.113.1".parse().unwrap(), "10.0.0.7".parse().unwrap()];
        let all = rules(&policy, &found, &hosts, &"198.19.0.0/16".parse().unwrap());
        let line = |rule: &Value| {
            let port = rule["destination_port"].as_str().unwrap_or("*");
            let word = |key: &str| rule[key].as_str().unwrap().to_owned();
            format!("{} {port} {}", word("protocol"), word("destination"))
        };
        all.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_refused_is_cut_out() {
        assert_eq!(
            of(&["192.0.2.0/24:80-90"]),
            "udp 80-90 192.0.2.0-192.0.2.255\ntcp 80-90 192.0.2.0-192.0.2.255"
        );
        assert_eq!(
            of(&["deny 192.0.2.4/30:443", "tcp://192.0.2.0/28", "deny *"]),
            "tcp 443 192.0.2.0-192.0.2.3,192.0.2.8-192.0.2.15\ntcp 444-65535 192.0.2.0-192.0.2.15\ntcp 0-442 192.0.2.0-192.0.2.15"
        );
        // The first one that matches decides.
        assert_eq!(
            of(&["tcp://192.0.2.1", "deny 192.0.2.0/24", "tcp://192.0.2.0/30"]),
            "tcp * 192.0.2.1"
        );
        assert_eq!(of(&["deny *", "192.0.2.1"]), "");
        assert_eq!(of(&["2001:db8::/32", "[2001:db8::1]:443"]), "");
    }

    #[test]
    fn private_and_own_addresses_have_to_be_named() {
        assert_eq!(of(&["tcp://a.test:443"]), "tcp 443 203.0.113.9");
        assert_eq!(of(&["a.test@10.0.0.0/8"]), "tcp * 10.1.2.3,203.0.113.9");
        assert_eq!(of(&["udp://b.test"]), "");
        assert_eq!(of(&["tcp://203.0.113.1"]), "tcp * 203.0.113.1");
        assert_eq!(of(&["tcp://10.0.0.0/29"]), "tcp * 10.0.0.0-10.0.0.6");
        assert_eq!(of(&["tcp://198.19.0.0/24"]), "");
        let all = of(&["tcp://*:443"]);
        assert!(all.starts_with("tcp 443 1.0.0.0-9.255.255.255,11.0.0.0-100.63.255.255,"), "{all}");
        assert!(
            all.contains("-203.0.113.0,203.0.113.2-") && all.ends_with("-223.255.255.255"),
            "{all}"
        );
    }

    #[test]
    fn addresses_can_not_say_everything() {
        let of =
            |lines: &[&str]| names(&Policy::allowlist(lines).unwrap()).map(|names| names.join(" "));
        assert_eq!(of(&["a.test", "*", "10.0.0.0/8", "deny 1.2.3.4"]).as_deref(), Some("a.test"));
        assert_eq!(of(&["*.a.test"]), None);
        assert_eq!(of(&["deny a.test", "*"]), None);
        assert_eq!(names(&Policy::Unrestricted), None);
        assert!(is_open(&Policy::allowlist(["*:443"]).unwrap()));
        assert!(!is_open(&Policy::allowlist(["deny *", "a.test"]).unwrap()));
    }
}
