//! The `host` image: this machine's own programs, without anything private.
//!
//! It is an allow-list. A generated root layer holds what a root file system needs beside its
//! programs; the programs come from the host's own trees (`/usr` first), each of which becomes
//! the lower directory of one overlay. A layer is a folder with one subfolder a tree.

mod accounts;
mod etc;
mod hide;
mod packages;
mod skeleton;
mod write;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sandbox::{Error, Result};

/// Changes when the same host would give another layer.
const FORMAT: &str = "host 1";

/// The root folders that are links into `/usr` on a merged system and trees of their own elsewhere.
const PROGRAMS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// Trees beside `/usr` that hold nothing but programs, where they exist.
const STORES: &[&str] = &["/nix", "/gnu"];

/// One host folder that the guest sees at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Where it is, on the host and in the guest.
    pub path: PathBuf,
    /// The layer's subfolder for it.
    pub folder: String,
}

/// What a generated layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Files, links and folders written.
    pub entries: u64,
    /// Private files and folders of the trees that were hidden.
    pub hidden: u64,
}

/// The plan of a `host` image.
#[derive(Clone, Debug)]
pub struct HostImage {
    trees: Vec<Tree>,
    links: Vec<(String, PathBuf)>,
    hide: bool,
}

impl HostImage {
    /// The layer's subfolder for the root itself.
    pub const ROOT: &str = "root";

