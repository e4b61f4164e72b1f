//! What a layer of an image takes away of the layers below it.
//!
//! An entry `.wh.NAME` hides `NAME` beside it, and `.wh..wh..opq` all that was in its folder (OCI image
//! specification 1.1, "Whiteouts"). They act on lower layers only, wherever they stand in the archive.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::beneath;
use super::extract::Extractor;
use crate::sandbox::Result;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whether this is the name of a whiteout, or of something else that only tells how to layer.
pub(super) fn is_whiteout(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

impl Extractor<'_> {
    /// Removes what the (uncompressed) layer hides of what is there already, and writes nothing.
    pub fn take_away(&mut self, layer: impl Read) -> Result<()> {
        // All that one within the limits may hold, with a header and a filling for each entry.
        let most = self.rules.max_entries.saturating_mul(1024).saturating_add(self.rules.max_bytes);
        let mut archive = tar::Archive::new(layer.take(most));
        for entry in archive.entries().map_err(|error| self.broken(&error))? {
            let entry = entry.map_err(|error| self.broken(&error))?;
            let path = super::extract::bytes_path(&entry.path_bytes());
            let parts = beneath::parts(&path).map_err(|why| self.refused_entry(&path, why))?;
            let Some(name) = parts.last().filter(|name| is_whiteout(name)) else { continue };
            let hidden = &name.as_bytes()[PREFIX.len()..];
            let done = match name.as_bytes() == OPAQUE {
                true => self.empty(&parts[..parts.len() - 1]),
                // What else begins with two of them is for other tools.
                false if is_whiteout(OsStr::from_bytes(hidden)) => Ok(()),
                false => self.hide(&parts[..parts.len() - 1], OsStr::from_bytes(hidden)),
            };
            match done {
                // Nothing there to be hidden.
                Err(error) if super::extract::is(&error, &[Errno::NOENT, Errno::NOTDIR]) => {}
                done => done.map_err(|error| self.failed(&path, &error))?,
            }
        }
        Ok(())
    }

    fn hide(&mut self, folder: &[OsString], name: &OsStr) -> io::Result<()> {
        let plain = !["", ".", ".."].map(OsStr::new).contains(&name);
        if !plain {
            return Ok(());
        }
        let folder: PathBuf = folder.iter().collect();
        let folder = self.dest.dir(&folder)?;
        self.dest.forget();
        remove(folder.as_fd(), name)
    }

    fn empty(&mut self, folder: &[OsString]) -> io::Result<()> {
        let folder: PathBuf = folder.iter().collect();
        let folder = self.dest.dir(&folder)?;
        self.dest.forget();
        remove_content(folder.as_fd())
    }
}

/// Removes `name` with all below it, following no link.
pub(super) fn remove(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let kind = beneath::kind(folder, name)?.ok_or(Errno::NOENT)?;
    if kind != FileType::Directory {
        return Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?);
    }
    beneath::let_owner_in(folder, name)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    remove_content(below.as_fd())?;
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn remove_content(folder: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(listed)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| remove(folder, name))
}
