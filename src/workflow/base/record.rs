//! How steps are written on snapshots and found again: the backend is the cache.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use crate::sandbox::{Backend, Cancel, Result, Snapshot, SnapshotSpec};

use super::key::{Change, StepKey};

/// Label of a sandbox or snapshot: what it is for. `base` for a base's sandbox, `step` for a
/// step's snapshot.
pub(super) const KIND: &str = "sandscript.kind";
/// Label: the base's name.
pub(super) const BASE: &str = "sandscript.base";
/// Label of a base's sandbox: after how many seconds without use it expires.
pub(super) const EXPIRES: &str = "sandscript.expires";
/// Label of a step's snapshot: its number, from 1.
const STEP: &str = "sandscript.step";
/// Label of a step's snapshot: its whole digest.
const DIGEST: &str = "sandscript.key";
/// Label of a step's snapshot: its [`StepKey`] as JSON, long texts cut.
const RECORD: &str = "sandscript.record";

/// Kind and snapshot label of what volatile steps were run in: it is for one run.
pub(super) const VOLATILE: &str = "volatile";

/// What every step's snapshot label starts with.
const PREFIX: &str = "step-";
/// Texts in a record that are longer than this are cut: labels are no place for whole scripts.
const LONG: usize = 1 << 10;

/// The snapshot label of the step with this digest: the digest is the cache's address.
pub fn label_of(digest: &str) -> String {
    format!("{PREFIX}{}", &digest[..digest.len().min(40)])
}

/// The snapshot of a step that is done.
pub(super) fn snapshot_spec(base: &str, step: usize, key: &StepKey) -> SnapshotSpec {
    let digest = key.digest();
    let record = serde_json::to_string(&abridged(key)).unwrap_or_default();
    let labels = [
        (KIND, "step".to_string()),
        (BASE, base.to_string()),
        (STEP, step.to_string()),
        (RECORD, record),
        (DIGEST, digest.clone()),
    ];
    let labels = labels.map(|(name, value)| (name.to_string(), value)).into();
    SnapshotSpec { labels, ..SnapshotSpec::new(label_of(&digest)) }
}

/// A key for people: long texts are cut.
pub(super) fn abridged(key: &StepKey) -> StepKey {
    let cut = |text: &mut String| {
        if text.len() > LONG {
            let head: String = text.chars().take(200).collect();
            *text =
                format!("{head}… ({} bytes, {})", text.len(), super::key::content(text.as_bytes()));
        }
    };
    let mut key = key.clone();
    if let super::StepInput::Run { argv: words, .. }
    | super::StepInput::Script { args: words, .. } = &mut key.step
    {
        words.iter_mut().for_each(cut);
    }
    key.env.values_mut().for_each(cut);
    key
}

/// A step that was done before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hit {
    /// The base sandbox that holds it.
    pub sandbox: String,
    /// The snapshot.
    pub label: String,
}

/// A step's record as it was found on a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub base: String,
    pub step: usize,
    pub digest: String,
    pub key: StepKey,
    pub snapshot: Snapshot,
}

/// The records of all steps on the backend, each with its sandbox.
pub(super) async fn find(backend: &dyn Backend, cancel: &Cancel) -> Result<Vec<(String, Found)>> {
    let all = backend.find_snapshots(PREFIX, cancel).await?.into_iter();
    let steps = all.filter(|(_, snapshot)| is_step(snapshot));
    Ok(steps.filter_map(|(sandbox, snapshot)| Some((sandbox, read(snapshot)?))).collect())
}

/// Why a step is done.
#[derive(Clone, Debug)]
pub(super) struct Reason {
    /// In a sentence.
    pub said: String,
    /// The fields that are different from those of the step that it is held against.
    pub changes: Vec<Change>,
    /// The digest of that step.
    pub against: Option<String>,
}

/// Every step that any base on the backend has.
#[derive(Debug, Default)]
pub(super) struct Index {
    hits: HashMap<String, Hit>,
    times: HashMap<String, SystemTime>,
    found: Vec<Found>,
}

