//! A host that systemd has booted: each machine is a service of it, and known to its machined.
//!
//! The services are transient: they are as old as the start of the machine, and nothing of them is in `/etc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{self, reap};
use super::machine::render::stamp::{Whose, whose};
use super::machine::render::{Places, quote, unit_name};
use super::record::{Run, started};
use crate::backend::local::boot;
use crate::backend::local::cgroup::Controller;
use crate::sandbox::{Limits, Result};

/// The folder that is there where systemd is the first process.
const BOOTED: &str = "/run/systemd/system";
/// Where systemd's programs look for machines by their names.
pub(super) const REGISTER: &str = "/run/systemd/machines";
/// The slice that machines are in, as those of others.
const SLICE: &str = "machine.slice";
/// What the drop-in is called that is rendered of a machine of a file.
const DROPIN: &str = "50-sandscript.conf";
/// How long a service may take to be gone that was killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where hooks are run, too, that have times of their own.
const WITH_HOOKS: Duration = Duration::from_secs(300);

/// What keeps a machine to its gate: sockets that reach past the network, io_uring and programs of other
/// architectures are denied as where systemd is not the first process.
pub(super) const CONFINED: &[&str] = &[
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET",
    "SystemCallArchitectures=native",
    "SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register",
    "SystemCallErrorNumber=EPERM",
];

/// What each machine's service is like besides.
const PROPERTIES: &[&str] = &[
    "Type=notify",
    "KillMode=mixed",
    "Delegate=yes",
    "OOMPolicy=continue",
    "TimeoutStartSec=infinity",
    "TimeoutStopSec=30",
    "DevicePolicy=closed",
    "DeviceAllow=char-pts rw",
    "DeviceAllow=/dev/net/tun rwm",
    "CPUAccounting=yes",
    "MemoryAccounting=yes",
    "TasksAccounting=yes",
    "PartOf=machines.target",
    "Before=machines.target",
];

/// The systemd of this host.
#[derive(Clone)]
pub(super) struct Systemd {
    /// Where version 2 of cgroups is mounted.
    unified: Option<PathBuf>,
    /// Where there is a hierarchy of version 1 for a controller.
    legacy: Vec<(Controller, PathBuf)>,
    /// What version 2 has.
    controllers: Vec<Controller>,
}

/// A machine's service.
pub(super) struct Service<'a> {
    /// What it is called.
    pub unit: &'a str,
    /// The sandbox that it is.
    pub name: &'a str,
    /// The machine's files.
    pub tree: &'a Path,
    /// Where its console goes.
    pub log: &'a Path,
    /// The program and its arguments.
    pub program: Vec<String>,
}

/// A service that was started; it is told when its machine is ready, or has failed.
pub(super) type Job = oneshot::Receiver<Option<ExitStatus>>;

/// Whether systemd has booted this host.
pub(super) fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

impl Systemd {
    /// Looks at what it can limit.
    pub fn probe() -> Systemd {
        Systemd::of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn of(mounts: &str) -> Systemd {
        let (mut unified, mut legacy) = (None, Vec::new());
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (mut left, mut right) = (left.split(' '), right.split(' '));
            let (Some(point), Some(kind), Some(options)) =
                (left.nth(4), right.next(), right.nth(1))
            else {
                continue;
            };
            match kind {
                "cgroup2" => unified = unified.or_else(|| Some(PathBuf::from(point))),
                "cgroup" => legacy.extend(
                    Controller::ALL
                        .iter()
                        .filter(|one| options.split(',').any(|option| option == one.name()))
                        .map(|one| (*one, PathBuf::from(point))),
                ),
                _ => {}
            }
        }
        let file = unified.as_ref().map(|unified: &PathBuf| unified.join("cgroup.controllers"));
        let words = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let there = |one: &&Controller| words.split_whitespace().any(|word| word == one.name());
        let controllers = Controller::ALL.iter().filter(there).copied().collect();
        Systemd { unified, legacy, controllers }
    }

