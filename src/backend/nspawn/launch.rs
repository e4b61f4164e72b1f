//! Starting a machine, by a `systemd-nspawn` of its own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixDatagram;

use super::super::guest::token;
use super::super::local::{boot, confine, store_error};
use super::authored::{Authored, preflight};
use super::command::{self, PATH, reap};
use super::groups::{self, Groups, Made};
use super::host::Host;
use super::machine::Network;
use super::machine::host::ThisHost;
use super::record::{Machine, RANGE, Run, started};
use super::systemd::{self, Job, REGISTER, Service, Systemd};
use super::{BACKEND, Inner, hooks};
use crate::sandbox::{Error, Result};

/// How long it may take until there is a first process.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long its own services may take to start: after that it is asked for a command all the same.
const SERVICES: Duration = Duration::from_secs(20);
/// How much of what a console said is looked at, in bytes.
const TAIL: u64 = 4096;
/// Where the sockets are that machines tell of themselves by.
const SOCKETS: &str = "/run/sandscript/nspawn";
/// Goes into its cgroups, then becomes what follows.
const JOIN: &str =
    r#"while [ "$1" != -- ]; do echo 0 >"$1" || exit 96; shift; done; shift; exec "$@""#;

/// A machine that was started.
pub(super) struct Launched {
    pub run: Run,
    pub services: Services,
}

/// Who says when a machine's services run.
pub(super) enum Services {
    /// The machine does.
    Told(Told),
    /// The host's systemd does.
    Job(Job),
    /// It was said already.
    Up,
}

/// What a machine tells of itself.
pub(super) struct Told {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Told {
    fn listen() -> io::Result<Told> {
        fs::create_dir_all(SOCKETS)?;
        let path = Path::new(SOCKETS).join(format!("{}-{}", std::process::id(), token()));
        Ok(Told { socket: UnixDatagram::bind(&path)?, path })
    }

    /// The next word of this name.
    async fn word(&self, name: &str) -> io::Result<String> {
        let mut buffer = vec![0; 4096];
        loop {
            let count = self.socket.recv(&mut buffer).await?;
            let text = String::from_utf8_lossy(&buffer[..count]);
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            if let Some(found) = found {
                return Ok(found.to_owned());
            }
        }
    }
}

impl Services {
    /// Waits until they run, or for `longer` than one usually waits; no if the host's systemd says that it has
    /// failed.
    pub async fn up(self, longer: Duration) -> bool {
        let ready = async {
            match self {
                Services::Told(told) => told.word("READY").await.is_ok(),
                Services::Job(job) => {
                    job.await.ok().flatten().is_none_or(|status| status.success())
                }
                Services::Up => true,
            }
        };
        tokio::time::timeout(SERVICES + longer, ready).await.unwrap_or(true)
    }
}

impl Inner {
    /// Starts a machine that does not run. Somebody holds its lock.
    pub(super) async fn launch(&self, name: &str, machine: &Machine) -> Result<Launched> {
        let known = self.store.machine_name(name);
        claim(name, &known, None)?;
        let authored = self.authored(name, machine)?;
        if let Some(authored) = &authored {
            preflight(&authored.file, &ThisHost)?;
        }
        match &self.host {
            Host::Alone(groups) => {
                self.launch_alone(groups, name, &known, machine, authored.as_ref()).await
            }
            Host::Systemd(systemd) => {
                let (unit, launched) = match &authored {
                    None => (
                        systemd::unit(&known),
                        self.launch_unit(systemd, name, &known, machine).await,
                    ),
                    Some(authored) => (
                        authored.unit.clone(),
                        self.launch_rendered(systemd, name, machine, authored).await,
                    ),
                };
                if launched.is_ok() {
                    return launched;
                }
                let others = authored.is_none() && systemd::is_machine(&unit).await? == Some(false);
                systemd::end(&unit, true).await;
                self.store.set_run(name, None)?;
                match others {
                    // It is not asked before: systemd starts no second one of a name.
                    true => Err(Error::Busy {
                        name: name.to_owned(),
                        what: format!("another service of this host is called {unit}"),
                    }),
                    false => launched,
                }
            }
        }
    }

    /// Where a machine's files are, which may be elsewhere in the store than its folder.
    fn place_of(&self, name: &str) -> Result<PathBuf> {
        let tree = self.store.tree(name);
        tree.canonicalize().map_err(|error| store_error("looking at", &tree, error))
    }

