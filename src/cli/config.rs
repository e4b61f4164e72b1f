//! The environment, and what holds after flags, environment and files are laid over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{CommandError, Global, Result};
#[cfg(feature = "truenas")]
use crate::backend::truenas::{Jump, SshConfig};
#[cfg(feature = "truenas")]
use crate::config::NasSsh;
#[cfg(all(feature = "nspawn", feature = "ssh"))]
use crate::config::NspawnHost;
use crate::config::{Config, ConfigError, Every, NasConfig};
use crate::egress::Catalog;
#[cfg(feature = "truenas")]
use crate::transport::KeySource;
use crate::workflow::{BASES_EXPIRE, KeepPolicy, SecretSource};

/// How often a call looks for what may go, when nothing else is said.
const GC_EVERY: Duration = Duration::from_secs(600);

/// After how long without a command what is kept open between commands ends, when nothing else is said.
const SESSION_IDLE: Duration = Duration::from_secs(600);

/// Every variable that is read, in one place.
#[derive(Debug, Default)]
pub struct Environment {
    /// `SANDSCRIPT_BACKEND`: as `--backend`.
    pub backend: Option<String>,
    /// `CI`: nobody looks at a progress display.
    pub ci: bool,
    /// `CLICOLOR_FORCE` or `FORCE_COLOR`: colour although it is no terminal.
    pub force_color: bool,
    /// `GITHUB_ACTIONS`: GitHub runs this, and reads what is printed.
    pub github: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `SANDSCRIPT_GC_EVERY`: as `every` of the settings' `gc`.
    pub gc_every: Option<String>,
    /// `SANDSCRIPT_HOST`: as `--host`.
    pub host: Option<String>,
    /// `INCUS_CONF`: the folder of the Incus client's settings.
    pub incus_conf: Option<PathBuf>,
    /// `INCUS_DIR`: where the Incus daemon of this machine keeps its socket.
    pub incus_dir: Option<PathBuf>,
    /// `INCUS_PROJECT`: the project where the host names none.
    pub incus_project: Option<String>,
    /// `INCUS_SOCKET`: that socket itself.
    pub incus_socket: Option<PathBuf>,
    /// `SANDSCRIPT_JOBS`: as `--jobs`.
    pub jobs: Option<String>,
    /// `NO_COLOR`: no colour.
    pub no_color: bool,
    /// `SANDSCRIPT_NO_SESSION`: as `--no-session`.
    pub no_session: bool,
    /// `SANDSCRIPT_SESSION_IDLE`: after how long without a command what is kept open between commands ends.
    pub session_idle: Option<String>,
    /// `GITHUB_STEP_SUMMARY`: the file of what GitHub shows of a step.
    pub step_summary: Option<PathBuf>,
    /// `SANDSCRIPT_PROFILE`: as `--profile`.
    pub profile: Option<String>,
    /// `SANDSCRIPT_STORE`: as `--store`.
    pub store: Option<PathBuf>,
    /// `TERM`.
    pub term: Option<String>,
    /// `SSH_AUTH_SOCK`: the socket of an SSH agent.
    pub ssh_agent: Option<PathBuf>,
    /// `TRUENAS_API_KEY`: the key for a NAS that the settings say nothing of.
    pub truenas_key: Option<String>,
    /// `TRUENAS_FINGERPRINT`: the SHA-256 of its certificate.
    pub truenas_fingerprint: Option<String>,
    /// `TRUENAS_USER`: whose key it is.
    pub truenas_user: Option<String>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state: Option<PathBuf>,
}

