//! The guest's root: overlays over layers, assembled in a stage that the guest never sees.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sys;
use crate::backend::local::copy;
use crate::backend::local::layers::is_unwritten;
use crate::backend::local::protocol::{Doing, Failure, Tree};

/// The mount namespace in which roots are assembled. Its root holds `layers` and `image/TREE`.
pub struct Stage {
    /// The stage's mount namespace.
    pub namespace: OwnedFd,
    /// The guest's.
    pub guest: OwnedFd,
}

const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

/// What can only be made while the host's mounts are in sight, detached.
pub struct System {
    devices: Vec<(&'static str, OwnedFd)>,
    proc: OwnedFd,
    sys: Option<OwnedFd>,
}

impl System {
    /// The host's device nodes, and the new namespaces' `/proc` and `/sys`: the kernel allows those
    /// two only where the host's are fully visible.
    pub fn open() -> Result<System, Failure> {
        let devices = DEVICES
            .iter()
            .map(|name| {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let path = format!("/dev/{name}");
                Ok((*name, open_tree(CWD, path, flags).doing("taking over a device")?))
            })
            .collect::<Result<_, _>>()?;
        let plain = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(System {
            devices,
            proc: file_system("proc", plain).doing("mounting /proc")?,
            // Some hosts hide parts of /sys; a sandbox can do without.
            sys: file_system("sysfs", plain | MountAttrFlags::MOUNT_ATTR_RDONLY).ok(),
        })
    }
}

/// Mounts the trees' overlays and returns the root, detached but for what is mounted in it.
pub fn assemble(
    trees: &[Tree],
    layers: &[String],
    upper: &str,
) -> Result<Vec<(String, OwnedFd)>, Failure> {
    let upper = Path::new("/layers").join(upper);
    let work = fresh_work(&upper, trees)?;
    let new = work.ends_with(".work-0");
    trees
        .iter()
        .map(|tree| {
            let mut lower: Vec<PathBuf> = layers
                .iter()
                .map(|layer| Path::new("/layers").join(layer).join(&tree.name))
                .filter(|path| path.is_dir())
                .collect();
            if tree.host.is_some() {
                lower.push(Path::new("/image").join(&tree.name));
            }
            let (top, work) = (upper.join(&tree.name), work.join(&tree.name));
            for folder in [&top, &work] {
                match fs::create_dir(folder) {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(error).doing("making a layer's folder");
                    }
                    _ => {}
                }
            }
            if new && let Some(below) = lower.first() {
                like_below(&top, below);
            }
            let mount = sys::overlay(&lower, &top, &work).doing("mounting the overlay")?;
            Ok((tree.target.clone(), mount))
        })
        .collect()
}

/// A tree's own folder is that of the topmost layer: a new one takes mode, owner, attributes and time over. An owner
/// that is not mapped stays out.
fn like_below(top: &Path, below: &Path) {
    use std::os::unix::fs::MetadataExt;
    let (Ok(wanted), Ok(there)) = (fs::metadata(below), fs::metadata(top)) else { return };
    if (wanted.uid(), wanted.gid()) != (there.uid(), there.gid()) {
        let _ = std::os::unix::fs::lchown(top, Some(wanted.uid()), Some(wanted.gid()));
    }
    if wanted.mode() != there.mode() {
        let _ = fs::set_permissions(top, wanted.permissions());
    }
    // The host's own folders pass on no more: a new sandbox's are its own.
    if !below.starts_with("/image") {
        let _ = copy::copy_folder_marks(below, top);
    }
}

/// A volatile overlay marks its work folder as used; each mount gets a fresh one.
fn fresh_work(upper: &Path, trees: &[Tree]) -> Result<PathBuf, Failure> {
    for number in 0..u32::MAX {
        let work = upper.join(format!(".work-{number}"));
        match fs::create_dir(&work) {
            Ok(()) => return Ok(work),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if !trees.iter().any(|tree| work.join(&tree.name).join("work").exists()) {
                    return Ok(work);
                }
            }
            Err(error) => return Err(error).doing("making the overlay's work folder"),
        }
    }
    Err(Failure::new("no name is left for a work folder"))
}

