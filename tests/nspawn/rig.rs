//! What machines of systemd-nspawn need in tests: an image that boots, and a disk for the store.
#![allow(dead_code)]

#[path = "pool.rs"]
pub mod pool;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

const IMAGE: &str = include_str!("image.sh");

/// Why no machine can be started here: a skip, or with `CI=true` a failure.
pub fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("systemd-nspawn needs root".into());
    }
    if Path::new("/run/systemd/system").is_dir() {
        return Some("the first process of this host is systemd".into());
    }
    for (program, package) in [
        ("/usr/bin/systemd-nspawn", "systemd-container"),
        ("/usr/bin/mmdebstrap", "mmdebstrap"),
        ("/usr/sbin/mkfs.btrfs", "btrfs-progs"),
    ] {
        if !Path::new(program).exists()
            && !Path::new("/bin").join(program.rsplit('/').next()?).exists()
        {
            return Some(format!("{program} is not there (package {package})"));
        }
    }
    None
}

pub fn ran(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", text.lines().last().unwrap_or_default()))
}

/// Where what takes long to make is kept.
pub fn cache() -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nas");
    std::fs::create_dir_all(&cache).map_err(|e| e.to_string())?;
    cache.canonicalize().map_err(|e| e.to_string())
}

/// The archive of a small Debian with systemd and Perl, built once.
pub fn image() -> Result<PathBuf, String> {
    let cache = cache()?;
    let lock = File::create(cache.join("golden.lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    let rootfs = cache.join("debian.tar");
    if !rootfs.exists() {
        // The same as that of the other backends, so that it is built once for all.
        let part = cache.join("debian.part.tar");
        let include = "--include=systemd,systemd-sysv,dbus,openssh-server,iproute2,nftables,ca-certificates,\
            sudo,curl,gcc,libc6-dev,isc-dhcp-client,ifupdown,netbase,python3-minimal,dnsmasq,iputils-ping";
        ran(
            Command::new("mmdebstrap")
                .args(["--quiet", "--variant=minbase", include, "bookworm"])
                .arg(&part),
            "mmdebstrap",
        )?;
        std::fs::rename(&part, &rootfs).map_err(|e| e.to_string())?;
    }
    let image = name_of(&cache)?;
    if !image.exists() {
        let part = cache.join("machine.part");
        ran(
            Command::new("bash").args(["-c", IMAGE, "image.sh"]).args([&rootfs, &part]),
            "building the image",
        )?;
        std::fs::rename(&part, &image).map_err(|e| e.to_string())?;
    }
    Ok(image)
}

/// The same, in another place where the cache is.
pub fn image_in(cache: &str) -> Result<PathBuf, String> {
    name_of(Path::new(cache))
}

fn name_of(cache: &Path) -> Result<PathBuf, String> {
    let size = std::fs::metadata(cache.join("debian.tar")).map_err(|e| e.to_string())?.len();
    let hash = blake3::hash(format!("{IMAGE}{size}").as_bytes()).to_hex();
    Ok(cache.join(format!("machine-{}.tar", &hash[..12])))
}

/// A disk, as long as it is held.
pub struct Disk {
    place: PathBuf,
    /// What it is, where it is no file system of the kernel's.
    pub pool: Option<pool::Pool>,
}

impl Disk {
    /// Makes one with btrfs in a folder, and mounts it there.
    pub fn mount(folder: &Path) -> Result<Disk, String> {
        Disk::made(folder, &["mkfs.btrfs", "-q", "-f", "-m", "single"])
    }

    /// The same with ext4, on which files share nothing.
    pub fn ext4(folder: &Path) -> Result<Disk, String> {
        Disk::made(
            folder,
            &["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"],
        )
    }

    /// The same with ZFS.
    pub fn zfs(folder: &Path) -> Result<Disk, String> {
        let (file, place) = Disk::file(folder)?;
        let pool = pool::Pool::make(&file, &place)?;
        Ok(Disk { place, pool: Some(pool) })
    }

    fn made(folder: &Path, maker: &[&str]) -> Result<Disk, String> {
        let (file, place) = Disk::file(folder)?;
        ran(Command::new(maker[0]).args(&maker[1..]).arg(&file), maker[0])?;
        let options = "loop,noatime,discard";
        ran(Command::new("mount").args(["-o", options]).arg(&file).arg(&place), "mounting a disk")?;
        Ok(Disk { place, pool: None })
    }

    fn file(folder: &Path) -> Result<(PathBuf, PathBuf), String> {
        let (file, place) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir(&place).map_err(|e| e.to_string())?;
        let disk = File::create(&file).map_err(|e| e.to_string())?;
        disk.set_len(16 << 30).map_err(|e| e.to_string())?;
        Ok((file, place))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.pool.is_some() {
            return;
        }
        // What was mounted in there, if anything of it is left.
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = format!("{}/", self.place.display());
        let places = table.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| place.starts_with(&below)) {
            let _ = ran(Command::new("umount").arg("--lazy").arg(place), "umount");
        }
        // What was the last in there may still be on its way out.
        let done = ran(Command::new("umount").arg(&self.place), "umount");
        if done.is_err() {
            let _ = ran(Command::new("umount").arg("--lazy").arg(&self.place), "umount");
        }
    }
}
