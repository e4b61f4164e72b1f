//! Backends of several machines: the members of a cluster, and where in it a sandbox is to be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// Where in a cluster a sandbox is to be. As text: `NAME` or `@GROUP`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Placement {
    /// On this member.
    Member(String),
    /// On the member of this group that the cluster chooses.
    Group(String),
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Member(name) => f.write_str(name),
            Placement::Group(name) => write!(f, "@{name}"),
        }
    }
}

impl From<Placement> for String {
    fn from(placement: Placement) -> String {
        placement.to_string()
    }
}

impl TryFrom<String> for Placement {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Placement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.strip_prefix('@').unwrap_or(text);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 190 || !name.chars().all(fits) {
            return Err(Error::invalid_hint(
                "target",
                format!("'{text}' names no member of a cluster and no group"),
                "write a member's name, or @ and the name of a group",
            ));
        }
        Ok(match text.starts_with('@') {
            true => Placement::Group(name.to_owned()),
            false => Placement::Member(name.to_owned()),
        })
    }
}

/// Whether a member of a cluster gets new sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It does.
    Online,
    /// It does not answer.
    Offline,
    /// Its administrator has sent all of it away.
    Evacuated,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemberState::Online => "online",
            MemberState::Offline => "offline",
            MemberState::Evacuated => "evacuated",
        })
    }
}

/// One of a cluster's machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// Whether it gets new sandboxes.
    pub state: MemberState,
    /// How many processors it has; 0 where that is not known.
    pub cpus: usize,
    /// How many processes want a processor, over the last minute.
    pub load: f64,
}

impl Member {
    /// Whether a sandbox that is to be there may be on this member.
    pub fn fits(&self, target: Option<&Placement>) -> bool {
        self.state == MemberState::Online
            && match target {
                None => true,
                Some(Placement::Member(name)) => *name == self.name,
                Some(Placement::Group(name)) => self.groups.contains(name),
            }
    }

    /// How many more sandboxes may sensibly work on it at once: two for each processor, less those
    /// that others keep busy; one at least, so that a busy member is slow and not idle.
    pub fn capacity(&self) -> usize {
        let busy = self.load.max(0.0).round() as usize;
        (self.cpus * 2).saturating_sub(busy).max(1)
    }
}

/// What many sandboxes are about to be made from; see [`super::Backend::prepare`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stock {
    /// An image; the backend's default when not given.
    Image(Option<String>),
    /// A snapshot of a sandbox.
    Snapshot {
        /// The sandbox.
        sandbox: String,
        /// The snapshot's label.
        label: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_read_and_written() {
        for text in ["a", "@gpu", "node-1.example", "@default"] {
            assert_eq!(text.parse::<Placement>().unwrap().to_string(), text);
        }
        for wrong in ["", "@", "@@a", "a b", "a/b", "a?x=1", "ä"] {
            assert!(wrong.parse::<Placement>().is_err(), "{wrong}");
        }
        let error = "a b".parse::<Placement>().unwrap_err();
        insta::assert_snapshot!(error, @"target: 'a b' names no member of a cluster and no group");
    }

    #[test]
    fn members_fit_and_have_room() {
        let mut member = Member {
            name: "a".into(),
            groups: vec!["default".into(), "gpu".into()],
            state: MemberState::Online,
            cpus: 4,
            load: 2.4,
        };
        let fits = |member: &Member, text: &str| member.fits(Some(&text.parse().unwrap()));
        assert!(member.fits(None) && fits(&member, "a") && fits(&member, "@gpu"));
        assert!(!fits(&member, "b") && !fits(&member, "@big"));
        assert_eq!(member.capacity(), 6);
        member.load = 100.0;
        assert_eq!(member.capacity(), 1);
        member.state = MemberState::Evacuated;
        assert!(!member.fits(None) && !fits(&member, "a"));
    }
}
