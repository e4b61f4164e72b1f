//! How trees are kept and copied, by the file system that the store is on.

mod btrfs;
mod copy;
mod links;
mod overlay;
mod owners;
mod zfs;

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::local::store_error;
use crate::sandbox::{Error, Result};

use overlay::Overlay;
use zfs::Zfs;

const BTRFS: i64 = 0x9123_683e;
const EXT4: i64 = 0xef53;
const OVERLAY: i64 = 0x794c_7630;
const XFS: i64 = 0x5846_5342;

/// A way to keep trees.
#[derive(Debug)]
pub(super) enum Storage {
    /// Each is a subvolume: a copy shares all with its source.
    Btrfs,
    /// Each is a folder: a copy shares what the file system can share.
    Copy,
    /// Each is a stack of layers, which others may share.
    Overlay(Overlay),
    /// Each is a dataset of ZFS: a copy is a clone.
    Zfs(Zfs),
}

impl Storage {
    /// What the store's file system can do.
    ///
    /// # Errors
    /// `Unsupported` where the store has trees that what can be done here does not know.
    pub async fn probe(root: &Path) -> Result<Storage> {
        let storage = Storage::found(root).await?;
        let layers = !matches!(storage, Storage::Overlay(_)) && !is_empty(&root.join("layers"))?;
        let trees = !matches!(storage, Storage::Zfs(_)) && root.join("trees").exists();
        if !(layers || trees) || !links::are_in(root)? {
            return Ok(storage);
        }
        let (what, hint) = match layers {
            true => (
                "layers",
                "stacking them takes ext4 or xfs, Linux 5.19 or later, and its overlayfs (modprobe overlay)",
            ),
            false => ("datasets", "install the program zfs, and mount what the store was on"),
        };
        let store = format!("the store {}, whose trees are {what},", root.display());
        Err(Error::unsupported(store, super::BACKEND, hint))
    }

    async fn found(root: &Path) -> Result<Storage> {
        let found = rustix::fs::statfs(root).map_err(|error| {
            Error::io(format!("looking at {}", root.display()), std::io::Error::from(error))
        })?;
        if let Some(zfs) = Zfs::probe(root).await? {
            return Ok(Storage::Zfs(zfs));
        }
        match found.f_type as i64 {
            BTRFS if btrfs::is_there().await => Ok(Storage::Btrfs),
            OVERLAY => Err(Error::unsupported(
                format!("a store on an overlay ({})", root.display()),
                super::BACKEND,
                "put the store on btrfs, ZFS, ext4 or xfs with --store",
            )),
            EXT4 | XFS if !shares_blocks(root) => {
                let overlay = Overlay::probe(root).await?;
                Ok(overlay.map_or(Storage::Copy, Storage::Overlay))
            }
            _ => Ok(Storage::Copy),
        }
    }

