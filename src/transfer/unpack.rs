//! A guest's tar stream as files on the host.

use std::path::{Path, PathBuf};

use super::bridge;
use super::extract::{Devices, Extractor, Owners, Rules, Stats};
use crate::sandbox::{Error, Reader, Result};

/// How much a guest may write to the host, and where.
#[derive(Clone, Debug)]
pub struct UnpackOptions {
    /// How many bytes at most; 64 GiB when not said.
    pub max_bytes: u64,
    /// How many entries at most; ten million when not said.
    pub max_entries: u64,
    /// The destination must lie below this folder.
    pub confine: Option<PathBuf>,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        UnpackOptions { max_bytes: 64 << 30, max_entries: 10_000_000, confine: None }
    }
}

/// Writes a tar stream below the folder `dest`, which is made when missing.
///
/// The stream is not trusted: absolute names, `..`, hard links that leave, devices and pipes are
/// refused; symbolic links are written as they are and never followed, those that were in `dest`
/// neither. Files belong to the caller; setuid, setgid and sticky bits are dropped. What was
/// written before an error stays.
pub async fn unpack(tar: Reader, dest: &Path, options: &UnpackOptions) -> Result<Stats> {
    let dest = match &options.confine {
        Some(root) => super::confine(dest, root)?,
        None => dest.to_path_buf(),
    };
    let rules = Rules {
        through_links: false,
        layered: false,
        devices: Devices::Refuse,
        owners: Owners::Mine,
        mode_mask: 0o777,
        xattrs: false,
        max_bytes: options.max_bytes,
        max_entries: options.max_entries,
        what: "pull".into(),
    };
    let work = move |from: &mut dyn std::io::Read| {
        std::fs::create_dir_all(&dest)
            .map_err(|error| Error::invalid("path", format!("{}: {error}", dest.display())))?;
        Extractor::new(&dest, &rules)?.run(from)
    };
    bridge::consume(tar, work)
        .await
        .map_err(|error| Error::internal(format!("unpacking failed: {error}")))?
}