    /// By a service of the host's systemd.
    async fn launch_unit(
        &self,
        systemd: &Systemd,
        name: &str,
        known: &str,
        machine: &Machine,
    ) -> Result<Launched> {
        let doing = format!("starting sandbox '{name}'");
        let failed = |error: io::Error| Error::io(&doing, error);
        let (unit, tree) = (systemd::unit(known), self.place_of(name)?);
        let log = self.log(name)?;
        let run = self.begin(systemd, name, known, &unit)?;
        let registered = ["--register=yes".to_owned()];
        let program = std::iter::once("systemd-nspawn".to_owned());
        let program = program.chain(registered).chain(arguments(
            known,
            machine,
            &tree,
            self.storage.ownership(&self.store.tree(name)),
        ));
        let program = program.collect();
        let service = Service { unit: &unit, name, tree: &tree, log: &log, program };
        let job = systemd.start(&service, &machine.record.limits).map_err(failed)?;
        self.follow(name, run, job, Duration::ZERO).await
    }

    /// By the service of the host's systemd that is rendered from a machine's file.
    async fn launch_rendered(
        &self,
        systemd: &Systemd,
        name: &str,
        machine: &Machine,
        authored: &Authored,
    ) -> Result<Launched> {
        let doing = format!("starting sandbox '{name}'");
        self.render(authored, &self.root(name, machine)).await?;
        // What it has failed before is no reason not to try it again.
        let _ = command::run("systemctl", ["reset-failed", &authored.unit], &doing).await;
        let log = self.log(name)?;
        let run = self.begin(systemd, name, &authored.file.name, &authored.unit)?;
        let job = systemd.start_rendered(&authored.unit);
        let job = job.map_err(|error| Error::io(&doing, error))?;
        let launched = self.follow(name, run, job, authored.plan.starting).await?;
        // The service does the same when the machine is ready, which waits for its network.
        for words in &authored.plan.attach {
            let _ = hooks::run(words, &log).await;
        }
        Ok(launched)
    }

    /// Writes down that a service is about to be a machine's run.
    fn begin(&self, systemd: &Systemd, name: &str, known: &str, unit: &str) -> Result<Run> {
        let run = Run { boot: boot(), machine: known.to_owned(), ..systemd.run(unit) };
        self.store.set_run(name, Some(&run))?;
        Ok(run)
    }

    /// Why a machine that was started is gone before it was ready.
    pub(super) fn unready(&self, name: &str) -> Error {
        not_started(name, &self.store.folder(name).join("console.log"))
    }

    /// A new file for what a machine's console says.
    fn log(&self, name: &str) -> Result<PathBuf> {
        let log = self.store.folder(name).join("console.log");
        new_log(&log).map_err(|error| Error::io(format!("starting sandbox '{name}'"), error))?;
        Ok(log)
    }

    /// Waits for the first process of a service that was started.
    async fn follow(
        &self,
        name: &str,
        mut run: Run,
        mut job: Job,
        longer: Duration,
    ) -> Result<Launched> {
        let doing = format!("starting sandbox '{name}'");
        let log = self.store.folder(name).join("console.log");
        let (leader, over) = tokio::select! {
            leader = leader_of(&run.machine) => (leader, false),
            done = &mut job => match (done.ok().flatten(), registered_leader(&run.machine)) {
                (Some(code), Some(leader)) if code.success() => (leader, true),
                _ => return Err(not_started(name, &log)),
            },
            () = tokio::time::sleep(PATIENCE + longer) => {
                return Err(Error::Timeout { what: doing, after: PATIENCE + longer });
            }
        };
        run.leader = leader;
        run.started = started(leader).ok_or_else(|| not_started(name, &log))?;
        self.store.set_run(name, Some(&run))?;
        let services = if over { Services::Up } else { Services::Job(job) };
        Ok(Launched { run, services })
    }

