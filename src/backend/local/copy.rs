//! Copying, measuring and deleting layers, by one that has the rights of the guest's root over
//! them. Nothing here follows a link.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fsetxattr,
    futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::protocol::{Doing, Failure};
use super::store::random_id;

type Result<T> = std::result::Result<T, Failure>;

/// Deeper than any tree that is not an attack.
const MAX_DEPTH: usize = 2000;

/// Copies a layer folder with all an overlay needs: owners, modes, times, attributes, whiteouts,
/// hard links. Content is shared where the file system can. Work folders are left out. Returns the bytes of the files.
pub fn copy_tree(from: &Path, to: &Path) -> Result<u64> {
    let what = "copying the layer";
    let source = open_folder(CWD, from).doing(what)?;
    mkdirat(CWD, to, Mode::from_raw_mode(0o755)).doing(what)?;
    let target = open_folder(CWD, to).doing(what)?;
    let root = target.try_clone().doing(what)?;
    let mut copier = Copier {
        links: HashMap::new(),
        root,
        path: Vec::new(),
        bytes: 0,
        clones: true,
        own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        buffer: vec![0; SMALL],
    };
    match copier.folder(&source, &target, 0) {
        Ok(()) => Ok(copier.bytes),
        Err(failure) => {
            remove_tree(to);
            Err(failure)
        }
    }
}

struct Copier {
    /// Where files with several names were copied to, by inode: paths, as a guest may make more of
    /// them than there are descriptors.
    links: HashMap<(u64, u64), Vec<u8>>,
    root: OwnedFd,
    /// Of the folder that is being copied, with a slash at its end.
    path: Vec<u8>,
    bytes: u64,
    /// The file system has not refused to share content yet.
    clones: bool,
    /// Who owns what is made.
    own: (u32, u32),
    buffer: Vec<u8>,
}

/// Content up to this size is copied with one read and one write.
const SMALL: usize = 64 << 10;

impl Copier {
    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
        let what = "copying the layer";
        if depth > MAX_DEPTH {
            return Err(Failure::new("the sandbox has folders nested more than 2000 deep"));
        }
        for entry in Dir::read_from(from).doing(what)? {
            let entry = entry.doing(what)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || (depth == 0 && is_own(name.to_bytes())) {
                continue;
            }
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    mkdirat(to, name, Mode::from_raw_mode(0o700)).doing(what)?;
                    let source = open_folder(from.as_fd(), name).doing(what)?;
                    let target = open_folder(to.as_fd(), name).doing(what)?;
                    let length = self.path.len();
                    self.path.extend([name.to_bytes(), b"/"].concat());
                    self.folder(&source, &target, depth + 1)?;
                    self.path.truncate(length);
                    finish(&source, &target, &stat).doing(what)?;
                }
                FileType::Symlink => {
                    let link = readlinkat(from, name, Vec::new()).doing(what)?;
                    symlinkat(link.as_c_str(), to, name).doing(what)?;
                    chownat(to, name, uid(&stat), gid(&stat), AtFlags::SYMLINK_NOFOLLOW)
                        .doing(what)?;
                    utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
                }
                _ if stat.st_nlink > 1 && self.link(to, name, &stat)? => {}
                FileType::RegularFile => self.file(from, to, name, &stat).doing(what)?,
                kind => {
                    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                    mknodat(to, name, kind, mode, stat.st_rdev).doing(what)?;
                    chownat(to, name, uid(&stat), gid(&stat), AtFlags::SYMLINK_NOFOLLOW)
                        .doing(what)?;
                    if kind != FileType::CharacterDevice {
                        chmodat(to, name, mode, AtFlags::empty()).doing(what)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a further name of a file that was copied already; false for its first name.
    fn link(&mut self, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<bool> {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&key) {
            return match linkat(&self.root, first.as_slice(), to, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // Too deep to be named, or it has too many names: a copy of its own.
                Err(Errno::NAMETOOLONG | Errno::MLINK) => Ok(false),
                Err(error) => Err(error).doing("copying the layer"),
            };
        }
        self.links.insert(key, [&self.path, name.to_bytes()].concat());
        Ok(false)
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Nobody but us can enter the store: what a umask would not take away may be given at once.
        let given = stat.st_mode & 0o755;
        let target = openat(to, name, flags, Mode::from_raw_mode(given))?;
        if stat.st_size > 0 {
            self.content(&source, &target, stat.st_size as u64)?;
        }
        self.bytes += stat.st_size as u64;
        if (stat.st_uid, stat.st_gid) != self.own {
            fchown(&target, uid(stat), gid(stat))?;
        }
        copy_attributes(&source, &target)?;
        if stat.st_mode & 0o7777 != given || (stat.st_uid, stat.st_gid) != self.own {
            fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        }
        futimens(&target, &times(stat))?;
        Ok(())
    }

    fn content(&mut self, source: &OwnedFd, target: &OwnedFd, size: u64) -> io::Result<()> {
        if self.clones {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV) => {
                    self.clones = false;
                }
                Err(_) => {}
            }
        }
        if size <= SMALL as u64 {
            let length = rustix::io::pread(source, &mut self.buffer, 0)?;
            if length as u64 == size
                && rustix::io::pwrite(target, &self.buffer[..length], 0)? == length
            {
                return Ok(());
            }
        }
        let mut target = File::from(target.try_clone()?);
        io::Seek::rewind(&mut target)?;
        io::copy(&mut File::from(source.try_clone()?), &mut target).map(drop)
    }
}