    /// Why nothing can be limited to a number of bytes; none where it can.
    pub fn no_quota(&self) -> Option<&'static str> {
        match self {
            Storage::Zfs(_) => None,
            Storage::Btrfs => Some(
                "btrfs loses count of its quotas while others are made and deleted: put the store on ZFS with --store",
            ),
            Storage::Copy | Storage::Overlay(_) => Some(
                "the store's file system has no quotas for folders: put the store on ZFS with --store",
            ),
        }
    }

    /// What systemd-nspawn is to do about the owners of a tree's files, or of those of its copies. The tree is
    /// the one that the store knows, not what it stands for.
    pub fn ownership(&self, tree: &Path) -> &'static str {
        let owned = match self {
            // It can't map what is stacked, and need not.
            Storage::Overlay(_) => true,
            Storage::Zfs(zfs) => !zfs.maps(),
            _ => false,
        };
        // What is a folder is as anywhere else.
        match owned && tree.is_symlink() {
            true => "off",
            false => "auto",
        }
    }

    /// Whether what was just kept shares all with its source, so that nothing goes with it alone.
    pub fn shares_all(&self) -> bool {
        !matches!(self, Storage::Copy | Storage::Overlay(_))
    }

    /// Makes an empty tree; the folder that its files are to be put in.
    pub async fn make(&self, tree: &Path) -> Result<PathBuf> {
        match self {
            Storage::Btrfs => btrfs::make(tree).await?,
            Storage::Copy => copy::make(tree)?,
            Storage::Overlay(overlay) => return overlay.make(tree).await,
            Storage::Zfs(zfs) => return zfs.make(tree).await,
        }
        Ok(tree.to_owned())
    }

    /// What was made has all its files.
    pub async fn seal(&self, tree: &Path) -> Result<()> {
        match self {
            Storage::Zfs(zfs) => zfs.seal(tree).await,
            _ => Ok(()),
        }
    }

    /// Copies a tree, which processes of a machine may have open where it `runs`. The copy can be written to; the
    /// source stays.
    pub async fn copy(&self, from: &Path, to: &Path, runs: bool) -> Result<()> {
        match self {
            Storage::Btrfs => btrfs::copy(from, to).await,
            Storage::Copy => copy::copy(from, to).await,
            Storage::Overlay(overlay) => overlay.copy(from, to, runs).await,
            Storage::Zfs(zfs) => zfs.copy(from, to).await,
        }
    }

    /// Makes what a tree is now one that only copies are made of.
    pub async fn keep(&self, from: &Path, to: &Path, runs: bool) -> Result<()> {
        match self {
            Storage::Overlay(overlay) => overlay.keep(from, to, runs).await,
            Storage::Zfs(zfs) => zfs.keep(from, to).await,
            _ => self.copy(from, to, runs).await,
        }
    }

    /// Deletes a folder with all the trees in it.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        match self {
            Storage::Btrfs => btrfs::remove(folder).await,
            Storage::Copy => copy::remove(folder).await,
            Storage::Overlay(overlay) => overlay.remove(folder).await,
            Storage::Zfs(zfs) => zfs.remove(folder).await,
        }
    }

    /// Deletes what a process left that was killed.
    pub async fn sweep(&self) -> Result<()> {
        match self {
            Storage::Btrfs | Storage::Copy => Ok(()),
            Storage::Overlay(overlay) => overlay.sweep().await,
            Storage::Zfs(zfs) => zfs.sweep().await,
        }
    }

    /// Sees to it that a machine's tree can be used by users whose ids begin at `base`; `lasting` says whether it
    /// has to outlive the host's power.
    pub async fn ready(&self, tree: &Path, base: u32, lasting: bool) -> Result<()> {
        match self {
            Storage::Btrfs | Storage::Copy => Ok(()),
            Storage::Overlay(overlay) => overlay.ready(tree, base, lasting).await,
            Storage::Zfs(zfs) => zfs.ready(tree, base).await,
        }
    }

    /// How many bytes go with a tree.
    pub async fn size(&self, tree: &Path) -> Result<u64> {
        match self {
            Storage::Btrfs => btrfs::size(tree).await,
            Storage::Copy => copy::size(tree).await,
            Storage::Overlay(overlay) => overlay.size(tree).await,
            Storage::Zfs(zfs) => zfs.size(tree).await,
        }
    }

    /// How many bytes a tree has, shared or not.
    pub async fn referenced(&self, tree: &Path) -> Result<u64> {
        match self {
            Storage::Zfs(zfs) => zfs.referenced(tree).await,
            Storage::Btrfs | Storage::Copy | Storage::Overlay(_) => Ok(0),
        }
    }

    /// Lets a tree have so many bytes and no more.
    pub async fn limit(&self, tree: &Path, bytes: u64) -> Result<()> {
        match self {
            Storage::Zfs(zfs) => zfs.limit(tree, bytes).await,
            Storage::Btrfs | Storage::Copy | Storage::Overlay(_) => {
                let why = self.no_quota().unwrap_or_default();
                Err(Error::unsupported("limiting a machine's files", super::BACKEND, why))
            }
        }
    }
}

/// Whether nothing is in a folder, or none is there.
fn is_empty(folder: &Path) -> Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(store_error("reading", folder, error)),
    }
}

/// Whether files of a folder can share their blocks, by trying it.
fn shares_blocks(folder: &Path) -> bool {
    let name = || folder.join("locks").join(format!(".{}", super::super::guest::token()));
    let (one, two) = (name(), name());
    let source = std::fs::write(&one, [0; 4096]).and_then(|()| File::open(&one));
    let target = File::options().create_new(true).write(true).open(&two);
    let shared = match (source, target) {
        (Ok(source), Ok(target)) => rustix::fs::ioctl_ficlone(target, source).is_ok(),
        _ => false,
    };
    for path in [one, two] {
        let _ = std::fs::remove_file(path);
    }
    shared
}