    /// Why something can't be limited here; none when it can.
    pub fn missing(&self, controller: Controller) -> Option<&'static str> {
        let there = self.controllers.contains(&controller)
            || self.legacy.iter().any(|(one, _)| *one == controller);
        (!there).then_some("this host's kernel has no such cgroup controller")
    }

    /// Why nothing can be made to stand still; none when it can.
    pub fn cannot_freeze(&self) -> Option<&'static str> {
        match &self.unified {
            Some(_) => None,
            None => Some(
                "this host has no cgroups of version 2: boot it with systemd.unified_cgroup_hierarchy=1",
            ),
        }
    }

    /// What a machine's run is going to be.
    pub fn run(&self, unit: &str) -> Run {
        let below = |mount: &Path| mount.join(SLICE).join(unit);
        let own = self.unified.as_deref().map(below);
        let legacy = self.legacy.iter().map(|(_, mount)| below(mount));
        Run {
            groups: own.iter().cloned().chain(legacy).collect(),
            // What systemd-nspawn makes in there for all but itself.
            whole: own.map(|own| own.join("payload")),
            unit: Some(unit.to_owned()),
            ..Run::default()
        }
    }

    /// The run of a machine that the host knows by this name, if it is one of ours: of a service that we started,
    /// or, where its files in `rendered` are those of a machine of a file, of the one that was rendered of it,
    /// whoever started that.
    pub fn found(&self, known: &str, rendered: Option<&Path>) -> Option<Run> {
        let text = fs::read_to_string(Path::new(REGISTER).join(known)).ok()?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let own = value("SCOPE")?.replace(r"\\", r"\");
        let own = match rendered {
            None => Some(unit(known)),
            Some(root) => is_rendered(known, root).then(|| unit_name(known)),
        }
        .filter(|one| *one == own)?;
        let leader = value("LEADER")?.parse().ok()?;
        let started = started(leader)?;
        Some(Run { boot: boot(), leader, started, machine: known.to_owned(), ..self.run(&own) })
    }

    /// Starts a service that was rendered. It is told when the machine's own services run.
    pub fn start_rendered(&self, unit: &str) -> std::io::Result<Job> {
        let mut command = Command::new("systemctl");
        // What it says is where to look for what the machine said.
        command.args(["start", unit]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        Ok(reap(command.spawn()?))
    }

    /// Starts a service. It is told when the machine's own services run.
    pub fn start(&self, service: &Service<'_>, limits: &Limits) -> std::io::Result<Job> {
        let Service { unit, name, tree, log, program } = service;
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--unit", unit, "--slice", SLICE]);
        command.arg(format!("--description=sandbox {name} of sandscript"));
        let said = [
            format!("StandardOutput=append:{}", log.display()),
            format!("StandardError=append:{}", log.display()),
            format!("RequiresMountsFor={}", tree.display()),
            // The tree is ours alone: a lock of systemd-nspawn's would be in /run.
            "Environment=SYSTEMD_NSPAWN_LOCK=0".to_owned(),
        ];
        let properties = PROPERTIES.iter().chain(CONFINED).map(|one| (*one).to_owned());
        for property in properties.chain(said).chain(limited(limits)) {
            command.args(["--property", &property]);
        }
        command.arg("--").args(program.iter().map(|word| word.replace('$', "$$")));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().append(true).open(log)?);
        command.env("LC_ALL", "C").env("PATH", command::PATH);
        Ok(reap(command.spawn()?))
    }
}

/// The name of a machine's service.
pub(super) fn unit(known: &str) -> String {
    format!("sandscript-{known}.service")
}

/// Whether what systemd reads of a machine of this name was rendered by us, of one with its files in this folder:
/// anybody may have another of the same name.
pub(super) fn is_rendered(known: &str, root: &Path) -> bool {
    let folder = Places::default().units.join(format!("{}.d", unit_name(known)));
    let text = fs::read_to_string(folder.join(DROPIN)).unwrap_or_default();
    let first = text.lines().find_map(|line| line.strip_prefix("RequiresMountsFor="));
    let root = quote::plain_word(&root.display().to_string());
    whose(&text) != Whose::Foreign && first.is_some() && first == root.as_deref()
}