/// Mounts `mount` at an absolute guest path below `root`. No link is followed: a path that an
/// image or the guest has turned into a link is an error.
pub fn attach(
    mount: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    target: &str,
    make: Option<bool>,
) -> Result<(), Failure> {
    let what = format!("mounting {target}");
    let relative = target.trim_matches('/');
    if let Some(folder) = make {
        make_target(root, relative, folder)?;
    }
    let place = openat2(
        root,
        relative,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .doing(&what)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).doing(&what)
}

fn make_target(root: BorrowedFd<'_>, relative: &str, folder: bool) -> Result<(), Failure> {
    let what = format!("making /{relative}");
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty()).collect();
    let mut parent =
        openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(&what)?;
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        if last && !folder {
            let flags = OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC
                | OFlags::RDONLY
                | OFlags::NONBLOCK;
            openat(&parent, *part, flags, Mode::from_raw_mode(0o644)).doing(&what)?;
            return Ok(());
        }
        match mkdirat(&parent, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).doing(&what),
        }
        parent = openat2(
            &parent,
            *part,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .doing(&what)?;
    }
    Ok(())
}

/// Stacks the assembled overlays on the current root and makes `/` of the namespace out of them:
/// first all is mounted, then `fill` puts the rest in, then the old root goes.
pub fn enter(
    overlays: Vec<(String, OwnedFd)>,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut overlays = overlays.into_iter();
    let Some((_, root)) = overlays.next() else {
        return Err(Failure::new("an image without a root tree"));
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&root, "", CWD, "/", flags).doing("mounting the new root")?;
    for (target, mount) in overlays {
        attach(mount.as_fd(), root.as_fd(), &target, Some(true))?;
    }
    fill(root.as_fd())?;
    fchdir(&root).doing("entering the new root")?;
    pivot_root(".", ".").doing("changing the root")?;
    unmount(".", UnmountFlags::DETACH).doing("leaving the old root")?;
    rustix::process::chdir("/").doing("entering the new root")
}

