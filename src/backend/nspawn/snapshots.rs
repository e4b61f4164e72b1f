//! Snapshots, restoring and cloning.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::guest::guarded;
use super::super::local::{save, store_error};
use super::Inner;
use super::groups::{self, is_frozen};
use super::lifecycle::Plan;
use super::record::{Machine, Saved};
use super::store::{exchange, settle};
use crate::sandbox::{
    Cancel, CloneSpec, Error, Info, Kind, Result, Snapshot, SnapshotSpec, wall_clock,
};

/// The file that says how large a snapshot is.
const SIZE: &str = "size";

/// A machine that stands still as long as this is there.
struct Still<'a>(&'a Path);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        groups::thaw(self.0);
    }
}

impl Inner {
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        name: &str,
        spec: &SnapshotSpec,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        self.store.machine(name)?;
        let (inner, name, spec) = (Arc::clone(self), name.to_owned(), spec.clone());
        guarded(cancel, move |_| async move { inner.take(&name, &spec).await }).await
    }

    async fn take(&self, name: &str, spec: &SnapshotSpec) -> Result<Snapshot> {
        let _lock = self.store.changing(name).await?;
        self.store.machine(name)?;
        let place = self.store.snapshot(name, &spec.label);
        if place.exists() {
            return Err(Error::exists(Kind::Snapshot, &spec.label));
        }
        let folder = self.store.folder(name).join("snapshots");
        std::fs::create_dir_all(&folder).map_err(|error| store_error("making", &folder, error))?;
        let newest = self.store.snapshots(name)?.last().map(|saved| saved.created);
        let (making, lock) = self.store.new_folder()?;
        let done = async {
            let frozen = self.copy_still(name, &making.join("tree"), true).await?;
            // After those that are there, also where the clock was set back since.
            let after = newest.map(|newest| newest + Duration::from_micros(1));
            let created = after.map_or_else(wall_clock, |after| after.max(wall_clock()));
            let saved = Saved {
                label: spec.label.clone(),
                created,
                frozen,
                labels: spec.labels.clone(),
                expires: spec.expires,
            };
            save(&making.join("snapshot.json"), &saved)?;
            settle(&making, &place)
                .map(|()| saved)
                .map_err(|error| store_error("making", &place, error))
        };
        let done = done.await;
        drop(lock);
        if making.exists() {
            self.clear(&making).await?;
        }
        let saved = done?;
        let size = match self.storage.shares_all() {
            // At this moment the machine still shares all of it.
            true => 0,
            false => self.storage.size(&place.join("tree")).await.unwrap_or_default(),
        };
        Ok(saved.snapshot(size))
    }

    /// Copies a machine's tree as it is in one moment, to one that is only `kept` or to one that can be written to;
    /// how long its processes stood still.
    async fn copy_still(&self, name: &str, to: &Path, kept: bool) -> Result<Duration> {
        let tree = self.store.tree(name);
        let run = self.store.run(name)?;
        let copy = async || match kept {
            true => self.storage.keep(&tree, to, run.is_some()).await,
            false => self.storage.copy(&tree, to, run.is_some()).await,
        };
        let whole = run.as_ref().and_then(|run| run.whole.as_ref());
        let Some(whole) = whole.filter(|whole| !is_frozen(whole)) else {
            copy().await?;
            return Ok(Duration::ZERO);
        };
        let turn = self.turns.of(name);
        let _still = turn.write().await;
        let started = Instant::now();
        self.store.set_copied(name, true)?;
        let still = Still(whole);
        groups::freeze(whole, true).await?;
        let copied = copy().await;
        drop(still);
        self.store.set_copied(name, false)?;
        copied.map(|()| started.elapsed())
    }

    pub(super) async fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        self.store.machine(name)?;
        let known = self.store.snapshots(name)?;
        let mut all = Vec::new();
        for (at, saved) in known.iter().enumerate() {
            let newest = at + 1 == known.len();
            all.push(saved.snapshot(self.size_of(name, &saved.label, newest).await));
        }
        Ok(all)
    }

    /// What a snapshot holds alone. Measuring looks at each of its files, so it is written down as soon as there
    /// is a newer one, and measured again when one beside it goes.
    async fn size_of(&self, name: &str, label: &str, newest: bool) -> u64 {
        let folder = self.store.snapshot(name, label);
        let note = folder.join(SIZE);
        let known = std::fs::read_to_string(&note).ok().filter(|_| !newest);
        if let Some(known) = known.and_then(|text| text.parse().ok()) {
            return known;
        }
        // One that was deleted meanwhile has no size.
        let Ok(size) = self.storage.size(&folder.join("tree")).await else { return 0 };
        if !newest {
            let _ = std::fs::write(note, size.to_string());
        }
        size
    }

    /// Those whose label starts so, of all machines; how large they are is not measured.
    pub(super) fn find_snapshots(&self, prefix: &str) -> Result<Vec<(String, Snapshot)>> {
        let mut found = Vec::new();
        for name in self.store.names()? {
            let all = self.store.snapshots(&name)?;
            let fits = all.iter().filter(|saved| saved.label.starts_with(prefix));
            found.extend(fits.map(|saved| (name.clone(), saved.snapshot(0))));
        }
        Ok(found)
    }

    pub(super) async fn delete_snapshot(&self, name: &str, label: &str) -> Result<()> {
        self.store.machine(name)?;
        self.store.saved(name, label)?;
        let _lock = self.store.changing(name).await?;
        self.store.saved(name, label)?;
        self.drop_snapshot(name, label).await
    }

    async fn drop_snapshot(&self, name: &str, label: &str) -> Result<()> {
        let all = self.store.snapshots(name)?;
        if let Some(at) = all.iter().position(|saved| saved.label == label) {
            let beside = all[..at].last().into_iter().chain(all.get(at + 1));
            for other in beside {
                let _ = std::fs::remove_file(self.store.snapshot(name, &other.label).join(SIZE));
            }
        }
        match self.store.discard(&self.store.snapshot(name, label))? {
            Some((trash, _lock)) => self.clear(&trash).await,
            None => Ok(()),
        }
    }

    /// Deletes a machine's snapshots whose time is over; how many.
    pub(super) async fn collect_snapshots(&self, name: &str, dry_run: bool) -> Result<usize> {
        let now = wall_clock();
        let all = self.store.snapshots(name)?;
        let over = |saved: &&Saved| saved.expires.is_some_and(|end| end <= now);
        let mut count = 0;
        for saved in all.iter().filter(over) {
            let done =
                if dry_run { Ok(()) } else { self.delete_snapshot(name, &saved.label).await };
            match done {
                Ok(()) => count += 1,
                // Somebody else was first.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    pub(super) async fn restore(
        self: &Arc<Self>,
        name: &str,
        label: &str,
        cancel: &Cancel,
    ) -> Result<()> {
        self.store.machine(name)?;
        self.store.saved(name, label)?;
        let (inner, name, label) = (Arc::clone(self), name.to_owned(), label.to_owned());
        guarded(cancel, move |_| async move { inner.go_back(&name, &label).await }).await
    }

    async fn go_back(&self, name: &str, label: &str) -> Result<()> {
        let _lock = self.store.changing(name).await?;
        let machine = self.store.machine(name)?;
        self.store.saved(name, label)?;
        let (making, lock) = self.store.new_folder()?;
        let done = async {
            let tree = making.join("tree");
            let from = self.store.snapshot(name, label).join("tree");
            self.storage.copy(&from, &tree, false).await?;
            self.limit_disk(&machine, &tree).await?;
            let ran = self.store.run(name)?.is_some();
            self.halt(name).await?;
            let now = self.store.tree(name);
            let changed =
                exchange(&tree, &now).map_err(|error| store_error("restoring", &now, error));
            self.forget_network(name).await?;
            // As it was, when there was no way back.
            let started = match ran {
                true => self.boot(name, &machine, &Cancel::new()).await,
                false => Ok(()),
            };
            changed.and(started)
        };
        let done = done.await;
        drop(lock);
        self.clear(&making).await?;
        done
    }

    pub(super) async fn clone_box(
        self: &Arc<Self>,
        name: &str,
        spec: &CloneSpec,
        cancel: &Cancel,
    ) -> Result<Info> {
        spec.check()?;
        self.check_limits(&spec.limits.clone().unwrap_or_default())?;
        if let Some(policy) = &spec.egress {
            self.capabilities.require_egress(policy)?;
        }
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        if !spec.caches.is_empty() {
            self.capabilities.require(crate::sandbox::Capability::Caches)?;
        }
        let source = self.store.machine(name)?;
        if spec.egress.is_some() || !spec.networks.is_empty() {
            self.is_ruled(&source)?;
        }
        if let Some(label) = &spec.label {
            self.store.saved(name, label)?;
        }
        self.is_free(&spec.name)?;
        let (inner, name, spec) = (Arc::clone(self), name.to_owned(), spec.clone());
        guarded(cancel, move |cancel| async move { inner.copy_box(&name, &spec, &cancel).await })
            .await
    }

    async fn copy_box(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        let (making, lock) = self.store.new_folder()?;
        let done = async {
            let source = {
                let _lock = self.store.changing(name).await?;
                let source = self.store.machine(name)?;
                let tree = making.join("tree");
                match &spec.label {
                    Some(label) => {
                        self.store.saved(name, label)?;
                        let from = self.store.snapshot(name, label).join("tree");
                        self.storage.copy(&from, &tree, false).await?;
                    }
                    None => drop(self.copy_still(name, &tree, false).await?),
                }
                source
            };
            let mut record = source.record.of_clone(name, spec);
            record.created = Some(wall_clock());
            let mut machine = Machine::new(record, &self.taken()?);
            self.clone_file(name, &source, &mut machine, &making)?;
            machine.disk_base = source.disk_base;
            self.measure_disk(&mut machine, &making.join("tree")).await?;
            let plan = Plan { name: spec.name.clone(), machine, user: None, bare: spec.bare };
            self.place(&plan, &making, cancel).await
        };
        let done = done.await;
        drop(lock);
        if making.exists() {
            self.clear(&making).await?;
        }
        done
    }
}
