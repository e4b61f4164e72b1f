//! What is put into a machine when it is made.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// What a new sandbox is given before anything else runs in it. What is there already is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// Whom it asks for names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Keys that let one in by SSH, as root and as each of the users; as in `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Packages of its distribution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Accounts, each with a home.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
}

impl Setup {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Setup::default()
    }

    /// The steps in their order: what, and of what.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, String)> {
        let of =
            |what, all: &[String]| all.iter().map(|one| (what, one.clone())).collect::<Vec<_>>();
        let dns: Vec<String> = self.dns.iter().map(IpAddr::to_string).collect();
        let dns = (!dns.is_empty()).then(|| ("dns", dns.join(" ")));
        let tools = (!self.tools.is_empty()).then(|| ("tools", self.tools.join(" ")));
        let users = of("user", &self.users);
        let keys: Vec<_> = std::iter::once("root")
            .chain(self.users.iter().map(String::as_str))
            .flat_map(|user| {
                self.keys.iter().map(move |key| ("key", format!("{user} {}", key.trim())))
            })
            .collect();
        dns.into_iter().chain(users).chain(keys).chain(tools)
    }

    /// Refuses what no machine could be given.
    pub fn check(&self) -> Result<()> {
        let user = |name: &String| {
            let mut all = name.chars();
            let first = all.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
            let plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
            first && all.all(plain)
        };
        if let Some(name) = self.users.iter().find(|name| name.len() > 32) {
            return Err(Error::invalid_hint(
                "users",
                format!("'{name}' is too long for the name of an account"),
                "use 32 characters at most",
            ));
        }
        if let Some(name) = self.users.iter().find(|name| !user(name)) {
            return Err(Error::invalid_hint(
                "users",
                format!("'{name}' is no name of an account"),
                "use a-z, 0-9, '_' and '-', and begin with a letter",
            ));
        }
        let tool = |name: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".+-_:~=".contains(c);
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
        };
        if let Some(name) = self.tools.iter().find(|name| !tool(name)) {
            return Err(Error::invalid_hint(
                "tools",
                format!("'{name}' is no name of a package"),
                "name it as the distribution does: curl, or curl=8.14.1-2 for one version of it",
            ));
        }
        let key = |line: &String| {
            let mut words = line.split_whitespace();
            let kind = words.next().is_some_and(|kind| {
                ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start))
            });
            let data = words.next().is_some_and(|data| {
                data.len() > 16
                    && data.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
            });
            kind && data && !line.contains(['\n', '\0'])
        };
        if let Some(line) = self.keys.iter().find(|line| !key(line)) {
            let shown: String = line.chars().take(30).collect();
            return Err(Error::invalid_hint(
                "keys",
                format!("'{shown}' is no public key"),
                "it is one line of a file such as ~/.ssh/id_ed25519.pub",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_order_and_checked() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ a@b\n";
        let setup = Setup {
            dns: vec!["1.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            keys: vec![key.trim().into()],
            tools: vec!["git".into(), "g++".into()],
            users: vec!["ann".into()],
        };
        setup.check().unwrap();
        let steps: Vec<String> =
            setup.steps().map(|(what, of)| format!("{what} {}", &of[..of.len().min(14)])).collect();
        assert_eq!(
            steps,
            [
                "dns 1.1.1.1 fd00::",
                "user ann",
                "key root ssh-ed255",
                "key ann ssh-ed2551",
                "tools git g++"
            ]
        );
        for users in ["", "Ann", "-a", "a b", "a;id", "a\n"] {
            assert!(
                Setup { users: vec![users.into()], ..Setup::default() }.check().is_err(),
                "{users}"
            );
        }
        for tools in ["", "-y", "a b", "$(id)", "../x"] {
            assert!(
                Setup { tools: vec![tools.into()], ..Setup::default() }.check().is_err(),
                "{tools}"
            );
        }
        for keys in [
            "",
            "ssh-ed25519",
            "command=\"id\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 a\nb",
        ] {
            assert!(
                Setup { keys: vec![keys.into()], ..Setup::default() }.check().is_err(),
                "{keys}"
            );
        }
        assert!(Setup::default().is_empty());
    }
}
