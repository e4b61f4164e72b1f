//! The keeper's own main loop.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::super::confine;
use super::{flatten, launch, program};
use crate::backend::local::mode::Mode;
use crate::backend::local::protocol::{Doing, Done, Failure, Task};
use crate::backend::local::sys;
use crate::backend::local::{copy, spare};
use crate::backend::local::{gate, porter};
use crate::image::{HostImage, LayerOptions, unpack_archives};
use crate::sandbox::{Error, Result as Outcome};
use crate::transfer::{Owners, Stats};

/// The name that a keeper is executed under, by which it knows itself.
pub const ARGV0: &str = "sandscript:keeper";

static ASKED: AtomicBool = AtomicBool::new(false);

/// The first message to a keeper.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// How ids map.
    pub mode: Mode,
}

/// A keeper's answers to it.
#[derive(Serialize, Deserialize)]
pub enum Welcome {
    /// It has a new user namespace: write its maps, then say so.
    MapMe,
    /// Tasks may come.
    Ready,
    /// It can't.
    Failed(Failure),
}

/// Becomes the keeper, a gate, a porter or a confined program, and never returns when this process was executed as one; else remembers
/// that the program is ready for it.
pub fn serve_if_asked() {
    ASKED.store(true, Ordering::Release);
    let name = std::env::args_os().next().unwrap_or_default();
    if name.as_bytes() == gate::ARGV0.as_bytes() {
        sys::exit_now(gate::serve().map_or(70, |()| 0));
    }
    if name.as_bytes() == porter::ARGV0.as_bytes() {
        sys::exit_now(porter::serve().map_or(70, |()| 0));
    }
    if name.as_bytes() == confine::ARGV0.as_bytes() {
        sys::exit_now(confine::serve().map_or(70, |()| 0));
    }
    if name.as_bytes() == ARGV0.as_bytes() {
        let code = serve().map_or(70, |()| 0);
        sys::exit_now(code);
    }
}

/// Whether the program has called [`serve_if_asked`].
pub fn ready_to_serve() -> bool {
    ASKED.load(Ordering::Acquire)
}

fn serve() -> io::Result<()> {
    // The socket comes as stdin; it moves up, so that no child has it as its own stdin.
    let socket: OwnedFd = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    let again = std::env::args().nth(1).and_then(|mode| serde_json::from_str::<Mode>(&mode).ok());
    let first = again.is_none();
    let mode = match again {
        Some(mode) => mode,
        None => match sys::receive::<Hello>(&socket)? {
            Some((hello, _)) => hello.mode,
            None => return Ok(()),
        },
    };
    let _ = rustix::thread::set_name(c"sandscript-keep");
    // Ctrl-C in the caller's terminal is the caller's business.
    let _ = rustix::process::setsid();
    sys::set_subreaper()?;
    let entered = match &mode {
        Mode::Root => Ok(()),
        mode if first => Err(execute_again(mode, &socket)),
        Mode::Range(_) => enter_range(&socket),
        Mode::Single { uid, gid, .. } => enter_single(*uid, *gid),
    };
    if let Err(failure) = entered {
        sys::send(&socket, &Welcome::Failed(failure), &[])?;
        return Ok(());
    }
    let filter = sys::SyscallFilter::compile()?;
    sys::send(&socket, &Welcome::Ready, &[])?;
    while let Some((task, mut fds)) = sys::receive::<Task>(&socket)? {
        if fds.is_empty() {
            continue;
        }
        let reply = fds.remove(0);
        let forked = sys::fork(|| {
            let mut keep: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            keep.push(reply.as_raw_fd());
            sys::close_all_except(&mut keep);
            work(task, reply, fds, filter.clone())
        });
        drop(forked);
    }
    Ok(())
}

/// Goes on as the program that no guest can write to; returns only on failure.
fn execute_again(mode: &Mode, socket: &OwnedFd) -> Failure {
    let argument = serde_json::to_string(mode).map_err(io::Error::from);
    let ready = argument.and_then(|mode| Ok((mode, rustix::stdio::dup2_stdin(socket)?)));
    match ready.doing("executing the keeper again") {
        Ok((mode, ())) => program::execute_read_only(&[ARGV0, &mode]),
        Err(failure) => failure,
    }
}

