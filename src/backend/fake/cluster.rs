//! A cluster in memory: which member a sandbox is on, and members that go away.

use std::collections::HashMap;

use super::FakeBackend;
use super::machine::World;
use crate::sandbox::{Error, Kind, Member, MemberState, Placement, Result};

/// Members of the fake, and what was made ready on them.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub members: Vec<Member>,
    /// Snapshots that clones can be made from on every member: sandbox and label.
    pub prepared: Vec<(String, String)>,
}

impl FakeBackend {
    /// Takes a member of the cluster away: what is on it does not answer.
    pub fn take_away(&self, member: &str) {
        self.set_member(member, MemberState::Offline);
    }

    /// Sends a member into another state.
    pub fn set_member(&self, member: &str, state: MemberState) {
        let mut world = self.shared.world();
        if let Some(found) = world.cluster.members.iter_mut().find(|one| one.name == member) {
            found.state = state;
        }
    }

    /// How much a member of the cluster has to do.
    pub fn set_load(&self, member: &str, load: f64) {
        let mut world = self.shared.world();
        if let Some(found) = world.cluster.members.iter_mut().find(|one| one.name == member) {
            found.load = load;
        }
    }
}

impl World {
    /// The member that holds a sandbox, if it is offline.
    pub fn away(&self, name: &str) -> Option<String> {
        let member = self.machines.get(name)?.info.member.as_ref()?;
        let found = self.cluster.members.iter().find(|one| one.name == *member)?;
        (found.state == MemberState::Offline).then(|| member.clone())
    }

    /// Where a new sandbox goes: of the members that it may be on, the one that has the fewest.
    pub fn place(&self, target: Option<&Placement>) -> Result<Option<String>> {
        let members = &self.cluster.members;
        if members.is_empty() {
            return Ok(None);
        }
        if let Some(Placement::Member(name)) = target
            && !members.iter().any(|member| member.name == *name)
        {
            return Err(Error::not_found(Kind::Member, name));
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for member in self.machines.values().filter_map(|machine| machine.info.member.as_deref()) {
            *counts.entry(member).or_default() += 1;
        }
        let count = |member: &&Member| counts.get(member.name.as_str()).copied();
        let fitting = members.iter().filter(|member| member.fits(target));
        match fitting.min_by_key(count) {
            Some(member) => Ok(Some(member.name.clone())),
            None => Err(nobody(target)),
        }
    }
}

fn nobody(target: Option<&Placement>) -> Error {
    let target = target.map_or_else(|| "the cluster".to_owned(), |target| format!("'{target}'"));
    Error::invalid("target", format!("no member of {target} is online"))
}
