//! What a host tree holds, entry by entry: to see what changed in it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::pack::open;
use super::select::{Entry, PackOptions, Selection};

/// A file that changed less than this before it was read may change again without its time doing so.
const RACY: Duration = Duration::from_millis(50);

/// What [`super::pack`] would send, without times: a digest for each entry. A tree that is not
/// there is a manifest, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Where it was looked for.
    pub root: PathBuf,
    /// By name relative to the root; a single file has the empty name. None when there is nothing.
    entries: Option<BTreeMap<PathBuf, Known>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Folder(u32),
    Leaf(blake3::Hash),
    /// It is there and can't be read.
    Closed,
}

/// What is known of some paths; see [`Manifest::paths`].
#[derive(Clone, Debug, Default)]
pub struct Paths(BTreeMap<PathBuf, Known>);

impl Paths {
    /// Adds what `other` knows, over what was known.
    pub fn extend(&mut self, other: Paths) {
        self.0.extend(other.0);
    }
}

/// Digests of files that were read before, for as long as nothing about them changes.
#[derive(Debug, Default)]
pub struct Digests(Mutex<HashMap<PathBuf, (Stamp, blake3::Hash)>>);

/// What changes with a file's content.
type Stamp = [i64; 7];

impl Manifest {
    /// Looks at the file or tree. What can't be read counts as it is; blocking.
    pub fn of(source: &Path, options: &PackOptions, digests: &Digests) -> Manifest {
        let mut manifest = Manifest { root: source.to_owned(), entries: None };
        let Ok(selection) = Selection::open(source, options) else {
            if source.symlink_metadata().is_ok() {
                manifest.entries = Some([(PathBuf::new(), Known::Closed)].into());
            }
            return manifest;
        };
        let mut entries = BTreeMap::new();
        if selection.root().is_dir()
            && let Ok(meta) = selection.root().metadata()
        {
            entries.insert(PathBuf::new(), Known::Folder(meta.mode() & 0o7777));
        }
        let single = entries.is_empty();
        for entry in selection {
            let Ok(entry) = entry else { continue };
            let name = if single { PathBuf::new() } else { entry.name.clone() };
            if temporary(&name) {
                continue;
            }
            match known(&entry, digests) {
                Ok(known) => drop(entries.insert(name, known)),
                // It went away while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => drop(entries.insert(name, Known::Closed)),
            }
        }
        manifest.entries = Some(entries).filter(|entries| !entries.is_empty());
        manifest
    }

    /// One digest of all entries.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_derive_key("sandscript 1 manifest");
        let Some(entries) = &self.entries else { return hasher.update(b"missing").finalize() };
        for (name, known) in entries {
            hasher.update(&(name.as_os_str().len() as u64).to_le_bytes());
            hasher.update(name.as_os_str().as_bytes());
            match known {
                Known::Folder(mode) => hasher.update(b"d").update(&mode.to_le_bytes()),
                Known::Leaf(hash) => hasher.update(b"l").update(hash.as_bytes()),
                Known::Closed => hasher.update(b"c"),
            };
        }
        hasher.finalize()
    }

    /// Without the entries that are as `made` knows them, and without what lies at or below `busy`.
    pub fn without(mut self, made: &Paths, busy: &[PathBuf]) -> Manifest {
        if made.0.is_empty() && busy.is_empty() {
            return self;
        }
        let root = self.root.clone();
        if let Some(entries) = &mut self.entries {
            entries.retain(|name, known| {
                let path = place(&root, name);
                made.0.get(&path) != Some(known) && !busy.iter().any(|busy| path.starts_with(busy))
            });
        }
        self.entries = self.entries.filter(|entries| !entries.is_empty());
        self
    }

    /// The entries by their paths.
    pub fn paths(&self) -> Paths {
        let entries = self.entries.iter().flatten();
        Paths(entries.map(|(name, known)| (place(&self.root, name), *known)).collect())
    }

    /// The paths that are not the same in both: sorted, folders only where nothing in them tells more.
    pub fn changed(&self, now: &Manifest) -> Vec<PathBuf> {
        let nothing = BTreeMap::new();
        let old = self.entries.as_ref().unwrap_or(&nothing);
        let new = now.entries.as_ref().unwrap_or(&nothing);
        let mut names: Vec<&PathBuf> = old
            .iter()
            .filter(|(name, known)| new.get(*name) != Some(known))
            .map(|(n, _)| n)
            .collect();
        names.extend(new.keys().filter(|name| !old.contains_key(*name)));
        names.sort();
        let told =
            |name: &Path| names.iter().any(|other| *other != name && other.starts_with(name));
        let names = names.iter().filter(|name| !told(name));
        names
            .map(
                |name| {
                    if name.as_os_str().is_empty() { now.root.clone() } else { now.root.join(name) }
                },
            )
            .collect()
    }

    /// The folders in it, the root first; none for a file.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let entries = self.entries.iter().flatten();
        let folders = entries.filter(|(_, known)| matches!(known, Known::Folder(_)));
        folders.map(|(name, _)| place(&self.root, name))
    }

    /// How many files it has.
    pub fn files(&self) -> usize {
        let entries = self.entries.iter().flatten();
        entries.filter(|(_, known)| !matches!(known, Known::Folder(_))).count()
    }
}

/// Joining an empty name would add a slash.
fn place(root: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { root.to_owned() } else { root.join(name) }
}

