//! A real Incus daemon for tests, in namespaces of its own, with an image to start from.
//!
//! The disk with the daemon's first state is built once and copied for each daemon. When the test
//! program ends, however it ends, the daemon's standard input does, and with it all of its processes.
#![allow(dead_code)]

pub mod cluster;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

const GOLDEN: &str = include_str!("golden.sh");
const INIT: &str = include_str!("init.pl");
const RUN: &str = include_str!("run.sh");
const REGISTRY: &str = "/var/tmp/sandscript-incus";

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<std::process::ChildStdout>,
    /// Process 1 of its namespaces.
    pid: u32,
    /// What its bridge, its folder and its cgroups are called.
    pub name: String,
    /// Its bridge's network, such as `10.110.7`.
    pub network: String,
    entry: Option<PathBuf>,
    _lock: File,
    disk: PathBuf,
}

/// Why no daemon can be started here: a skip, or with `CI=true` a failure.
pub fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("an Incus daemon needs root".into());
    }
    for (program, package) in [
        ("/usr/libexec/incus/incusd", "incus-base"),
        ("/usr/bin/incus", "incus-client"),
        ("/usr/bin/mmdebstrap", "mmdebstrap"),
        ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ] {
        if !Path::new(program).exists() {
            return Some(format!("{program} is not there (package {package})"));
        }
    }
    let ranged = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.starts_with("root:"))
    };
    let without = ["/etc/subuid", "/etc/subgid"].into_iter().find(|file| !ranged(file))?;
    Some(format!("{without} has no range for root"))
}

/// A folder for what is built once.
fn cache() -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nas");
    std::fs::create_dir_all(&cache).map_err(|e| e.to_string())?;
    cache.canonicalize().map_err(|e| e.to_string())
}

fn ran(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", text.lines().last().unwrap_or_default()))
}

