//! The NAS' own root: files in it, commands in it.

mod paths;
pub mod serve;
pub mod tool;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::fail::Fail;

pub use paths::Looked;

/// The NAS' own root.
pub struct Host {
    /// Where it is, as this process sees it.
    pub root: PathBuf,
    /// Process 1 of the namespaces that commands run in; without them there are no commands.
    pub pid: Option<u32>,
}

impl Host {
    /// A root made of folders, for a NAS without containers.
    pub fn plain(root: &Path, pool: &str) -> std::io::Result<Self> {
        for folder in ["etc", "root", "tmp", "var/log/jobs", &format!("mnt/{pool}")] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::write(root.join("etc/hostname"), "truenas\n")?;
        Ok(Self { root: root.to_owned(), pid: None })
    }

    /// A command in the host's namespaces and root; its arguments are still to be given.
    pub fn command(&self, program: &str) -> Result<Command, Fail> {
        let Some(pid) = self.pid else {
            return Err(Fail::fault(
                "this simulator was started without a root file system: it runs no commands",
            ));
        };
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid.to_string(), "-m", "-u", "-p", "--", "chroot", "/mnt/host"])
            .args(["/usr/bin/env", "-i"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["HOME=/root", "LANG=C.UTF-8", "TERM=xterm-256color"])
            .arg(program)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// A shell command as cron runs it.
    pub fn shell(&self, user: &str, script: &str) -> Result<Command, Fail> {
        let mut command = self.command("sudo")?;
        command.args(["-H", "-u", user, "sh", "-c", script]);
        Ok(command)
    }

    /// The number and group of a user in `/etc/passwd`.
    pub fn user(&self, name: &str) -> Option<(u32, u32)> {
        if name == "root" {
            return Some((0, 0));
        }
        self.entry("etc/passwd", |f| f[0] == name)
            .and_then(|f| Some((f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?)))
    }

    /// The name of a number in `/etc/passwd` or `/etc/group`.
    pub fn name(&self, file: &str, id: u32) -> Option<String> {
        let id = id.to_string();
        self.entry(file, |f| f.get(2) == Some(&id.as_str())).and_then(|f| f.into_iter().next())
    }

    /// The number of a group in `/etc/group`.
    pub fn group(&self, name: &str) -> Option<u32> {
        if name == "root" {
            return Some(0);
        }
        self.entry("etc/group", |f| f[0] == name).and_then(|f| f.get(2)?.parse().ok())
    }

    fn entry(&self, file: &str, wanted: impl Fn(&[&str]) -> bool) -> Option<Vec<String>> {
        let text = std::fs::read_to_string(self.root.join(file)).ok()?;
        text.lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| wanted(fields))
            .map(|fields| fields.into_iter().map(str::to_owned).collect())
    }
}
