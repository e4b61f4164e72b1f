//! Digests of local archives, remembered as long as the file stays as it is.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::tarball::Fetch;
use crate::sandbox::{Error, Result};

/// Makes the cache folder, for nobody but us.
pub(super) fn folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Error::internal(format!("the image cache {} can't be made: {error}", path.display()))
    })
}

/// The sha256 of `file`, from memory when its inode, size and change time are known.
pub(super) fn sum(mut file: &File, path: &Path, fetch: &Fetch<'_>) -> Result<String> {
    let failed = |error: io::Error| Error::invalid("image", format!("{}: {error}", path.display()));
    let meta = file.metadata().map_err(failed)?;
    let state = format!(
        "{} {} {} {}.{} {}.{}",
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    folder(fetch.cache)?;
    let note = fetch.cache.join(format!("sum-{}", blake3::hash(state.as_bytes()).to_hex()));
    if let Ok(known) = std::fs::read_to_string(&note)
        && known.len() == 64
    {
        return Ok(known);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        done += count as u64;
        if !(fetch.progress)(done, Some(meta.size())) {
            return Err(Error::Cancelled);
        }
    }
    let hex = hex(&hasher.finalize());
    let now = file.metadata().map_err(failed)?;
    // Two writes within one tick of the clock look alike: a file this fresh is not remembered.
    let settled = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .is_ok_and(|now| now.as_secs() as i64 > meta.ctime() + 1);
    if settled && (now.ctime(), now.ctime_nsec()) == (meta.ctime(), meta.ctime_nsec()) {
        remember(&note, hex.as_bytes());
    }
    Ok(hex)
}

/// The sha256 of what is in memory, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What was remembered in `kept`, if that is not longer ago.
pub(super) fn remembered(kept: &Path, longest: Duration) -> Option<Vec<u8>> {
    let age = SystemTime::now().duration_since(kept.metadata().ok()?.modified().ok()?);
    // Nobody knows how old one is that is from the future.
    (age.unwrap_or(Duration::MAX) < longest || longest == Duration::MAX)
        .then(|| std::fs::read(kept).ok())
        .flatten()
}

/// Remembers it. What can't be kept is asked for again.
pub(super) fn remember(kept: &Path, bytes: &[u8]) {
    let draft = kept.with_extension(std::process::id().to_string());
    let _ = std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, kept));
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
