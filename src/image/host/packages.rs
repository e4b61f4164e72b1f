//! The package database, so that the guest's package manager knows what is installed.

use std::io;
use std::path::Path;

use super::hide::{open_to_all, readable_by_all};
use super::write::Out;

/// Files that change with every package that is installed or removed.
pub(super) const DATABASES: &[&str] = &[
    "/lib/apk/db/installed",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/dpkg/status",
    "/var/lib/pacman/local",
    "/var/lib/rpm/Packages",
    "/var/lib/rpm/rpmdb.sqlite",
];

/// Folders outside the trees that hold a database, and what of it is copied: what tells a package
/// manager which packages there are. The thousands of small files about each of them would take
/// longer than the rest of the image; a host that wants them lists the folder as a tree.
const COPIED: &[(&str, &[&str], &[&str])] = &[
    (
        "var/lib/dpkg",
        &["alternatives", "info", "parts", "triggers", "updates"],
        &["arch", "diversions", "info/format", "statoverride", "status"],
    ),
    ("var/lib/rpm", &[], &["Packages", "rpmdb.sqlite"]),
];

/// A larger database is left out.
const MOST_BYTES: u64 = 96 << 20;

/// Copies what is world-readable of each database.
pub(super) fn copy(out: &mut Out) -> io::Result<()> {
    for (name, folders, files) in COPIED {
        let source = Path::new("/").join(name);
        if !open_to_all(&source) {
            continue;
        }
        out.dir(name, 0o755)?;
        for folder in *folders {
            out.dir(Path::new(name).join(folder), 0o755)?;
        }
        for file in *files {
            let path = source.join(file);
            let Ok(meta) = path.symlink_metadata() else { continue };
            if !meta.is_file() || !readable_by_all(&meta) || meta.len() > MOST_BYTES {
                continue;
            }
            if let Ok(content) = std::fs::read(&path) {
                out.file(Path::new(name).join(file), &content, 0o644, meta.modified().ok())?;
            }
        }
    }
    Ok(())
}
