//! Starting a sandbox: from a forked worker of the keeper to process 1.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode as FileMode, mkdirat};
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pidfd_open, pivot_root};
use rustix::thread::UnshareFlags;

use crate::backend::local::disk;
use crate::backend::local::errors::MOUNT_TARGET;
use crate::backend::local::init::{self, Freezer, Init, Stage};
use crate::backend::local::mode::RANGE;
use crate::backend::local::net;
use crate::backend::local::protocol::{
    Defaults, Doing, Done, Failure, IdMap, Launch, Machine, Wake,
};
use crate::backend::local::sys;

/// The descriptors of a launch, sorted out.
struct Fds {
    own: Option<(OwnedFd, OwnedFd)>,
    group: Vec<OwnedFd>,
    payload: Vec<OwnedFd>,
    birth: Option<(OwnedFd, OwnedFd)>,
    freeze: Option<(OwnedFd, OwnedFd)>,
    locks: Vec<OwnedFd>,
}

impl Fds {
    fn sort(launch: &Launch, fds: Vec<OwnedFd>) -> Option<Fds> {
        let mut fds = fds.into_iter();
        let wanted = &launch.fds;
        let own = if wanted.own { Some((fds.next()?, fds.next()?)) } else { None };
        let group = fds.by_ref().take(wanted.group).collect();
        let payload = fds.by_ref().take(wanted.payload).collect();
        let birth = if wanted.birth { Some((fds.next()?, fds.next()?)) } else { None };
        let freeze = if wanted.freeze { Some((fds.next()?, fds.next()?)) } else { None };
        let locks = fds.by_ref().take(wanted.locks).collect();
        Some(Fds { own, group, payload, birth, freeze, locks })
    }
}

/// What process 1 and the worker that starts it tell each other: one byte each.
const MAPPED: &[u8] = b"m";
const MOUNTED: &[u8] = b"r";

/// The worker: makes the namespaces, writes the id maps, attaches what only the host's root can.
pub fn launch(
    launch: Launch,
    reply: OwnedFd,
    fds: Vec<OwnedFd>,
    filter: sys::SyscallFilter,
) -> i32 {
    match start(&launch, &reply, fds, filter) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = sys::send(&reply, &Done::Failed(failure), &[]);
            1
        }
    }
}

fn start(
    launch: &Launch,
    reply: &OwnedFd,
    fds: Vec<OwnedFd>,
    filter: sys::SyscallFilter,
) -> Result<(), Failure> {
    let fds =
        Fds::sort(launch, fds).ok_or_else(|| Failure::new("a launch without its descriptors"))?;
    let birth = fds.birth.as_ref().map(|(own, _)| own.try_clone()).transpose();
    let birth = birth.doing("opening the sandbox's cgroup")?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().doing("opening a socket")?;
    let child = sys::clone_with(sys::NEW_ALL, birth.as_ref().map(AsFd::as_fd), |born| {
        let result = become_init(launch, &theirs, reply, fds, filter, born);
        match result {
            Ok(code) => code,
            Err(failure) => {
                let _ = sys::send(reply, &Done::Failed(failure), &[]);
                1
            }
        }
    });
    let child = child.doing("making namespaces")?;
    drop(theirs);
    let guard = KillOnDrop(Some(child.pidfd.as_fd()));
    let pid = child.pid.as_raw_nonzero().get();
    write_maps(pid, launch.map)?;
    if let IdMap::Private { base } = launch.map {
        let user_namespace =
            fs::File::open(format!("/proc/{pid}/ns/user")).doing("opening the user namespace")?;
        let mut mounts = host_mounts(launch, Some((user_namespace.as_fd(), base)))?;
        if let Some(image) = &launch.disk {
            let what = "mounting the sandbox's disk";
            let disk = sys::mount_image(image).doing(what)?;
            if let Some(inodes) = launch.inodes {
                disk::reserve(&disk, inodes).doing(what)?;
            }
            sys::idmap_mount(disk.as_fd(), user_namespace.as_fd()).doing(what)?;
            mounts.push((format!("layers/{}", launch.upper), disk));
        }
        tell(&ours, MAPPED)?;
        let Ok(Some(((), mut fds))) = sys::receive::<()>(&ours) else { return gone(guard) };
        let Some(stage) = fds.pop() else { return gone(guard) };
        attach_inside(child.pid, &mounts, &stage)?;
        tell(&ours, MOUNTED)?;
    } else {
        tell(&ours, MAPPED)?;
    }
    // Process 1 reports for itself from here on.
    guard.release();
    Ok(())
}