/// `/proc`, `/sys`, `/dev`, `/run` of a new sandbox.
pub fn system_mounts(root: BorrowedFd<'_>, system: &System) -> Result<(), Failure> {
    attach(system.proc.as_fd(), root, "/proc", Some(true))?;
    if let Some(sys) = &system.sys {
        attach(sys.as_fd(), root, "/sys", Some(true))?;
    }
    let run = sys::tmpfs(
        &[("mode", "755"), ("size", "256m"), ("nr_inodes", "65536")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .doing("mounting /run")?;
    mkdirat(&run, "lock", Mode::from_raw_mode(0o1777)).doing("making /run/lock")?;
    attach(run.as_fd(), root, "/run", Some(true))?;
    let dev = sys::tmpfs(
        &[("mode", "755"), ("size", "1m"), ("nr_inodes", "4096")],
        MountAttrFlags::MOUNT_ATTR_NOSUID,
    )
    .doing("mounting /dev")?;
    let mode = Mode::from_raw_mode(0o755);
    attach(dev.as_fd(), root, "/dev", Some(true))?;
    for (name, device) in &system.devices {
        attach(device.as_fd(), dev.as_fd(), name, Some(false))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ] {
        symlinkat(target, &dev, link).doing("making a link in /dev")?;
    }
    mkdirat(&dev, "pts", mode).doing("making /dev/pts")?;
    mkdirat(&dev, "shm", mode).doing("making /dev/shm")?;
    let shm = sys::tmpfs(
        &[("mode", "1777")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .doing("mounting /dev/shm")?;
    attach(shm.as_fd(), dev.as_fd(), "shm", None)?;
    let pts = terminals().doing("mounting /dev/pts")?;
    attach(pts.as_fd(), dev.as_fd(), "pts", None)
}

fn file_system(name: &str, attributes: MountAttrFlags) -> std::io::Result<OwnedFd> {
    let fs = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn terminals() -> std::io::Result<OwnedFd> {
    let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "620"), ("ptmxmode", "666")] {
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

impl Stage {
    /// Moves the calling process into the stage.
    pub fn enter(&self) -> Result<(), Failure> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .doing("entering the stage")
    }

    /// Goes over from the layer that was written to, `old`, to new layers. Only while init is alone: a
    /// process that has a file open would go on writing into what is now a layer.
    pub fn switch(
        &self,
        trees: &[Tree],
        layers: &[String],
        old: &str,
        upper: &str,
    ) -> Result<(), Failure> {
        self.enter()?;
        let (kept, trees) = keep_unwritten(trees, layers, old, upper);
        let assembled = assemble(&trees, layers, upper);
        if assembled.is_err() {
            keep_unwritten(&kept, layers, upper, old);
        }
        move_into_link_name_space(self.guest.as_fd(), Some(LinkNameSpaceType::Mount))
            .doing("leaving the stage")?;
        let kept = mounts_to_keep(&trees)?;
        enter(assembled?, |root| {
            for (target, mount, folder) in &kept {
                // Mostly its place is there: to look is less than to make.
                attach(mount.as_fd(), root, target, None)
                    .or_else(|_| attach(mount.as_fd(), root, target, Some(*folder)))?;
            }
            Ok(())
        })
    }
}

/// Nothing was written to most trees: such a one stays mounted as it is, and its empty folder moves
/// from the layer `old` to `new`. Returns those trees, and the others; the root is always among these.
fn keep_unwritten(
    trees: &[Tree],
    layers: &[String],
    old: &str,
    new: &str,
) -> (Vec<Tree>, Vec<Tree>) {
    let folder = Path::new("/layers");
    trees.iter().cloned().partition(|tree| {
        tree.target != "/"
            && is_unwritten(folder, old, layers, &tree.name)
            && fs::rename(folder.join(old).join(&tree.name), folder.join(new).join(&tree.name))
                .is_ok()
    })
}

/// The mounts directly below the guest's root that are not overlays: path, handle, whether it is a folder.
fn mounts_to_keep(trees: &[Tree]) -> Result<Vec<(String, OwnedFd, bool)>, Failure> {
    let table = fs::read_to_string("/proc/self/mountinfo").doing("reading the mounts")?;
    let mut targets: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|target| target != "/" && !trees.iter().any(|tree| tree.target == *target))
        .collect();
    targets.sort();
    // What is mounted below one of them moves with it.
    let mut top: Vec<String> = Vec::new();
    for target in targets {
        if !top.iter().any(|above| target == *above || target.starts_with(&format!("{above}/"))) {
            top.push(target);
        }
    }
    top.into_iter()
        .map(|target| {
            let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let mount = open_tree(CWD, target.as_str(), flags).doing("taking over a mount")?;
            let folder = rustix::fs::statat(&mount, "", AtFlags::EMPTY_PATH)
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
            Ok((target, mount, folder))
        })
        .collect()
}

/// `mountinfo` writes spaces and such as octal.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let octal =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes who the machine is. Called inside the guest's root, so links lead nowhere else.
pub fn write_identity(machine: &crate::backend::local::protocol::Machine) {
    let open =
        |path: &str| fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let put = |path: &str, content: &str| {
        let file = open(path).or_else(|_| {
            use std::os::unix::fs::MetadataExt;
            // The usual file is written anew: an overlay does that for less than a new one costs.
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1) {
                return fs::OpenOptions::new().write(true).truncate(true).open(path);
            }
            // A link or device of the image's is replaced, not written through.
            // So is an empty folder; one of unknown depth goes out of the way where it can.
            if fs::remove_file(path).is_err() && fs::remove_dir(path).is_err() {
                let _ = fs::rename(path, format!("{path}.folder"));
            }
            open(path)
        });
        if let Ok(mut file) = file {
            let _ = std::io::Write::write_all(&mut file, content.as_bytes());
        }
    };
    if let Some(resolv_conf) = &machine.resolv_conf {
        put("/etc/resolv.conf", resolv_conf);
    }
    if !machine.fresh {
        return;
    }
    let name = &machine.hostname;
    put("/etc/machine-id", &format!("{}\n", machine.id));
    put("/etc/hostname", &format!("{name}\n"));
    put(
        "/etc/hosts",
        &format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\t{name}\n"),
    );
    let _ = fs::remove_file("/var/lib/dbus/machine-id");
    if !machine.new {
        return;
    }
    let keys = fs::read_dir("/etc/ssh").into_iter().flatten().flatten();
    for key in keys.filter(|key| key.file_name().to_string_lossy().starts_with("ssh_host_")) {
        let _ = fs::remove_file(key.path());
    }
}
