//! What a guest's tools said about where they fetch from.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::special::special;
use crate::sandbox::{Cidr, Rule, Target};

/// Where one tool fetches from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The tool: `apt`, `pip`, `npm`, `cargo`, `go`, or `environment` for a proxy of all.
    pub tool: String,
    /// The rule that lets it.
    pub rule: Rule,
}

/// What a guest's tools said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Where they fetch from.
    pub sources: Vec<Source>,
    /// Private addresses that they fetch from, which a guest's own word does not open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Source>,
    /// What could not be found out, in sentences.
    pub notes: Vec<String>,
}

impl Answer {
    /// Takes note of a URL or of `host:port` that a tool fetches from; what is on this machine or
    /// nowhere is passed over.
    pub(super) fn add(&mut self, tool: &str, url: &str) {
        let Some((host, port)) = place(url) else { return };
        let target = match host.parse::<IpAddr>() {
            Ok(address) => Target::Network(Cidr::single(address)),
            Err(_) => match host.parse::<Rule>() {
                Ok(Rule { target: target @ Target::Name { within: None, .. }, .. })
                    if !host.starts_with('*') =>
                {
                    target
                }
                _ => return self.note(format!("{tool} fetches from '{host}', which is no name")),
            },
        };
        if matches!(&target, Target::Name { pattern, .. } if pattern == "localhost") {
            return;
        }
        let rule = Rule { ports: Some((port, port)), ..Rule::allow(target) };
        let known = |source: &Source| source.tool == tool && source.rule == rule;
        let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
        let list = match address.is_ok_and(|address| special(address).is_some()) {
            true => &mut self.closed,
            false => &mut self.sources,
        };
        if !list.iter().any(known) {
            list.push(Source { tool: tool.to_owned(), rule });
        }
    }

    /// Takes note of what could not be found out.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Whether a tool said anything.
    pub(super) fn has(&self, tool: &str) -> bool {
        self.sources.iter().any(|source| source.tool == tool)
    }

    /// All that both say.
    pub(super) fn extend(&mut self, other: Answer) {
        for source in other.sources {
            if !self.sources.contains(&source) {
                self.sources.push(source);
            }
        }
        for source in other.closed {
            if !self.closed.contains(&source) {
                self.closed.push(source);
            }
        }
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// The rules, each once, in the order of their text.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.sources.iter().map(|source| source.rule.clone()).collect();
        rules.sort_by_key(Rule::to_string);
        rules.dedup();
        rules
    }
}

/// Host and port of a URL, or of a `host:port` as proxies are written. The name and password in it
/// are passed over.
fn place(url: &str) -> Option<(String, u16)> {
    let url = url.trim();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        // A path, `off`, `direct`, `file:…`; but proxies are written without a scheme, too.
        None => match url.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => ("http".to_owned(), url),
            _ => return None,
        },
    };
    // `sparse+https`, `mirror+http`, `git+ssh`.
    let standard = match scheme.rsplit('+').next().unwrap_or_default() {
        "http" | "mirror" => 80,
        "https" => 443,
        "ssh" => 22,
        "ftp" => 21,
        "git" => 9418,
        "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => 1080,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None | Some("") => standard,
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_url_leads_to() {
        let mut answer = Answer::default();
        let urls = [
            "http://Mirror.test/debian/",
            "https://user:p@ss@pip.test/simple",
            "sparse+https://index.test/",
            "https://npm.test:4873",
            "proxy.test:3128",
            "socks5h://proxy.test",
            "ftp://old.test/x",
            "http://[2001:db8::1]:8080/x",
            "http://192.0.2.7/x",
            "https://npm.test:4873/again",
            // Nowhere.
            "file:///srv/wheels",
            "/srv/wheels",
            "cdrom:[Debian]/",
            "off",
            "direct",
            "http://localhost:3141/",
            "https://",
            "https://x.test:99999/",
            // Not on a guest's word.
            "http://10.1.2.3:8080/",
            "http://169.254.169.254/latest",
            "http://[::ffff:10.0.0.1]/",
            "http://127.0.0.1:3141/",
            "http://[fd00::1]/",
            "https://*.test/",
            "https://10.0.0.0%2f8/",
        ];
        urls.iter().for_each(|url| answer.add("pip", url));
        let rules: Vec<String> = answer.rules().iter().map(Rule::to_string).collect();
        let closed: Vec<String> =
            answer.closed.iter().map(|source| format!("closed: {}", source.rule)).collect();
        let parts = [rules, closed, answer.notes];
        insta::assert_snapshot!(parts.map(|lines| lines.join("\n")).join("\n\n"));
    }
}
