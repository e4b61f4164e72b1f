//! The disk that simulators start from: built once for a root file system, then copied.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;

const SCRIPT: &str = include_str!("../../rig/golden.sh");

/// The disk for this root file system, built beside it if it is not there yet.
pub async fn disk(rootfs: &Path, pool: &str) -> Result<PathBuf, String> {
    let meta = std::fs::metadata(rootfs).map_err(|e| format!("{}: {e}", rootfs.display()))?;
    let age = meta.modified().ok().and_then(|t| t.elapsed().ok()).map(|_| meta.len());
    let text = format!("{SCRIPT}{pool}{age:?}");
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hex: String = hash.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
    let folder = rootfs.parent().unwrap_or(Path::new("."));
    let disk = folder.join(format!("golden-{hex}.img"));
    let lock_path = folder.join("golden.lock");
    let lock =
        std::fs::File::create(&lock_path).map_err(|e| format!("{}: {e}", lock_path.display()))?;
    // Whoever comes second waits for the first.
    let lock = tokio::task::spawn_blocking(move || {
        flock(&lock, FlockOperation::LockExclusive).map(|()| lock)
    });
    let _lock = lock.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    if disk.exists() {
        return Ok(disk);
    }
    let part = folder.join("golden.part");
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
        .args(["bash", "-c", SCRIPT, "golden.sh"])
        .arg(rootfs.canonicalize().map_err(|e| e.to_string())?)
        .arg(&part)
        .arg(pool)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| format!("unshare: {e}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the disk can't be built: {}", text.trim()));
    }
    std::fs::rename(&part, &disk).map_err(|e| e.to_string())?;
    // Those of older root file systems are of no use any more.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("golden-") && entry.path() != disk {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(disk)
}