fn enter_single(uid: u32, gid: u32) -> Result<(), Failure> {
    sys::unshare(UnshareFlags::NEWUSER).doing("making a user namespace")?;
    let put = |file: &str, content: &str| {
        fs::write(format!("/proc/self/{file}"), content).doing(&format!("writing {file}"))
    };
    put("setgroups", "deny")?;
    put("gid_map", &format!("0 {gid} 1\n"))?;
    put("uid_map", &format!("0 {uid} 1\n"))
}

fn enter_range(socket: &OwnedFd) -> Result<(), Failure> {
    sys::unshare(UnshareFlags::NEWUSER).doing("making a user namespace")?;
    let lost = "waiting for the id maps";
    sys::send(socket, &Welcome::MapMe, &[]).doing(lost)?;
    sys::receive::<()>(socket).doing(lost)?;
    let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(root.1, root.1, root.1).doing("becoming root in it")?;
    rustix::thread::set_thread_res_uid(root.0, root.0, root.0).doing("becoming root in it")?;
    sys::set_dumpable(true).doing("becoming root in it")
}

fn work(task: Task, reply: OwnedFd, fds: Vec<OwnedFd>, filter: sys::SyscallFilter) -> i32 {
    let done = match task {
        Task::Serve => return serve_tasks(&reply, &filter),
        Task::Launch(launch) => return launch::launch(*launch, reply, fds, filter),
        Task::Flatten { layers, to } => flatten::flatten(&layers, &to).map(|()| Done::Ok),
        Task::HostImage { to, hide } => {
            Ok(reported(HostImage::plan(&[], hide).and_then(|plan| plan.generate(&to))))
        }
        Task::Measure { paths } => {
            Ok(Done::Bytes(paths.iter().map(|path| copy::measure(path)).sum()))
        }
        Task::Remove { paths, groups, spares } => {
            remove(&paths, &groups, spares.as_deref());
            Ok(Done::Ok)
        }
        Task::Sync { path, marks } => sync(&path, &marks).map(|()| Done::Ok),
        Task::Unpack { archives, layered, name, to, all_mine } => {
            Ok(reported(unpack(&archives, layered, name, &to, (all_mine, &reply))))
        }
    };
    let done = done.unwrap_or_else(Done::Failed);
    let _ = sys::send(reply.as_fd(), &done, &[]);
    0
}

/// A worker that stays: a fork for each task would cost as much as many a task.
fn serve_tasks(socket: &OwnedFd, filter: &sys::SyscallFilter) -> i32 {
    // Cgroups whose last processes have not ended yet, inner before outer.
    let mut busy: VecDeque<PathBuf> = VecDeque::new();
    loop {
        let mut tries = 0;
        while !busy.is_empty() && !sys::is_readable(socket, Duration::from_millis(1)) {
            tries += 1;
            if remove_first(&mut busy) {
                tries = 0;
            } else if tries == PATIENCE {
                busy.pop_front();
                tries = 0;
            }
        }
        let Ok(Some((task, mut fds))) = sys::receive::<Task>(socket) else { break };
        match task {
            Task::Remove { paths, groups, spares } if fds.is_empty() => {
                remove_trees(&paths, spares.as_deref());
                busy.extend(groups);
                while remove_first(&mut busy) {}
            }
            _ if fds.is_empty() => {}
            task => {
                let reply = fds.remove(0);
                work(task, reply, fds, filter.clone());
            }
        }
    }
    // The folders are gone: nobody need wait for the rest.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
    busy.iter().for_each(|group| remove_group(group));
    0
}

/// Removes the first of some cgroups, if it is not busy; whether there was one.
fn remove_first(groups: &mut VecDeque<PathBuf>) -> bool {
    let Some(group) = groups.front() else { return false };
    let busy = fs::remove_dir(group).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY));
    if !busy {
        groups.pop_front();
    }
    !busy
}