    /// Finds the trees: `/usr` and the folders that belong to it, and `more`. With `hide`, which is
    /// for sandboxes made by root, private files in them get hidden; an ordinary user's sandboxes
    /// can't read those in the first place.
    pub fn plan(more: &[PathBuf], hide: bool) -> Result<HostImage> {
        let mut plan = HostImage { trees: vec![Tree::new("/usr")], links: Vec::new(), hide };
        for name in PROGRAMS {
            let path = Path::new("/").join(name);
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => plan.trees.push(Tree::new(path)),
                Ok(meta) if meta.is_symlink() => {
                    let target = std::fs::read_link(&path)
                        .map_err(|error| failed(&path, "can't be read", &error))?;
                    plan.links.push(((*name).into(), target));
                }
                _ => {}
            }
        }
        let stores = STORES.iter().map(PathBuf::from).filter(|path| path.is_dir());
        plan.trees.extend(stores.map(Tree::new));
        for path in more {
            plan.add(path)?;
        }
        Ok(plan)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let wrong = |why: &str| {
            Error::invalid_hint(
                "host trees",
                format!("'{}' {why}", path.display()),
                "list folders that hold programs, such as /opt/toolchain",
            )
        };
        let real = std::fs::canonicalize(path).map_err(|error| wrong(&error.to_string()))?;
        if !real.is_dir() || real != path {
            return Err(wrong("is not the real path of a folder"));
        }
        let never = ["/proc", "/sys", "/dev", "/etc", "/run", "/var", "/tmp", "/root", "/home"];
        if real == Path::new("/") || never.iter().any(|never| real == Path::new(never)) {
            return Err(wrong("is never given to a sandbox as a whole"));
        }
        if ["/proc", "/sys", "/dev", "/etc"].iter().any(|never| real.starts_with(never)) {
            return Err(wrong("holds no programs"));
        }
        if self.trees.iter().any(|tree| real.starts_with(&tree.path)) {
            return Ok(());
        }
        if let Some(tree) = self.trees.iter().find(|tree| tree.path.starts_with(&real)) {
            return Err(wrong(&format!("holds {}, which is listed too", tree.path.display())));
        }
        self.trees.push(Tree::new(real));
        Ok(())
    }

    /// The trees, each the lower directory of one overlay at its path.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// A digest that changes when programs or settings of the host do. It looks at the package
    /// database, the two upper levels of each tree and the settings; a change deeper in a tree
    /// that no package made is not seen.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &[u8]| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        add(FORMAT.as_bytes());
        add(&[u8::from(self.hide)]);
        add(rustix::system::uname().machine().to_bytes());
        add(&std::fs::read("/etc/os-release").unwrap_or_default());
        for (name, target) in &self.links {
            add(name.as_bytes());
            add(target.as_os_str().as_bytes());
        }
        for path in packages::DATABASES {
            add(stamp(Path::new(path)).as_bytes());
        }
        for tree in &self.trees {
            add(tree.path.as_os_str().as_bytes());
            for path in upper_levels(&tree.path) {
                add(path.as_os_str().as_bytes());
                add(stamp(&path).as_bytes());
            }
        }
        for path in etc::sources(Path::new("/etc")) {
            add(path.as_os_str().as_bytes());
            add(stamp(&path).as_bytes());
        }
        format!("host:{}", hasher.finalize().to_hex())
    }

    /// Writes the layer into the empty folder `dest`: [`HostImage::ROOT`], and one subfolder for
    /// each of the [`trees`](HostImage::trees). On an error `dest` is half written: delete it.
    pub fn generate(&self, dest: &Path) -> Result<HostStats> {
        let mut stats = HostStats::default();
        let hidden = std::thread::scope(|scope| {
            let hidden = self.hide.then(|| scope.spawn(|| self.private()));
            let written = self.write(dest, &mut stats);
            let hidden = hidden.map(|thread| thread.join());
            written?;
            match hidden {
                None => Ok(Vec::new()),
                Some(Ok(found)) => found,
                Some(Err(_)) => Err(Error::internal("the walk through the host's trees died")),
            }
        })?;
        for (tree, paths) in self.trees.iter().zip(hidden) {
            let layer = dest.join(&tree.folder);
            stats.hidden += paths.len() as u64;
            hide::hide(&tree.path, &layer, &paths)
                .map_err(|error| failed(&layer, "can't be written", &error))?;
        }
        Ok(stats)
    }

    fn private(&self) -> Result<Vec<Vec<PathBuf>>> {
        self.trees
            .iter()
            .map(|tree| {
                hide::private(&tree.path)
                    .map_err(|error| failed(&tree.path, "can't be searched", &error))
            })
            .collect()
    }

    fn write(&self, dest: &Path, stats: &mut HostStats) -> Result<()> {
        let root = dest.join(Self::ROOT);
        let writing = |error: io::Error| failed(&root, "can't be written", &error);
        let mut out = write::Out::new(&root).map_err(writing)?;
        skeleton::root(&mut out, &self.links, &self.trees).map_err(writing)?;
        etc::copy(Path::new("/etc"), &mut out).map_err(writing)?;
        accounts::write(&mut out).map_err(writing)?;
        packages::copy(&mut out).map_err(writing)?;
        stats.entries += out.finish().map_err(writing)?;
        for tree in &self.trees {
            let layer = dest.join(&tree.folder);
            let writing = |error: io::Error| failed(&layer, "can't be written", &error);
            let mut out = write::Out::new(&layer).map_err(writing)?;
            out.like(&tree.path).map_err(writing)?;
            if tree.path == Path::new("/usr") {
                skeleton::local(&mut out).map_err(writing)?;
            }
            stats.entries += out.finish().map_err(writing)?;
        }
        Ok(())
    }
}

impl Tree {
    fn new(path: impl Into<PathBuf>) -> Tree {
        let path = path.into();
        let folder = path.to_string_lossy().trim_start_matches('/').replace('%', "%25");
        let folder = folder.replace('/', "%2f");
        // `/root` itself is never a tree, so that the name of the root's own subfolder is free.
        Tree { path, folder }
    }
}

/// `root` and the folders one and two levels below it, by name.
fn upper_levels(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_path_buf()];
    let mut level = all.clone();
    for _ in 0..2 {
        level = level.iter().flat_map(|path| folders(path)).collect();
        all.extend_from_slice(&level);
    }
    all.sort();
    all
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Size, mode and last change of what is at `path`; empty when nothing is.
fn stamp(path: &Path) -> String {
    let Ok(meta) = path.symlink_metadata() else { return String::new() };
    let size = if meta.is_dir() { 0 } else { meta.size() };
    format!("{size} {:o} {}.{}", meta.mode(), meta.mtime(), meta.mtime_nsec())
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Error {
    let text = format!("image 'host': {} {what}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Exhausted { what: text, hint: "free some space or inodes on that disk".into() }
        }
        _ => Error::internal(text),
    }
}
