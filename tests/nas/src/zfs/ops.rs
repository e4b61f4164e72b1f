//! What can be done to a pool, by ZFS' rules.

use super::{Refused, Zfs, split, valid, valid_snapshot};

/// How a snapshot is destroyed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Destroy {
    /// Later, if it is held or has clones.
    pub defer: bool,
    /// With its clones, and theirs.
    pub clones: bool,
}

impl Zfs {
    /// A new dataset.
    pub async fn create(&self, name: &str, now: i64) -> Result<(), Refused> {
        self.create_at(name, None, now).await
    }

    /// Makes a dataset in a folder of its own choice.
    pub async fn create_at(
        &self,
        name: &str,
        folder: Option<String>,
        now: i64,
    ) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        if !valid(name) {
            return Err(Refused::BadName(name.to_owned()));
        }
        self.tree().free(name)?;
        let folder = folder.unwrap_or_else(|| self.place(name));
        self.storage.create(&folder).await?;
        self.tree().insert(name, folder, None, now);
        Ok(())
    }

    /// Where a dataset's folder belongs: in its parent's.
    pub fn place(&self, name: &str) -> String {
        let (parent, leaf) = name.rsplit_once('/').unwrap_or((name, ""));
        match self.tree().datasets.get(parent) {
            Some(dataset) => format!("{}/{leaf}", dataset.folder),
            None => format!("{}/{leaf}", self.mount),
        }
    }

    /// Snapshots a dataset; with all below it if `recursive`, but for those in `exclude`.
    pub async fn snapshot(
        &self,
        dataset: &str,
        name: &str,
        recursive: bool,
        exclude: &[String],
        now: i64,
    ) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        if !valid_snapshot(name) {
            return Err(Refused::BadName(name.to_owned()));
        }
        let all = {
            let tree = self.tree();
            tree.get(dataset)?;
            let mut all = vec![dataset.to_owned()];
            if recursive {
                all.extend(tree.below(dataset));
            }
            all.retain(|d| !exclude.contains(d));
            if let Some(taken) =
                all.iter().map(|d| format!("{d}@{name}")).find(|p| tree.find(p).is_ok())
            {
                return Err(Refused::Exists(taken));
            }
            all
        };
        for dataset in all {
            let (folder, copy) = {
                let tree = self.tree();
                let folder = tree.get(&dataset)?.folder.clone();
                (folder, self.hidden())
            };
            self.storage.copy(&folder, &copy).await?;
            let mut tree = self.tree();
            let snapshot = tree.snapshot(name, copy, now);
            tree.get_mut(&dataset)?.snapshots.push(snapshot);
        }
        Ok(())
    }

    /// Makes a dataset of a snapshot. `folder` is where it goes, if not into its parent's.
    pub async fn clone_to(
        &self,
        snapshot: &str,
        name: &str,
        folder: Option<String>,
        now: i64,
    ) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        if !valid(name) {
            return Err(Refused::BadName(name.to_owned()));
        }
        let from = {
            let tree = self.tree();
            let from = tree.find(snapshot)?.folder.clone();
            tree.free(name)?;
            from
        };
        let folder = folder.unwrap_or_else(|| self.place(name));
        self.storage.copy(&from, &folder).await?;
        self.tree().insert(name, folder, Some(snapshot.to_owned()), now);
        Ok(())
    }

    /// Destroys a snapshot.
    pub async fn destroy_snapshot(&self, path: &str, how: Destroy) -> Result<(), Refused> {
        let clones = {
            let tree = self.tree();
            let held = !tree.find(path)?.holds.is_empty();
            let clones = tree.clones(path);
            drop(tree);
            if held || (!clones.is_empty() && !how.clones) {
                if how.defer {
                    self.tree().find_mut(path)?.deferred = true;
                    return Ok(());
                }
                return Err(match held {
                    true => Refused::Held(path.to_owned()),
                    false => Refused::Clones(path.to_owned(), clones),
                });
            }
            clones
        };
        for clone in clones {
            Box::pin(self.destroy(&clone, true, true)).await?;
        }
        let _turn = self.turn.lock().await;
        let folder = self.tree().find(path)?.folder.clone();
        self.storage.remove(&folder).await?;
        let (dataset, name) = split(path).unwrap_or((path, ""));
        self.tree().get_mut(dataset)?.snapshots.retain(|s| s.name != name);
        Ok(())
    }

    /// Destroys a dataset; with what is below it if `recursive`; with clones elsewhere if `clones`.
    pub async fn destroy(&self, name: &str, recursive: bool, clones: bool) -> Result<(), Refused> {
        let (children, snapshots) = {
            let tree = self.tree();
            let dataset = tree.get(name)?;
            let snapshots: Vec<_> =
                dataset.snapshots.iter().map(|s| format!("{name}@{}", s.name)).collect();
            let children = tree.below(name);
            let bare = children.is_empty() && snapshots.is_empty();
            if !recursive && !bare {
                let all = snapshots.iter().chain(&children).cloned().collect();
                return Err(Refused::Children(name.to_owned(), all));
            }
            if !clones {
                let inside = |c: &String| c == name || c.starts_with(&format!("{name}/"));
                let all =
                    children.iter().filter_map(|c| tree.datasets.get(c).map(|d| (c.as_str(), d)));
                for (owner, dataset) in all.chain([(name, dataset)]) {
                    for snapshot in &dataset.snapshots {
                        let path = format!("{owner}@{}", snapshot.name);
                        if !snapshot.holds.is_empty() {
                            return Err(Refused::Held(path));
                        }
                        let outside: Vec<_> =
                            tree.clones(&path).into_iter().filter(|c| !inside(c)).collect();
                        if !outside.is_empty() {
                            return Err(Refused::Clones(path, outside));
                        }
                    }
                }
            }
            (children, snapshots)
        };
        for child in children.iter().rev() {
            if self.tree().datasets.contains_key(child) {
                Box::pin(self.destroy(child, true, clones)).await?;
            }
        }
        for snapshot in snapshots {
            if clones && let Ok(s) = self.tree().find_mut(&snapshot) {
                s.holds.clear();
            }
            self.destroy_snapshot(&snapshot, Destroy { defer: false, clones: true }).await?;
        }
        let (folder, origin) = {
            let _turn = self.turn.lock().await;
            let (folder, origin) = {
                let tree = self.tree();
                let dataset = tree.get(name)?;
                (dataset.folder.clone(), dataset.origin.clone())
            };
            self.storage.remove(&folder).await?;
            self.tree().datasets.remove(name);
            (folder, origin)
        };
        let _ = folder;
        self.settle(origin).await
    }

    /// Destroys a snapshot that only waited for its last clone or hold.
    pub async fn settle(&self, path: Option<String>) -> Result<(), Refused> {
        let Some(path) = path else { return Ok(()) };
        let due = {
            let tree = self.tree();
            tree.find(&path).is_ok_and(|s| s.deferred && s.holds.is_empty())
                && tree.clones(&path).is_empty()
        };
        if due { self.destroy_snapshot(&path, Destroy::default()).await } else { Ok(()) }
    }

    /// Takes a dataset back to a snapshot; newer ones go if `recursive`, their clones if `clones`.
    pub async fn rollback(
        &self,
        path: &str,
        recursive: bool,
        clones: bool,
        in_use: bool,
    ) -> Result<(), Refused> {
        let (newer, folder, from) = {
            let tree = self.tree();
            let newer = tree.newer(path)?;
            let (dataset, _) = split(path).unwrap_or((path, ""));
            (newer, tree.get(dataset)?.folder.clone(), tree.find(path)?.folder.clone())
        };
        if !newer.is_empty() && !recursive && !clones {
            return Err(Refused::Newer(path.to_owned(), newer));
        }
        if !clones {
            for snapshot in &newer {
                let tree = self.tree();
                let found = tree.clones(snapshot);
                if !found.is_empty() {
                    return Err(Refused::Clones(snapshot.clone(), found));
                }
                if !tree.find(snapshot)?.holds.is_empty() {
                    return Err(Refused::Held(snapshot.clone()));
                }
            }
        }
        for snapshot in newer.iter().rev() {
            self.destroy_snapshot(snapshot, Destroy { defer: false, clones }).await?;
        }
        let _turn = self.turn.lock().await;
        let (dataset, _) = split(path).unwrap_or((path, ""));
        let children: Vec<String> = self
            .tree()
            .below(dataset)
            .iter()
            .filter_map(|c| c[dataset.len() + 1..].split('/').next().map(str::to_owned))
            .collect();
        self.storage.replace(&folder, &from, in_use, &children).await
    }

    /// Turns a clone and its origin around: the snapshots up to the origin move to the clone.
    pub fn promote(&self, name: &str) -> Result<(), Refused> {
        let mut tree = self.tree();
        let Some(origin) = tree.get(name)?.origin.clone() else {
            return Err(Refused::NotAClone(name.to_owned()));
        };
        let (parent, _) = split(&origin).ok_or_else(|| Refused::Missing(origin.clone()))?;
        let limit = tree.find(&origin)?.txg;
        let old = tree.get(parent)?.origin.clone();
        let (moved, kept): (Vec<_>, Vec<_>) =
            tree.get(parent)?.snapshots.clone().into_iter().partition(|s| s.txg <= limit);
        if let Some(twice) = moved.iter().find(|s| tree.find(&format!("{name}@{}", s.name)).is_ok())
        {
            return Err(Refused::Exists(format!("{name}@{}", twice.name)));
        }
        let names: Vec<String> = moved.iter().map(|s| s.name.clone()).collect();
        tree.get_mut(parent)?.snapshots = kept;
        let own = &mut tree.get_mut(name)?.snapshots;
        own.splice(0..0, moved);
        for dataset in tree.datasets.values_mut() {
            let moved = dataset
                .origin
                .as_deref()
                .and_then(split)
                .filter(|(d, s)| *d == parent && names.iter().any(|n| n == s));
            if let Some((_, s)) = moved {
                dataset.origin = Some(format!("{name}@{s}"));
            }
        }
        tree.get_mut(name)?.origin = old;
        let (_, last) = split(&origin).unwrap_or(("", ""));
        tree.get_mut(parent)?.origin = Some(format!("{name}@{last}"));
        Ok(())
    }

    /// Renames a dataset and all below it. `folder` is where it goes, if not into its new parent's.
    pub async fn rename(
        &self,
        from: &str,
        to: &str,
        folder: Option<String>,
    ) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        if !valid(to) {
            return Err(Refused::BadName(to.to_owned()));
        }
        let old = {
            let tree = self.tree();
            let old = tree.get(from)?.folder.clone();
            tree.free(to)?;
            old
        };
        let new = folder.unwrap_or_else(|| self.place(to));
        self.storage.rename(&old, &new).await?;
        let mut tree = self.tree();
        let names: Vec<String> = tree.below(from).into_iter().chain([from.to_owned()]).collect();
        for name in names {
            if let Some(mut dataset) = tree.datasets.remove(&name) {
                dataset.folder = dataset.folder.replacen(&old, &new, 1);
                tree.datasets.insert(name.replacen(from, to, 1), dataset);
            }
        }
        for dataset in tree.datasets.values_mut() {
            if let Some(origin) = &mut dataset.origin
                && (origin.starts_with(&format!("{from}@"))
                    || origin.starts_with(&format!("{from}/")))
            {
                *origin = origin.replacen(from, to, 1);
            }
        }
        Ok(())
    }

    /// Renames a snapshot; on all datasets below it, too, if `recursive`.
    pub fn rename_snapshot(&self, from: &str, to: &str, recursive: bool) -> Result<(), Refused> {
        let mut tree = self.tree();
        tree.find(from)?;
        let (dataset, old) = split(from).unwrap_or((from, ""));
        let new = to.rsplit('@').next().unwrap_or(to);
        if !valid_snapshot(new) {
            return Err(Refused::BadName(new.to_owned()));
        }
        let mut all = vec![dataset.to_owned()];
        if recursive {
            all.extend(tree.below(dataset));
        }
        for dataset in all {
            if tree.find(&format!("{dataset}@{new}")).is_ok() {
                return Err(Refused::Exists(format!("{dataset}@{new}")));
            }
            if let Ok(snapshot) = tree.find_mut(&format!("{dataset}@{old}")) {
                snapshot.name = new.to_owned();
                let (was, is) = (format!("{dataset}@{old}"), format!("{dataset}@{new}"));
                for other in tree.datasets.values_mut() {
                    if other.origin.as_ref() == Some(&was) {
                        other.origin = Some(is.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// Holds a snapshot, or with `on` false lets go of it. `tag` `None` lets go of all.
    pub fn hold(
        &self,
        path: &str,
        tag: Option<&str>,
        on: bool,
        recursive: bool,
    ) -> Result<(), Refused> {
        let mut tree = self.tree();
        tree.find(path)?;
        let (dataset, name) = split(path).unwrap_or((path, ""));
        let mut all = vec![dataset.to_owned()];
        if recursive {
            all.extend(tree.below(dataset));
        }
        for dataset in all {
            if let Ok(snapshot) = tree.find_mut(&format!("{dataset}@{name}")) {
                match (on, tag) {
                    (true, tag) => {
                        snapshot.holds.insert(tag.unwrap_or("truenas").to_owned());
                    }
                    (false, Some(tag)) => {
                        snapshot.holds.remove(tag);
                    }
                    (false, None) => snapshot.holds.clear(),
                }
            }
        }
        Ok(())
    }
}
