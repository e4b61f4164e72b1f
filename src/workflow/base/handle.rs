//! What a base is made from, and what it is when it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sandbox::{CacheMount, Device, Limits, Policy};

use super::super::Source;

/// What a base is made from, besides its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BaseOptions {
    /// What the first step starts from.
    pub source: Source,
    /// What the steps may reach; as the source when not given.
    pub egress: Option<Policy>,
    /// Environment of the steps, and of what is cloned from the base.
    pub env: BTreeMap<String, String>,
    /// User of the steps.
    pub user: Option<String>,
    /// Working directory of the steps.
    pub cwd: Option<String>,
    /// Upper bounds while it is built and for what is cloned from it; as the source when not given.
    /// They are in no key.
    pub limits: Option<Limits>,
    /// After this long without use `gc` may delete it; after the settings' time when not given.
    pub expires: Option<Duration>,
    /// Folders that the steps have, and no snapshot. They are in no key.
    pub caches: Vec<CacheMount>,
    /// Devices of the machine's that the steps have. Those that may show in what a step leaves are in its
    /// key: all but ports.
    pub devices: Vec<Device>,
    /// The steps may run containers.
    pub nesting: bool,
    /// Do every step, whatever is in the cache.
    pub rebuild: bool,
}

/// A base that is done: a snapshot to clone from.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseHandle {
    /// Its name in the script.
    pub name: String,
    /// The base sandbox that holds it, which is stopped.
    pub sandbox: String,
    /// The label of its snapshot.
    pub label: String,
    /// The digest of its last step's key.
    pub key: String,
    /// What it started from: the image's digest.
    pub fingerprint: String,
    /// What it may reach.
    pub egress: Policy,
    /// Upper bounds of what is cloned from it.
    pub limits: Limits,
    /// Environment of what is cloned from it.
    pub env: BTreeMap<String, String>,
    /// Its snapshot points.
    pub points: BTreeMap<String, BasePoint>,
    /// Its sandbox holds what volatile steps did, is this run's own, and goes with it.
    pub volatile: bool,
    /// It was built anew in this run, and so is what starts from it.
    pub rebuilt: bool,
    /// How many steps it has.
    pub steps: usize,
    /// How many of them were in the cache.
    pub hits: usize,
    /// How long it took to have it.
    pub duration: Duration,
}

/// A snapshot point of a base.
#[derive(Clone, Debug, PartialEq)]
pub struct BasePoint {
    /// The base sandbox that holds it.
    pub sandbox: String,
    /// The label of its snapshot.
    pub label: String,
    /// The digest of the key of the step before it.
    pub key: String,
    /// Environment of what is cloned from it.
    pub env: BTreeMap<String, String>,
    /// How many steps were before it.
    pub steps: usize,
}

impl BaseHandle {
    /// The base as it was at a snapshot point.
    pub fn at(&self, name: &str) -> Option<BaseHandle> {
        let point = self.points.get(name)?.clone();
        Some(BaseHandle {
            sandbox: point.sandbox,
            label: point.label,
            key: point.key,
            env: point.env,
            points: BTreeMap::new(),
            volatile: false,
            steps: point.steps,
            hits: self.hits.min(point.steps),
            ..self.clone()
        })
    }
}
