//! What `nspawn` keeps its store on in each of its rigs.

use std::path::Path;

use super::Choice;
use crate::booted::{Disk, pool};

/// On ext4, where trees are stacks of layers.
pub const OVERLAY: &str = "nspawn/overlay";
/// On a pool of ZFS.
pub const ZFS: &str = "nspawn/zfs";

/// Why there can't be such a disk here.
pub fn lacks(rig: &str) -> Option<String> {
    match rig {
        ZFS => pool::lacks(),
        _ => None,
    }
}

/// A disk in a folder.
pub fn disk(rig: &str, folder: &Path) -> Result<Disk, String> {
    match rig {
        OVERLAY => Disk::ext4(folder),
        ZFS => Disk::zfs(folder),
        _ => Disk::mount(folder),
    }
}

/// Which cases run there: elsewhere than on the first, those about what differs.
pub fn choice(rig: &str) -> Choice {
    let first = ![OVERLAY, ZFS].contains(&rig);
    match first || std::env::var_os("SANDSCRIPT_ALL_CASES").is_some() {
        true => Choice::All,
        false => Choice::Stores,
    }
}
