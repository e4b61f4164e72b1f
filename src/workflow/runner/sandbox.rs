//! The sandboxes of cells: what they are called, made from, and what becomes of them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::sandbox::{
    Backend, Cancel, CloneSpec, Error, Kind, Limits, Policy, Result, SnapshotSpec, Spec,
    StopOptions, Usage,
};

use super::super::{Cell, CellEgress, Event, FAILED_LABEL, Failure, OnFail, Source, Waiter};
use super::executor::Shared;
use super::lane::Lane;

/// How long a delete may take before it is left to `gc`.
const DELETE: Duration = Duration::from_secs(60);
/// After this time `gc` may take a cell's sandbox, whoever owns it.
const EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of so many cells of a matrix the state they failed in is kept.
const KEPT: usize = 10;
/// How long after the end of a matrix a backend that had gone away is asked again to delete.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(300), Duration::from_secs(1)];

/// How long a backend that went away in the middle of a matrix is waited for.
pub(super) const AWAY: Duration = Duration::from_secs(30);

impl Shared {
    /// A readable name that no other cell of any run has: what of matrix and values can be part of
    /// a sandbox name, and a tag of the run.
    pub fn name(&self, index: usize, cell: &Cell, attempt: usize) -> String {
        let values: Vec<String> = cell.values.iter().map(|(_, v)| v.to_string()).collect();
        let matrix = slug(&self.spec.name, 16);
        let values = slug(&values.join("-"), 28);
        let mut name = if matrix.is_empty() { "cell".to_string() } else { matrix };
        if !values.is_empty() {
            name = format!("{name}-{values}");
        }
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.insert_str(0, "c-");
        }
        let name = format!("{name}-{}-{index}", self.tag);
        if attempt > 1 { format!("{name}-{attempt}") } else { name }
    }

    /// Makes a cell's sandbox, or takes one that waits; gives its name.
    pub async fn make(&self, lane: &Lane, name: &str, cell: &Cell) -> Result<String> {
        let backend = lane.ctx.backend.as_ref();
        let mut template = self.spec.cell.clone();
        let (source, target) = (self.spec.source(cell), self.spec.target(cell).cloned());
        if let Some(own) = self.spec.own.get(&cell.id) {
            if own.limits != Limits::default() {
                let below = template.limits.unwrap_or_default();
                template.limits = Some(Limits {
                    cpu: own.limits.cpu.or(below.cpu),
                    memory: own.limits.memory.or(below.memory),
                    pids: own.limits.pids.or(below.pids),
                    disk: own.limits.disk.or(below.disk),
                    inodes: own.limits.inodes.or(below.inodes),
                });
            }
            template.egress = own.egress.clone().or(template.egress);
            template.env.extend(own.env.clone());
        }
        let labels = [
            ("sandscript.kind", "cell"),
            ("sandscript.run", &self.ctx.run),
            ("sandscript.matrix", &self.spec.name),
            ("sandscript.cell", &cell.id),
        ];
        let labels = labels.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let owner = Some(self.ctx.owner.clone());
        let waiter = Waiter {
            sandbox: name,
            cell: Some(&cell.id),
            base: None,
            events: &self.ctx.events,
            cancel: &self.cancel,
        };
        let clone = |label: Option<String>| CloneSpec {
            label,
            limits: template.limits.clone(),
            egress: template.egress.clone(),
            networks: template.networks.clone(),
            caches: self.spec.caches(cell),
            devices: template.devices.clone(),
            nesting: template.nesting,
            env: template.env.clone(),
            owner: owner.clone(),
            expires: crate::sandbox::wall_clock().checked_add(EXPIRES),
            labels,
            target: target.clone(),
            spread: true,
            ..CloneSpec::new(name)
        };
        match source {
            Source::Base(base) => {
                let mut clone = clone(Some(base.label.clone()));
                clone.limits.get_or_insert_with(|| base.limits.clone());
                for (key, value) in &base.env {
                    clone.env.entry(key.clone()).or_insert_with(|| value.clone());
                }
                if let Some(waiting) = self.waiting(lane, &base.sandbox, &clone).await? {
                    return Ok(waiting);
                }
                waiter
                    .when_free(|| Backend::clone(backend, &base.sandbox, &clone, &self.cancel))
                    .await?;
            }
            Source::Snapshot { sandbox, label } => {
                let clone = clone(label.clone());
                if let Some(waiting) = self.waiting(lane, sandbox, &clone).await? {
                    return Ok(waiting);
                }
                waiter.when_free(|| Backend::clone(backend, sandbox, &clone, &self.cancel)).await?;
            }
            Source::Image { image, sha256 } => {
                lane.ctx.check_image(image.as_deref(), sha256.as_deref()).await?;
                let clone = clone(None);
                let spec = Spec {
                    image: image.clone(),
                    sha256: sha256.clone(),
                    limits: clone.limits.unwrap_or_default(),
                    egress: clone.egress.unwrap_or_default(),
                    networks: clone.networks,
                    caches: clone.caches,
                    devices: clone.devices,
                    nesting: clone.nesting,
                    env: clone.env,
                    labels: clone.labels,
                    owner: clone.owner,
                    expires: clone.expires,
                    target,
                    ..Spec::new(name)
                };
                waiter.when_free(|| backend.create(&spec, &self.cancel)).await?;
            }
        }
        Ok(name.to_owned())
    }

    /// A clone that waits already.
    async fn waiting(
        &self,
        lane: &Lane,
        source: &str,
        clone: &CloneSpec,
    ) -> Result<Option<String>> {
        match &lane.pool {
            Some(pool) => pool.take(lane.ctx.backend.as_ref(), source, clone, &self.cancel).await,
            None => Ok(None),
        }
    }

    /// Whether it is kept now. With a token of its own: a cancelled run keeps what it should, too.
    pub async fn keep(&self, lane: &Lane, sandbox: &str, cell: &Cell) -> bool {
        let kept = async {
            let cancel = Cancel::new();
            if !self.spec.caches(cell).is_empty() {
                // Others wait for what it has.
                let now = StopOptions { force: true, ..StopOptions::default() };
                lane.ctx.backend.stop(sandbox, now, &cancel).await?;
            }
            lane.ctx.backend.keep(sandbox, &cancel).await
        };
        match kept.await {
            Ok(()) => {
                let why = format!("cell {}", cell.id);
                self.ctx.events.send(Event::SandboxKept { name: sandbox.into(), why });
                true
            }
            Err(error) => {
                let message = format!("sandbox '{sandbox}' could not be kept: {error}");
                self.ctx.events.send(Event::Warning { message, hint: error.hint() });
                false
            }
        }
    }

    /// Takes a snapshot of the state that a cell failed in, and keeps its sandbox with it. Gives what
    /// `sandscript enter` takes; nothing when so many are kept already, or when it can't be done.
    pub async fn keep_failure(&self, lane: &Lane, sandbox: &str, cell: &Cell) -> Option<String> {
        if self.ctx.on_fail == OnFail::Clean || self.kept.fetch_add(1, Ordering::SeqCst) >= KEPT {
            return None;
        }
        let (backend, cancel) = (&lane.ctx.backend, Cancel::new());
        let keep = async {
            let spec = SnapshotSpec {
                labels: [("sandscript.kind".to_string(), "failure".to_string())].into(),
                ..SnapshotSpec::new(FAILED_LABEL)
            };
            backend.snapshot(sandbox, &spec, &cancel).await?;
            // What has a cache is stopped in any case: others wait for that.
            if self.ctx.on_fail == OnFail::Keep || !self.spec.caches(cell).is_empty() {
                let now = StopOptions { force: true, ..StopOptions::default() };
                backend.stop(sandbox, now, &cancel).await?;
            }
            if self.ctx.on_fail == OnFail::Keep {
                backend.keep(sandbox, &cancel).await?;
            }
            Ok(())
        };
        let error = match tokio::time::timeout(DELETE, keep).await {
            Ok(Ok(())) => return Some(format!("{}/{}", self.ctx.run, cell.id)),
            Ok(Err(error)) => error,
            Err(_) => Error::Timeout { what: "the snapshot".into(), after: DELETE },
        };
        let message = format!("the state of cell '{}' could not be kept: {error}", cell.id);
        self.ctx.events.send(Event::Warning { message, hint: error.hint() });
        None
    }

    /// What a sandbox has taken of the machine; nothing where that can't be told.
    pub async fn usage(&self, lane: &Lane, sandbox: &str) -> Usage {
        let cancel = Cancel::new();
        let usage = lane.ctx.backend.usage(sandbox, &cancel);
        let usage = tokio::time::timeout(Duration::from_secs(5), usage).await;
        usage.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Whether a cell may reach anything at all, as far as that is known.
    pub fn reaches(&self, cell: &Cell) -> bool {
        if !self.spec.cell.networks.is_empty() {
            return true;
        }
        let own = self.spec.own.get(&cell.id);
        let source = own.and_then(|own| own.source.as_ref()).unwrap_or(&self.spec.source);
        let policy = own.and_then(|own| own.egress.as_ref()).or(self.spec.cell.egress.as_ref());
        match (policy, source) {
            (Some(policy), _) => *policy != Policy::None,
            (None, Source::Base(base)) => base.egress != Policy::None,
            (None, Source::Snapshot { .. }) => true,
            (None, Source::Image { .. }) => false,
        }
    }

    /// What a sandbox was refused and what it reached; nothing where that can't be told.
    pub async fn egress(&self, lane: &Lane, sandbox: &str) -> CellEgress {
        let cancel = Cancel::new();
        let log = lane.ctx.backend.egress_log(sandbox, &cancel);
        let log = tokio::time::timeout(Duration::from_secs(5), log).await;
        let egress = CellEgress::of(log.ok().and_then(Result::ok).unwrap_or_default());
        if egress.denied.is_empty() {
            return egress;
        }
        let policy = lane.ctx.backend.policy(sandbox, &cancel);
        let policy = tokio::time::timeout(Duration::from_secs(5), policy).await;
        egress.under(policy.ok().and_then(Result::ok))
    }

    /// Deletes a sandbox, also when the run was cancelled. Where nobody answers it is tried once
    /// more at the end of the matrix.
    pub async fn delete(&self, lane: &Arc<Lane>, sandbox: &str) {
        match try_delete(lane, sandbox).await {
            Ok(()) => {}
            Err(Error::MemberAway { .. } | Error::Transport { .. }) => {
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                lost.push((Arc::clone(lane), sandbox.into()));
            }
            Err(error) => self.not_deleted(sandbox, &error),
        }
    }

    /// Deletes what could not be deleted before, because nobody answered.
    pub async fn delete_lost(&self) {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let mut away: Vec<Arc<Lane>> = Vec::new();
        for (lane, sandbox) in lost {
            let mut pauses = AGAIN.iter();
            loop {
                // One that stayed away for all this time is not waited for again.
                let gone = away.iter().any(|other| Arc::ptr_eq(other, &lane));
                let pause = if gone { None } else { pauses.next() };
                match (try_delete(&lane, &sandbox).await, pause) {
                    (Ok(()), _) => break,
                    (Err(Error::Transport { .. }), Some(pause)) => {
                        tokio::time::sleep(*pause).await;
                    }
                    (Err(error), _) => {
                        self.not_deleted(&sandbox, &error);
                        away.retain(|other| !Arc::ptr_eq(other, &lane));
                        if matches!(error, Error::Transport { .. }) {
                            away.push(Arc::clone(&lane));
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Waits while nobody answers: attempts that began meanwhile would be lost.
    pub async fn answers(&self, lane: &Lane, sandbox: &str) {
        let mut pause = AGAIN[0];
        let answered = async {
            while let Err(Error::Transport { .. }) =
                lane.ctx.backend.get(sandbox, &self.cancel).await
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        if !lane.gone.load(Ordering::Relaxed) && tokio::time::timeout(AWAY, answered).await.is_err()
        {
            lane.gone.store(true, Ordering::Relaxed);
        }
    }

    fn not_deleted(&self, sandbox: &str, error: &Error) {
        self.ctx.events.send(Event::Warning {
            message: format!("sandbox '{sandbox}' could not be deleted: {error}"),
            hint: Some("it goes with the next: sandscript gc".into()),
        });
    }
}

async fn try_delete(lane: &Lane, sandbox: &str) -> Result<()> {
    let cancel = Cancel::new();
    let delete = lane.ctx.backend.delete(sandbox, &cancel);
    match tokio::time::timeout(DELETE, delete).await {
        Ok(Err(Error::NotFound { kind: Kind::Sandbox, .. })) => Ok(()),
        Ok(done) => done,
        Err(_) => Err(Error::Timeout { what: "the delete".into(), after: DELETE }),
    }
}

/// Why a cell has no sandbox.
pub(super) fn unmade(error: Error) -> Failure {
    match error {
        Error::NotFound { .. } => Failure::Failed {
            message: format!("its sandbox could not be made: {error}"),
            hint: Some("what the cells are cloned from was deleted while the matrix ran".into()),
        },
        other => Failure::Error(other),
    }
}

/// What of `text` can be part of a sandbox name, at most `max` characters.
pub(in super::super) fn slug(text: &str, max: usize) -> String {
    let mut slug = String::new();
    for character in text.chars().map(|c| c.to_ascii_lowercase()) {
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(max);
    slug.trim_end_matches('-').to_string()
}