impl Environment {
    /// Reads it. Empty variables count as unset.
    pub fn read() -> Environment {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
        let on = |name: &str| var(name).is_some_and(|value| value != *"0");
        let absolute =
            |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
        Environment {
            backend: text("SANDSCRIPT_BACKEND"),
            ci: on("CI"),
            force_color: on("CLICOLOR_FORCE") || on("FORCE_COLOR"),
            github: on("GITHUB_ACTIONS"),
            gc_every: text("SANDSCRIPT_GC_EVERY"),
            home: var("HOME").and_then(absolute),
            host: text("SANDSCRIPT_HOST"),
            incus_conf: var("INCUS_CONF").map(PathBuf::from),
            incus_dir: var("INCUS_DIR").map(PathBuf::from),
            incus_project: text("INCUS_PROJECT"),
            incus_socket: var("INCUS_SOCKET").map(PathBuf::from),
            jobs: text("SANDSCRIPT_JOBS"),
            no_color: var("NO_COLOR").is_some(),
            no_session: on("SANDSCRIPT_NO_SESSION"),
            profile: text("SANDSCRIPT_PROFILE"),
            session_idle: text("SANDSCRIPT_SESSION_IDLE"),
            ssh_agent: var("SSH_AUTH_SOCK").map(PathBuf::from),
            step_summary: var("GITHUB_STEP_SUMMARY").map(PathBuf::from),
            store: var("SANDSCRIPT_STORE").map(PathBuf::from),
            term: text("TERM"),
            truenas_key: text("TRUENAS_API_KEY"),
            truenas_fingerprint: text("TRUENAS_FINGERPRINT"),
            truenas_user: text("TRUENAS_USER"),
            xdg_config: var("XDG_CONFIG_HOME").and_then(absolute),
            xdg_data: var("XDG_DATA_HOME").and_then(absolute),
            xdg_runtime: var("XDG_RUNTIME_DIR").and_then(absolute),
            xdg_state: var("XDG_STATE_HOME").and_then(absolute),
        }
    }

    /// The folder of this user's settings for all programs.
    pub fn config_folder(&self) -> Option<PathBuf> {
        self.xdg_config.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// The user's settings.
    pub fn user_file(&self) -> Option<PathBuf> {
        Some(self.config_folder()?.join("sandscript/config.toml"))
    }

    /// The folder of sandscript's own remotes and keys for Incus servers.
    pub fn own_incus_folder(&self) -> Option<PathBuf> {
        Some(self.config_folder()?.join("sandscript/incus"))
    }

    /// Where remotes are looked up: sandscript's own, the Incus client's, the system's.
    fn incus_folders(&self) -> Vec<PathBuf> {
        let theirs = || Some(self.config_folder()?.join("incus"));
        let theirs = self.incus_conf.clone().or_else(theirs);
        let all = [self.own_incus_folder(), theirs, Some("/etc/incus".into())];
        all.into_iter().flatten().collect()
    }

    /// The folder of what is remembered from one call to the next.
    pub fn state(&self) -> Option<PathBuf> {
        let state = self.xdg_state.clone();
        let state = state.or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(state.join("sandscript"))
    }

    /// The folder of the sockets of this user's sessions.
    pub fn runtime(&self) -> PathBuf {
        match &self.xdg_runtime {
            Some(folder) => folder.join("sandscript"),
            None if rustix::process::geteuid().is_root() => "/run/sandscript/sessions".into(),
            None => format!("/tmp/sandscript-{}", rustix::process::geteuid().as_raw()).into(),
        }
    }

    /// What SSH to the guests of a NAS needs; nothing where there is no folder for a key.
    #[cfg(feature = "truenas")]
    fn ssh(&self, said: &NasSsh) -> Option<crate::sandbox::Result<SshConfig>> {
        let folder = self.config_folder()?.join("sandscript/ssh");
        let key = match &said.key {
            None => Ok(KeySource::Made(folder.join("id_ed25519"))),
            Some(word) if word.as_os_str() == NasSsh::AGENT => match &self.ssh_agent {
                Some(socket) => Ok(KeySource::Agent(socket.clone())),
                None => Err(crate::sandbox::Error::invalid_hint(
                    "ssh.key",
                    "there is no agent",
                    "start one (eval $(ssh-agent); ssh-add), or name a file with a key",
                )),
            },
            Some(file) => Ok(KeySource::File(file.clone())),
        };
        let jump = said.jump.as_deref().map(|jump| Jump::parse(jump, said.jump_key.clone()));
        let config = |key, jump| SshConfig { key, known: Some(folder.join("known")), jump };
        Some(key.and_then(|key| Ok(config(key, jump.transpose()?))))
    }

    /// The ways to other hosts for `nspawn`, as OpenSSH goes them. The folder is one of such a host.
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    fn far(&self, store: Option<&PathBuf>) -> crate::backend::nspawn::remote::Access {
        let own = |file: &str| self.home.as_ref().map(|home| home.join(".ssh").join(file));
        let here = |file: &str| Path::new("/etc/ssh").join(file);
        let made = self.config_folder().map(|folder| folder.join("sandscript/ssh/id_ed25519"));
        crate::backend::nspawn::remote::Access {
            ssh_config: own("config").into_iter().chain([here("ssh_config")]).collect(),
            known_hosts: own("known_hosts").into_iter().chain([here("ssh_known_hosts")]).collect(),
            home: self.home.clone(),
            agent: self.ssh_agent.clone(),
            keys: [own("id_ed25519"), own("id_ecdsa"), made].into_iter().flatten().collect(),
            store: store.map(|store| store.display().to_string()),
            ..Default::default()
        }
    }

    /// The socket of this machine's Incus daemon, where it is not in its usual place.
    fn incus(&self) -> Option<PathBuf> {
        let inside = || Some(self.incus_dir.as_ref()?.join("unix.socket"));
        self.incus_socket.clone().or_else(inside)
    }

    fn default_store(&self) -> Result<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/sandscript".into());
        }
        let data = self.xdg_data.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")));
        data.map(|data| data.join("sandscript")).ok_or_else(|| {
            CommandError::usage("there is no folder to keep sandboxes in: HOME is not set")
                .hint("set HOME, or name a folder with --store")
        })
    }
}