/// Attaches to the stage from within its namespace, and comes back: a worker starts many sandboxes.
fn attach_inside(
    pid: rustix::process::Pid,
    mounts: &[(String, OwnedFd)],
    stage: &OwnedFd,
) -> Result<(), Failure> {
    use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
    let own = fs::File::open("/proc/self/ns/mnt").doing("opening the mount namespace")?;
    let process =
        pidfd_open(pid, rustix::process::PidfdFlags::empty()).doing("opening the sandbox")?;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT)
        .doing("entering the stage")?;
    let attached = attach_all(mounts, stage);
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))
        .doing("leaving the stage")?;
    attached
}

/// Process 1 has failed and has said why.
fn gone(guard: KillOnDrop<'_>) -> Result<(), Failure> {
    guard.release();
    Ok(())
}

struct KillOnDrop<'a>(Option<BorrowedFd<'a>>);

impl KillOnDrop<'_> {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0 {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }
}

fn tell(socket: impl AsFd, what: &[u8]) -> Result<(), Failure> {
    rustix::io::write(socket, what).doing("talking to process 1").map(drop)
}

fn hear(socket: impl AsFd, what: &[u8]) -> bool {
    let mut byte = [0];
    rustix::io::read(socket, &mut byte).is_ok_and(|count| count == 1) && byte == what
}

fn write_maps(pid: i32, map: IdMap) -> Result<(), Failure> {
    let put = |file: &str, content: &str| {
        fs::write(format!("/proc/{pid}/{file}"), content).doing(&format!("writing {file}"))
    };
    match map {
        IdMap::Private { base } => {
            put("gid_map", &format!("0 {base} {RANGE}\n"))?;
            put("uid_map", &format!("0 {base} {RANGE}\n"))
        }
        // One line may not span two extents of the parent's map.
        IdMap::Range => {
            let lines = format!("0 0 1\n1 1 {}\n", RANGE - 1);
            put("gid_map", &lines)?;
            put("uid_map", &lines)
        }
        IdMap::Single => {
            put("setgroups", "deny")?;
            put("gid_map", "0 0 1\n")?;
            put("uid_map", "0 0 1\n")
        }
    }
}

/// The store, the image's host folders and the user's mounts, detached, each with its place in the stage.
fn host_mounts(
    launch: &Launch,
    idmap: Option<(BorrowedFd<'_>, u32)>,
) -> Result<Vec<(String, OwnedFd)>, Failure> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let open = |path: &Path, flags: OpenTreeFlags| {
        open_tree(CWD, path, flags).doing(&format!("opening {}", path.display()))
    };
    let mut mounts = vec![("layers".to_owned(), open(&launch.layers_folder, clone)?)];
    for tree in &launch.trees {
        if let Some(host) = &tree.host {
            mounts.push((format!("image/{}", tree.name), open(host, clone)?));
        }
    }
    if let Some((namespace, _)) = idmap {
        for (_, mount) in &mounts {
            sys::idmap_mount(mount.as_fd(), namespace)
                .doing("mapping the ids of the store's file system")?;
        }
    }
    for (index, mount) in launch.mounts.iter().enumerate() {
        let own = index < launch.caches;
        let below = if own { OpenTreeFlags::empty() } else { OpenTreeFlags::AT_RECURSIVE };
        let tree = open(&mount.source, clone | below)?;
        match idmap {
            Some((namespace, _)) if own => sys::idmap_mount(tree.as_fd(), namespace)
                .doing("mapping the ids of the store's file system")?,
            Some((_, base)) => give_owner(&tree, &mount.source, base)?,
            None => {}
        }
        mounts.push((format!("mounts/{index}"), tree));
    }
    Ok(mounts)
}

/// Makes the folder's owner the guest's root, and nobody else anybody.
fn give_owner(tree: &OwnedFd, source: &Path, base: u32) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let what = format!("mapping the ids of {}", source.display());
    let metadata = fs::metadata(source).doing(&what)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().doing(&what)?;
    let child = sys::clone_with(libc::CLONE_NEWUSER as u64, None, |_| {
        sys::close_all_except(&mut [theirs.as_raw_fd()]);
        hear(&theirs, MAPPED);
        0
    })
    .doing(&what)?;
    drop(theirs);
    let _guard = KillOnDrop(Some(child.pidfd.as_fd()));
    let pid = child.pid.as_raw_nonzero();
    for (file, owner) in [("gid_map", metadata.gid()), ("uid_map", metadata.uid())] {
        fs::write(format!("/proc/{pid}/{file}"), format!("{owner} {base} 1\n")).doing(&what)?;
    }
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).doing(&what)?;
    drop(ours);
    sys::idmap_mount(tree.as_fd(), namespace.as_fd()).doing(&what)
}