/// Whether a service is a machine's, and not another one that an administrator has; none where there is none.
pub(super) async fn is_machine(unit: &str) -> Result<Option<bool>> {
    let asked = ["show", "--property=LoadState,Transient,Slice,DropInPaths", unit];
    let said = command::run("systemctl", asked, &format!("looking at {unit}")).await?;
    let says = |name: &str, value: &str| {
        said.lines().any(|line| line.split_once('=') == Some((name, value)))
    };
    let rendered = said
        .lines()
        .any(|line| line.starts_with("DropInPaths=") && line.contains(&format!("/{DROPIN}")));
    let ours = rendered || says("Transient", "yes") && says("Slice", SLICE);
    Ok((ours || !says("LoadState", "not-found")).then_some(ours))
}

/// Waits until a service whose machine was killed is over and systemd has forgotten it; where nobody knows
/// whether it was, `kills` it first, if it is a machine's.
pub(super) async fn end(unit: &str, kills: bool) {
    let doing = format!("ending {unit}");
    let shared = unit.starts_with("systemd-nspawn@");
    // One that is not there is what is wanted, and one of a name that anybody may give is looked at first.
    if (kills || shared) && !matches!(is_machine(unit).await, Ok(Some(true))) {
        return;
    }
    if kills {
        let _ = command::run("systemctl", ["kill", "--signal=KILL", unit], &doing).await;
    }
    let patience = if shared { WITH_HOOKS } else { PATIENCE };
    let stopped = command::run("systemctl", ["stop", unit], &doing);
    if tokio::time::timeout(patience, stopped).await.is_err() {
        let _ = command::run("systemctl", ["kill", "--signal=KILL", unit], &doing).await;
    }
}

fn limited(limits: &Limits) -> Vec<String> {
    let mut all = vec![match limits.pids {
        // systemd-nspawn itself is one.
        Some(pids) => format!("TasksMax={}", pids.saturating_add(1)),
        None => "TasksMax=infinity".to_owned(),
    }];
    // In hundredths of a percent, which is what systemd takes.
    all.extend(limits.cpu.map(|cpus| format!("CPUQuota={:.2}%", (cpus * 100.0).max(1.0))));
    if let Some(bytes) = limits.memory {
        all.extend([format!("MemoryMax={bytes}"), "MemorySwapMax=0".to_owned()]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

    #[test]
    fn what_systemd_can_limit_is_found_in_each_hierarchy() {
        let host = Systemd::of(HYBRID);
        assert_eq!(host.cannot_freeze(), None);
        assert_eq!(host.missing(Controller::Memory), None);
        assert_eq!(host.missing(Controller::Cpu), None);
        let run = host.run("sandscript-a.service");
        let own = "machine.slice/sandscript-a.service";
        assert_eq!(run.whole, Some(format!("/sys/fs/cgroup/unified/{own}/payload").into()));
        let groups = ["unified", "memory", "cpu,cpuacct"];
        let groups = groups.map(|one| PathBuf::from(format!("/sys/fs/cgroup/{one}/{own}")));
        assert_eq!(run.groups, groups);
        assert!(Systemd::of("").cannot_freeze().is_some());
        assert!(Systemd::of("").missing(Controller::Pids).is_some());
    }

    #[test]
    fn limits_are_said_as_systemd_takes_them() {
        let limits =
            Limits { cpu: Some(1.5), memory: Some(64 << 20), pids: Some(100), ..Limits::default() };
        let all = ["TasksMax=101", "CPUQuota=150.00%", "MemoryMax=67108864", "MemorySwapMax=0"];
        assert_eq!(limited(&limits), all);
        assert_eq!(limited(&Limits::default()), ["TasksMax=infinity"]);
    }
}