impl Index {
    pub async fn load(backend: &dyn Backend, cancel: &Cancel) -> Result<Index> {
        let mut index = Index::default();
        for (sandbox, snapshot) in backend.find_snapshots(PREFIX, cancel).await? {
            if !is_step(&snapshot) {
                continue;
            }
            let hit = Hit { sandbox, label: snapshot.label.clone() };
            // Where a step was done more than once, the last time counts.
            let newer = index.times.get(&hit.label).is_none_or(|time| *time < snapshot.created);
            if newer {
                index.times.insert(hit.label.clone(), snapshot.created);
                index.hits.insert(snapshot.label.clone(), hit);
            }
            index.found.extend(read(snapshot));
        }
        Ok(index)
    }

    /// Where the step with this digest is, when it was done before.
    pub fn hit(&self, digest: &str) -> Option<&Hit> {
        self.hits.get(&label_of(digest))
    }

    /// Why the step that is number `step` of `base` has to be done: what is different from the one
    /// that is most like it among those that were in its place before.
    pub fn reason(&self, base: &str, step: usize, key: &StepKey) -> Reason {
        let same_base = || self.found.iter().filter(|found| found.base == base);
        let near = same_base()
            .filter(|found| found.step == step)
            .min_by_key(|found| (key.distance(&found.key), Reverse(found.snapshot.created)));
        let Some(found) = near else {
            let said = match same_base().next() {
                None => "it was never built",
                Some(_) => "it is a new step",
            };
            return Reason { said: said.into(), changes: Vec::new(), against: None };
        };
        let mut changes = key.changes(&found.key);
        for change in changes.iter_mut().filter(|change| change.field == "parent") {
            let (old, new) = (found.key.parent.as_deref(), key.parent.as_deref());
            if let Some(said) = self.parent(old, new, 0) {
                change.said = said;
            }
        }
        let said = changes.first().map(|change| change.said.clone());
        let said = said.unwrap_or_else(|| "its snapshot was deleted".into());
        Reason { said, changes, against: Some(found.digest.clone()) }
    }

    /// What changed of what a base starts from, as far as that is another base.
    fn parent(&self, old: Option<&str>, new: Option<&str>, depth: usize) -> Option<String> {
        let find = |digest: Option<&str>| {
            let digest = digest?;
            self.found.iter().find(|found| found.digest == digest)
        };
        let (was, is) = (find(old), find(new)?);
        let Some(was) = was else { return Some(format!("it starts from base '{}' now", is.base)) };
        if was.base != is.base {
            return Some(format!(
                "it started from base '{}' and starts from '{}' now",
                was.base, is.base
            ));
        }
        let first = is.key.changes(&was.key).into_iter().next()?;
        if first.field == "parent" && depth < 1000 {
            return self.parent(was.key.parent.as_deref(), is.key.parent.as_deref(), depth + 1);
        }
        Some(format!("base '{}' changed in step {}: {}", is.base, is.step, first.said))
    }
}

/// Whether a snapshot was made by us, for a step.
pub(super) fn is_step(snapshot: &Snapshot) -> bool {
    snapshot.labels.get(KIND).is_some_and(|kind| kind == "step")
}

/// The parent key of the step that a snapshot holds.
pub(super) fn parent_of(snapshot: &Snapshot) -> Option<String> {
    serde_json::from_str::<StepKey>(snapshot.labels.get(RECORD)?).ok()?.parent
}

fn read(snapshot: Snapshot) -> Option<Found> {
    let base = snapshot.labels.get(BASE)?.clone();
    let step = snapshot.labels.get(STEP)?.parse().ok()?;
    let key = serde_json::from_str(snapshot.labels.get(RECORD)?).ok()?;
    let digest = snapshot.labels.get(DIGEST)?.clone();
    Some(Found { base, step, digest, key, snapshot })
}

/// The labels of a base's sandbox, by which it is found and pruned.
pub(super) fn sandbox_labels(
    kind: &str,
    base: &str,
    expires: Option<Duration>,
) -> BTreeMap<String, String> {
    let expires = expires.map(|after| (EXPIRES, after.as_secs().to_string()));
    let labels = [(KIND, kind.to_string()), (BASE, base.to_string())].into_iter().chain(expires);
    labels.map(|(name, value)| (name.to_string(), value)).collect()
}