/// What is in a layer's folder and not part of the layer.
pub fn is_own(name: &[u8]) -> bool {
    name.starts_with(b".work-")
        || matches!(name, b"lost+found" | b"disk.img" | b"meta.json" | b"synced")
}

fn open_folder<P: rustix::path::Arg>(
    parent: BorrowedFd<'_>,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn uid(stat: &Stat) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(stat.st_uid))
}

fn gid(stat: &Stat) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner, attributes, mode and times, in the order that keeps each.
fn finish(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    fchown(to, uid(stat), gid(stat))?;
    copy_attributes(from, to)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(to, &times(stat))?;
    Ok(())
}

pub fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    copy_named_attributes(from, to, |_| true)
}

fn copy_named_attributes(
    from: &OwnedFd,
    to: &OwnedFd,
    wanted: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let length = match flistxattr_query(from) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Ok(length) => length,
        Err(error) => return Err(error.into()),
    };
    let mut names = vec![0_u8; length];
    let length = flistxattr(from, &mut names)?;
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() || !wanted(name) {
            continue;
        }
        let mut value = vec![0_u8; fgetxattr_query(from, name)?];
        let length = fgetxattr(from, name, &mut value)?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // Labels of the host's own, such as SELinux', are given anew.
            Ok(()) => {}
            Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) if !name.starts_with(b"user.") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether a folder has extended attributes of its own, besides an overlay's.
pub fn has_attributes(path: &Path) -> bool {
    let mut names = [0_u8; 4096];
    match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => names[..length]
            .split(|byte| *byte == 0)
            .any(|name| name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")),
        Err(error) => error == Errno::RANGE,
    }
}

/// Gives a folder another one's extended attributes, without an overlay's own marks, and its time.
pub fn copy_folder_marks(from: &Path, to: &Path) -> io::Result<()> {
    let open = |path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let (from, to) = (open(from)?, open(to)?);
    let _ = copy_named_attributes(&from, &to, |name| !name.starts_with(b"user.overlay."));
    let stat = rustix::fs::fstat(&from)?;
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::futimens(&to, &times)?)
}

/// Takes the marks that an overlay has put on a folder off it; an error when it has others.
pub fn strip_overlay(path: &Path) -> io::Result<()> {
    let mut names = [0_u8; 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"user.overlay.") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        rustix::fs::lremovexattr(path, name)?;
    }
    Ok(())
}

/// Bytes of the files below a folder, as the file system counts its blocks.
pub fn measure(path: &Path) -> u64 {
    fn folder(fd: &OwnedFd, depth: usize) -> u64 {
        let Ok(entries) = Dir::read_from(fd) else { return 0 };
        let mut bytes = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            bytes += stat.st_blocks as u64 * 512;
            if FileType::from_raw_mode(stat.st_mode).is_dir()
                && depth < MAX_DEPTH
                && let Ok(below) = open_folder(fd.as_fd(), name)
            {
                bytes += folder(&below, depth + 1);
            }
        }
        bytes
    }
    open_folder(CWD, path).map_or(0, |fd| folder(&fd, 0))
}

/// Deletes a tree as far as it can. What it can't delete stays for the next collection.
pub fn remove_tree(path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(top) = open_folder(CWD, parent)
        && let Ok(name) = CString::new(name.as_encoded_bytes())
    {
        // Trees that were nested too deep have been moved up here.
        let mut rest = vec![name];
        while let Some(name) = rest.pop() {
            remove(&top, &mut rest, top.as_fd(), &name, 0);
        }
    }
}

fn remove(
    top: &OwnedFd,
    rest: &mut Vec<CString>,
    parent: BorrowedFd<'_>,
    name: &CStr,
    depth: usize,
) {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        _ => return,
    }
    if unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
        return;
    }
    if depth > 200 {
        // A guest may nest folders without end; descriptors and the stack have one.
        let moved = CString::new(random_id()).unwrap_or_default();
        if rustix::fs::renameat(parent, name, top, &*moved).is_ok() {
            rest.push(moved);
        }
        return;
    }
    let mut folder = open_folder(parent, name);
    if matches!(folder, Err(Errno::ACCESS)) {
        let _ = chmodat(parent, name, Mode::from_raw_mode(0o700), AtFlags::empty());
        folder = open_folder(parent, name);
    }
    let Ok(folder) = folder else { return };
    if let Ok(entries) = Dir::read_from(&folder) {
        for entry in entries.flatten() {
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                remove(top, rest, folder.as_fd(), entry.file_name(), depth + 1);
            }
        }
    }
    // A folder that is still open goes through the journal's list of orphans.
    drop(folder);
    let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_attributes() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = folder.path().join("from");
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        let name = c"user.overlay.opaque";
        rustix::fs::setxattr(from.join("a"), name, b"y", XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(from.join("a"), c"user.overlay.empty", b"", XattrFlags::empty())
            .unwrap();
        let to = folder.path().join("to");
        copy_tree(&from, &to).unwrap();
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(to.join("a"), name, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y");
    }
}
