//! The bases that a backend has, and which of them are still wanted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use crate::sandbox::{Backend, Cancel, Info, Result};

use super::key::StepKey;
use super::record::{self, Found};

/// All bases of a backend: read from the labels of its sandboxes and snapshots, from nowhere else.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By base and age, the newest first.
    pub entries: Vec<BaseEntry>,
}

/// One base sandbox: the steps that were done in it, on top of what it was cloned from.
#[derive(Clone, Debug)]
pub struct BaseEntry {
    /// The base's name.
    pub base: String,
    /// The sandbox.
    pub sandbox: String,
    /// When its last step was done.
    pub created: SystemTime,
    /// When it was last started or cloned from.
    pub used: SystemTime,
    /// After how long without use it expires, where its script says so.
    pub expires: Option<Duration>,
    /// The run that builds it right now.
    pub building: Option<String>,
    /// Its steps, in order.
    pub steps: Vec<BaseStep>,
}

/// A step whose snapshot is there.
#[derive(Clone, Debug)]
pub struct BaseStep {
    /// Its number in the base, from 1.
    pub number: usize,
    /// The label of its snapshot.
    pub label: String,
    /// The digest of its key.
    pub digest: String,
    /// Its key, long texts cut.
    pub key: StepKey,
    /// When it was done.
    pub created: SystemTime,
    /// Bytes that only its snapshot holds.
    pub size: u64,
}

/// Which entries of a base are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepPolicy {
    /// How many, the newest.
    pub newest: usize,
    /// None that is older than this.
    pub max_age: Option<Duration>,
}

impl Default for KeepPolicy {
    /// The three newest, however old.
    fn default() -> Self {
        KeepPolicy { newest: 3, max_age: None }
    }
}

impl Catalog {
    /// Asks the backend.
    pub async fn load(backend: &dyn Backend, cancel: &Cancel) -> Result<Catalog> {
        let infos = backend.list(cancel).await?;
        Catalog::among(infos, backend, cancel).await
    }

    /// Those among these sandboxes.
    pub(in crate::workflow) async fn among(
        infos: Vec<Info>,
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<Catalog> {
        let mut entries: BTreeMap<String, BaseEntry> = BTreeMap::new();
        for info in infos {
            if info.labels.get(record::KIND).is_none_or(|kind| kind != "base") {
                continue;
            }
            let entry = BaseEntry {
                base: info.labels.get(record::BASE).cloned().unwrap_or_default(),
                sandbox: info.name.clone(),
                created: info.created,
                used: info.used,
                expires: info
                    .labels
                    .get(record::EXPIRES)
                    .and_then(|seconds| seconds.parse().ok())
                    .map(Duration::from_secs),
                building: info.owner.map(|owner| owner.run),
                steps: Vec::new(),
            };
            entries.insert(info.name, entry);
        }
        for (sandbox, found) in record::find(backend, cancel).await? {
            if let Some(entry) = entries.get_mut(&sandbox) {
                let Found { step: number, key, digest, snapshot, .. } = found;
                let (label, created, size) = (snapshot.label, snapshot.created, snapshot.size);
                entry.created = entry.created.max(created);
                entry.steps.push(BaseStep { number, label, digest, key, created, size });
            }
        }
        let mut entries: Vec<BaseEntry> = entries.into_values().collect();
        for entry in &mut entries {
            entry.steps.sort_by_key(|step| step.number);
        }
        entries.sort_by(|a, b| (&a.base, b.created).cmp(&(&b.base, a.created)));
        Ok(Catalog { entries })
    }

    /// The names of all bases, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.entries.iter().map(|entry| entry.base.as_str()).collect();
        names.dedup();
        names
    }

    /// The entries of a base.
    pub fn of(&self, base: &str) -> Vec<&BaseEntry> {
        self.entries.iter().filter(|entry| entry.base == base).collect()
    }

    /// The entries that are not wanted any more. What is being built is wanted, and so is everything
    /// that holds a step before one that is.
    pub fn unwanted(&self, policy: KeepPolicy, now: SystemTime) -> Vec<&BaseEntry> {
        let mut rank: HashMap<&str, usize> = HashMap::new();
        self.all_but(|entry| {
            let rank = rank.entry(&entry.base).or_default();
            let age = now.duration_since(entry.created).unwrap_or_default();
            let young = policy.max_age.is_none_or(|most| age <= most);
            let wanted = entry.building.is_some() || (*rank < policy.newest && young);
            *rank += usize::from(entry.building.is_none());
            wanted
        })
    }

    /// The entries that nobody has used for as long as `limit` says of each, nor anything that starts
    /// from them. Those without a limit are wanted.
    pub fn unused(
        &self,
        limit: impl Fn(&BaseEntry) -> Option<Duration>,
        now: SystemTime,
    ) -> Vec<&BaseEntry> {
        self.all_but(|entry| {
            let age = now.duration_since(entry.used.max(entry.created)).unwrap_or_default();
            entry.building.is_some() || limit(entry).is_none_or(|most| age <= most)
        })
    }

    /// The entries that are neither wanted nor hold a step before one that is. Asks for each once,
    /// in order.
    fn all_but<'a>(
        &'a self,
        mut is_wanted: impl FnMut(&'a BaseEntry) -> bool,
    ) -> Vec<&'a BaseEntry> {
        // Of a step that was done more than once the last time counts.
        let mut holders: HashMap<&str, (SystemTime, usize)> = HashMap::new();
        let mut left: Vec<usize> = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            for step in &entry.steps {
                let holder = holders.entry(&step.digest).or_insert((step.created, at));
                *holder = (*holder).max((step.created, at));
            }
            if is_wanted(entry) {
                left.push(at);
            }
        }
        let mut wanted = HashSet::new();
        while let Some(at) = left.pop() {
            if wanted.insert(at) {
                let parents =
                    self.entries[at].steps.iter().filter_map(|step| step.key.parent.as_ref());
                left.extend(parents.filter_map(|parent| Some(holders.get(parent.as_str())?.1)));
            }
        }
        let others = self.entries.iter().enumerate().filter(|(at, _)| !wanted.contains(at));
        others.map(|(_, entry)| entry).collect()
    }
}