/// The disk that daemons start from. Whoever comes second waits for the first.
fn golden() -> Result<PathBuf, String> {
    let folder = cache()?;
    let lock = File::create(folder.join("golden.lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    let rootfs = debian(&folder)?;
    let size = std::fs::metadata(&rootfs).map_err(|e| e.to_string())?.len();
    let hash = blake3::hash(format!("{GOLDEN}{INIT}{size}").as_bytes()).to_hex();
    let disk = folder.join(format!("incus-{}.img", &hash[..12]));
    if !disk.exists() {
        let part = folder.join("incus.part");
        ran(
            Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
                .args(["bash", "-c", GOLDEN, "golden.sh"])
                .args([&rootfs, &part])
                .arg(INIT),
            "building the daemon's disk",
        )?;
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("incus-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        std::fs::rename(&part, &disk).map_err(|e| e.to_string())?;
    }
    Ok(disk)
}

/// A Debian root file system in this folder, made if it is not there yet. Somebody holds the folder's lock.
fn debian(folder: &Path) -> Result<PathBuf, String> {
    let rootfs = folder.join("debian.tar");
    if !rootfs.exists() {
        // The same as the NAS simulator's, so that it is built once for both.
        let part = folder.join("debian.part.tar");
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
    Ok(rootfs)
}

/// A Debian root file system, and the folder that keeps it.
#[allow(dead_code)]
pub fn rootfs() -> Result<PathBuf, String> {
    let folder = cache()?;
    let lock = File::create(folder.join("golden.lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    debian(&folder)
}

impl Daemon {
    /// Starts a daemon with a network of its own. `folder` is where its disk goes.
    pub fn start(folder: &Path) -> Result<Daemon, String> {
        let daemon = Daemon::alone(folder)?;
        daemon.bridge()?;
        Ok(daemon)
    }

    /// The same without a network.
    pub fn alone(folder: &Path) -> Result<Daemon, String> {
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
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "bash", "-c", RUN, "run.sh"])
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
        let network = format!("10.{}.{}", 110 + number / 200, number % 200);
        let daemon = Daemon {
            child,
            stdin,
            lines,
            pid,
            name,
            network,
            entry: Some(entry),
            _lock: lock,
            disk,
        };
        daemon.ready()?;
        Ok(daemon)
    }

    /// Its socket, seen from here.
    pub fn socket(&self) -> PathBuf {
        self.folder().join("unix.socket")
    }

    /// The folder of the client's settings.
    pub fn client(&self) -> PathBuf {
        self.disk.with_file_name("client")
    }

    /// Runs the client against it.
    pub fn incus(&self, args: &[&str]) -> Result<String, String> {
        client(&self.socket(), &self.client(), args)
    }

    /// Runs a line of a shell where the daemon's files are.
    pub fn inside(&self, line: &str) -> Result<(), String> {
        let pid = self.pid.to_string();
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &pid, "sh", "-c", line])
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn ready(&self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.incus(&["query", "/1.0"]) {
            if Instant::now() > until {
                let log = format!("/proc/{}/root/mnt/incusd.log", self.pid);
                let log = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("the daemon does not answer: {error} {log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn bridge(&self) -> Result<(), String> {
        let address = format!("ipv4.address={}.1/24", self.network);
        let create =
            ["network", "create", &self.name, &address, "ipv4.nat=true", "ipv6.address=none"];
        // The daemon looks at all of the machine's interfaces, and gives up when one goes meanwhile.
        let mut tries = 0;
        while let Err(error) = self.incus(&create) {
            tries += 1;
            if tries == 20 {
                return Err(error);
            }
            let _ = self.incus(&["network", "delete", &self.name]);
            std::thread::sleep(Duration::from_millis(50));
        }
        let network = format!("network={}", self.name);
        self.incus(&["profile", "device", "add", "default", "eth0", "nic", &network]).map(drop)
    }

    /// Lets it listen by HTTPS, on a free port of the loopback interface.
    pub fn https(&self) -> Result<u16, String> {
        let mut last = String::new();
        for _ in 0..20 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
            let port = free.local_addr().map_err(|e| e.to_string())?.port();
            drop(free);
            // Somebody else may have it by now.
            match self.incus(&["config", "set", "core.https_address", &format!("127.0.0.1:{port}")])
            {
                Ok(_) => return Ok(port),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The daemon's own folder, seen from here.
    pub fn folder(&self) -> PathBuf {
        format!("/proc/{}/root/mnt/{}", self.pid, self.name).into()
    }

    fn order(&mut self, word: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("it is over")?;
        stdin.write_all(format!("{word}\n").as_bytes()).map_err(|e| e.to_string())?;
        let mut line = String::new();
        self.lines.read_line(&mut line).map(drop).map_err(|e| e.to_string())
    }

    /// Kills the daemon; its containers go on.
    pub fn kill(&mut self) -> Result<(), String> {
        self.order("kill")
    }

    /// Lets it stand still: it is there, and says nothing.
    pub fn stand_still(&mut self) -> Result<(), String> {
        self.order("stop")
    }

    /// Lets it go on.
    pub fn go_on(&mut self) -> Result<(), String> {
        self.order("go")
    }

    /// Starts it again and waits until it answers.
    pub fn again(&mut self) -> Result<(), String> {
        self.order("start")?;
        self.ready()
    }
}

impl Drop for Daemon {
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

/// Process 1 of the namespaces that a child made.
fn process_one(child: &Child) -> Result<u32, String> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let pid = std::fs::read_to_string(children).unwrap_or_default();
    pid.trim().parse().map_err(|_| "the daemon did not start".to_owned())
}

/// Runs the client against a socket.
fn client(socket: &Path, settings: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new("/usr/bin/incus")
        .args(args)
        .env("INCUS_SOCKET", socket)
        .env("INCUS_CONF", settings)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    reap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Lets those go that the client has left behind, which are ours where orphans are.
fn reap() {
    let own = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    for pid in children.unwrap_or_default().split_whitespace() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        // Nobody waits for the first of a session that the client has made.
        let left = name.ends_with("(incus") && fields.first() == Some(&"Z");
        if left && fields.get(3) == Some(&pid) {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
        }
    }
}

/// Removes what the dead left, and takes a number.
fn enter() -> Result<(u32, PathBuf, File), String> {
    std::fs::create_dir_all(REGISTRY).map_err(|e| format!("{REGISTRY}: {e}"))?;
    let mut taken = None;
    for number in 1..=99 {
        let path = Path::new(REGISTRY).join(number.to_string());
        if taken.is_some() && !path.exists() {
            continue;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let disk = std::fs::read_to_string(&path).unwrap_or_default();
        if disk.ends_with("incus.img") {
            let _ = std::fs::remove_file(disk);
        }
        clear(&format!("ssincus{number}"), &path);
        if taken.is_none() {
            // The file was removed while we held its lock: make it anew and hold that.
            let file = File::create(&path).map_err(|e| e.to_string())?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| e.to_string())?;
            taken = Some((number, path, file));
        }
    }
    taken.ok_or_else(|| "99 daemons run already".to_owned())
}

/// Removes a bridge, its rules and its cgroups: they are the whole machine's.
fn clear(name: &str, entry: &Path) {
    if Path::new("/sys/class/net").join(name).exists() {
        let _ = Command::new("ip").args(["link", "delete", name]).status();
        for family in ["inet", "ip", "ip6"] {
            let chains = Command::new("nft").args(["list", "chains", family]).output();
            let text = chains.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            let text = text.unwrap_or_default();
            for chain in text.split_whitespace().filter(|w| w.ends_with(&format!(".{name}"))) {
                let delete = ["delete", "chain", family, "incus", chain];
                let _ = Command::new("nft").args(delete).output();
            }
        }
    }
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for tree in trees.map(|tree| tree.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
        fold(&tree.join(name));
    }
    let _ = std::fs::remove_file(entry);
}

/// Removes a cgroup and those in it.
fn fold(folder: &Path) {
    let inner = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inner.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        fold(&entry.path());
    }
    let _ = std::fs::remove_dir(folder);
}