/// What holds for this call.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host folders outside the project that scripts may use.
    pub allow_path: Vec<PathBuf>,
    /// The backend's name.
    pub backend: String,
    /// The machine that it drives, where that is another one.
    pub host: Option<String>,
    /// The machines that you named: scripts may use these.
    pub hosts: BTreeSet<String>,
    /// Where your own settings are.
    user_file: Option<PathBuf>,
    /// What the words of egress policies mean.
    pub egress: Arc<Catalog>,
    /// Which entries of bases are kept.
    pub keep: KeepPolicy,
    /// Whether nothing is left to a process that keeps a backend open between commands.
    pub no_session: bool,
    /// The folder of the sockets of this user's sessions.
    pub sessions: PathBuf,
    /// After how long without a command such a process ends.
    pub session_idle: Duration,
    /// After how long without use bases expire; never without it.
    pub bases_expire: Option<Duration>,
    /// How often a call looks for what may go; never without it.
    pub gc_every: Option<Duration>,
    /// The simplestreams server for the local backend's images, where it is not the usual one.
    pub image_server: Option<String>,
    /// Where remotes of Incus servers are looked up.
    pub incus_folders: Vec<PathBuf>,
    /// The project of an Incus server where the host names none.
    pub incus_project: Option<String>,
    /// The socket of this machine's Incus daemon, where it is not in its usual place.
    pub incus_socket: Option<PathBuf>,
    /// How many cells run at once; the backend's own idea when not given.
    pub jobs: Option<usize>,
    /// How much memory the values of a script may take.
    pub max_memory: Option<u64>,
    /// How many operations a script may do.
    pub max_operations: Option<u64>,
    /// Where the profile that holds is chosen.
    pub profile_from: Option<String>,
    /// Where secrets come from.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Where the local backend keeps its sandboxes; absolute.
    pub store: PathBuf,
    /// Where `nspawn` keeps its machines, where that was said; absolute.
    pub nspawn_store: Option<PathBuf>,
    /// How one comes in at another host for `nspawn`, by its name.
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    pub nspawn: BTreeMap<String, NspawnHost>,
    /// The same for any of them.
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    far: crate::backend::nspawn::remote::Access,
    /// How one comes in at a NAS, by its name.
    pub truenas: BTreeMap<String, NasConfig>,
    /// The same for any other NAS.
    #[cfg(feature = "truenas")]
    nas: crate::backend::truenas::Access,
    /// What SSH to the guests of each NAS needs.
    #[cfg(feature = "truenas")]
    ssh: BTreeMap<String, crate::sandbox::Result<SshConfig>>,
}

