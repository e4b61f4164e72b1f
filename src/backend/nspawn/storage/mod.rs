//! How trees are kept and copied, by the file system that the store is on.

mod btrfs;
mod copy;

use std::path::Path;

use crate::sandbox::{Error, Result};

const BTRFS: i64 = 0x9123_683e;
const OVERLAY: i64 = 0x794c_7630;

/// A way to keep trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Each is a subvolume: a copy shares all with its source.
    Btrfs,
    /// Each is a folder: a copy shares what the file system can share.
    Copy,
}

impl Storage {
    /// What the store's file system can do.
    pub async fn probe(root: &Path) -> Result<Storage> {
        let found = rustix::fs::statfs(root).map_err(|error| {
            Error::io(format!("looking at {}", root.display()), std::io::Error::from(error))
        })?;
        match found.f_type as i64 {
            BTRFS if btrfs::is_there().await => Ok(Storage::Btrfs),
            OVERLAY => Err(Error::unsupported(
                format!("a store on an overlay ({})", root.display()),
                super::BACKEND,
                "put the store on btrfs, ext4 or xfs with --store",
            )),
            _ => Ok(Storage::Copy),
        }
    }

    /// Makes an empty tree.
    pub async fn make(self, tree: &Path) -> Result<()> {
        match self {
            Storage::Btrfs => btrfs::make(tree).await,
            Storage::Copy => copy::make(tree),
        }
    }

    /// Copies a tree. The copy can be written to; the source stays.
    pub async fn copy(self, from: &Path, to: &Path) -> Result<()> {
        match self {
            Storage::Btrfs => btrfs::copy(from, to).await,
            Storage::Copy => copy::copy(from, to).await,
        }
    }

    /// Deletes a folder with all the trees in it.
    pub async fn remove(self, folder: &Path) -> Result<()> {
        match self {
            Storage::Btrfs => btrfs::remove(folder).await,
            Storage::Copy => copy::remove(folder).await,
        }
    }

    /// How many bytes go with a tree.
    pub async fn size(self, tree: &Path) -> Result<u64> {
        match self {
            Storage::Btrfs => btrfs::size(tree).await,
            Storage::Copy => copy::size(tree).await,
        }
    }
}
