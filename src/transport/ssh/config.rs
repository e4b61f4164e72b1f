//! What `ssh_config` says of a host, as far as it is understood here.

use std::path::{Path, PathBuf};

/// What holds for a host. Of each word the first that is said counts, as OpenSSH does it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// The name or address that it is reached by.
    pub host: Option<String>,
    /// The name to log in by.
    pub user: Option<String>,
    /// The port of its server.
    pub port: Option<u16>,
    /// Files with keys.
    pub keys: Vec<PathBuf>,
    /// The name that it has among the hosts that are known.
    pub known_as: Option<String>,
    /// Files with hosts that are known.
    pub known: Vec<PathBuf>,
    /// The machine that it is reached by.
    pub jump: Option<String>,
}

impl HostConfig {
    /// Reads files of which those that are not there say nothing. `home` is what `~` stands for.
    pub fn read(files: &[PathBuf], home: Option<&Path>, name: &str) -> HostConfig {
        let mut found = HostConfig::default();
        for file in files {
            if let Ok(text) = std::fs::read_to_string(file) {
                found.add(&text, home, name);
            }
        }
        found
    }

    fn add(&mut self, text: &str, home: Option<&Path>, name: &str) {
        let mut holds = true;
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let split = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
            let (word, rest) = line.split_at(split);
            let value = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim();
            let value =
                value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            match word.to_ascii_lowercase().as_str() {
                "host" => {
                    let patterns: Vec<&str> = value.split_whitespace().collect();
                    holds = matches(&patterns, name);
                }
                // What it asks for can't be answered here: nothing below it is taken.
                "match" => holds = value.eq_ignore_ascii_case("all"),
                _ if !holds || value.is_empty() => {}
                "hostname" => set(&mut self.host, value.replace("%h", name)),
                "user" => set(&mut self.user, value.to_owned()),
                "port" => self.port = self.port.or_else(|| value.parse().ok()),
                "identityfile" => self.keys.extend(path(value, home)),
                "hostkeyalias" => set(&mut self.known_as, value.to_owned()),
                "userknownhostsfile" if self.known.is_empty() => {
                    self.known =
                        value.split_whitespace().filter_map(|one| path(one, home)).collect();
                }
                "proxyjump" => set(&mut self.jump, value.to_owned()),
                _ => {}
            }
        }
    }
}

fn set(slot: &mut Option<String>, value: String) {
    if slot.is_none() {
        *slot = Some(value);
    }
}

fn path(value: &str, home: Option<&Path>) -> Option<PathBuf> {
    match value.strip_prefix("~/").or_else(|| value.strip_prefix("%d/")) {
        Some(rest) => Some(home?.join(rest)),
        None => Some(PathBuf::from(value)).filter(|path| path.is_absolute()),
    }
}

/// Whether one of the patterns fits a name, and none that begins with `!` does.
pub(super) fn matches(patterns: &[&str], name: &str) -> bool {
    let mut any = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if fits(not.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => any |= fits(pattern.as_bytes(), name.as_bytes()),
        }
    }
    any
}

/// `*` is anything, `?` one letter.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_counts() {
        let text = "\
            # NAS\n\
            Host nas *.lan !old.lan\n  HostName %h.example.org\n  Port=2222\n\tUser admin\n\
            IdentityFile ~/.ssh/nas\n  ProxyJump gate\n\
            Match exec true\n  User nobody\n\
            Host *\n  User root\n  IdentityFile \"/keys/all\"\n  UserKnownHostsFile ~/.ssh/a /b\n";
        let mut found = HostConfig::default();
        found.add(text, Some(Path::new("/home/ann")), "nas");
        assert_eq!(found.host.as_deref(), Some("nas.example.org"));
        assert_eq!((found.user.as_deref(), found.port), (Some("admin"), Some(2222)));
        assert_eq!(found.keys, [Path::new("/home/ann/.ssh/nas"), Path::new("/keys/all")]);
        assert_eq!(found.known, [Path::new("/home/ann/.ssh/a"), Path::new("/b")]);
        assert_eq!(found.jump.as_deref(), Some("gate"));
        let mut other = HostConfig::default();
        other.add(text, None, "old.lan");
        assert_eq!((other.user.as_deref(), other.port), (Some("root"), None));
        assert_eq!(other.keys, [Path::new("/keys/all")]);
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("n?s", "nas", true),
            ("n?s", "ns", false),
            ("*.lan", "nas.LAN", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXcb", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(!matches(&["*", "!nas"], "nas") && !matches(&["!nas"], "box"));
    }
}
