//! What a sandbox reached and what it was refused.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Action, Cidr, Protocol, Rule, Target};

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// No rule allows it.
    NotAllowed,
    /// An allowed name led to a private address, to this host or to a metadata service.
    Private,
    /// It is an address of a network that the sandbox is in, and nobody there has it.
    NoPeer,
    /// The gate does not carry this protocol.
    Protocol,
    /// It is not what it claims to be: a TLS or HTTP greeting without a name, or with another one.
    Unnamed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotAllowed => "no rule allows it",
            Reason::Private => "the address is private, and no rule names it",
            Reason::NoPeer => "nobody in its networks has this address",
            Reason::Protocol => "the gate does not carry this protocol",
            Reason::Unnamed => "it names no host that could be checked",
        })
    }
}

/// Connections that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// How often.
    pub count: u64,
    /// The name it was for, where one is known.
    pub name: Option<String>,
    /// The address it was for, where one is known.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The guest's program, where it is known.
    pub process: Option<String>,
    /// Why.
    pub reason: Reason,
}

impl Denied {
    /// The host: its name, else its address.
    pub fn host(&self) -> String {
        match (&self.name, self.address) {
            (Some(name), _) => name.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "unknown".into(),
        }
    }

    /// The rule that would allow it.
    pub fn rule(&self) -> Option<Rule> {
        let target = match (&self.name, self.address, self.reason) {
            // No policy opens it.
            (_, _, Reason::NoPeer) => return None,
            (Some(name), Some(address), Reason::Private) => {
                Target::Name { pattern: name.clone(), within: Some(Cidr::single(address)) }
            }
            (Some(name), _, _) => Target::Name { pattern: name.clone(), within: None },
            (None, Some(address), _) => Target::Network(Cidr::single(address)),
            (None, None, _) => return None,
        };
        let protocol = (self.protocol == Protocol::Udp && self.port != 53).then_some(Protocol::Udp);
        // A name is asked for before anybody knows the port.
        let ports = (self.port != 53 && self.port != 0).then_some((self.port, self.port));
        Some(Rule { action: Action::Allow, protocol, target, ports })
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host())?;
        if self.port != 53 && self.port != 0 {
            write!(f, ":{}", self.port)?;
        }
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

/// What went to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The name, or the address where there was none.
    pub host: String,
    /// Connections.
    pub connections: u64,
    /// Bytes from the guest.
    pub sent: u64,
    /// Bytes to the guest.
    pub received: u64,
}

/// The log of a sandbox's egress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressLog {
    /// Refused connections, the first one first. There is a bound on how many are told apart.
    pub denied: Vec<Denied>,
    /// Refused connections beyond that bound.
    pub more: u64,
    /// What was carried, by host.
    pub carried: Vec<Carried>,
}

impl EgressLog {
    /// How many connections were refused.
    pub fn refused(&self) -> u64 {
        self.denied.iter().map(|denied| denied.count).sum::<u64>() + self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_was_refused() {
        let all = [
            Reason::NotAllowed,
            Reason::Private,
            Reason::NoPeer,
            Reason::Protocol,
            Reason::Unnamed,
        ];
        insta::assert_snapshot!(all.map(|reason| reason.to_string()).join("\n"), @r"
        no rule allows it
        the address is private, and no rule names it
        nobody in its networks has this address
        the gate does not carry this protocol
        it names no host that could be checked
        ");
    }
}
