//! A machine's files as long as it does not run: nothing of it is followed out of its tree.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::super::guest::token;

/// Which machine the SSH host keys beside it are of: those of another are made anew.
const STAMP: &str = ".machine";

/// Opens a folder of a tree, which is taken as `/`.
pub(super) fn inside(tree: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(tree, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?)
}

/// Makes a tree this machine's and no other's. One that was a machine before, and `keeps` what it was, has its
/// SSH host keys from then on, too.
pub(super) fn identify(
    tree: &Path,
    machine_id: &str,
    hostname: &str,
    keeps: bool,
) -> io::Result<()> {
    let root = rustix::fs::stat(tree)?;
    // Where its mounts can't map ids, its files have those that its users have on the host.
    let owner = (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid));
    let etc = inside(tree, Path::new("etc"))?;
    if keeps && let Ok(ssh) = inside(tree, Path::new("etc/ssh")) {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&ssh, STAMP, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => {
                rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
                std::fs::File::from(file).write_all(machine_id.as_bytes())?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (name, mode, content) in [("machine-id", 0o444, machine_id), ("hostname", 0o644, hostname)]
    {
        match rustix::fs::unlinkat(&etc, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Out of the way, whatever is in it.
            Err(Errno::ISDIR) => {
                rustix::fs::renameat(&etc, name, &etc, format!("{name}.{}", token()))?;
            }
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&etc, name, flags, Mode::from_raw_mode(mode))?;
        rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        std::fs::File::from(file).write_all(format!("{content}\n").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_guest_has_laid_out_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, host) = (folder.path().join("tree"), folder.path().join("host"));
        fs::create_dir_all(tree.join("real")).unwrap();
        fs::create_dir_all(&host).unwrap();
        fs::write(host.join("hostname"), "host's").unwrap();
        std::os::unix::fs::symlink("../../real", tree.join("etc")).unwrap();
        std::os::unix::fs::symlink(host.join("hostname"), tree.join("real/hostname")).unwrap();
        identify(&tree, "0123", "a", false).unwrap();
        assert_eq!(fs::read_to_string(tree.join("real/hostname")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(tree.join("real/machine-id")).unwrap(), "0123\n");
        assert_eq!(fs::read_to_string(host.join("hostname")).unwrap(), "host's");
        // A second time it is as the first.
        identify(&tree, "0123", "b", false).unwrap();
        assert_eq!(fs::read_to_string(tree.join("real/hostname")).unwrap(), "b\n");
        // A folder in the place of a file.
        fs::remove_file(tree.join("real/machine-id")).unwrap();
        fs::create_dir_all(tree.join("real/machine-id/x")).unwrap();
        identify(&tree, "4567", "b", true).unwrap();
        assert_eq!(fs::read_to_string(tree.join("real/machine-id")).unwrap(), "4567\n");
        fs::remove_file(tree.join("etc")).unwrap();
        std::os::unix::fs::symlink(&host, tree.join("etc")).unwrap();
        assert!(identify(&tree, "0123", "a", false).is_err());
        assert_eq!(fs::read_to_string(host.join("hostname")).unwrap(), "host's");
    }
}