impl Settings {
    /// Flag over environment over project file over user file over default.
    pub fn resolve(global: &Global, environment: &Environment, folder: &Path) -> Result<Settings> {
        let config = Config::load(folder, environment.user_file().as_deref()).map_err(wrong)?;
        let profile = global.profile.as_deref().or(environment.profile.as_deref());
        let file = || environment.user_file().map(|file| file.display().to_string());
        let profile_from = match (&global.profile, &environment.profile, &config.profile) {
            (Some(_), ..) => Some("--profile".to_owned()),
            (None, Some(_), _) => Some("SANDSCRIPT_PROFILE".to_owned()),
            (None, None, Some(_)) => file(),
            (None, None, None) => None,
        };
        let catalog = config.catalog(profile).map_err(wrong)?;
        let folder_of_answers = environment.state().map(|state| state.join("registries"));
        let jobs = match &environment.jobs {
            Some(text) => match text.parse() {
                Ok(jobs) if jobs > 0 => Some(jobs),
                _ => {
                    let message = format!("SANDSCRIPT_JOBS: '{text}' is not a number of cells");
                    return Err(CommandError::usage(message).hint("use 1 or more, or unset it"));
                }
            },
            None => config.jobs,
        };
        let every = match &environment.gc_every {
            Some(text) => Some(Every::parse(text).map_err(|error| {
                let message = format!("SANDSCRIPT_GC_EVERY: {error}");
                CommandError::usage(message).hint("use a time such as 10m, or \"never\"")
            })?),
            None => config.gc.every,
        };
        let session_idle = match &environment.session_idle {
            Some(text) => crate::sandbox::parse_duration(text).map_err(|_| {
                let message = format!("SANDSCRIPT_SESSION_IDLE: '{text}' is not a time");
                CommandError::usage(message).hint("use one such as 10m")
            })?,
            None => SESSION_IDLE,
        };
        let store = global.store.clone().or_else(|| environment.store.clone()).or(config.store);
        #[cfg(all(feature = "nspawn", feature = "ssh"))]
        let far = environment.far(global.store.as_ref().or(environment.store.as_ref()));
        let nspawn_store = store.as_ref().map(|store| folder.join(store).join("nspawn"));
        let store = match store {
            Some(store) => folder.join(store),
            None => environment.default_store()?,
        };
        let (backend, host) = machine([
            (&global.backend, &global.host),
            (&environment.backend, &environment.host),
            (&config.backend, &config.host),
        ]);
        let absolute = |all: Vec<PathBuf>| all.iter().map(|one| folder.join(one)).collect();
        let mut hosts = config.hosts;
        hosts.extend([&global.host, &environment.host].into_iter().flatten().cloned());
        let settings = Settings {
            allow_path: config.allow_path,
            egress: Arc::new(catalog.folder(folder_of_answers)),
            backend,
            host,
            bases_expire: config.gc.bases.map_or(Some(BASES_EXPIRE), Every::duration),
            gc_every: every.map_or(Some(GC_EVERY), Every::duration),
            hosts,
            user_file: environment.user_file(),
            keep: KeepPolicy {
                newest: config.base.keep.unwrap_or(KeepPolicy::default().newest),
                max_age: config.base.max_age,
            },
            image_server: config.image_server,
            incus_folders: absolute(environment.incus_folders()),
            incus_project: environment.incus_project.clone(),
            incus_socket: environment.incus().map(|socket| folder.join(socket)),
            jobs,
            max_memory: config.max_memory,
            max_operations: config.max_operations,
            profile_from,
            secrets: config.secrets,
            store,
            nspawn_store,
            no_session: global.no_session || environment.no_session,
            sessions: environment.runtime(),
            session_idle,
            #[cfg(feature = "truenas")]
            nas: crate::backend::truenas::Access {
                user: environment.truenas_user.clone(),
                key: environment.truenas_key.clone().map(Ok),
                fingerprint: environment.truenas_fingerprint.clone(),
                assume_release: global.assume_release.clone(),
                ssh: environment.ssh(&NasSsh::default()),
                ..Default::default()
            },
            #[cfg(feature = "truenas")]
            ssh: config
                .truenas
                .iter()
                .filter_map(|(name, nas)| Some((name.clone(), environment.ssh(&nas.ssh)?)))
                .collect(),
            truenas: config.truenas,
            #[cfg(all(feature = "nspawn", feature = "ssh"))]
            nspawn: config.nspawn,
            #[cfg(all(feature = "nspawn", feature = "ssh"))]
            far,
        };
        // A project is somebody else's word: it does not say where your credentials go.
        if let Some(host) = settings.host.as_ref().filter(|host| !settings.may_use(host)) {
            let message =
                format!("the project's settings name the machine '{host}', and you did not");
            return Err(CommandError::usage(message).hint(settings.way_to_use(host)));
        }
        Ok(settings)
    }

