//! Settings from files: `sandscript.toml` of the project and `config.toml` of the user.
//!
//! A flag beats an environment variable, which beats the project file, which beats the user file,
//! which beats the default. This module knows files only; flags and environment are the command
//! line's.

mod egress;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;

use crate::workflow::SecretSource;

pub use egress::{
    EgressConfig, PolicyConfig, PolicyTable, PresetConfig, ProfileConfig, RegistriesConfig,
};

/// The name of the project file.
pub const PROJECT_FILE: &str = "sandscript.toml";

/// The keys a file may hold, sorted.
const KEYS: &[&str] = &[
    "allow_path",
    "backend",
    "base",
    "egress",
    "gc",
    "host",
    "hosts",
    "image_server",
    "jobs",
    "max_memory",
    "max_operations",
    "nspawn",
    "profile",
    "profiles",
    "secrets",
    "store",
    "truenas",
];

/// What the files say. Relative paths were made absolute, from the folder of the file they are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Host folders outside the project that scripts may use. Both files count.
    pub allow_path: Vec<PathBuf>,
    /// The backend.
    pub backend: Option<String>,
    /// The machine that the backend drives, where that is another one.
    pub host: Option<String>,
    /// The machines that scripts may use. Only the user's file says so; its `host` is one of them.
    pub hosts: BTreeSet<String>,
    /// Which entries of bases are kept.
    pub base: BaseConfig,
    /// What presets of egress policies stand for.
    pub egress: EgressConfig,
    /// The simplestreams server that the local backend looks up images such as `debian/12` at.
    pub image_server: Option<String>,
    /// When what nobody wants any more is deleted by itself.
    pub gc: GcConfig,
    /// How many cells run at once.
    pub jobs: Option<usize>,
    /// How much memory the values of a script may take, in bytes; in the file also `"256MiB"`.
    #[serde(deserialize_with = "size")]
    pub max_memory: Option<u64>,
    /// How many operations a script may do.
    pub max_operations: Option<u64>,
    /// How one comes in at a host for `nspawn`, by its name; only the user's file says it.
    pub nspawn: BTreeMap<String, NspawnHost>,
    /// The profile that holds; only the user's file says it.
    pub profile: Option<String>,
    /// What the user lays down for all sandboxes, by the profile's name; only the user's file does.
    pub profiles: BTreeMap<String, ProfileConfig>,
    /// Where secrets come from. Both files count; of one name the project's.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Where the local backend keeps its sandboxes.
    pub store: Option<PathBuf>,
    /// How one comes in at a NAS, by its name; only the user's file says it.
    pub truenas: BTreeMap<String, NasConfig>,
}

/// How one comes in at another host for `nspawn`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NspawnHost {
    /// The SHA-256 of its host key, as `ssh-keygen -l` shows it; the hosts that SSH knows when not given.
    pub host_key: Option<String>,
    /// A file with a key; an agent's and the usual ones when not given.
    pub key: Option<PathBuf>,
    /// The program there, where none is to be sent.
    pub program: Option<String>,
    /// The folder there that its machines are kept in, below `nspawn`.
    pub store: Option<String>,
}

/// How one comes in at a TrueNAS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NasConfig {
    /// The release that one which is not known is treated as.
    pub assume_release: Option<String>,
    /// Whether new sandboxes start when it does.
    pub autostart: bool,
    /// Which way commands go: `ssh` or `shell`; what works when not given.
    pub exec: Option<String>,
    /// Its folders that sandboxes may have.
    pub mounts: Vec<String>,
    /// What new sandboxes are plugged into: one of its interfaces, or `lan`.
    pub network: Option<String>,
    /// The SHA-256 of its certificate, where no authority vouches for that.
    pub fingerprint: Option<String>,
    /// The image when a script names none.
    pub image: Option<String>,
    /// Where the API key comes from.
    pub key: Option<SecretSource>,
    /// The pool that new sandboxes are on.
    pub pool: Option<String>,
    /// How commands go by SSH.
    pub ssh: NasSsh,
    /// Whose key it is; `root` when not given.
    pub user: Option<String>,
}

/// How commands go to guests by SSH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NasSsh {
    /// The machine that guests are reached by, as `user@host:port`.
    pub jump: Option<String>,
    /// The SHA-256 of its host key, as `ssh-keygen -l` shows it.
    pub jump_key: Option<String>,
    /// A file with a key, or `agent`; one of our own when not given.
    pub key: Option<PathBuf>,
}

impl NasSsh {
    /// The word that takes the place of a file.
    pub const AGENT: &str = "agent";
}

/// Which entries of bases `base prune` keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaseConfig {
    /// How many of each base.
    pub keep: Option<usize>,
    /// None that is older.
    #[serde(deserialize_with = "time")]
    pub max_age: Option<Duration>,
}

