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
    /// What is at a place; none for a tree that is there itself.
    pub fn read(at: &Path) -> Option<Link> {
        let target = fs::read_link(at).ok()?;
        let target = target.to_str()?;
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

/// The places in a folder of a machine, an image or a snapshot that have a tree.
fn places(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    let snapshots = entries.map(|entry| entry.path().join("tree"));
    snapshots.chain([folder.join("tree")]).collect()
}

/// The links in such a folder.
pub(super) fn inside(folder: &Path) -> Vec<Link> {
    places(folder).iter().filter_map(|place| Link::read(place)).collect()
}

/// All of a store: the ids of live ones, and of those that stand still.
pub(super) fn all(root: &Path) -> io::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut live, mut still) = (BTreeSet::new(), BTreeSet::new());
    for place in ["machines", "images", "making", "trash"] {
        for entry in fs::read_dir(root.join(place))? {
            for link in inside(&entry?.path()) {
                match link {
                    Link::Live(id) => live.insert(id),
                    Link::Still(id) => still.insert(id),
                };
            }
        }
    }
    Ok((live, still))
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
        assert_eq!(inside(&folder), [still.clone(), live.clone()]);
        fs::create_dir_all(store.path().join("mounts/ab1/etc")).unwrap();
        assert!(folder.join("tree/etc").is_dir());
        let (lives, stills) = all(store.path()).unwrap();
        assert!(lives.contains("ab1") && stills.contains("cd2"));
        // Another one in its place.
        Link::Live("ef3".into()).put(&folder.join("tree"), "mounts").unwrap();
        assert_eq!(Link::read(&folder.join("tree")), Some(Link::Live("ef3".into())));
        symlink("/etc/pass wd", folder.join("odd")).unwrap();
        assert_eq!(Link::read(&folder.join("odd")), None);
        assert_eq!(Link::read(&folder), None);
    }
}
