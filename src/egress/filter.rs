//! A policy's rules applied to connections.

use std::net::IpAddr;

use super::special::special;
use crate::sandbox::{Action, Policy, Protocol, Reason, Rule, Target};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It is refused.
    Deny(Reason),
}

/// Decides by one policy.
#[derive(Clone, Debug)]
pub struct Filter {
    policy: Policy,
}

impl Filter {
    /// By this policy.
    pub fn new(policy: Policy) -> Filter {
        Filter { policy }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a name may be asked for: some port of it may be allowed. In lower case.
    pub fn resolves(&self, name: &str) -> bool {
        if self.policy == Policy::Unrestricted {
            return true;
        }
        for rule in self.policy.rules().filter(|rule| rule.names(name)) {
            match rule.action {
                Action::Allow => return true,
                Action::Deny if rule.ports.is_none() && rule.protocol.is_none() => return false,
                Action::Deny => {}
            }
        }
        false
    }

    /// Decides about a connection to `address`, which `name` was found to have.
    pub fn connect(
        &self,
        name: Option<&str>,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Verdict {
        self.decide(name, address, port, protocol).unwrap_or(Verdict::Deny(Reason::NotAllowed))
    }

    /// Like [`Filter::connect`] without a name; none when it depends on the name.
    pub fn unnamed(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<Verdict> {
        let depends =
            |rule: &&Rule| rule.fits(protocol, port) && matches!(rule.target, Target::Name { .. });
        let without = self.decide(None, address, port, protocol);
        match without {
            Some(Verdict::Allow) => {
                // A name that is denied first may be behind the address.
                let place = self.first_allow(address, port, protocol);
                let mut before = self.policy.rules().take(place.unwrap_or(0));
                let denied = before.any(|rule| depends(&rule) && rule.action == Action::Deny);
                (!denied).then_some(Verdict::Allow)
            }
            other => match self.policy.rules().any(|rule| depends(&rule)) {
                true => None,
                false => other.or(Some(Verdict::Deny(Reason::NotAllowed))),
            },
        }
    }

    /// Decides about what is carried, by the protocol's own way.
    pub fn carries(
        &self,
        name: Option<&str>,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Verdict {
        match protocol {
            Protocol::Tcp => self.connect(name, address, port, protocol),
            Protocol::Udp => self.datagram(name, address, port),
        }
    }

    /// Decides about UDP to `address`, which `name` was found to have. Nobody can see in it which name
    /// it is for, and behind one address there may be many: a rule about a name counts only when it
    /// says `udp://`.
    pub fn datagram(&self, name: Option<&str>, address: IpAddr, port: u16) -> Verdict {
        if let Some(verdict) = self.unnamed(address, port, Protocol::Udp) {
            return verdict;
        }
        let counts = |rule: &&Rule| {
            let named = matches!(rule.target, Target::Name { .. });
            rule.action == Action::Deny || (named && rule.protocol == Some(Protocol::Udp))
        };
        let rules = self.policy.rules().filter(counts);
        decide(rules, name, address, port, Protocol::Udp)
            .unwrap_or(Verdict::Deny(Reason::NotAllowed))
    }

    fn first_allow(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<usize> {
        self.policy.rules().position(|rule| {
            let hit = match &rule.target {
                Target::Any => true,
                Target::Network(network) => network.has(address),
                Target::Name { .. } => false,
            };
            hit && rule.action == Action::Allow && rule.fits(protocol, port)
        })
    }

    fn decide(
        &self,
        name: Option<&str>,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<Verdict> {
        if self.policy == Policy::Unrestricted {
            return Some(Verdict::Allow);
        }
        decide(self.policy.rules(), name, address, port, protocol)
    }
}

/// By the first rule that matches; none when none does.
fn decide<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    name: Option<&str>,
    address: IpAddr,
    port: u16,
    protocol: Protocol,
) -> Option<Verdict> {
    let address = address.to_canonical();
    let special = special(address);
    let mut private = false;
    for rule in rules.filter(|rule| rule.fits(protocol, port)) {
        let open = match &rule.target {
            Target::Any => special.is_none(),
            Target::Name { within, .. } => {
                if !name.is_some_and(|name| rule.names(name)) {
                    continue;
                }
                let named = within.is_some_and(|within| within.has(address));
                special.is_none() || named
            }
            Target::Network(network) => {
                if !network.has(address) {
                    continue;
                }
                special.is_none_or(|range| range.contains(network))
            }
        };
        match (rule.action, open) {
            (Action::Deny, _) => return Some(Verdict::Deny(Reason::NotAllowed)),
            (Action::Allow, true) => return Some(Verdict::Allow),
            (Action::Allow, false) => private = true,
        }
    }
    private.then_some(Verdict::Deny(Reason::Private))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(rules: &[&str]) -> Filter {
        Filter::new(Policy::allowlist(rules).unwrap())
    }

    fn to(filter: &Filter, name: &str, address: &str, port: u16) -> Verdict {
        let name = (!name.is_empty()).then_some(name);
        filter.connect(name, address.parse().unwrap(), port, Protocol::Tcp)
    }

    const NO: Verdict = Verdict::Deny(Reason::NotAllowed);
    const PRIVATE: Verdict = Verdict::Deny(Reason::Private);

    #[test]
    fn the_first_rule_that_matches_decides() {
        let one = filter(&["deny x.a.test", "*.a.test:443", "198.51.100.0/24", "tcp://b.test"]);
        assert_eq!(to(&one, "x.a.test", "203.0.113.1", 443), NO);
        assert_eq!(to(&one, "y.a.test", "203.0.113.1", 443), Verdict::Allow);
        assert_eq!(to(&one, "y.a.test", "203.0.113.1", 80), NO);
        assert_eq!(to(&one, "c.test", "198.51.100.7", 1), Verdict::Allow);
        assert_eq!(to(&one, "", "198.51.100.7", 1), Verdict::Allow);
        assert_eq!(to(&one, "", "203.0.113.1", 443), NO);
        let udp = one.connect(Some("b.test"), "203.0.113.1".parse().unwrap(), 1, Protocol::Udp);
        assert_eq!(udp, NO);
        assert!(one.resolves("y.a.test") && one.resolves("b.test") && !one.resolves("x.a.test"));
        assert!(!one.resolves("c.test"));
    }

    #[test]
    fn private_addresses_are_closed_unless_named() {
        let one = filter(&["a.test", "m.test@10.2.0.0/16", "0.0.0.0/0", "192.168.1.0/24"]);
        assert_eq!(to(&one, "a.test", "10.0.0.1", 80), PRIVATE);
        assert_eq!(to(&one, "m.test", "10.2.0.1", 80), Verdict::Allow);
        assert_eq!(to(&one, "m.test", "10.3.0.1", 80), PRIVATE);
        assert_eq!(to(&one, "", "169.254.169.254", 80), PRIVATE);
        assert_eq!(to(&one, "", "192.168.1.9", 80), Verdict::Allow);
        assert_eq!(to(&one, "", "192.168.2.9", 80), PRIVATE);
        assert_eq!(to(&one, "", "203.0.113.1", 80), Verdict::Allow);
        assert_eq!(to(&filter(&["*"]), "", "127.0.0.1", 80), PRIVATE);
        assert_eq!(to(&filter(&["*"]), "x", "::ffff:10.0.0.1", 80), PRIVATE);
        assert_eq!(to(&Filter::new(Policy::None), "x", "203.0.113.1", 80), NO);
        let all = Filter::new(Policy::Unrestricted);
        assert_eq!(to(&all, "", "127.0.0.1", 80), Verdict::Allow);
    }

    #[test]
    fn names_open_udp_only_where_a_rule_says_so() {
        let ask = |rules: &[&str], name: &str, address: &str| {
            let name = (!name.is_empty()).then_some(name);
            filter(rules).carries(name, address.parse().unwrap(), 443, Protocol::Udp)
        };
        let cdn = "203.0.113.1";
        assert_eq!(ask(&["a.test"], "a.test", cdn), NO);
        assert_eq!(ask(&["a.test:443"], "a.test", cdn), NO);
        assert_eq!(ask(&["udp://a.test:443"], "a.test", cdn), Verdict::Allow);
        assert_eq!(ask(&["udp://a.test:443"], "b.test", cdn), NO);
        assert_eq!(ask(&["udp://a.test:443"], "a.test", "10.0.0.1"), PRIVATE);
        assert_eq!(ask(&["udp://a.test:53"], "a.test", cdn), NO);
        assert_eq!(ask(&["203.0.113.0/24"], "", cdn), Verdict::Allow);
        assert_eq!(ask(&["tcp://203.0.113.0/24"], "", cdn), NO);
        assert_eq!(ask(&["a.test", "203.0.113.0/24"], "a.test", cdn), Verdict::Allow);
        assert_eq!(ask(&["*"], "", cdn), Verdict::Allow);
        // Behind the address there may be the one that is denied.
        assert_eq!(ask(&["deny b.test", "*"], "a.test", cdn), NO);
        assert_eq!(ask(&["deny b.test", "udp://a.test", "*"], "a.test", cdn), Verdict::Allow);
        assert_eq!(ask(&["deny a.test", "udp://*.test", "udp://a.test"], "a.test", cdn), NO);
        let all = Filter::new(Policy::Unrestricted);
        assert_eq!(all.datagram(None, "10.0.0.1".parse().unwrap(), 1), Verdict::Allow);
    }

    #[test]
    fn some_decisions_need_no_name() {
        let address = "203.0.113.1".parse().unwrap();
        let ask = |rules: &[&str]| filter(rules).unnamed(address, 443, Protocol::Tcp);
        assert_eq!(ask(&["a.test", "203.0.113.0/24"]), Some(Verdict::Allow));
        assert_eq!(ask(&["deny a.test", "203.0.113.0/24"]), None);
        assert_eq!(ask(&["deny a.test:80", "*"]), Some(Verdict::Allow));
        assert_eq!(ask(&["a.test"]), None);
        assert_eq!(ask(&["a.test:80", "10.0.0.0/8"]), Some(NO));
    }
}
