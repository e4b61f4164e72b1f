//! A directory that names can be resolved in, and never out of.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// A root directory held open, with the last parent that was resolved in it.
pub(super) struct Beneath {
    root: OwnedFd,
    resolve: ResolveFlags,
    parent: Option<(PathBuf, OwnedFd)>,
}

/// The parts of a name that is relative and goes nowhere but down; empty for the root itself.
pub(super) fn parts(name: &Path) -> Result<Vec<OsString>, &'static str> {
    use std::os::unix::ffi::OsStrExt;
    let mut parts = Vec::new();
    for component in name.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) if part.as_bytes().contains(&0) => {
                return Err("its name holds a NUL byte");
            }
            Component::Normal(part) => parts.push(part.to_os_string()),
            Component::ParentDir => return Err("its name holds '..'"),
            Component::RootDir | Component::Prefix(_) => return Err("its name is absolute"),
        }
    }
    Ok(parts)
}

impl Beneath {
    /// Opens `root`. With `links`, directories on the way may be symbolic links, which are then
    /// resolved as if `root` were `/`; without, a link on the way is an error.
    pub(super) fn open(root: &Path, links: bool) -> io::Result<Beneath> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let resolve = if links {
            ResolveFlags::IN_ROOT
        } else {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
        };
        Ok(Beneath { root, resolve: resolve | ResolveFlags::NO_MAGICLINKS, parent: None })
    }

    /// Opens a directory below the root (`O_PATH`).
    pub(super) fn dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Resolves `path` below the root and opens it.
    pub(super) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), self.resolve) {
                // A rename elsewhere in the file system raced with `..` in a link.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// The directory that holds the last of `parts`, made with its own parents where missing.
    pub(super) fn parent(&mut self, parts: &[OsString]) -> io::Result<BorrowedFd<'_>> {
        let path: PathBuf = parts[..parts.len().saturating_sub(1)].iter().collect();
        if self.parent.as_ref().is_none_or(|(known, _)| *known != path) {
            let fd = match self.dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(&path)?,
                other => other?,
            };
            self.parent = Some((path, fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut above = self.dir(Path::new(""))?;
        let mut here = PathBuf::new();
        for part in path {
            here.push(part);
            above = match self.dir(&here) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&above, part, Mode::from(0o755))?;
                    self.dir(&here)?
                }
                other => other?,
            };
        }
        Ok(above)
    }

    /// To be called when something was taken away that a remembered parent may depend on.
    pub(super) fn forget(&mut self) {
        self.parent = None;
    }
}

/// What `name` in `dir` is, not following a link; none when it is missing.
pub(super) fn kind(dir: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` exists when `root` is taken as `/`: links on the way are resolved inside it.
pub fn exists_inside(root: &Path, path: &Path) -> bool {
    Beneath::open(root, true).and_then(|root| root.resolve(path, OFlags::PATH)).is_ok()
}

/// Lets its owner write to a folder, which gets its own mode when all is written.
pub(super) fn let_owner_in(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mode = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o7777;
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    match rustix::fs::chmodat(dir, name, Mode::from(mode | 0o700), AtFlags::empty()) {
        // Somebody else's folder: whether it can be written to will be seen.
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
