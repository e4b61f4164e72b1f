//! Folders of deleted sandboxes, emptied and kept for the next ones: on a disk, making and deleting
//! folders is the dearest part of a sandbox's short life.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::copy;
use super::store::random_id;

/// How many are kept.
const MOST: usize = 256;
/// The kernel takes a while to let go of the overlay that a folder belonged to.
const REST_MS: u128 = 300;
/// A folder never shrinks: one that has held very much is not worth keeping.
const LARGEST: u64 = 16 << 10;
/// What the folder of a sandbox is kept as.
pub const BOX: &str = "box";

/// The store's spare folders.
pub struct Spares {
    folder: PathBuf,
    known: Mutex<Known>,
}

/// The names in the folder when it was last looked at, the oldest of a kind first.
#[derive(Default)]
struct Known {
    names: VecDeque<String>,
    looked: Option<Instant>,
}

/// How long a look at the folder is good for.
const LOOK: Duration = Duration::from_millis(100);

impl Spares {
    /// Those in `folder`.
    pub fn new(folder: PathBuf) -> Spares {
        Spares { folder, known: Mutex::default() }
    }

    /// Moves one of this kind to `place`; false when there is none.
    pub fn take(&self, kind: &str, place: &Path) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = |name: &String| name.rsplitn(3, '.').nth(2) == Some(kind);
        loop {
            let Some(index) = known.names.iter().position(of_kind) else {
                if known.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                    return false;
                }
                *known = Known { names: list(&self.folder), looked: Some(Instant::now()) };
                if known.names.iter().any(of_kind) {
                    continue;
                }
                return false;
            };
            if !rested(&known.names[index]) {
                return false;
            }
            // Another process may have been faster.
            if let Some(name) = known.names.remove(index)
                && fs::rename(self.folder.join(name), place).is_ok()
            {
                return true;
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<PathBuf> {
        list(&self.folder).into_iter().map(|name| self.folder.join(name)).collect()
    }
}

/// The kind that a layer's folder with these trees is kept as.
pub fn of_trees(trees: impl IntoIterator<Item = impl AsRef<Path>>) -> String {
    let mut names: Vec<String> =
        trees.into_iter().map(|tree| tree.as_ref().to_string_lossy().into_owned()).collect();
    names.sort();
    format!("layer-{}", names.join("+"))
}

/// Empties a deleted sandbox's folder, or its upper layer, and keeps it in `spares`. False when it is
/// not fit for that: the caller deletes it.
pub fn keep(path: &Path, spares: &Path) -> bool {
    let kind = match path.join("record.json").exists() {
        true => emptied_box(path),
        false => emptied_layer(path),
    };
    let Some(kind) = kind else { return false };
    if fs::read_dir(spares).map_or(MOST, Iterator::count) >= MOST {
        return false;
    }
    fs::rename(path, spares.join(format!("{kind}.{:013}.{}", now(), random_id()))).is_ok()
}

fn emptied_box(path: &Path) -> Option<String> {
    for name in entries(path)?.iter().filter(|name| *name != "record.json") {
        copy::remove_tree(&path.join(name));
    }
    Some(BOX.into())
}

fn emptied_layer(path: &Path) -> Option<String> {
    let names = entries(path)?;
    let trees: Vec<&String> = names.iter().filter(|name| !name.starts_with('.')).collect();
    let plain = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if trees.is_empty() || !names.iter().all(|name| plain(&path.join(name))) {
        return None;
    }
    for name in &names {
        let folder = path.join(name);
        match name.as_str() {
            ".work-0" => {
                for tree in entries(&folder)? {
                    empty(&folder.join(tree))?;
                }
            }
            name if name.starts_with('.') => copy::remove_tree(&folder),
            _ => {
                empty(&folder)?;
                copy::strip_overlay(&folder).ok()?;
            }
        }
    }
    Some(of_trees(trees))
}

/// Empties a folder that is worth it.
fn empty(folder: &Path) -> Option<()> {
    if fs::symlink_metadata(folder).ok().filter(fs::Metadata::is_dir)?.len() > LARGEST {
        return None;
    }
    for name in entries(folder)? {
        copy::remove_tree(&folder.join(name));
    }
    entries(folder)?.is_empty().then_some(())
}

/// Names in a folder; none when it can't be read or one is no text.
fn entries(folder: &Path) -> Option<Vec<String>> {
    fs::read_dir(folder).ok()?.map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn list(folder: &Path) -> VecDeque<String> {
    let mut names = entries(folder).unwrap_or_default();
    names.sort();
    names.into()
}

fn rested(name: &str) -> bool {
    let since = name.rsplit('.').nth(1).and_then(|millis| millis.parse::<u128>().ok());
    since.is_some_and(|since| since + REST_MS <= now())
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
