//! Whose files a tree has: where mounts can't map ids, the files themselves are given to a machine's users.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::super::local::idmap_mount;
use super::super::command::PATH;
use super::super::record::RANGE;

/// A user namespace that says which ids on the disk are which of a machine's.
pub(super) fn map_of(own: u32, base: u32) -> io::Result<OwnedFd> {
    let mut holder = Command::new("unshare");
    holder.env("PATH", PATH).args(["--user", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.stderr(Stdio::null()).spawn()?;
    let made = (|| {
        let (Some(mut input), Some(mut output)) = (holder.stdin.take(), holder.stdout.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        input.write_all(b"?")?;
        // It answers from inside.
        output.read_exact(&mut [0])?;
        let own_folder = Path::new("/proc").join(holder.id().to_string());
        let map = format!("{own} {base} {RANGE}\n");
        for file in ["uid_map", "gid_map"] {
            fs::write(own_folder.join(file), &map)?;
        }
        fs::File::open(own_folder.join("ns/user")).map(OwnedFd::from)
    })();
    let _ = holder.kill();
    let _ = holder.wait();
    made
}

/// Whether a mount of a folder can map ids, by trying it.
pub(super) fn can_map(folder: &Path) -> bool {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tried = || {
        let mount = open_tree(CWD, folder, flags)?;
        idmap_mount(mount.as_fd(), map_of(0, 1 << 30)?.as_fd())
    };
    tried().is_ok()
}

/// Gives a tree that nobody uses to users whose ids begin at `base`. Its own folder comes last, and says that all
/// of it is done.
pub(super) fn give(tree: &Path, base: u32) -> io::Result<()> {
    let top = fs::symlink_metadata(tree)?;
    if top.uid() == base {
        return Ok(());
    }
    let mut todo = vec![tree.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            give_one(&path, &found, base)?;
            if found.is_dir() && found.dev() == top.dev() {
                todo.push(path);
            }
        }
    }
    give_one(tree, &top, base)
}

fn give_one(path: &Path, found: &fs::Metadata, base: u32) -> io::Result<()> {
    let shifted = |id: u32| base | (id & (RANGE - 1));
    let (uid, gid) = (shifted(found.uid()), shifted(found.gid()));
    if (uid, gid) == (found.uid(), found.gid()) {
        return Ok(());
    }
    lchown(path, Some(uid), Some(gid))?;
    // It took away what lets programs run as their owners.
    match found.is_file() && found.mode() & 0o6000 != 0 {
        true => fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_given_with_its_modes_and_links() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let (tree, outside) = (temp.path().join("tree"), temp.path().join("outside"));
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(tree.join("bin/su"), "").unwrap();
        lchown(tree.join("bin/su"), Some(7), Some(0x5000_0008)).unwrap();
        fs::set_permissions(tree.join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        for base in [0x6000_0000, 0x6001_0000] {
            give(&tree, base).unwrap();
            let su = fs::metadata(tree.join("bin/su")).unwrap();
            assert_eq!((su.uid(), su.gid()), (base + 7, base + 8));
            assert_eq!(su.mode() & 0o7777, 0o4755);
            assert_eq!(fs::symlink_metadata(tree.join("link")).unwrap().uid(), base);
            assert_eq!(fs::metadata(&tree).unwrap().uid(), base);
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }
}