/// When `gc` is done by itself, and what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcConfig {
    /// After how long without use a base expires whose script does not say so.
    pub bases: Option<Every>,
    /// How often any call of the program looks.
    pub every: Option<Every>,
}

/// A duration, or `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After so long.
    After(Duration),
    /// Not at all.
    Never,
}

impl Every {
    /// As it is written.
    pub fn parse(text: &str) -> Result<Every, crate::sandbox::Error> {
        match text {
            "never" => Ok(Every::Never),
            text => crate::sandbox::parse_duration(text).map(Every::After),
        }
    }

    /// The duration, if there is one.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Every::After(time) => Some(time),
            Every::Never => None,
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Every, D::Error> {
        let text = String::deserialize(from)?;
        Every::parse(&text).map_err(|error| {
            D::Error::custom(format!("{error}; {}, or \"never\"", error.hint().unwrap_or_default()))
        })
    }
}

/// A duration as scripts write it.
fn time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    crate::sandbox::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{error}; {}", error.hint().unwrap_or_default()))
    })
}

/// A file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Which file.
    pub path: PathBuf,
    /// Line and column, where known; from 1.
    pub at: Option<(usize, usize)>,
    /// What is wrong with it.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the project file that is found from `folder` upwards and the user's file, if they are there.
    pub fn load(folder: &Path, user_file: Option<&Path>) -> Result<Config, ConfigError> {
        let user = match user_file {
            Some(path) => Config::read(path)?.unwrap_or_default(),
            None => Config::default(),
        };
        let project = match find_project_file(folder) {
            Some(path) => {
                let config = Config::read(&path)?.unwrap_or_default();
                config.check_secrets(&path, user_file)?;
                config.check_hosts(&path, user_file)?;
                config.check_project_egress(&path, &user, user_file)?;
                config
            }
            None => Config::default(),
        };
        Ok(project.over(user))
    }

    /// Nor does it say which machines may be used.
    fn check_hosts(&self, path: &Path, user_file: Option<&Path>) -> Result<(), ConfigError> {
        let message = if !self.hosts.is_empty() {
            "hosts: a project file may not say which machines scripts may use"
        } else if !self.truenas.is_empty() {
            "truenas: a project file may not say how one comes in at a NAS"
        } else if !self.nspawn.is_empty() {
            "nspawn: a project file may not say how one comes in at another host"
        } else {
            return Ok(());
        };
        let hint = user_file.map(|file| format!("put it into {}", file.display()));
        Err(ConfigError { path: path.to_owned(), at: None, message: message.into(), hint })
    }

    /// These settings where they are given, else those of `below`.
    fn over(mut self, below: Config) -> Config {
        self.allow_path.extend(below.allow_path);
        let mut secrets = below.secrets;
        secrets.extend(self.secrets);
        let mut presets = below.egress.presets;
        presets.extend(self.egress.presets);
        // A machine belongs to the backend that it was named for.
        let same = self.backend.is_none() || self.backend == below.backend;
        Config {
            allow_path: self.allow_path,
            hosts: below.hosts.into_iter().chain(below.host.clone()).collect(),
            host: self.host.or(below.host.filter(|_| same)),
            backend: self.backend.or(below.backend),
            base: BaseConfig {
                keep: self.base.keep.or(below.base.keep),
                max_age: self.base.max_age.or(below.base.max_age),
            },
            egress: EgressConfig { presets, registries: below.egress.registries },
            profile: below.profile,
            profiles: below.profiles,
            gc: GcConfig {
                bases: self.gc.bases.or(below.gc.bases),
                every: self.gc.every.or(below.gc.every),
            },
            jobs: self.jobs.or(below.jobs),
            secrets,
            max_memory: self.max_memory.or(below.max_memory),
            max_operations: self.max_operations.or(below.max_operations),
            image_server: self.image_server.or(below.image_server),
            store: self.store.or(below.store),
            truenas: below.truenas,
            nspawn: below.nspawn,
        }
    }

    /// A project is somebody else's word: it may name what a script could read anyway, and no more.
    fn check_secrets(&self, path: &Path, user_file: Option<&Path>) -> Result<(), ConfigError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        for (name, source) in &self.secrets {
            let why = match source {
                SecretSource::Env(_) => continue,
                SecretSource::File(file) => match crate::transfer::confine(file, folder) {
                    Ok(_) => continue,
                    Err(_) => "a project file may not name a file outside of its folder",
                },
                SecretSource::Command(_) => "a project file may not name a command to run",
            };
            let hint = match user_file {
                Some(file) => format!("put it into {}, or give it with --secret", file.display()),
                None => "give it with --secret".into(),
            };
            return Err(ConfigError {
                path: path.to_owned(),
                at: None,
                message: format!("secrets.{name}: {why}"),
                hint: Some(hint),
            });
        }
        Ok(())
    }

    /// One file; `None` when it is not there.
    fn read(path: &Path) -> Result<Option<Config>, ConfigError> {
        let fail =
            |message: String| ConfigError { path: path.to_owned(), at: None, message, hint: None };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(format!("can't read it: {error}"))),
        };
        let mut config =
            Config::parse(&text).map_err(|error| ConfigError { path: path.to_owned(), ..error })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        for key in config.truenas.values_mut().filter_map(|nas| nas.ssh.key.as_mut()) {
            if key.as_os_str() != NasSsh::AGENT {
                *key = folder.join(&*key);
            }
        }
        for key in config.nspawn.values_mut().filter_map(|host| host.key.as_mut()) {
            *key = folder.join(&*key);
        }
        let keys = config.truenas.values_mut().filter_map(|nas| nas.key.as_mut());
        let files = config.secrets.values_mut().chain(keys).filter_map(|source| match source {
            SecretSource::File(path) => Some(path),
            _ => None,
        });
        for path in config.allow_path.iter_mut().chain(&mut config.store).chain(files) {
            *path = folder.join(&*path);
        }
        Ok(Some(config))
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let place =
            |error: &toml::de::Error| error.span().map(|span| line_column(text, span.start));
        let wrong = |error: toml::de::Error| ConfigError {
            path: PathBuf::new(),
            at: place(&error),
            message: plain(error.message()),
            hint: None,
        };
        let table: toml::Table = text.parse().map_err(wrong)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let at = text.lines().position(|line| {
                line.trim_start().trim_start_matches(['[', '"']).starts_with(key.as_str())
            });
            return Err(ConfigError {
                path: PathBuf::new(),
                at: at.map(|line| (line + 1, 1)),
                message: format!("unknown key '{key}'"),
                hint: Some(suggest(key, KEYS)),
            });
        }
        let config: Config = toml::from_str(text).map_err(wrong)?;
        config.check_egress()?;
        if config.jobs == Some(0) {
            return Err(ConfigError {
                path: PathBuf::new(),
                at: None,
                message: "jobs: 0 leaves nothing that runs".into(),
                hint: Some("use 1 or more, or leave it out".into()),
            });
        }
        Ok(config)
    }
}

