//! A host tree as a tar stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::bridge;
use super::select::{Entry, PackOptions, Selection, named};
use crate::sandbox::{Reader, Result};

/// The file or tree at `source` as a tar stream, in a fixed order.
///
/// Names are relative to `source`; a single file has its own name. Mode, mtime (in seconds) and
/// symbolic links are kept, links are never followed; sockets, pipes and devices are left out. A
/// file that can't be read is an error of the stream that names it. Must be called in a tokio
/// runtime; dropping the stream ends the work.
pub fn pack(source: &Path, options: &PackOptions) -> Result<Reader> {
    let selection = Selection::open(source, options)?;
    Ok(bridge::produce(move |sink| write(selection, sink)))
}

fn write(selection: Selection, sink: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(sink);
    archive.mode(tar::HeaderMode::Complete);
    for entry in selection {
        append(&mut archive, &entry?)?;
    }
    archive.finish()
}

fn append(archive: &mut tar::Builder<&mut dyn Write>, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.meta.mode() & 0o7777);
    header.set_mtime(entry.meta.mtime().max(0).unsigned_abs());
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let kind = entry.meta.file_type();
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, &entry.name, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        let target = std::fs::read_link(&entry.path).map_err(|error| named(&entry.path, &error))?;
        archive.append_link(&mut header, &entry.name, target)
    } else if kind.is_file() {
        let mut file = open(&entry.path)?;
        let size = file.metadata().map_err(|error| named(&entry.path, &error))?.len();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        let content = Exactly { file: &mut file, path: &entry.path, left: size };
        archive.append_data(&mut header, &entry.name, content)
    } else {
        Ok(())
    }
}

/// Opens a regular file for reading, not following a link that took its place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|error| named(path, &error))
}

/// A file's first `left` bytes; an error when it has become shorter, since the header has gone out.
struct Exactly<'a> {
    file: &'a mut File,
    path: &'a Path,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count =
            self.file.read(&mut buffer[..most]).map_err(|error| named(self.path, &error))?;
        if count == 0 {
            let text = format!("{}: became shorter while it was read", self.path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