    /// By ourselves, in cgroups of ours.
    async fn launch_alone(
        &self,
        groups: &Groups,
        name: &str,
        known: &str,
        machine: &Machine,
        authored: Option<&Authored>,
    ) -> Result<Launched> {
        let made = groups.make(name, &machine.record.limits)?;
        let launched = self.launch_in(name, known, machine, authored, &made).await;
        if launched.is_err() {
            if let Some(whole) = &made.whole {
                groups::kill(whole);
            }
            if let Some(authored) = authored {
                self.afterwards(name, authored).await;
            }
            groups::remove(&made.folders).await?;
            self.store.set_run(name, None)?;
        }
        launched
    }

    async fn launch_in(
        &self,
        name: &str,
        known: &str,
        machine: &Machine,
        authored: Option<&Authored>,
        made: &Made,
    ) -> Result<Launched> {
        let doing = format!("starting sandbox '{name}'");
        let failed = |error: io::Error| Error::io(&doing, error);
        let told = Told::listen().map_err(failed)?;
        let path = self.log(name)?;
        let mut run = Run {
            boot: boot(),
            groups: made.folders.clone(),
            whole: made.whole.clone(),
            machine: known.to_owned(),
            ..Run::default()
        };
        // Whoever comes after a death of ours finds what there is to be removed.
        self.store.set_run(name, Some(&run))?;
        if let Some(authored) = authored {
            self.beforehand(name, authored).await?;
        }
        let mut command = match authored {
            // What it may call is up to its file, as long as it does not go past the gate.
            Some(authored) if authored.file.network != Network::Gate => Command::new("setsid"),
            _ => {
                let own = self.helper.clone().unwrap_or_else(|| "/proc/self/exe".into());
                let mut command = Command::new(own);
                command.arg0(confine::ARGV0).arg("setsid");
                command
            }
        };
        command.args(["/bin/sh", "-c", JOIN, "sh"]).args(&made.procs).arg("--");
        match authored {
            None => {
                command.args(["systemd-nspawn", "--register=no"]);
                let tree = self.place_of(name)?;
                let ownership = self.storage.ownership(&self.store.tree(name));
                command.args(arguments(known, machine, &tree, ownership));
            }
            Some(authored) => drop(command.args(&authored.plan.command.argv)),
        }
        command.env_clear().env("PATH", PATH);
        command.env("NOTIFY_SOCKET", &told.path).env("SYSTEMD_NSPAWN_LOCK", "0");
        if let Some(authored) = authored {
            command.envs(authored.plan.command.env.iter().map(|(name, value)| (name, value)));
        }
        let log = File::options().append(true).open(&path).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let mut ended = reap(command.spawn().map_err(failed)?);
        let leader = tokio::select! {
            leader = told.word("X_NSPAWN_LEADER_PID") => leader.map_err(failed)?,
            _ = &mut ended => return Err(not_started(name, &path)),
            () = tokio::time::sleep(PATIENCE) => {
                return Err(Error::Timeout { what: doing, after: PATIENCE });
            }
        };
        run.leader =
            leader.parse().map_err(|_| Error::internal(format!("{doing}: no process id")))?;
        run.started = match started(run.leader) {
            Some(started) => started,
            None => return Err(not_started(name, &path)),
        };
        self.store.set_run(name, Some(&run))?;
        register(&run).map_err(failed)?;
        for words in authored.iter().flat_map(|authored| &authored.plan.attach) {
            hooks::run(words, &path).await?;
        }
        Ok(Launched { run, services: Services::Told(told) })
    }

