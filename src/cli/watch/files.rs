//! The host files that a run depends on, and what changed of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::notifier::{Notifier, Trouble};
use crate::api::{Input, Memory};
use crate::transfer::Manifest;

/// How long it must be quiet after a change: an editor or a compiler writes more than once.
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait for that at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look where nobody tells.
const LOOK: Duration = Duration::from_secs(2);

/// Files and trees, as they were when the run read them.
pub(super) struct Files {
    memory: Arc<Memory>,
    notifier: Notifier,
    known: BTreeMap<Input, Known>,
    /// Which of them may have changed.
    dirty: BTreeSet<Input>,
    /// When the first and the last sign of that came.
    signs: Option<(Instant, Instant)>,
    /// When to look again without a sign.
    look: Instant,
}

struct Known {
    manifest: Manifest,
    /// Where events about it may come from: its path, and its real one.
    places: Vec<PathBuf>,
}

impl Files {
    pub fn new(memory: Arc<Memory>) -> Files {
        Files {
            memory,
            notifier: Notifier::new(),
            known: BTreeMap::new(),
            dirty: BTreeSet::new(),
            signs: None,
            look: Instant::now() + LOOK,
        }
    }

    /// A new run begins, and says which files it reads; those of the last one count on only where
    /// it is `part` of that. The folders stay watched until [`Files::let_go`].
    pub fn begin(&mut self, part: bool) {
        if !part {
            self.known.clear();
        }
        self.dirty.clear();
        self.signs = None;
    }

    /// The run read these, and they were like this.
    pub fn add_all(&mut self, inputs: impl IntoIterator<Item = (Input, Manifest)>) {
        let mut new = false;
        for (input, manifest) in inputs {
            if self.known.get(&input).is_some_and(|known| known.manifest == manifest) {
                continue;
            }
            new = true;
            let mut places = vec![input.path.clone()];
            if let Ok(real) = input.path.canonicalize()
                && real != input.path
            {
                places.push(real);
            }
            // What was read first counts: when it is something else by now, it has changed.
            self.known.entry(input.clone()).or_insert(Known { manifest, places });
            // It may have changed before it was watched, too.
            self.dirty.insert(input);
        }
        if new {
            self.watch(false);
            self.look_soon();
        }
    }

    /// Lets go of the folders that the run did not need any more.
    pub fn let_go(&mut self) {
        self.watch(true);
    }

    /// Watches what is known. Says whether anything was not watched before.
    fn watch(&mut self, only: bool) -> bool {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for known in self.known.values() {
            for place in &known.places {
                folders.extend(place.parent().and_then(nearest));
            }
            folders.extend(known.manifest.folders());
        }
        if !only {
            folders.extend(self.notifier.watched());
        }
        self.notifier.watch(&folders)
    }

    fn look_soon(&mut self) {
        let now = Instant::now();
        self.signs.get_or_insert((now, now - QUIET));
    }

    /// Why not everything is watched.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.notifier.trouble()
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.known.values().map(|known| known.manifest.files()).sum()
    }

    /// Waits until something has changed and it is quiet again; says what. May be dropped.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            let quiet = self.signs.map(|(first, last)| (last + QUIET).min(first + PATIENCE));
            let look = self.notifier.is_blind().then_some(self.look);
            tokio::select! {
                paths = self.notifier.next() => self.sign(&paths),
                () = at(quiet) => {
                    let changed = self.compare().await;
                    if !changed.is_empty() {
                        return changed;
                    }
                }
                () = at(look) => {
                    self.look = Instant::now() + LOOK;
                    self.dirty = self.known.keys().cloned().collect();
                    self.look_soon();
                }
            }
        }
    }

    fn sign(&mut self, paths: &[PathBuf]) {
        let about = |known: &Known| {
            known.places.iter().any(|place| {
                paths.iter().any(|path| path.starts_with(place) || place.starts_with(path))
            })
        };
        let before = self.dirty.len();
        let touched = self.known.iter().filter(|(_, known)| paths.is_empty() || about(known));
        let touched: Vec<Input> = touched.map(|(input, _)| input.clone()).collect();
        if touched.is_empty() && self.dirty.len() == before {
            return;
        }
        self.dirty.extend(touched);
        let now = Instant::now();
        let first = self.signs.map_or(now, |(first, _)| first);
        self.signs = Some((first, now));
    }

    /// Looks at what may have changed; what it finds is what is known from then on.
    async fn compare(&mut self) -> Vec<PathBuf> {
        let look: Vec<Input> = self.dirty.iter().cloned().collect();
        let (memory, inputs) = (Arc::clone(&self.memory), look.clone());
        let found = tokio::task::spawn_blocking(move || {
            inputs.iter().map(|input| memory.look(input)).collect::<Vec<_>>()
        });
        let found = found.await.unwrap_or_default();
        let mut changed = BTreeSet::new();
        let mut moved = Vec::new();
        for (input, now) in look.into_iter().zip(found) {
            self.dirty.remove(&input);
            let Some(known) = self.known.get_mut(&input) else { continue };
            changed.extend(self.memory.clean(known.manifest.clone()).changed(&now));
            let empty = now.files() == 0 || known.manifest.files() == 0;
            if empty || known.manifest.folders().ne(now.folders()) {
                moved.push(input);
            }
            known.manifest = now;
        }
        self.signs = None;
        // Something in a new folder may have come before the folder was watched.
        if !moved.is_empty() && self.watch(false) {
            self.dirty.extend(moved);
        }
        if !self.dirty.is_empty() {
            self.look_soon();
        }
        changed.into_iter().collect()
    }

    /// Takes everything as it is now: what changed until now is no change any more.
    pub async fn forgive(&mut self) {
        self.dirty = self.known.keys().cloned().collect();
        self.compare().await;
    }
}

/// The folder, or the nearest above it that is there.
fn nearest(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
