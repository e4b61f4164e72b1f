//! The folders of a root file system.

use std::io;
use std::path::{Path, PathBuf};

use super::Tree;
use super::write::Out;

const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o755),
    ("var/lib", 0o755),
    ("var/lib/apt", 0o755),
    ("var/lib/apt/lists", 0o755),
    ("var/lib/apt/lists/partial", 0o755),
    ("var/lib/misc", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/log/apt", 0o755),
    ("var/mail", 0o1777),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// How many folders of `/usr/local` are made at most.
const MOST_LOCAL: usize = 4000;

/// The root's folders and links, and a mount point for each tree.
pub(super) fn root(out: &mut Out, links: &[(String, PathBuf)], trees: &[Tree]) -> io::Result<()> {
    for (name, mode) in FOLDERS {
        out.dir(name, *mode)?;
    }
    out.link("var/run", Path::new("/run"))?;
    out.link("var/lock", Path::new("/run/lock"))?;
    for (name, target) in links {
        out.link(name, target)?;
    }
    for tree in trees {
        let mut name = PathBuf::new();
        for part in tree.path.strip_prefix("/").unwrap_or(&tree.path) {
            name.push(part);
            out.dir(&name, 0o755)?;
        }
    }
    Ok(())
}

/// The folders of `/usr/local`, so that they belong to the guest's root: in a sandbox of an
/// ordinary user a folder of the host could not be written to.
pub(super) fn local(out: &mut Out) -> io::Result<()> {
    let mut todo = std::collections::VecDeque::from([PathBuf::from("local")]);
    let mut count = 0;
    while let Some(name) = todo.pop_front() {
        let source = Path::new("/usr").join(&name);
        let open = super::hide::open_to_all(&source);
        if !open || count == MOST_LOCAL {
            continue;
        }
        out.dir_like(&name, &source)?;
        count += 1;
        let below = super::folders(&source);
        todo.extend(
            below.iter().filter_map(|path| path.strip_prefix("/usr").ok()).map(PathBuf::from),
        );
    }
    Ok(())
}
