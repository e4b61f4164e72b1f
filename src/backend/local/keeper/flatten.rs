//! Merging a chain of layers into one. Files are linked, not copied: layers never change.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr,
    linkat, mkdirat, openat, statat,
};

use crate::backend::local::copy::{copy_attributes, is_own, remove_tree};
use crate::backend::local::protocol::{Doing, Failure};

type Result<T> = std::result::Result<T, Failure>;

const WHAT: &str = "merging layers";
const OPAQUE: &[u8] = b"user.overlay.opaque";

/// Merges layer folders, top first, into a new folder that an overlay shows just the same.
/// Whiteouts stay: they may hide something of the image below.
pub fn flatten(layers: &[PathBuf], to: &Path) -> Result<()> {
    mkdirat(CWD, to, Mode::from_raw_mode(0o755)).doing(WHAT)?;
    let target = open_folder(CWD, to).doing(WHAT)?;
    let mut sources = Vec::new();
    for layer in layers {
        sources.push(open_folder(CWD, layer.as_path()).doing(WHAT)?);
    }
    let merged = merge(&sources, &target, true, 0);
    if merged.is_err() {
        remove_tree(to);
    }
    merged
}

fn open_folder<P: rustix::path::Arg>(
    parent: BorrowedFd<'_>,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// What the layers, top first, say about one name.
#[derive(Default)]
struct Entry {
    /// The topmost: the layer's index, and not a folder.
    other: Option<usize>,
    /// Folders that are merged, top first.
    folders: Vec<usize>,
    /// Nothing below counts.
    closed: bool,
}

fn merge(sources: &[OwnedFd], to: &OwnedFd, top: bool, depth: usize) -> Result<()> {
    if depth > 2000 {
        return Err(Failure::new("the layers have folders nested more than 2000 deep"));
    }
    let mut names: BTreeMap<CString, Entry> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        for entry in Dir::read_from(source).doing(WHAT)? {
            let entry = entry.doing(WHAT)?;
            let name = entry.file_name();
            if top && is_own(name.to_bytes()) || matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW).doing(WHAT)?;
            let known = names.entry(name.to_owned()).or_default();
            if known.closed {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                known.folders.push(index);
                known.closed = is_opaque(source, name)?;
            } else if known.folders.is_empty() {
                known.other = Some(index);
                known.closed = true;
            } else {
                // A folder that replaced this file: overlayfs marked it opaque, or it hides a whiteout.
                known.closed = true;
            }
        }
    }
    for (name, entry) in names {
        if let Some(index) = entry.other {
            linkat(&sources[index], name.as_c_str(), to, name.as_c_str(), AtFlags::empty())
                .doing(WHAT)?;
            continue;
        }
        let folders = entry
            .folders
            .iter()
            .map(|index| open_folder(sources[*index].as_fd(), name.as_c_str()))
            .collect::<rustix::io::Result<Vec<_>>>()
            .doing(WHAT)?;
        mkdirat(to, name.as_c_str(), Mode::from_raw_mode(0o700)).doing(WHAT)?;
        let target = open_folder(to.as_fd(), name.as_c_str()).doing(WHAT)?;
        merge(&folders, &target, false, depth + 1)?;
        let stat = rustix::fs::fstat(&folders[0]).doing(WHAT)?;
        let owner =
            (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        fchown(&target, Some(owner.0), Some(owner.1)).doing(WHAT)?;
        copy_attributes(&folders[0], &target).doing(WHAT)?;
        if entry.closed {
            fsetxattr(&target, OPAQUE, b"y", XattrFlags::empty()).doing(WHAT)?;
        }
        fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777)).doing(WHAT)?;
    }
    Ok(())
}

fn is_opaque(parent: &OwnedFd, name: &CStr) -> Result<bool> {
    let folder = open_folder(parent.as_fd(), name).doing(WHAT)?;
    let mut value = [0_u8; 1];
    Ok(fgetxattr(&folder, OPAQUE, &mut value).is_ok_and(|length| length == 1) && value == *b"y")
}
