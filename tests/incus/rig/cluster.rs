//! A cluster of two real Incus daemons on this machine, `a` and `b`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::{clear, client, enter, golden, process_one, ran};

const CLUSTER: &str = include_str!("cluster.sh");

/// A cluster that runs.
pub struct Cluster {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<std::process::ChildStdout>,
    /// Process 1 of its namespaces.
    pid: u32,
    name: String,
    entry: Option<PathBuf>,
    _lock: File,
    disk: PathBuf,
}

impl Cluster {
    /// Starts one. `folder` is where its disk goes.
    pub fn start(folder: &Path) -> Result<Cluster, String> {
        let golden = golden()?;
        let (number, entry, lock) = enter()?;
        let name = format!("ssincus{number}");
        let disk = folder.join("incus.img");
        std::fs::write(&entry, disk.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
        ran(
            Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([&golden, &disk]),
            "copying the disk",
        )?;
        let mut child = Command::new("unshare")
            .args(["--mount", "--uts", "--pid", "--net", "--fork", "--kill-child"])
            .args(["--propagation", "private", "bash", "-c", CLUSTER, "cluster.sh"])
            .arg(&disk)
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut ready = String::new();
        let _ = lines.read_line(&mut ready);
        let pid = process_one(&child)?;
        let cluster =
            Cluster { child, stdin, lines, pid, name, entry: Some(entry), _lock: lock, disk };
        cluster.online("b")?;
        Ok(cluster)
    }

    /// The socket of a member, seen from here.
    pub fn socket(&self, member: &str) -> PathBuf {
        format!("/proc/{}/root/mnt/{}-{member}/unix.socket", self.pid, self.name).into()
    }

    /// What runs a program where the members' addresses are, with its arguments before the program's.
    pub fn beside(&self) -> [String; 4] {
        ["nsenter".into(), "--net".into(), "--target".into(), self.pid.to_string()]
    }

    /// A path on the members' disk, seen from here; `{}` is a member's folder.
    pub fn folder(&self, member: &str) -> PathBuf {
        format!("/proc/{}/root/mnt/{}-{member}", self.pid, self.name).into()
    }

    /// Runs the client against member `a`.
    pub fn incus(&self, args: &[&str]) -> Result<String, String> {
        client(&self.socket("a"), &self.disk.with_file_name("client"), args)
    }

    /// Waits until the cluster counts on a member.
    pub fn online(&self, member: &str) -> Result<(), String> {
        self.until(|list| {
            list.lines().any(|l| l.starts_with(&format!("{member},")) && l.contains("ONLINE"))
        })
    }

    /// Waits until the cluster no longer counts on a member.
    pub fn offline(&self, member: &str) -> Result<(), String> {
        self.until(|list| {
            list.lines().any(|l| l.starts_with(&format!("{member},")) && l.contains("OFFLINE"))
        })
    }

    fn until(&self, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let list = self.incus(&["cluster", "list", "--format", "csv"]);
            if list.as_ref().is_ok_and(|list| wanted(list)) {
                return Ok(());
            }
            if Instant::now() > end {
                let log = format!("/proc/{}/root/mnt/cluster.log", self.pid);
                let log = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("the cluster is not as it should be: {list:?} {log}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn order(&mut self, word: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("it is over")?;
        stdin.write_all(format!("{word}\n").as_bytes()).map_err(|e| e.to_string())?;
        let mut line = String::new();
        self.lines.read_line(&mut line).map(drop).map_err(|e| e.to_string())
    }

    /// Kills a member's daemon; its containers go on.
    pub fn kill(&mut self, member: &str) -> Result<(), String> {
        self.order(&format!("kill {member}"))
    }

    /// Starts it again and waits until the cluster counts on it.
    pub fn again(&mut self, member: &str) -> Result<(), String> {
        self.order(&format!("start {member}"))?;
        let end = Instant::now() + Duration::from_secs(60);
        let state = format!("/1.0/cluster/members/{member}/state");
        while self.incus(&["query", &state]).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.online(member)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(entry) = self.entry.take() {
            clear(&self.name, &entry);
        }
        let _ = std::fs::remove_file(&self.disk);
    }
}
