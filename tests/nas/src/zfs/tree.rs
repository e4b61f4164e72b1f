//! The names of a pool and how they depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dataset, Refused, Snapshot, split};

/// All datasets by name.
#[derive(Debug, Default)]
pub struct Tree {
    /// All datasets by name.
    pub datasets: BTreeMap<String, Dataset>,
    txg: u64,
}

impl Tree {
    /// The next transaction.
    pub fn next(&mut self) -> u64 {
        self.txg += 1 + crate::random::below(3);
        1_000_000 + self.txg
    }

    /// Adds a dataset.
    pub fn insert(&mut self, name: &str, folder: String, origin: Option<String>, now: i64) {
        let txg = self.next();
        let dataset = Dataset {
            created: now,
            txg,
            guid: crate::random::below(i64::MAX as u64),
            origin,
            properties: BTreeMap::new(),
            snapshots: Vec::new(),
            folder,
        };
        self.datasets.insert(name.to_owned(), dataset);
    }

    /// A snapshot with nothing on it yet.
    pub fn snapshot(&mut self, name: &str, folder: String, now: i64) -> Snapshot {
        Snapshot {
            name: name.to_owned(),
            created: now,
            txg: self.next(),
            guid: crate::random::below(i64::MAX as u64),
            holds: BTreeSet::new(),
            properties: BTreeMap::new(),
            folder,
            deferred: false,
        }
    }

    /// A dataset by name.
    pub fn get(&self, name: &str) -> Result<&Dataset, Refused> {
        self.datasets.get(name).ok_or_else(|| Refused::Missing(name.to_owned()))
    }

    /// A dataset by name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Result<&mut Dataset, Refused> {
        self.datasets.get_mut(name).ok_or_else(|| Refused::Missing(name.to_owned()))
    }

    /// A snapshot by its full name.
    pub fn find(&self, path: &str) -> Result<&Snapshot, Refused> {
        let missing = || Refused::Missing(path.to_owned());
        let (dataset, name) = split(path).ok_or_else(missing)?;
        let all = &self.datasets.get(dataset).ok_or_else(missing)?.snapshots;
        all.iter().find(|s| s.name == name).ok_or_else(missing)
    }

    /// A snapshot by its full name, to change it.
    pub fn find_mut(&mut self, path: &str) -> Result<&mut Snapshot, Refused> {
        let missing = || Refused::Missing(path.to_owned());
        let (dataset, name) = split(path).ok_or_else(missing)?;
        let all = &mut self.datasets.get_mut(dataset).ok_or_else(missing)?.snapshots;
        all.iter_mut().find(|s| s.name == name).ok_or_else(missing)
    }

    /// All below `name`, itself left out, in order.
    pub fn below(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name}/");
        self.datasets.keys().filter(|n| n.starts_with(&prefix)).cloned().collect()
    }

    /// The clones of a snapshot.
    pub fn clones(&self, path: &str) -> Vec<String> {
        let is = |d: &&Dataset| d.origin.as_deref() == Some(path);
        self.datasets.iter().filter(|(_, d)| is(d)).map(|(n, _)| n.clone()).collect()
    }

    /// The snapshots that are newer than this one.
    pub fn newer(&self, path: &str) -> Result<Vec<String>, Refused> {
        let than = self.find(path)?.txg;
        let (dataset, _) = split(path).unwrap_or((path, ""));
        let all = &self.get(dataset)?.snapshots;
        Ok(all.iter().filter(|s| s.txg > than).map(|s| format!("{dataset}@{}", s.name)).collect())
    }

    /// The parent must be there, the name must not.
    pub fn free(&self, name: &str) -> Result<(), Refused> {
        if self.datasets.contains_key(name) {
            return Err(Refused::Exists(name.to_owned()));
        }
        match name.rsplit_once('/') {
            Some((parent, _)) => self.get(parent).map(|_| ()),
            None => Err(Refused::Missing(name.to_owned())),
        }
    }

    /// A property of a dataset or snapshot, and the dataset that it is inherited from: user
    /// properties are those of everything below.
    pub fn property(&self, name: &str, key: &str) -> Option<(String, Option<String>)> {
        let own = match name.contains('@') {
            true => self.find(name).ok()?.properties.get(key),
            false => self.get(name).ok()?.properties.get(key),
        };
        if let Some(value) = own {
            return Some((value.clone(), None));
        }
        if !key.contains(':') {
            return None;
        }
        let mut above = name.split('@').next().filter(|d| *d != name);
        let mut at = name;
        loop {
            let parent = above.take().or_else(|| at.rsplit_once('/').map(|(p, _)| p))?;
            if let Some(value) = self.datasets.get(parent).and_then(|d| d.properties.get(key)) {
                return Some((value.clone(), Some(parent.to_owned())));
            }
            at = parent;
        }
    }
}
