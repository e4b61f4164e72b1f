//! Trees that are folders.

use std::path::Path;

use super::super::super::local::store_error;
use super::super::command::run;
use crate::sandbox::Result;

pub(super) fn make(tree: &Path) -> Result<()> {
    std::fs::create_dir(tree).map_err(|error| store_error("making", tree, error))
}

pub(super) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let words = ["-a", "--reflink=auto", "--sparse=auto", "--one-file-system", "--"]
        .map(std::ffi::OsStr::new);
    let args = words.into_iter().chain([from.as_os_str(), to.as_os_str()]);
    run("cp", args, "copying a tree").await.map(drop)
}

pub(super) async fn remove(folder: &Path) -> Result<()> {
    let words = ["-rf", "--one-file-system", "--"].map(std::ffi::OsStr::new);
    run("rm", words.into_iter().chain([folder.as_os_str()]), "deleting a tree").await.map(drop)
}

pub(super) async fn size(tree: &Path) -> Result<u64> {
    let words = ["-s", "-x", "-B1", "--"].map(std::ffi::OsStr::new);
    let said =
        run("du", words.into_iter().chain([tree.as_os_str()]), "measuring a snapshot").await?;
    Ok(said.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or_default())
}
