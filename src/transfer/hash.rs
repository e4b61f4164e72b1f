//! A digest of a host tree.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::pack::open;
use super::select::{Entry, PackOptions, Selection, named};
use crate::sandbox::{Error, Result};

/// BLAKE3 over what [`super::pack`] would send, except the mtime: for each entry its name, kind,
/// mode, link target and content. Blocking.
pub fn hash(source: &Path, options: &PackOptions) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new_derive_key("sandscript 1 host tree");
    for entry in Selection::open(source, options)? {
        let added = entry.and_then(|entry| add(&mut hasher, &entry));
        added.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission { what: error.to_string() },
            _ => Error::invalid("path", error.to_string()),
        })?;
    }
    Ok(hasher.finalize())
}

fn add(hasher: &mut blake3::Hasher, entry: &Entry) -> io::Result<()> {
    let kind = entry.meta.file_type();
    let mode = entry.meta.mode() & 0o7777;
    let mut head = |kind: u8, mode: u32| {
        hasher.update(&[kind]);
        hasher.update(&mode.to_le_bytes());
        text(hasher, entry.name.as_os_str().as_bytes());
    };
    if kind.is_dir() {
        head(b'd', mode);
    } else if kind.is_symlink() {
        head(b'l', 0);
        let target = std::fs::read_link(&entry.path).map_err(|error| named(&entry.path, &error))?;
        text(hasher, target.as_os_str().as_bytes());
    } else if kind.is_file() {
        head(b'f', mode);
        let mut file = open(&entry.path)?;
        let mut content = blake3::Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(|error| named(&entry.path, &error))?;
            if count == 0 {
                break;
            }
            content.update(&buffer[..count]);
        }
        hasher.update(content.finalize().as_bytes());
    }
    Ok(())
}

fn text(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