fn known(entry: &Entry, digests: &Digests) -> io::Result<Known> {
    let kind = entry.meta.file_type();
    let mode = entry.meta.mode() & 0o7777;
    if kind.is_dir() {
        return Ok(Known::Folder(mode));
    }
    let mut hasher = blake3::Hasher::new_derive_key("sandscript 1 manifest entry");
    if kind.is_symlink() {
        let target = std::fs::read_link(&entry.path)?;
        return Ok(Known::Leaf(
            hasher.update(b"l").update(target.as_os_str().as_bytes()).finalize(),
        ));
    }
    if !kind.is_file() {
        return Ok(Known::Leaf(hasher.update(b"special").finalize()));
    }
    let content = digests.of(&entry.path)?;
    Ok(Known::Leaf(
        hasher.update(b"f").update(&mode.to_le_bytes()).update(content.as_bytes()).finalize(),
    ))
}

/// What editors keep beside a file while it is open. It is pushed like any other file, but it is
/// no reason to do something again.
fn temporary(name: &Path) -> bool {
    let Some(name) = name.file_name().and_then(|name| name.to_str()) else { return false };
    let swap = || {
        let (_, end) = name.rsplit_once('.').unwrap_or_default();
        name.starts_with('.') && end.len() == 3 && end.starts_with("sw")
    };
    name.ends_with('~')
        // What `pull` writes to before it renames.
        || (name.starts_with(".r") && name.ends_with(".part"))
        || name.starts_with(".#")
        || (name.starts_with('#') && name.ends_with('#') && name.len() > 1)
        || name == "4913"
        || swap()
}

impl Digests {
    /// The digest of a file's content. Reads it only when something about it has changed.
    pub fn of(&self, path: &Path) -> io::Result<blake3::Hash> {
        let mut file = open(path)?;
        let stamp = stamp(&file.metadata()?);
        if let Some((old, hash)) = self.files().get(path)
            && *old == stamp
        {
            return Ok(*hash);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => drop(hasher.update(&buffer[..count])),
            }
        }
        let (hash, meta) = (hasher.finalize(), file.metadata()?);
        // The time that nobody can set back.
        let changed = Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let quiet = now.checked_sub(changed).is_some_and(|age| age > RACY);
        if quiet && self::stamp(&meta) == stamp {
            self.files().insert(path.to_owned(), (stamp, hash));
        } else {
            self.files().remove(path);
        }
        Ok(hash)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (Stamp, blake3::Hash)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    [
        meta.dev() as i64,
        meta.ino() as i64,
        meta.size() as i64,
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn what_changed_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (root, digests) = (temp.path(), Digests::default());
        write(root, "a", "1");
        write(root, "sub/b", "2");
        write(root, ".gitignore", "*.o\n");
        let look = || Manifest::of(root, &PackOptions::default(), &digests);
        let before = look();
        assert_eq!(before, look());
        assert_eq!(before.files(), 3);
        let folders: Vec<_> = before.folders().collect();
        assert_eq!(folders, [root.to_owned(), root.join("sub")]);

        write(root, "sub/b", "3");
        write(root, "new/c", "4");
        write(root, "x.o", "ignored");
        write(root, ".a.swp", "an editor's");
        write(root, "a~", "an editor's");
        std::fs::remove_file(root.join("a")).unwrap();
        let now = look();
        let changed = before.changed(&now);
        assert_eq!(changed, [root.join("a"), root.join("new/c"), root.join("sub/b")]);
        assert_ne!(before.digest(), now.digest());

        // The same content again, by other means.
        write(root, "a.tmp", "1");
        std::fs::rename(root.join("a.tmp"), root.join("a")).unwrap();
        write(root, "sub/b", "2");
        std::fs::remove_dir_all(root.join("new")).unwrap();
        assert_eq!(before.changed(&look()), [""; 0].map(PathBuf::from));
        assert_eq!(before.digest(), look().digest());
    }

    #[test]
    fn files_come_and_go() {
        let temp = tempfile::tempdir().unwrap();
        let (file, digests) = (temp.path().join("f"), Digests::default());
        let look = || Manifest::of(&file, &PackOptions::default(), &digests);
        let missing = look();
        assert_eq!((missing.files(), missing.folders().count()), (0, 0));
        std::fs::write(&file, "x").unwrap();
        let there = look();
        assert_eq!(missing.changed(&there), std::slice::from_ref(&file));
        assert_eq!(there.changed(&look()), [""; 0].map(PathBuf::from));
        // What was made there is not counted, as long as it is as it was made.
        let made = there.paths();
        assert_eq!(look().without(&made, &[]).changed(&missing), [""; 0].map(PathBuf::from));
        std::fs::write(&file, "mine").unwrap();
        assert_eq!(missing.changed(&look().without(&made, &[])), std::slice::from_ref(&file));
        assert_eq!(look().without(&made, std::slice::from_ref(&file)), missing);
    }

    #[test]
    fn a_file_that_was_only_just_written_is_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let (file, digests) = (temp.path().join("f"), Digests::default());
        let mut seen = std::collections::BTreeSet::new();
        for text in ["aa", "bb", "cc", "dd"] {
            std::fs::write(&file, text).unwrap();
            seen.insert(digests.of(&file).unwrap().to_hex().to_string());
        }
        assert_eq!(seen.len(), 4);
    }
}
