//! Trees that are subvolumes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::command::run;
use super::copy;
use crate::sandbox::Result;

/// The inode of each subvolume's top.
const TOP: u64 = 256;

/// Whether its tools are there.
pub(super) async fn is_there() -> bool {
    run("btrfs", ["version"], "looking for btrfs").await.is_ok()
}

pub(super) async fn make(tree: &Path) -> Result<()> {
    let args = ["-q".as_ref(), "subvolume".as_ref(), "create".as_ref(), tree.as_os_str()];
    run("btrfs", args, "making a subvolume").await.map(drop)
}

pub(super) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let args = ["subvolume".as_ref(), "snapshot".as_ref(), from.as_os_str(), to.as_os_str()];
    run("btrfs", args, "copying a subvolume").await.map(drop)
}

/// Deletes a folder: first the subvolumes in it, the inner ones, which guests may have made, before the outer ones.
pub(super) async fn remove(folder: &Path) -> Result<()> {
    let known = trees(folder);
    if delete(&known).await.is_err() {
        let folder = folder.to_owned();
        let all = tokio::task::spawn_blocking(move || nested(&folder)).await.unwrap_or_default();
        // What fails is said by what is not empty then.
        let _ = delete(&all).await;
    }
    copy::remove(folder).await
}

async fn delete(trees: &[PathBuf]) -> Result<()> {
    if trees.is_empty() {
        return Ok(());
    }
    let words = ["-q", "subvolume", "delete"].map(std::ffi::OsStr::new);
    let mut done = Ok(());
    // A guest may have made more of them than fit into a command.
    for some in trees.chunks(200) {
        let args = words.into_iter().chain(some.iter().map(|tree| tree.as_os_str()));
        done = done.and(run("btrfs", args, "deleting a subvolume").await.map(drop));
    }
    done
}

fn is_top(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.ino() == TOP && found.is_dir())
}

/// The trees that we have put in a machine's folder, or in a snapshot's.
fn trees(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    let snapshots = entries.map(|entry| entry.path().join("tree"));
    let mut all: Vec<PathBuf> = snapshots.chain([folder.join("tree")]).collect();
    all.retain(|path| is_top(path));
    if is_top(folder) {
        all.push(folder.to_owned());
    }
    all
}

/// All subvolumes below a folder, the innermost first. Links are not followed.
fn nested(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        if is_top(&path) {
            found.push(path.clone());
        }
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        todo.extend(folders.map(|entry| entry.path()));
    }
    found.reverse();
    found
}

pub(super) async fn size(tree: &Path) -> Result<u64> {
    let words = ["filesystem", "du", "-s", "--raw"].map(std::ffi::OsStr::new);
    let said =
        run("btrfs", words.into_iter().chain([tree.as_os_str()]), "measuring a snapshot").await?;
    let line = said.lines().last().unwrap_or_default();
    Ok(line.split_whitespace().nth(1).and_then(|bytes| bytes.parse().ok()).unwrap_or_default())
}
