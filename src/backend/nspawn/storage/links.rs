//! Trees that are kept elsewhere in the store: where one would be there is a link. Links are renamed and exchanged
//! like the folders they stand for, so that what is kept elsewhere is never moved.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::super::guest::token;
use super::super::super::local::store_error;
use crate::sandbox::Result;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A tree that can be written to, by its id.
    Live(String),
    /// One that nobody writes to any more.
    Still(String),
}

impl Link {
    /// What is at a place; none for a tree that is there itself, and where nothing is.
    pub fn read(at: &Path) -> Result<Option<Link>> {
        match fs::read_link(at) {
            Ok(target) => Ok(target.to_str().and_then(Link::parse)),
            // It is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(store_error("reading", at, error)),
        }
    }

    fn parse(target: &str) -> Option<Link> {
        let (still, id) = match target.strip_prefix('@') {
            Some(id) => (true, id),
            None => (false, target.rsplit('/').next()?),
        };
        let known = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        known.then(|| if still { Link::Still(id.to_owned()) } else { Link::Live(id.to_owned()) })
    }

    /// Puts it there, in the place of another one. Live ones are in `below` of the store, and their links two
    /// folders below the store.
    pub fn put(&self, at: &Path, below: &str) -> Result<()> {
        let target = match self {
            Link::Live(id) => format!("../../{below}/{id}"),
            Link::Still(id) => format!("@{id}"),
        };
        let failed = |error: io::Error| store_error("making", at, error);
        let draft = at.with_file_name(format!(".{}", token()));
        symlink(target, &draft).map_err(failed)?;
        fs::rename(&draft, at).map_err(|error| {
            let _ = fs::remove_file(&draft);
            failed(error)
        })
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The places in a folder of a machine, an image or a snapshot that have a tree.
fn places(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![folder.join("tree")];
    let snapshots = folder.join("snapshots");
    let failed = |error| store_error("reading", &snapshots, error);
    match fs::read_dir(&snapshots) {
        Ok(entries) => {
            for entry in entries {
                all.push(entry.map_err(failed)?.path().join("tree"));
            }
        }
        Err(error) if is_gone(&error) => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(all)
}

/// The links in such a folder.
pub(super) fn inside(folder: &Path) -> Result<Vec<Link>> {
    let mut found = Vec::new();
    for place in places(folder)? {
        found.extend(Link::read(&place)?);
    }
    Ok(found)
}

/// All of a store: the ids of live ones, and of those that stand still. Who has the storage's lock asks, so that
/// no new ones are made meanwhile.
pub(super) fn all(root: &Path) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut live, mut still) = (BTreeSet::new(), BTreeSet::new());
    // They are moved meanwhile, in this order only; what a restore puts out of its place is where new ones are made.
    for place in ["making", "machines", "images", "trash", "making"] {
        let place = root.join(place);
        let failed = |error| store_error("reading", &place, error);
        for entry in fs::read_dir(&place).map_err(failed)? {
            for link in inside(&entry.map_err(failed)?.path())? {
                match link {
                    Link::Live(id) => live.insert(id),
                    Link::Still(id) => still.insert(id),
                };
            }
        }
    }
    Ok((live, still))
}

/// Whether a store has any.
pub(super) fn are_in(root: &Path) -> Result<bool> {
    let (live, still) = all(root)?;
    Ok(!(live.is_empty() && still.is_empty()))
}

/// Whether something is mounted on a folder.
pub(super) fn is_mounted(place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|found| found.dev());
    let above = place.parent().and_then(device);
    device(place).is_some_and(|own| Some(own) != above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_was_put() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("machines/web");
        fs::create_dir_all(folder.join("snapshots/one")).unwrap();
        for place in ["images", "making", "trash"] {
            fs::create_dir(store.path().join(place)).unwrap();
        }
        let (live, still) = (Link::Live("ab1".into()), Link::Still("cd2".into()));
        live.put(&folder.join("tree"), "mounts").unwrap();
        still.put(&folder.join("snapshots/one/tree"), "mounts").unwrap();
        assert_eq!(inside(&folder).unwrap(), [live.clone(), still.clone()]);
        fs::create_dir_all(store.path().join("mounts/ab1/etc")).unwrap();
        assert!(folder.join("tree/etc").is_dir());
        let (lives, stills) = all(store.path()).unwrap();
        assert!(lives.contains("ab1") && stills.contains("cd2"));
        // Another one in its place.
        Link::Live("ef3".into()).put(&folder.join("tree"), "mounts").unwrap();
        let read = |name: &str| Link::read(&folder.join(name)).unwrap();
        assert_eq!(read("tree"), Some(Link::Live("ef3".into())));
        symlink("/etc/pass wd", folder.join("odd")).unwrap();
        assert_eq!(read("odd"), None);
        assert_eq!(read("snapshots"), None);
        assert_eq!(read("missing/tree"), None);
    }
}
