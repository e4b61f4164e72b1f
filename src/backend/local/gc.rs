//! Finding what dead runs and killed processes have left.

use std::collections::HashSet;

use super::Inner;
use super::images::Image;
use super::record::{self, Record};
use crate::sandbox::{Error, GcReport, Result};

impl Inner {
    pub(super) async fn gc(&self, dry_run: bool) -> Result<GcReport> {
        let mut report = GcReport::default();
        for name in self.store.names()? {
            let dead = match self.store.record(&name) {
                Ok(record) => self.is_dead(&record),
                Err(Error::NotFound { .. }) => false,
                Err(_) => false,
            };
            if !dead {
                continue;
            }
            if !dry_run {
                let Ok(_lock) = self.store.changing(&name).await else { continue };
                // It may have been kept, or made anew, while we waited.
                match self.store.record(&name) {
                    Ok(record) if self.is_dead(&record) => self.delete_locked(&name).await?,
                    _ => continue,
                }
            }
            report.sandboxes.push(name);
        }
        report.leftovers = self.collect_snapshots(dry_run).await?;
        report.leftovers += self.sweep(dry_run).await?;
        if !dry_run {
            self.store.forget_dead_runs()?;
            // Out of the way first: a sandbox that is being made may take one at any moment.
            let mut trash = Vec::new();
            for spare in self.store.spares() {
                trash.extend(self.store.discard(&spare)?);
            }
            self.throw_away(trash, Vec::new()).await?;
        }
        Ok(report)
    }

    /// Deletes snapshots whose time is over; how many.
    async fn collect_snapshots(&self, dry_run: bool) -> Result<usize> {
        let now = crate::sandbox::wall_clock();
        let mut count = 0;
        for name in self.store.names()? {
            // Of a damaged one nobody knows.
            for saved in self.store.snapshots(&name).unwrap_or_default() {
                if saved.expires.is_none_or(|end| end > now) {
                    continue;
                }
                match dry_run {
                    true => count += 1,
                    false => match self.delete_snapshot(&name, &saved.label).await {
                        Ok(()) => count += 1,
                        Err(Error::NotFound { .. } | Error::Busy { .. }) => {}
                        Err(error) => return Err(error),
                    },
                }
            }
        }
        Ok(count)
    }

    /// Its time is over, or the run that owns it or was making it is dead.
    fn is_dead(&self, record: &Record) -> bool {
        let over = record.spec.expires.is_some_and(|end| end <= crate::sandbox::wall_clock());
        let owner = record.spec.owner.as_ref().map(|owner| &owner.run);
        over || owner.into_iter().chain(&record.maker).any(|run| !self.store.run_lives(run))
    }

    /// A sweep when nobody is in the way; else the next one does it. What fails is left to the
    /// next one too: another sandbox's damaged record is no reason to fail what asks for this.
    pub(super) async fn sweep_if_idle(&self) {
        if let Some(_lock) = self.store.collecting_now() {
            let _ = self.sweep_locked(false).await;
        }
    }

    async fn sweep(&self, dry_run: bool) -> Result<usize> {
        let _lock = self.store.collecting().await?;
        self.sweep_locked(dry_run).await
    }

    /// Marks all layers that something refers to and throws away the rest, the trash and stale cgroups.
    async fn sweep_locked(&self, dry_run: bool) -> Result<usize> {
        let marked = self.marked()?;
        let mut paths = Vec::new();
        let mut count = 0;
        for id in self.store.layer_ids()? {
            // One that is locked belongs to a sandbox that is being made ahead.
            if !marked.contains(&id) && self.store.lock_new(&self.store.layer(&id)).is_ok() {
                count += 1;
                if !dry_run {
                    self.store.discard(&self.store.layer(&id))?;
                }
            }
        }
        for path in self.store.trash()? {
            // What is being prepared or deleted by a living process is locked, or soon gone by itself.
            if self.store.lock_new(&path).is_ok() {
                paths.push(path);
            }
        }
        if dry_run {
            return Ok(count + paths.len());
        }
        let known: HashSet<String> = self.store.names()?.into_iter().collect();
        let groups = self.groups.stale(&known);
        let total = paths.len() + groups.len();
        self.throw_away(paths, groups).await?;
        Ok(total)
    }

    fn marked(&self) -> Result<HashSet<String>> {
        let mut marked = HashSet::new();
        let mut mark = |layers: Vec<String>| -> Result<()> {
            for layer in layers {
                if marked.insert(layer.clone())
                    && let Some(merged) = self.merged(&layer)?
                {
                    marked.insert(merged.layer);
                }
            }
            Ok(())
        };
        for name in self.store.names()? {
            match self.store.record(&name) {
                Ok(record) => {
                    mark(record.layers)?;
                    mark(vec![record.upper])?;
                }
                Err(Error::NotFound { .. }) => {}
                // Of a damaged sandbox nobody knows which layers it has: nothing is thrown away.
                Err(error) => return Err(error),
            }
            for saved in self.store.snapshots(&name)? {
                mark(saved.layers)?;
            }
        }
        for entry in std::fs::read_dir(self.store.images()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(Some(image)) = record::load::<Image>(&path)
            {
                mark(image.layers)?;
            }
        }
        Ok(marked)
    }
}
