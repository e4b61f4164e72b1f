//! What may go: what dead runs left, what has expired, and what nobody has used for long.
//!
//! All of it is read from the backend. Who deletes looks again in the same step, so that what
//! somebody has begun to use, or made anew, stays.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::base::Catalog;
use crate::sandbox::{Backend, Cancel, Condition, Error, Info, Result};

/// After how long without use a base expires, where nothing else is said.
pub const BASES_EXPIRE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long after a run's time limit what it owns may go, where nobody can ask whether it lives.
pub const OWNED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Label of a cell's sandbox: the run.
const RUN: &str = "sandscript.run";
/// Label of what belongs to a base.
const KIND: &str = "sandscript.kind";

/// What is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Only say what would go.
    pub dry_run: bool,
    /// Only what this run left: what it owned, and the sandboxes of its cells that were kept.
    pub run: Option<String>,
    /// Also what nobody has used for so long: bases, and sandboxes that expire anyway.
    pub older_than: Option<Duration>,
    /// With `older_than`: also sandboxes that never expire.
    pub kept: bool,
    /// After how long without use bases expire whose script does not say so; never without it.
    pub bases: Option<Duration>,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The sandboxes, by name.
    pub sandboxes: Vec<Collected>,
    /// Layers, leases and folders that nothing refers to.
    pub leftovers: usize,
    /// Bytes freed, where the backend knows.
    pub bytes: u64,
}

/// A sandbox that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Why,
    /// When it was created and last used; not known of one that came and went meanwhile.
    pub times: Option<(SystemTime, SystemTime)>,
}

/// Why a sandbox may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time is over.
    Expired,
    /// The run that owned it, or was making it, is dead.
    DeadRun(Option<String>),
    /// It was kept for somebody to look at, by this run.
    KeptCell(String),
    /// Nobody has used this base for long.
    UnusedBase(String),
    /// Nobody has used it for long.
    Unused,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Expired => f.write_str("it has expired"),
            Why::DeadRun(Some(run)) => write!(f, "run {run} is dead"),
            Why::DeadRun(None) => f.write_str("its run is dead"),
            Why::KeptCell(run) => write!(f, "kept by run {run}"),
            Why::UnusedBase(base) => write!(f, "base '{base}' is not used"),
            Why::Unused => f.write_str("it is not used"),
        }
    }
}

impl Why {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Why::Expired => "expired",
            Why::DeadRun(_) => "dead_run",
            Why::KeptCell(_) => "kept_cell",
            Why::UnusedBase(_) => "unused_base",
            Why::Unused => "unused",
        }
    }
}

/// Finds what may go, and deletes it unless that is a dry run. Never what a live run owns.
pub async fn sweep(backend: &dyn Backend, wanted: &Sweep, cancel: &Cancel) -> Result<Swept> {
    let infos = backend.list(cancel).await?;
    let mut swept = match &wanted.run {
        Some(run) => of_run(backend, wanted, run, &infos, cancel).await?,
        None => of_all(backend, wanted, infos, cancel).await?,
    };
    swept.sandboxes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(swept)
}

async fn of_run(
    backend: &dyn Backend,
    wanted: &Sweep,
    run: &str,
    infos: &[Info],
    cancel: &Cancel,
) -> Result<Swept> {
    let owned = |info: &Info| info.owner.as_ref().is_some_and(|owner| owner.run == run);
    let kept = |info: &Info| {
        let label = info.labels.get(RUN).is_some_and(|label| label == run);
        label && info.owner.is_none() && info.expires.is_some()
    };
    let dead: HashSet<String> = backend.gc(true, cancel).await?.sandboxes.into_iter().collect();
    let alive = infos.iter().filter(|info| owned(info) && !dead.contains(&info.name)).count();
    if alive > 0 {
        let what = if alive == 1 { "a sandbox".into() } else { format!("{alive} sandboxes") };
        let hint = "stop it first; what a live run owns is never deleted";
        return Err(Error::invalid_hint("run", format!("{run} is alive and has {what}"), hint));
    }
    let mut swept = Swept::default();
    for info in infos {
        let (why, still): (_, &Condition<'_>) = match info {
            info if owned(info) => (Why::DeadRun(Some(run.into())), &owned),
            info if kept(info) => (Why::KeptCell(run.into()), &kept),
            _ => continue,
        };
        let same = |now: &Info| still(now) && now.created == info.created;
        if wanted.dry_run || backend.delete_if(&info.name, &same, cancel).await? {
            swept.sandboxes.push(collected(info, why));
        }
    }
    Ok(swept)
}

async fn of_all(
    backend: &dyn Backend,
    wanted: &Sweep,
    infos: Vec<Info>,
    cancel: &Cancel,
) -> Result<Swept> {
    let now = crate::sandbox::wall_clock();
    let found = backend.gc(wanted.dry_run, cancel).await?;
    let mut swept = Swept { sandboxes: Vec::new(), leftovers: found.leftovers, bytes: found.bytes };
    {
        let known: HashMap<&str, &Info> = infos.iter().map(|i| (i.name.as_str(), i)).collect();
        for name in &found.sandboxes {
            let info = known.get(name.as_str());
            let owner = info.and_then(|info| info.owner.as_ref());
            let why = match info {
                Some(info) if info.expires.is_some_and(|end| end <= now) => Why::Expired,
                _ => Why::DeadRun(owner.map(|owner| owner.run.clone())),
            };
            swept.sandboxes.push(match info {
                Some(info) => collected(info, why),
                None => Collected { name: name.clone(), why, times: None },
            });
        }
    }
    let gone: HashSet<String> = found.sandboxes.into_iter().collect();
    let left: Vec<Info> = infos.into_iter().filter(|info| !gone.contains(&info.name)).collect();
    let mut unused: Vec<(Info, Why)> = Vec::new();
    if let Some(limit) = wanted.older_than {
        let old = |info: &&Info| {
            let age = now.duration_since(info.used.max(info.created)).unwrap_or_default();
            let base = info.labels.get(KIND).is_some_and(|kind| kind == "base");
            let may = info.owner.is_none() && (wanted.kept || info.expires.is_some());
            !base && may && age > limit
        };
        unused.extend(left.iter().filter(old).map(|info| (info.clone(), Why::Unused)));
    }
    if left.iter().any(|info| info.labels.contains_key(KIND)) {
        let by_name: HashMap<String, Info> =
            left.iter().map(|info| (info.name.clone(), info.clone())).collect();
        let catalog = Catalog::among(left, backend, cancel).await?;
        let limit = |entry: &super::BaseEntry| {
            let own = entry.expires.or(wanted.bases);
            own.into_iter().chain(wanted.older_than).min()
        };
        for entry in catalog.unused(limit, now) {
            if let Some(info) = by_name.get(&entry.sandbox) {
                unused.push((info.clone(), Why::UnusedBase(entry.base.clone())));
            }
        }
    }
    for (info, why) in unused {
        let same = |now: &Info| {
            now.owner.is_none() && now.created == info.created && now.used <= info.used
        };
        if wanted.dry_run || backend.delete_if(&info.name, &same, cancel).await? {
            swept.sandboxes.push(collected(&info, why));
        }
    }
    Ok(swept)
}

fn collected(info: &Info, why: Why) -> Collected {
    Collected { name: info.name.clone(), why, times: Some((info.created, info.used)) }
}
