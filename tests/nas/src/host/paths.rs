//! Files by their path on the NAS. Nothing leaves its root: links are followed inside of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, openat2, statat};

use super::Host;

/// What a path is.
pub struct Looked {
    /// Its status; of the link itself, not of what it points to.
    pub stat: Stat,
    /// The path without links.
    pub real: String,
}

impl Host {
    fn base(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.root)?.into())
    }

    fn how(&self, strict: bool) -> ResolveFlags {
        match strict {
            true => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
            false => ResolveFlags::IN_ROOT,
        }
    }

    /// Opens a path of the NAS.
    pub fn open(&self, path: &str, flags: OFlags, strict: bool) -> io::Result<File> {
        let mode =
            if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
        let flags = flags | OFlags::CLOEXEC;
        Ok(openat2(self.base()?, path, flags, mode, self.how(strict))?.into())
    }

    /// The folder that holds `path`, and the last part of it.
    pub fn parent(&self, path: &str, strict: bool) -> io::Result<(OwnedFd, PathBuf)> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or(OsStr::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(self.base()?, parent, flags, Mode::empty(), self.how(strict))?;
        Ok((fd, PathBuf::from(name)))
    }

    /// Makes a folder and those above it.
    pub fn make_folders(&self, path: &str, strict: bool) -> io::Result<()> {
        let mut so_far = PathBuf::from("/");
        for part in Path::new(path).components() {
            if let Component::Normal(part) = part {
                so_far.push(part);
                let text = so_far.to_string_lossy();
                if self
                    .open(&text, OFlags::PATH, strict)
                    .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
                {
                    let (parent, name) = self.parent(&text, strict)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                }
            }
        }
        Ok(())
    }

    /// Looks at a path without following its last link.
    pub fn look(&self, path: &str) -> io::Result<Looked> {
        let (parent, name) = self.parent(path, false)?;
        let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Looked { stat, real: self.real(path)? })
    }

    /// The path without any links in it.
    pub fn real(&self, path: &str) -> io::Result<String> {
        let mut done = PathBuf::from("/");
        let mut rest: Vec<_> = parts(path).into_iter().rev().collect();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_bytes() {
                b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let at = done.join(&part);
            let (parent, name) = self.parent(&at.to_string_lossy(), false)?;
            match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                Ok(link) => {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::from_raw_os_error(40));
                    }
                    let link = link.to_string_lossy().into_owned();
                    if link.starts_with('/') {
                        done = PathBuf::from("/");
                    }
                    rest.extend(parts(&link).into_iter().rev());
                }
                Err(_) => done = at,
            }
        }
        Ok(done.to_string_lossy().into_owned())
    }

    /// The names in a folder.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let file = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, false)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(file.as_fd())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn parts(path: &str) -> Vec<std::ffi::OsString> {
    Path::new(path)
        .components()
        .filter_map(|c| match c {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
