//! This very program, as a file that no guest can write to.
//!
//! An ordinary user's guests have that user's id, and the program is often the user's own file. A process
//! on its way into a guest still is this program: a guest that got hold of its `/proc/PID/exe` could write
//! to the file as soon as nothing runs it any more (CVE-2019-5736 in another runtime). So the keeper
//! executes itself once more, from a detached read-only mount of the file.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::UnshareFlags;

use crate::backend::local::protocol::{Doing, Failure};
use crate::backend::local::sys;

const OWN: &str = "/proc/self/exe";

/// Executes it with these arguments; returns only on failure. The caller has one thread. It is to do this
/// before it enters a user namespace: a program that is executed inside one belongs to it, and so would
/// what `/proc` shows of it.
pub fn execute_read_only(argv: &[&str]) -> Failure {
    let program = match read_only() {
        Ok(program) => program,
        // The file may be deleted by now, or on a mount that can't be cloned.
        Err(_) => match sealed_copy().doing("copying the program") {
            Ok(copy) => copy,
            Err(failure) => return failure,
        },
    };
    let error = sys::execute(program.as_fd(), argv);
    Failure {
        what: "executing the keeper again".into(),
        errno: error.raw_os_error().unwrap_or_default(),
    }
}

/// It takes namespaces to clone a mount, and a child has them.
fn read_only() -> Result<OwnedFd, Failure> {
    let what = "mounting the program read-only";
    let (ours, theirs) = UnixStream::pair().doing(what)?;
    sys::fork(|| {
        let sent = cloned().and_then(|mount| sys::send(&theirs, &(), &[mount.as_fd()]).doing(what));
        i32::from(sent.is_err())
    })
    .doing(what)?;
    drop(theirs);
    let received = sys::receive::<()>(&ours).doing(what)?;
    received.and_then(|((), mut fds)| fds.pop()).ok_or_else(|| Failure::new(what))
}

fn cloned() -> Result<OwnedFd, Failure> {
    let what = "mounting the program read-only";
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).doing(what)?;
    let path = fs::read_link(OWN).doing(what)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, &path, flags).doing(what)?;
    sys::restrict_mount(mount.as_fd(), true).doing(what)?;
    let own = fs::metadata(OWN).doing(what)?;
    let found = rustix::fs::statat(&mount, "", rustix::fs::AtFlags::EMPTY_PATH).doing(what)?;
    match (found.st_dev, found.st_ino) == (own.dev(), own.ino()) {
        true => Ok(mount),
        false => Err(Failure::new("the program's file was replaced")),
    }
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(memfd_create("sandscript", flags)?);
    io::copy(&mut File::open(OWN)?, &mut copy)?;
    fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(copy.into())
}