/// Puts detached mounts in their places in the stage.
fn attach_all(mounts: &[(String, OwnedFd)], stage: &OwnedFd) -> Result<(), Failure> {
    for (place, mount) in mounts {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, "", stage, place.as_str(), flags).doing("attaching to the stage")?;
    }
    Ok(())
}

fn become_init(
    launch: &Launch,
    socket: &std::os::unix::net::UnixStream,
    reply: &OwnedFd,
    mut fds: Fds,
    filter: sys::SyscallFilter,
    born: bool,
) -> Result<i32, Failure> {
    if !born {
        for group in &fds.group {
            rustix::io::write(group, b"0").doing("joining the sandbox's cgroup")?;
        }
    }
    // Among what goes is the worker's end of the socket: with it open here, the worker's death would go unseen.
    sys::close_all_except(&mut kept(&fds, [reply.as_raw_fd(), socket.as_raw_fd()]));
    // Closed by this: their numbers may soon be others', and nothing may close those.
    let closed = |fd: OwnedFd| {
        let _ = fd.into_raw_fd();
    };
    std::mem::take(&mut fds.group).into_iter().for_each(closed);
    let birth = fds.birth.take().map(|(own, payload)| {
        closed(own);
        payload
    });
    if !hear(socket, MAPPED) {
        return Err(Failure::new("the launcher died"));
    }
    let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(root.1, root.1, root.1).doing("becoming root inside")?;
    rustix::thread::set_thread_res_uid(root.0, root.0, root.0).doing("becoming root inside")?;
    sys::set_dumpable(false).doing("hiding process 1")?;
    sys::unshare(UnshareFlags::NEWCGROUP).doing("making a cgroup namespace")?;
    let _ = rustix::thread::set_name(c"sandscript-init");
    let _ = rustix::process::setsid();
    rustix::process::umask(FileMode::from_raw_mode(0o022));
    sys::new_session_keyring();
    net::loopback_up().doing("bringing the loopback interface up")?;
    let gate = match launch.gated {
        true => Some(net::enter_gate().doing("closing the sandbox's network but for the gate")?),
        false => None,
    };

    let Staged { namespace, system, proc } = stage(launch, socket)?;
    let overlays = init::assemble(&launch.trees, &launch.layers, &launch.upper)?;
    let mounts: Vec<OwnedFd> = (0..launch.mounts.len())
        .map(|index| {
            let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, format!("/mounts/{index}"), flags).doing("taking over a mount")
        })
        .collect::<Result<_, _>>()?;
    init::enter(overlays, |root| {
        init::system_mounts(root, &system)?;
        for (mount, spec) in mounts.iter().zip(&launch.mounts) {
            user_mount(root, mount, spec)?;
        }
        Ok(())
    })?;
    let guest = open_namespace(&proc)?;
    // From here on paths of the guest's making are followed, and such a path may lead through
    // /proc/self/fd: no folder of the host's may be open.
    drop((system, proc, mounts));
    let (machine, defaults) = (launch.machine.clone(), launch.defaults.clone());
    let called = Called { machine, defaults, own: fds.own };
    let called = if launch.ahead { wait(reply)? } else { Some(called) };
    let Some(Called { machine, defaults, own: Some((listener, lifeline)) }) = called else {
        return Ok(0);
    };
    rustix::system::sethostname(machine.hostname.as_bytes()).doing("setting the host name")?;
    init::write_identity(&machine);
    sys::bound_capabilities().doing("dropping capabilities")?;
    sys::apply_init_filter(&filter).doing("applying the system call filter")?;
    sys::send(reply, &Done::Ok, &[]).doing("reporting")?;
    let init = Init {
        listener,
        lifeline: Some(lifeline),
        payload: fds.payload,
        birth,
        freezer: Freezer::new(fds.freeze),
        locks: fds.locks,
        stage: Stage { guest, namespace },
        trees: launch.trees.clone(),
        layers: launch.layers.clone(),
        upper: launch.upper.clone(),
        defaults,
        gate,
        filter,
    };
    close(reply, socket);
    Ok(init.run())
}

/// What process 1 learns last.
struct Called {
    machine: Machine,
    defaults: Defaults,
    own: Option<(OwnedFd, OwnedFd)>,
}