/// The lock of a folder that nobody else is deleting. Files have none and need none.
fn only_here(path: &Path) -> Option<Option<fs::File>> {
    use std::os::unix::fs::MetadataExt;
    let folder = match rustix::fs::open(path, LOCKABLE, rustix::fs::Mode::empty()) {
        Ok(folder) => fs::File::from(folder),
        Err(rustix::io::Errno::NOENT) => return None,
        // It can't be entered: deleting opens it up.
        Err(_) => return Some(None),
    };
    // Whoever asked for this may hold it for a moment longer.
    (0..1000).find(|_| {
        let locked = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !locked {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        locked
    })?;
    let (held, there) = (folder.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    (held.ino() == there.ino()).then_some(Some(folder))
}

const LOCKABLE: rustix::fs::OFlags = rustix::fs::OFlags::RDONLY
    .union(rustix::fs::OFlags::DIRECTORY)
    .union(rustix::fs::OFlags::NOFOLLOW)
    .union(rustix::fs::OFlags::CLOEXEC);

fn remove(paths: &[PathBuf], groups: &[PathBuf], spares: Option<&Path>) {
    remove_trees(paths, spares);
    groups.iter().for_each(|group| remove_group(group));
}

fn remove_trees(paths: &[PathBuf], spares: Option<&Path>) {
    for path in paths {
        // One at a time: a collector may have found it in the trash meanwhile.
        let Some(_lock) = only_here(path) else { continue };
        if !spares.is_some_and(|spares| spare::keep(path, spares)) {
            copy::remove_tree(path);
        }
    }
}

fn sync(path: &Path, marks: &[PathBuf]) -> Result<(), Failure> {
    let folder = fs::File::open(path).doing("opening the store")?;
    sys::sync_file_system(folder.as_fd()).doing("writing the store to disk")?;
    marks.iter().try_for_each(|mark| fs::write(mark, b"").doing("marking a layer as written"))
}

/// How many milliseconds a cgroup may be busy.
const PATIENCE: u32 = 1000;

/// A cgroup is busy for a moment after its last process has ended.
fn remove_group(group: &Path) {
    for _ in 0..PATIENCE {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

fn unpack(
    archives: &[PathBuf],
    layered: bool,
    name: String,
    to: &Path,
    (all_mine, asker): (bool, &OwnedFd),
) -> Outcome<Stats> {
    let owners = if all_mine { Owners::Mine } else { Owners::Archive };
    let root = to.join("root");
    fs::create_dir(&root)
        .map_err(|error| Error::internal(format!("{}: {error}", root.display())))?;
    let options = LayerOptions::new(name, owners);
    let watched = |from| WhileAsked { from, asker, read: 0 };
    let stats = unpack_archives(archives, layered, &root, &options, watched)?;
    // What every program expects, however bare the archive is.
    for (folder, mode) in [("tmp", 0o1777), ("root", 0o700), ("etc", 0o755)] {
        let place = root.join(folder);
        if fs::symlink_metadata(&place).is_err() && fs::create_dir(&place).is_ok() {
            let _ = fs::set_permissions(&place, fs::Permissions::from_mode(mode));
        }
    }
    Ok(stats)
}

/// A stream that ends with an error when nobody waits any more for what is made of it.
struct WhileAsked<'a, R> {
    from: R,
    asker: &'a OwnedFd,
    read: usize,
}

impl<R: io::Read> io::Read for WhileAsked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whoever asked sends nothing more: what there is to be read is his end.
        if self.read >= 1 << 20 {
            self.read = 0;
            if sys::is_readable(self.asker, Duration::ZERO) {
                return Err(io::Error::other("nobody waits for it any more"));
            }
        }
        let count = self.from.read(buffer)?;
        self.read += count;
        Ok(count)
    }
}

fn reported<T>(outcome: Outcome<T>) -> Done {
    match outcome {
        Ok(_) => Done::Ok,
        Err(Error::InvalidInput { what, message, hint }) => Done::Refused { what, message, hint },
        Err(Error::Exhausted { what, .. }) => Done::Failed(Failure { what, errno: libc::ENOSPC }),
        Err(error) => Done::Failed(Failure::new(error.to_string())),
    }
}
