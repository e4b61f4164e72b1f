//! A pool of ZFS on a file, by a daemon of its own: the kernel need not have ZFS.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::ran;

/// Held by whoever runs the daemon, of which a machine has one.
const LOCK: &str = "/run/sandscript-zfs-fuse.lock";

/// Why there can't be one: a skip, or with `CI=true` a failure.
pub fn lacks() -> Option<String> {
    if !Path::new("/usr/sbin/zfs-fuse").exists() {
        return Some("/usr/sbin/zfs-fuse is not there (package zfs-fuse)".into());
    }
    (!Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".into())
}

/// A pool, as long as it is held.
pub struct Pool {
    name: String,
    daemon: Child,
    _lock: File,
}

impl Pool {
    /// Makes one in a file, mounted at a place.
    pub fn make(file: &Path, place: &Path) -> Result<Pool, String> {
        let lock = File::create(LOCK).map_err(|e| e.to_string())?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "/usr/sbin/zfs-fuse", "--no-daemon"]);
        command.args(["--no-kstat-mount", "-a", "1", "-e", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = command.spawn().map_err(|e| format!("zfs-fuse: {e}"))?;
        let name = format!("sandscript{}", std::process::id());
        let pool = Pool { name, daemon, _lock: lock };
        let answers = || ran(Command::new("/usr/sbin/zpool").arg("list"), "zpool").is_ok();
        if !(0..400).any(|_| answers() || !wait()) {
            return Err("zfs-fuse does not answer".into());
        }
        let mut make = Command::new("/usr/sbin/zpool");
        make.args(["create", "-f", "-o", "cachefile=none", "-m"]);
        ran(make.arg(place).arg(&pool.name).arg(file), "zpool create")?;
        Ok(pool)
    }

    /// What a command of ZFS says.
    pub fn says(program: &str, args: &[&str]) -> Result<String, String> {
        let program = PathBuf::from("/usr/sbin").join(program);
        let output = Command::new(program).args(args).output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn wait() -> bool {
    std::thread::sleep(std::time::Duration::from_millis(25));
    true
}

impl Drop for Pool {
    fn drop(&mut self) {
        let destroyed = || Pool::says("zpool", &["destroy", "-f", &self.name]).is_ok();
        // What was mounted last may still be on its way out.
        let _ = (0..80).any(|_| destroyed() || !wait());
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let ended = |daemon: &mut Child| matches!(daemon.try_wait(), Ok(Some(_)));
        if !(0..200).any(|_| ended(&mut self.daemon) || !wait()) {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
        // Nobody is behind what others kept busy.
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = table.lines().rev().filter(|line| line.starts_with(&self.name));
        for place in own.filter_map(|line| line.split(' ').nth(1)) {
            let _ = ran(Command::new("umount").arg("--lazy").arg(place), "umount");
        }
    }
}