/// What the reader of the file says of a value, without the names of types that only a program knows.
fn plain(message: &str) -> String {
    let message = message.trim().replace('\n', ", ").replace('`', "'");
    let found = ["invalid type: ", "invalid value: "].iter().find_map(|start| {
        let (found, expected) = message.strip_prefix(start)?.rsplit_once(", expected ")?;
        let expected = match expected {
            "u8" | "u16" | "u32" | "u64" | "usize" | "i64" | "i32" => "a whole number",
            "f32" | "f64" => "a number",
            "a map" => "a table",
            expected if expected.starts_with("struct ") || expected.starts_with("enum ") => {
                "a table"
            }
            expected if expected.ends_with("sequence") => "a list",
            expected => expected,
        };
        let found =
            if found.starts_with("string") { found.into() } else { found.replace('\'', "") };
        Some(format!("{expected} goes here, not {found}"))
    });
    found.unwrap_or(message)
}

/// A size as everywhere: a number of bytes, or text.
fn size<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size such as \"256MiB\", or a number of bytes")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(value)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Text(text) => crate::sandbox::parse_size(&text).map(Some).map_err(|error| {
            let hint = error.hint().unwrap_or_default();
            D::Error::custom(format!("'{text}' is not a size; {hint}"))
        }),
    }
}

/// The project that `folder` is in: where the project file or the top of the repository is, else
/// `folder` itself.
pub fn project_of(folder: &Path) -> PathBuf {
    let top = |folder: &&Path| folder.join(PROJECT_FILE).is_file() || folder.join(".git").exists();
    folder.ancestors().find(top).unwrap_or(folder).to_owned()
}

/// Where the project file of `folder` is looked for: up to where one is found or the repository
/// ends. Without a repository and a file, in `folder` only.
pub fn candidates(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folder.ancestors() {
        let file = folder.join(PROJECT_FILE);
        let last = file.is_file() || folder.join(".git").exists();
        files.push(file);
        if last {
            return files;
        }
    }
    files.truncate(1);
    files
}

/// The project file in `folder` or above it. The search ends at the top of the repository.
fn find_project_file(folder: &Path) -> Option<PathBuf> {
    for folder in folder.ancestors() {
        let file = folder.join(PROJECT_FILE);
        if file.is_file() {
            return Some(file);
        }
        if folder.join(".git").exists() {
            return None;
        }
    }
    None
}

