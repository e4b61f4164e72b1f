//! How steps are written on snapshots and found again: the backend is the cache.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::sandbox::{Backend, Cancel, Result, Snapshot, SnapshotSpec};

use super::key::StepKey;

/// Label of a sandbox or snapshot: what it is for. `base` for a base's sandbox, `step` for a
/// step's snapshot.
pub(super) const KIND: &str = "sandscript.kind";
/// Label: the base's name.
pub(super) const BASE: &str = "sandscript.base";
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
    SnapshotSpec { label: label_of(&digest), labels }
}

fn abridged(key: &StepKey) -> StepKey {
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
struct Found {
    base: String,
    step: usize,
    key: StepKey,
    snapshot: Snapshot,
}

/// Every step that any base on the backend has.
#[derive(Debug, Default)]
pub(super) struct Index {
    hits: HashMap<String, Hit>,
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
            index.hits.insert(snapshot.label.clone(), hit);
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
    pub fn reason(&self, base: &str, step: usize, key: &StepKey) -> String {
        let same_base = || self.found.iter().filter(|found| found.base == base);
        let near = same_base()
            .filter(|found| found.step == step)
            .min_by_key(|found| (key.distance(&found.key), Reverse(found.snapshot.created)));
        match near {
            Some(found) => key
                .difference(&found.key)
                .unwrap_or_else(|| "what was kept of it is a cut text that changed".into()),
            None if same_base().next().is_none() => "it was never built".into(),
            None => "it is a new step".into(),
        }
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
    Some(Found { base, step, key, snapshot })
}

/// The labels of a base's sandbox, by which it is found and pruned.
pub(super) fn sandbox_labels(kind: &str, base: &str) -> BTreeMap<String, String> {
    [(KIND, kind), (BASE, base)].map(|(k, v)| (k.to_string(), v.to_string())).into()
}
