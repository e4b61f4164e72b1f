//! One rule of an egress policy, and how it is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Cidr, Error, Result};

/// What a rule does to the connections it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lets them through.
    Allow,
    /// Refuses them.
    Deny,
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Where a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everything public: no private network, not this host, no metadata address.
    Any,
    /// A name.
    Name {
        /// `example.com`, or `*.example.com` for everything below it, but not itself. Lower case.
        pattern: String,
        /// Addresses beside public ones that the name may have.
        within: Option<Cidr>,
    },
    /// Addresses.
    Network(Cidr),
}

/// One rule. Of a policy's rules the first one that matches decides.
///
/// It is written as it is read: an optional `deny `, an optional `tcp://` or `udp://`, then the
/// target, then an optional `:PORT` or `:FIRST-LAST`.
///
/// ```
/// use sandscript::sandbox::{Action, Rule};
/// for text in [
///     "example.com", "*.example.com:443", "deny tracker.example.com", "10.1.0.0/16:8000-8999",
///     "udp://192.0.2.1:123", "[2001:db8::/32]:443", "2001:db8::1", "mirror.corp@10.0.0.0/8", "*:443",
/// ] {
///     let rule: Rule = text.parse()?;
///     assert_eq!(rule.to_string(), text);
/// }
/// # Ok::<(), sandscript::sandbox::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Only this protocol; both when not given.
    pub protocol: Option<Protocol>,
    /// Where to.
    pub target: Target,
    /// Only these ports, first and last; all when not given.
    pub ports: Option<(u16, u16)>,
}

impl Rule {
    /// Allows all ports of a target.
    pub fn allow(target: Target) -> Rule {
        Rule { action: Action::Allow, protocol: None, target, ports: None }
    }

    /// The same with another action.
    pub fn with(&self, action: Action) -> Rule {
        Rule { action, ..self.clone() }
    }

    /// Whether protocol and port are its.
    pub fn fits(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
    }

    /// Whether a name is its target; `name` is in lower case without a dot at the end.
    pub fn names(&self, name: &str) -> bool {
        match &self.target {
            Target::Any => true,
            Target::Name { pattern, .. } => matches(pattern, name),
            Target::Network(_) => false,
        }
    }

    /// Whether everything that `other` matches is matched by this one, too.
    pub fn covers(&self, other: &Rule) -> bool {
        let protocol = self.protocol.is_none() || self.protocol == other.protocol;
        let ports = match (self.ports, other.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.0 <= other.0 && other.1 <= own.1,
        };
        let target = match (&self.target, &other.target) {
            (Target::Any, _) => true,
            (Target::Name { pattern, within }, Target::Name { pattern: other, within: inside }) => {
                matches(pattern, other) && (inside.is_none() || within == inside)
            }
            (Target::Network(own), Target::Network(other)) => own.contains(other),
            _ => false,
        };
        protocol && ports && target
    }

    /// Whether there is anything that both match.
    pub fn overlaps(&self, other: &Rule) -> bool {
        let protocol =
            self.protocol.is_none() || other.protocol.is_none() || self.protocol == other.protocol;
        let ports = match (self.ports, other.ports) {
            (Some(own), Some(other)) => own.0 <= other.1 && other.0 <= own.1,
            _ => true,
        };
        let target = match (&self.target, &other.target) {
            (Target::Any, _) | (_, Target::Any) => true,
            (Target::Name { pattern, .. }, Target::Name { pattern: other, .. }) => {
                matches(pattern, other) || matches(other, pattern)
            }
            (Target::Network(own), Target::Network(other)) => {
                own.contains(other) || other.contains(own)
            }
            _ => false,
        };
        protocol && ports && target
    }
}

/// Whether a pattern matches a name, or everything that another pattern matches.
fn matches(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    let Some(domain) = pattern.strip_prefix("*.") else { return false };
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.strip_suffix(domain).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == Action::Deny {
            f.write_str("deny ")?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}://")?;
        }
        match &self.target {
            Target::Any => f.write_str("*")?,
            Target::Name { pattern, within } => {
                f.write_str(pattern)?;
                match within {
                    Some(network) if network.is_ipv6() => write!(f, "@[{network}]")?,
                    Some(network) => write!(f, "@{network}")?,
                    None => {}
                }
            }
            Target::Network(network) if network.is_ipv6() && self.ports.is_some() => {
                write!(f, "[{network}]")?;
            }
            Target::Network(network) => write!(f, "{network}")?,
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
            None => Ok(()),
        }
    }
}