/// The hint for an unknown word: the nearest known one, else all of them.
pub fn suggest(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min();
    match near {
        Some((_, name)) => format!("did you mean '{name}'?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_types_say_where() {
        let error = Config::parse("backend = \"local\"\njbos = 3\n").unwrap_err();
        assert_eq!(error.at, Some((2, 1)));
        assert_eq!(error.message, "unknown key 'jbos'");
        assert_eq!(error.hint.as_deref(), Some("did you mean 'jobs'?"));
        let error = Config::parse("zzz = 3\n").unwrap_err();
        assert_eq!(
            error.hint.as_deref(),
            Some(
                "there are: allow_path, backend, base, egress, gc, host, hosts, image_server, jobs, max_memory, \
                 max_operations, nspawn, profile, profiles, secrets, store, truenas"
            )
        );
        let error = Config::parse("\njobs = \"many\"\n").unwrap_err();
        assert_eq!(error.at, Some((2, 8)));
        let error = Config::parse("jobs = \n").unwrap_err();
        assert_eq!(error.at.map(|at| at.0), Some(1));
        assert!(Config::parse("jobs = 0").is_err());
        let config = Config::parse("max_memory = \"256MiB\"\nmax_operations = 5\n").unwrap();
        assert_eq!((config.max_memory, config.max_operations), (Some(256 << 20), Some(5)));
        assert_eq!(Config::parse("max_memory = 1024").unwrap().max_memory, Some(1024));
        let gc = Config::parse("[gc]\nevery = \"never\"\nbases = \"7d\"\n").unwrap().gc;
        assert_eq!(gc.every, Some(Every::Never));
        assert_eq!(gc.bases.and_then(Every::duration), Some(Duration::from_secs(7 * 86_400)));
        let error = Config::parse("[gc]\nevery = \"often\"\n").unwrap_err();
        assert!(error.message.contains("or \"never\""), "{error}");
        let error = Config::parse("max_memory = \"lots\"\n").unwrap_err();
        assert!(error.message.contains("'lots' is not a size"), "{error}");
        let error = Config::parse("max_memory = true\n").unwrap_err();
        assert!(error.message.contains("a size such as"), "{error}");
    }

    #[test]
    fn a_project_names_no_secret_that_a_script_could_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let (project, user) = (temp.path().join("project"), temp.path().join("user.toml"));
        std::fs::create_dir(&project).unwrap();
        let load = |text: &str| {
            std::fs::write(project.join(PROJECT_FILE), text).unwrap();
            Config::load(&project, Some(&user))
        };
        let own = "[secrets]\nA = { env = \"B\" }\nC = { file = \"c\" }\n";
        std::fs::write(&user, "[secrets]\nP = { command = [\"pass\"] }\nA = { file = \"/a\" }")
            .unwrap();
        let secrets = load(own).unwrap().secrets;
        assert_eq!(secrets["A"], SecretSource::Env("B".into()));
        assert_eq!(secrets["C"], SecretSource::File(project.join("c")));
        assert_eq!(secrets["P"], SecretSource::Command(vec!["pass".into()]));
        for (text, why) in [
            ("[secrets]\nX = { command = [\"id\"] }", "may not name a command"),
            ("[secrets]\nX = { file = \"../user.toml\" }", "outside of its folder"),
            ("[secrets]\nX = { file = \"/etc/shadow\" }", "outside of its folder"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.message.contains(why), "{error}");
            assert!(error.hint.unwrap().contains("user.toml, or give it with --secret"));
        }
    }

    #[test]
    fn the_nearer_file_wins_and_paths_are_from_its_folder() {
        let temp = tempfile::tempdir().unwrap();
        let repository = temp.path().join("repository");
        let inner = repository.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir(repository.join(".git")).unwrap();
        let user = temp.path().join("config.toml");
        std::fs::write(&user, "backend = \"incus\"\njobs = 3\nallow_path = [\"/srv\"]").unwrap();
        // Above the repository: not ours.
        std::fs::write(temp.path().join(PROJECT_FILE), "jobs = 9").unwrap();
        assert_eq!(Config::load(&inner, Some(&user)).unwrap().jobs, Some(3));
        assert_eq!(project_of(&inner), repository);

        std::fs::write(
            repository.join(PROJECT_FILE),
            "jobs = 5\nstore = \"cache\"\nallow_path = [\"../data\"]",
        )
        .unwrap();
        let config = Config::load(&inner, Some(&user)).unwrap();
        assert_eq!(config.jobs, Some(5));
        assert_eq!(config.backend.as_deref(), Some("incus"));
        assert_eq!(config.store, Some(repository.join("cache")));
        assert_eq!(config.allow_path, [repository.join("../data"), PathBuf::from("/srv")]);
    }
}
