//! A host that systemd has booted, made of a small Debian, and this program in it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

#[cfg(feature = "ssh")]
use sandscript::backend::nspawn::remote::{Access, RemoteConfig};

use super::booted::{cache, ran};

const HOST: &str = include_str!("host.sh");

/// What is in it besides a minimal Debian.
const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus,systemd-container,openssh-server,btrfs-progs,\
    sudo,iproute2,netbase,ca-certificates";

/// What is not to start there: it would set this machine's kernel up, use its ports, or take time.
const MASKED: &[&str] = &[
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-journal-flush.service",
    "systemd-timesyncd.service",
    "ssh.service",
    "ssh.socket",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "console-getty.service",
];

/// A booted host, as long as it is held.
pub struct Host {
    child: Child,
    /// It ends when this is closed.
    word: Option<ChildStdin>,
    leader: String,
    folder: PathBuf,
    /// How its machines are worked on by SSH, where they are.
    #[cfg(feature = "ssh")]
    pub way: Option<RemoteConfig>,
}

impl Host {
    /// Boots one; what it writes goes to `disk`.
    pub fn boot(folder: &Path, disk: &Path) -> Result<Host, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        Host::with(folder, disk, &program, Command::new("bash"))
    }

    /// The same with another program, and with a network of its own; one that was booted before goes on with
    /// what it had written.
    pub fn apart(folder: &Path, disk: &Path, program: &Path) -> Result<Host, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "bash"]);
        Host::with(folder, disk, program, command)
    }

    fn with(
        folder: &Path,
        disk: &Path,
        program: &Path,
        mut command: Command,
    ) -> Result<Host, String> {
        let tree = tree()?;
        let own = folder.join("host");
        std::fs::create_dir_all(&own).map_err(|e| e.to_string())?;
        let name = folder.file_name().unwrap_or_default();
        command.args(["-c", HOST, "host.sh"]).arg(tree).arg(&own).arg(disk);
        command.arg(cache()?).arg(program).arg(name);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| format!("bash: {e}"))?;
        let word = child.stdin.take();
        let mut leader = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut leader).map_err(|e| e.to_string())?;
        let host = Host {
            child,
            word,
            leader: leader.trim().to_owned(),
            folder: own,
            #[cfg(feature = "ssh")]
            way: None,
        };
        if host.leader.is_empty() {
            let log = std::fs::read_to_string(host.folder.join("host.log")).unwrap_or_default();
            return Err(format!("no host boots: {}", log.lines().last().unwrap_or_default()));
        }
        Ok(host)
    }

    /// A program of its, to be run there.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader, "-m", "-n", "-p", "-u", "-i", "-C", "--"]).args(argv);
        command.env("SYSTEMD_PAGER", "").env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// What a program says there; an error if it fails.
    pub fn says(&self, argv: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            self.command(argv).output().map_err(|e| format!("nsenter: {e}"))?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
            false => Err(format!("{argv:?}: {}", String::from_utf8_lossy(&stderr).trim())),
        }
    }

    /// Starts this program as a service there, which is to listen at a socket; the way to it from here.
    pub fn serve(&self, word: &str) -> Result<PathBuf, String> {
        let properties = ["KillMode=process", "TasksMax=infinity", "LimitNOFILE=65536"];
        let mut argv = vec!["systemd-run", "--quiet", "--collect", "--unit=suite.service"];
        argv.extend(properties.iter().flat_map(|one| ["--property", one]));
        argv.extend(["--", "/usr/local/bin/suite", word, "/srv/session"]);
        self.says(&argv)?;
        let socket = self.folder.join("session");
        for _ in 0..6000 {
            if socket.exists() {
                return Ok(socket);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err(self.says(&["journalctl", "-u", "suite.service", "-n", "5"]).unwrap_or_default())
    }
}

/// An SSH server there.
#[cfg(feature = "ssh")]
pub struct Sshd {
    /// At the loopback interface.
    pub port: u16,
    /// Its unit.
    pub unit: String,
    /// The SHA-256 of its host key.
    pub key: String,
}

#[cfg(feature = "ssh")]
impl Host {
    /// Starts an SSH server there that lets a key in, which is made here. It sees the host as it is after `before`,
    /// which is done where nobody else sees it.
    pub fn sshd(&self, name: &str, before: &str) -> Result<Sshd, String> {
        let failed = |error: std::io::Error| error.to_string();
        let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let port = free.local_addr().map_err(failed)?.port();
        drop(free);
        let key = self.key();
        if !key.exists() {
            let file = key.display().to_string();
            let args = ["-q", "-t", "ed25519", "-N", "", "-f", &file];
            ran(Command::new("ssh-keygen").args(args), "ssh-keygen")?;
            std::fs::copy(key.with_extension("pub"), self.folder.join("authorized"))
                .map_err(failed)?;
        }
        let unit = format!("suite-sshd-{name}.service");
        let sshd = format!(
            "mkdir -p /run/sshd; {before} exec $WRAP /usr/sbin/sshd -D -e -f /dev/null -o Port={port} -o ListenAddress=127.0.0.1 \
             -o HostKey=/etc/ssh/ssh_host_ed25519_key -o AuthorizedKeysFile=/srv/authorized -o StrictModes=no \
             -o PidFile=none -o UsePAM=no -o PermitRootLogin=prohibit-password -o MaxStartups=100"
        );
        // systemd takes a dollar sign for the beginning of a variable's name, and two for one.
        let sshd = sshd.replace('$', "$$");
        let mut argv = vec!["systemd-run", "--quiet", "--collect", "--unit", &unit];
        for property in ["KillMode=process", "TasksMax=infinity", "LimitNOFILE=65536"] {
            argv.extend(["--property", property]);
        }
        argv.push("--");
        if !before.is_empty() {
            argv.extend(["unshare", "--mount", "--propagation", "private"]);
        }
        argv.extend(["sh", "-c", &sshd]);
        self.says(&argv)?;
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                let key = self.says(&["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"])?;
                let key = key.split(' ').nth(1).unwrap_or_default().to_owned();
                return Ok(Sshd { port, unit, key });
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err(self.says(&["journalctl", "-u", &unit, "-n", "5"]).unwrap_or_default())
    }

    /// The key that its SSH servers let in.
    pub fn key(&self) -> PathBuf {
        self.folder.join("id")
    }

    /// What is sent there: this program, without what only a debugger reads.
    pub fn program(&self) -> Result<PathBuf, String> {
        let lean = self.folder.join("lean");
        if !lean.exists() {
            let program = std::env::current_exe().map_err(|error| error.to_string())?;
            ran(Command::new("strip").arg("-o").arg(&lean).arg(program), "strip")?;
        }
        Ok(lean)
    }

    /// The way there for our backend.
    pub fn far(&self, user: &str, sshd: &Sshd) -> Result<RemoteConfig, String> {
        Ok(RemoteConfig {
            host: format!("{user}@127.0.0.1:{}", sshd.port),
            access: Access {
                key: Some(self.key()),
                host_key: Some(sshd.key.clone()),
                ..Access::default()
            },
            helper: Some(self.program()?),
            ..RemoteConfig::default()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.word.take());
        let _ = self.child.wait();
    }
}

/// The files of a host, made once.
fn tree() -> Result<PathBuf, String> {
    let cache = cache()?;
    let lock = File::create(cache.join("host.lock")).map_err(|e| e.to_string())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| e.to_string())?;
    let hash = blake3::hash(format!("{PACKAGES}{MASKED:?}").as_bytes()).to_hex();
    let tree = cache.join(format!("host-{}", &hash[..12]));
    if tree.exists() {
        return Ok(tree);
    }
    let part = cache.join("host.part");
    ran(Command::new("rm").arg("-rf").arg(&part), "rm")?;
    std::fs::create_dir(&part).map_err(|e| e.to_string())?;
    let args = ["--quiet", "--variant=minbase", "--format=directory", PACKAGES, "bookworm"];
    ran(Command::new("mmdebstrap").args(args).arg(&part), "mmdebstrap")?;
    for unit in MASKED {
        let link = part.join("etc/systemd/system").join(unit);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink("/dev/null", link).map_err(|e| e.to_string())?;
    }
    std::fs::rename(&part, &tree).map_err(|e| e.to_string())?;
    Ok(tree)
}
