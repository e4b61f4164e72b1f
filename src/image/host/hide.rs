//! Private files below the host's trees, and whiteouts over them.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode};

use super::write::Out;

/// How many threads read folders: on a cold disk they wait, on a warm one the cores decide.
const THREADS: usize = 4;

/// Stores whose files are world-readable by their construction, and too many to look at.
const SKIPPED: &[&str] = &["/nix/store", "/gnu/store"];

/// Whether everybody may read this file.
pub(super) fn readable_by_all(meta: &Metadata) -> bool {
    meta.mode() & 0o004 != 0
}

/// Whether everybody may list and enter this folder.
pub(super) fn open_to_all(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o005 == 0o005)
}

fn private_entry(meta: &Metadata) -> bool {
    let kind = meta.file_type();
    if kind.is_dir() {
        meta.mode() & 0o005 != 0o005
    } else if kind.is_file() {
        !readable_by_all(meta)
    } else {
        kind.is_block_device() || kind.is_char_device() || kind.is_socket()
    }
}

struct Queue {
    folders: Vec<PathBuf>,
    working: usize,
    found: Vec<PathBuf>,
    failed: Option<io::Error>,
}

/// What below `tree` is not for everybody: files, whole folders and device nodes, relative.
pub(super) fn private(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let folders = vec![tree.to_path_buf()];
    let queue = Mutex::new(Queue { folders, working: 0, found: Vec::new(), failed: None });
    let change = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| work(&queue, &change));
        }
    });
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = queue.failed {
        return Err(error);
    }
    let mut found = queue.found;
    found.sort();
    let relative = found.iter().filter_map(|path| path.strip_prefix(tree).ok());
    Ok(relative.map(PathBuf::from).collect())
}

fn work(queue: &Mutex<Queue>, change: &Condvar) {
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let mut state = lock();
        let batch = loop {
            if !state.folders.is_empty() {
                let at = state.folders.len().saturating_sub(16);
                break state.folders.split_off(at);
            }
            if state.working == 0 {
                return;
            }
            state = change.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.working += 1;
        drop(state);
        let (mut below, mut found) = (Vec::new(), Vec::new());
        let outcome = batch.iter().try_for_each(|folder| scan(folder, &mut below, &mut found));
        let mut state = lock();
        state.working -= 1;
        state.folders.append(&mut below);
        state.found.append(&mut found);
        if let Err(error) = outcome {
            state.folders.clear();
            state.failed = Some(error);
        }
        change.notify_all();
    }
}

fn scan(folder: &Path, below: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if SKIPPED.iter().any(|skipped| folder == Path::new(skipped)) {
        return Ok(());
    }
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            continue;
        }
        match entry.metadata() {
            Ok(meta) if private_entry(&meta) => found.push(entry.path()),
            Ok(meta) if meta.is_dir() => below.push(entry.path()),
            Ok(_) => {}
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a whiteout over each of `paths` (relative to `tree`) into `layer`, which exists.
pub(super) fn hide(tree: &Path, layer: &Path, paths: &[PathBuf]) -> io::Result<()> {
    let mut out = Out::open(layer);
    for path in paths {
        let mut above = PathBuf::new();
        for part in path.parent().unwrap_or(Path::new("")) {
            above.push(part);
            out.dir_like(&above, &tree.join(&above))?;
        }
        let over = layer.join(path);
        rustix::fs::mknodat(CWD, &over, FileType::CharacterDevice, Mode::empty(), 0)?;
    }
    out.like(tree)?;
    out.finish()?;
    Ok(())
}