    /// Ends a run at once, whatever the machine does, and takes away what it had.
    pub(super) async fn end(&self, name: &str, run: &Run) -> Result<()> {
        self.forget(name);
        let killed =
            run.boot == boot() && run.whole.as_ref().is_some_and(|whole| groups::kill(whole));
        if !killed && run.is_alive() {
            // With the first process go all of its namespace.
            let _ = super::super::local::send_signal(run.leader, 9);
        }
        while run.is_alive() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match &run.unit {
            // Its groups and its entry go with it.
            Some(unit) if run.boot == boot() => systemd::end(unit, run.leader == 0).await,
            Some(_) => {}
            None => {
                unregister(run);
                // One that was made has a file to say what is to be done now.
                if let Ok(Some(authored)) =
                    self.store.machine(name).and_then(|machine| self.authored(name, &machine))
                {
                    self.afterwards(name, &authored).await;
                }
            }
        }
        self.store.set_run(name, None)?;
        // A group that stays has no processes any more, and is no reason to keep the machine.
        if run.unit.is_none() && run.boot == boot() {
            let _ = groups::remove(&run.groups).await;
        }
        Ok(())
    }
}

/// Removes the sockets of processes that are gone.
pub(super) fn sweep() {
    for entry in fs::read_dir(SOCKETS).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // What is known of a store's file system until the next boot.
        if name.as_encoded_bytes().starts_with(b"layers-") {
            continue;
        }
        let pid = name.to_string_lossy().split_once('-').and_then(|(pid, _)| pid.parse().ok());
        if pid.is_none_or(|pid| started(pid).is_none()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What systemd-nspawn is told.
fn arguments(known: &str, machine: &Machine, tree: &Path, ownership: &str) -> Vec<String> {
    let record = &machine.record;
    vec![
        "--boot".into(),
        "--quiet".into(),
        "--keep-unit".into(),
        "--notify-ready=yes".into(),
        "--private-network".into(),
        format!("--private-users={}:{RANGE}", machine.base),
        format!("--private-users-ownership={ownership}"),
        "--settings=no".into(),
        "--resolv-conf=off".into(),
        "--timezone=off".into(),
        "--link-journal=no".into(),
        "--console=read-only".into(),
        format!("--machine={known}"),
        format!("--hostname={}", record.hostname),
        format!("--uuid={}", machine.machine_id),
        format!("--directory={}", tree.display()),
    ]
}

/// A new file for what a machine's console says.
fn new_log(path: &Path) -> io::Result<File> {
    File::options().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// The first process of a machine that systemd knows by this name.
fn registered_leader(known: &str) -> Option<i32> {
    let text = fs::read_to_string(Path::new(REGISTER).join(known)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("LEADER="))?.parse().ok()
}

/// Waits until there is one.
async fn leader_of(known: &str) -> i32 {
    loop {
        if let Some(leader) = registered_leader(known).filter(|pid| started(*pid).is_some()) {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// Sees to it that nobody else's machine has the name; the one of `own` is ours.
pub(super) fn claim(name: &str, known: &str, own: Option<&Run>) -> Result<()> {
    let others = registered_leader(known).filter(|pid| own.is_none_or(|own| own.leader != *pid));
    match others.is_some_and(|pid| started(pid).is_some()) {
        true => Err(Error::Busy {
            name: name.to_owned(),
            what: format!("another machine of this host is called {known}"),
        }),
        false => Ok(()),
    }
}

/// Says where a machine is, so that systemd's own programs find it by its name.
pub(super) fn register(run: &Run) -> io::Result<()> {
    fs::create_dir_all(REGISTER)?;
    let path = Path::new(REGISTER).join(&run.machine);
    let text = format!(
        "NAME={}\nCLASS=container\nSERVICE=sandscript\nLEADER={}\n",
        run.machine, run.leader
    );
    let draft = path.with_file_name(format!(".#{}.{}", run.machine, token()));
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

fn unregister(run: &Run) {
    let path = Path::new(REGISTER).join(&run.machine);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let own = format!("LEADER={}", run.leader);
    if text.lines().any(|line| line == own) {
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&run.machine));
}

/// What a machine's console said last.
pub(super) fn tail(log: &Path) -> String {
    let Ok(mut file) = File::open(log) else { return String::new() };
    let length = file.metadata().map(|found| found.len()).unwrap_or_default();
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL)));
    let mut bytes = Vec::new();
    let _ = file.take(TAIL).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Why there is no machine: what was said last.
fn not_started(name: &str, log: &Path) -> Error {
    let text = tail(log);
    // What it says while it takes back is not the reason.
    let first = text.lines().find(|line| line.starts_with("Failed to "));
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    let last = first.or(last).unwrap_or("it ended at once").trim();
    let full = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    if text.contains("Too many open files") || text.contains("inotify") {
        return Error::Exhausted {
            what: format!("sandbox '{name}' does not start: {last}"),
            hint: format!(
                "this host lets a user watch files {} times: sysctl fs.inotify.max_user_instances=1024",
                full.trim()
            ),
        };
    }
    match text.contains("not found") && text.contains("systemd-nspawn") {
        true => Error::unsupported("starting a machine", BACKEND, super::capabilities::INSTALL),
        false => {
            Error::internal(format!("sandbox '{name}' does not start: systemd-nspawn: {last}"))
        }
    }
}