/// Says that all is ready but that; none when nobody wants it.
fn wait(reply: &OwnedFd) -> Result<Option<Called>, Failure> {
    sys::send(reply, &Done::Ok, &[]).doing("reporting")?;
    let Ok(Some((Wake { machine, defaults }, fds))) = sys::receive::<Wake>(reply) else {
        return Ok(None);
    };
    let mut fds = fds.into_iter();
    let own = fds.next().zip(fds.next());
    Ok(Some(Called { machine, defaults, own }))
}

fn kept(fds: &Fds, more: [i32; 2]) -> Vec<i32> {
    let mut keep = more.to_vec();
    keep.extend(fds.own.iter().flat_map(|(first, second)| [first.as_raw_fd(), second.as_raw_fd()]));
    keep.extend(fds.payload.iter().chain(&fds.locks).map(AsRawFd::as_raw_fd));
    if let Some((_, payload)) = &fds.birth {
        keep.push(payload.as_raw_fd());
    }
    if let Some((freeze, events)) = &fds.freeze {
        keep.extend([freeze.as_raw_fd(), events.as_raw_fd()]);
    }
    keep
}

/// Process 1 lives long: what only its start needed is closed.
fn close(reply: &OwnedFd, socket: &std::os::unix::net::UnixStream) {
    let _ = rustix::net::shutdown(reply, rustix::net::Shutdown::Both);
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

struct Staged {
    namespace: OwnedFd,
    system: init::System,
    proc: OwnedFd,
}

fn open_namespace(proc: &OwnedFd) -> Result<OwnedFd, Failure> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat(proc, "ns/mnt", flags, FileMode::empty())
        .doing("opening the mount namespace")
}

/// Builds the stage: a private mount namespace with a tmpfs root that holds the store and the image.
/// The guest's own namespace is a copy of it.
fn stage(launch: &Launch, socket: &std::os::unix::net::UnixStream) -> Result<Staged, Failure> {
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", propagation).doing("making mounts private")?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc/self", flags, FileMode::empty()).doing("opening /proc")?;
    let system = init::System::open()?;
    let own = match launch.map {
        IdMap::Private { .. } => Vec::new(),
        _ => host_mounts(launch, None)?,
    };
    let root = sys::tmpfs(&[("mode", "755"), ("size", "1m")], MountAttrFlags::empty())
        .doing("mounting the stage")?;
    let folder = FileMode::from_raw_mode(0o755);
    let make = |name: &str| mkdirat(&root, name, folder).doing("making the stage");
    for name in ["layers", "image", "mounts"] {
        make(name)?;
    }
    for tree in launch.trees.iter().filter(|tree| tree.host.is_some()) {
        make(&format!("image/{}", tree.name))?;
    }
    for (index, is_folder) in launch.folders.iter().enumerate() {
        let place = format!("mounts/{index}");
        if *is_folder {
            make(&place)?;
        } else {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::openat(&root, &place, flags, folder).doing("making the stage")?;
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    // Over the root: any other place may be one that the new ids can't reach.
    move_mount(&root, "", CWD, "/", flags).doing("mounting the stage")?;
    if let IdMap::Private { .. } = launch.map {
        sys::send(socket, &(), &[root.as_fd()]).doing("talking to the launcher")?;
        if !hear(socket, MOUNTED) {
            return Err(Failure::new("the launcher died"));
        }
    } else {
        attach_all(&own, &root)?;
    }
    fchdir(&root).doing("entering the stage")?;
    pivot_root(".", ".").doing("entering the stage")?;
    unmount(".", UnmountFlags::DETACH).doing("leaving the host's root")?;
    rustix::process::chdir("/").doing("entering the stage")?;
    let namespace = open_namespace(&proc)?;
    sys::unshare(UnshareFlags::NEWNS).doing("making the guest's mount namespace")?;
    Ok(Staged { namespace, system, proc })
}

fn user_mount(
    root: BorrowedFd<'_>,
    mount: &OwnedFd,
    spec: &crate::sandbox::Mount,
) -> Result<(), Failure> {
    let folder = rustix::fs::statat(mount, "", rustix::fs::AtFlags::EMPTY_PATH)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
    sys::restrict_mount(mount.as_fd(), spec.readonly)
        .doing(&format!("protecting {}", spec.target))?;
    init::attach(mount.as_fd(), root, &spec.target, Some(folder))
        .map_err(|failure| Failure { what: format!("{MOUNT_TARGET}{}", spec.target), ..failure })
}