fn wrong(text: &str, why: impl fmt::Display) -> Error {
    Error::invalid_hint(
        "egress",
        format!("'{text}' is not a rule: {why}"),
        "write a name (\"example.com\", \"*.example.com\") or a network (\"10.1.0.0/16\"), with \":PORT\" or \
         \":FIRST-LAST\" after it and \"tcp://\" or \"udp://\" before it where that matters",
    )
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rule> {
        let rest = text.trim();
        let (action, rest) = match rest.split_once(char::is_whitespace) {
            Some(("deny", rest)) => (Action::Deny, rest.trim_start()),
            Some(("allow", rest)) => (Action::Allow, rest.trim_start()),
            _ => (Action::Allow, rest),
        };
        let (protocol, rest) = match rest.split_once("://") {
            Some(("tcp", rest)) => (Some(Protocol::Tcp), rest),
            Some(("udp", rest)) => (Some(Protocol::Udp), rest),
            Some((scheme, _)) => {
                return Err(wrong(text, format_args!("'{scheme}' is neither tcp nor udp")));
            }
            None => (None, rest),
        };
        let (host, ports) = split(rest).ok_or_else(|| wrong(text, "a ']' is missing"))?;
        let ports = match ports {
            Some(ports) => Some(parse_ports(ports).map_err(|why| wrong(text, why))?),
            None => None,
        };
        let target = parse_target(host).map_err(|why| wrong(text, why))?;
        Ok(Rule { action, protocol, target, ports })
    }
}

/// The target and the text of the ports.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(open) = text.rfind('[') {
        let close = open + text[open..].find(']')?;
        return match &text[close + 1..] {
            // Brackets belong to a network behind an `@`, else only to the ports.
            "" if open == 0 => Some((&text[1..close], None)),
            "" => Some((text, None)),
            after => {
                let ports = after.strip_prefix(':')?;
                let host = if open == 0 { &text[1..close] } else { &text[..=close] };
                Some((host, Some(ports)))
            }
        };
    }
    match text.split_once(':') {
        // More than one: an IPv6 address.
        Some((_, ports)) if ports.contains(':') => Some((text, None)),
        Some((host, ports)) => Some((host, Some(ports))),
        None => Some((text, None)),
    }
}

fn parse_ports(text: &str) -> std::result::Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("'{text}' is not a port")),
    };
    match (number(first)?, number(last)?) {
        (first, last) if first <= last => Ok((first, last)),
        _ => Err(format!("'{text}' ends before it begins")),
    }
}

fn parse_target(text: &str) -> std::result::Result<Target, String> {
    if text == "*" {
        return Ok(Target::Any);
    }
    if let Some((name, network)) = text.split_once('@') {
        let network =
            network.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(network);
        return Ok(Target::Name { pattern: parse_name(name)?, within: Some(parse_cidr(network)?) });
    }
    if text.contains('/') || text.contains(':') || text.parse::<IpAddr>().is_ok() {
        return parse_cidr(text).map(Target::Network);
    }
    Ok(Target::Name { pattern: parse_name(text)?, within: None })
}

fn parse_cidr(text: &str) -> std::result::Result<Cidr, String> {
    text.parse()
}

fn parse_name(text: &str) -> std::result::Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let domain = name.strip_prefix("*.").unwrap_or(&name);
    if domain.is_empty() {
        return Err("there is no name".into());
    }
    if !domain.is_ascii() {
        return Err("write the name as it is in DNS, with xn--".into());
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    for label in domain.split('.') {
        let wrong = label.is_empty() || label.len() > 63 || label.starts_with('-');
        if wrong || !label.bytes().all(letter) {
            return Err(match label.contains('*') {
                true => "a '*' stands in front, as in \"*.example.com\"".into(),
                false => format!("'{text}' is not a name"),
            });
        }
    }
    let last = domain.rsplit('.').next().unwrap_or_default();
    if domain.len() > 253 || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("'{text}' is not a name"));
    }
    Ok(name)
}

impl TryFrom<String> for Rule {
    type Error = Error;

    fn try_from(text: String) -> Result<Rule> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests;