    /// What a backend is opened with.
    pub fn backend(&self, host: Option<String>) -> crate::backend::Config {
        crate::backend::Config {
            #[cfg(feature = "truenas")]
            truenas: self.access(host.as_deref()),
            #[cfg(all(feature = "nspawn", feature = "ssh"))]
            nspawn: self.way(host.as_deref()),
            host,
            store: Some(self.store.clone()),
            nspawn_store: self.nspawn_store.clone(),
            image_server: self.image_server.clone(),
            incus_socket: self.incus_socket.clone(),
            incus_folders: self.incus_folders.clone(),
            incus_project: self.incus_project.clone(),
            ..crate::backend::Config::default()
        }
    }

    /// How one comes in at a NAS. The environment is over the file.
    #[cfg(feature = "truenas")]
    fn access(&self, host: Option<&str>) -> crate::backend::truenas::Access {
        let Some(said) = host.and_then(|host| self.truenas.get(host)) else {
            return self.nas.clone();
        };
        let read = |source: &SecretSource| {
            let secret = source.read("truenas", |name| env::var(name).ok())?;
            Ok(String::from_utf8_lossy(secret.expose()).into_owned())
        };
        crate::backend::truenas::Access {
            user: self.nas.user.clone().or_else(|| said.user.clone()),
            key: self.nas.key.clone().or_else(|| said.key.as_ref().map(read)),
            fingerprint: self.nas.fingerprint.clone().or_else(|| said.fingerprint.clone()),
            pool: said.pool.clone(),
            image: said.image.clone(),
            network: said.network.clone(),
            autostart: said.autostart,
            mounts: said.mounts.clone(),
            assume_release: self.nas.assume_release.clone().or_else(|| said.assume_release.clone()),
            exec: said.exec.clone(),
            ssh: host.and_then(|host| self.ssh.get(host)).cloned(),
        }
    }

    /// How one comes in at another host for `nspawn`.
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    fn way(&self, host: Option<&str>) -> crate::backend::nspawn::remote::Access {
        let mut way = self.far.clone();
        if let Some(said) = host.and_then(|host| self.nspawn.get(host)) {
            way.host_key = said.host_key.clone();
            way.key = said.key.clone();
            way.program = said.program.clone();
            way.store = way.store.or_else(|| said.store.clone());
        }
        way.store = way.store.map(|store| format!("{}/nspawn", store.trim_end_matches('/')));
        way
    }

    /// Whether a script or a project may use this machine.
    pub fn may_use(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }

    /// What makes that so.
    pub fn way_to_use(&self, host: &str) -> String {
        match &self.user_file {
            Some(file) => format!(
                "if it is meant, put hosts = [\"{host}\"] into {}, or use --host {host}",
                file.display()
            ),
            None => format!("if it is meant, use --host {host}"),
        }
    }
}

fn wrong(error: ConfigError) -> CommandError {
    let mut command = CommandError::usage(error.to_string());
    command.hint = error.hint;
    command
}

/// The backend and the machine that it drives, of what was said about both, the nearest first. A
/// machine belongs to the backend that it was named for, so another backend does not get it.
fn machine<const N: usize>(
    said: [(&Option<String>, &Option<String>); N],
) -> (String, Option<String>) {
    let backend = |from: usize| {
        let named = said[from..].iter().find_map(|(backend, _)| (*backend).clone());
        named.unwrap_or_else(|| "local".into())
    };
    let named = said.iter().position(|(_, host)| host.is_some());
    let host = named.filter(|at| backend(*at) == backend(0)).and_then(|at| said[at].1.clone());
    (backend(0), host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_belongs_to_its_backend() {
        let some = |text: &str| Some(text.to_owned());
        let (nas, box_, truenas, local) =
            (some("nas"), some("box"), some("truenas"), some("local"));
        let none = None;
        assert_eq!(machine([(&none, &none)]), ("local".into(), None));
        assert_eq!(machine([(&none, &nas), (&truenas, &box_)]), ("truenas".into(), nas.clone()));
        assert_eq!(machine([(&none, &none), (&truenas, &nas)]), ("truenas".into(), nas.clone()));
        assert_eq!(machine([(&truenas, &none), (&truenas, &nas)]), ("truenas".into(), nas.clone()));
        assert_eq!(machine([(&local, &none), (&truenas, &nas)]), ("local".into(), None));
        assert_eq!(machine([(&local, &nas), (&truenas, &box_)]), ("local".into(), nas.clone()));
        assert_eq!(machine([(&none, &nas)]), ("local".into(), nas));
    }
}
