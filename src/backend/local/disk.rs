//! Limits on what a sandbox may write: its upper layer in a file system of its own, in a file.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, fstatfs, mkdirat, openat};

use super::Inner;
use super::mode::Mode as Rights;
use super::record::store_error;
use crate::sandbox::{Error, Limits, Result};

/// The file beside the trees of an upper layer.
pub const IMAGE: &str = "disk.img";

const MAKER: &[&str] = &["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];
/// Without a limit on bytes the file is this long; it takes up only what is written.
const LARGEST: u64 = 64 << 30;
const JOURNAL: u64 = 4 << 20;

/// Whether the limits ask for it.
pub fn wanted(limits: &Limits) -> bool {
    limits.disk.is_some() || limits.inodes.is_some()
}

/// Why it can't be had here.
pub fn missing(mode: &Rights) -> Option<String> {
    if *mode != Rights::Root {
        return Some("needs root for a loop device: run it with sudo".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there is no /dev/loop-control: `modprobe loop`".into());
    }
    if maker().is_none() {
        return Some("mkfs.ext4 is missing: install the package e2fsprogs".into());
    }
    None
}

fn maker() -> Option<&'static Path> {
    MAKER.iter().map(Path::new).find(|path| path.exists())
}

impl Inner {
    /// Makes the file system of an upper layer, when the limits ask for one.
    pub(super) async fn limit_disk(&self, upper: &str, limits: &Limits) -> Result<()> {
        if !wanted(limits) {
            return Ok(());
        }
        let (path, limits) = (self.store.layer(upper).join(IMAGE), limits.clone());
        tokio::task::spawn_blocking(move || make(&path, &limits))
            .await
            .unwrap_or_else(|error| Err(Error::internal(format!("limiting the disk: {error}"))))
    }
}

/// ext4 rounds the number of inodes up: uses up what is too many, out of the guest's sight.
pub fn reserve(disk: &OwnedFd, inodes: u64) -> std::io::Result<()> {
    let reserve = ".work-reserve";
    match mkdirat(disk, reserve, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        // It was done at the first start.
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // The trees' folders and the overlay's work folders need some.
    let spare = fstatfs(disk)?.f_ffree.saturating_sub(inodes + 24);
    for number in 0..spare {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(disk, format!("{reserve}/{number}"), flags, Mode::empty())?;
    }
    Ok(())
}

/// ext4 needs room of its own beside what the guest may write: inodes, bitmaps, journal.
fn make(path: &Path, limits: &Limits) -> Result<()> {
    // Inodes come in portions of 16 for each 128 MiB: few inodes need a small file system.
    let sized = limits.inodes.unwrap_or(u64::MAX).saturating_mul(1 << 20).clamp(1 << 30, LARGEST);
    let bytes = limits.disk.unwrap_or(sized);
    // Its own first inodes, and the folders that a layer consists of.
    let inodes = limits.inodes.unwrap_or(bytes / 16384 + 1024).saturating_add(24).min(1 << 31);
    let size = (bytes + inodes * 256 + JOURNAL + (2 << 20)).next_multiple_of(4096);
    let file = File::options().create_new(true).write(true).open(path);
    file.and_then(|file| file.set_len(size)).map_err(|error| store_error("making", path, error))?;
    let maker = maker().ok_or_else(|| Error::internal("mkfs.ext4 has gone"))?;
    let output = Command::new(maker)
        .args(["-q", "-F", "-m", "0", "-b", "4096", "-I", "256"])
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-J", "size=4"])
        .args(["-N", &inodes.to_string()])
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::io("running mkfs.ext4", error))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Error::invalid(
        "disk",
        format!("mkfs.ext4 refuses {size} bytes with {inodes} inodes: {}", message.trim()),
    ))
}
