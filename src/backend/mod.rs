//! The backends, and the one place that names them all.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Backend, Check, Error, Kind, Result};

pub mod fake;
#[cfg(any(feature = "incus", feature = "nspawn", feature = "truenas"))]
mod guest;
#[cfg(feature = "incus")]
pub mod incus;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "nspawn")]
pub mod nspawn;
pub mod plan;
pub mod session;
#[cfg(feature = "truenas")]
pub mod truenas;

/// The names [`open`] knows, the default first.
pub const NAMES: &[&str] = &[
    #[cfg(feature = "local")]
    "local",
    #[cfg(feature = "incus")]
    "incus",
    #[cfg(feature = "truenas")]
    "truenas",
    #[cfg(feature = "nspawn")]
    "nspawn",
    "fake",
];

/// What a backend is opened with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// The machine that the backend drives, for those that drive another one.
    pub host: Option<String>,
    /// Where `local` keeps its sandboxes. It must be given for that backend.
    pub store: Option<PathBuf>,
    /// For `local`: a program that calls `local::init`, where this one can't.
    pub helper: Option<PathBuf>,
    /// For `local` and `nspawn`: the simplestreams server that aliases of images are looked up at.
    pub image_server: Option<String>,
    /// Where `nspawn` keeps its machines; `/var/lib/sandscript/nspawn` when not given.
    #[serde(default)]
    pub nspawn_store: Option<PathBuf>,
    /// For `nspawn`: how one comes in at another host.
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    #[serde(default)]
    pub nspawn: nspawn::remote::Access,
    /// For `incus`: the daemon's socket, where it is not in its usual place.
    pub incus_socket: Option<PathBuf>,
    /// For `incus`: folders with remotes and certificates, laid out as the Incus client's.
    pub incus_folders: Vec<PathBuf>,
    /// For `incus`: the project where the host names none.
    pub incus_project: Option<String>,
    /// For `truenas`: how one comes in there.
    #[cfg(feature = "truenas")]
    pub truenas: truenas::Access,
    /// For `local`: do without the user's subordinate ids.
    pub single_id: bool,
}

impl Config {
    /// Tells one from another: two that would not open the same backend have not the same digest. It is
    /// made of the secrets, too, and says nothing of them; of folders with certificates it knows when
    /// they were changed.
    ///
    /// An error is a path in it that is no text.
    pub fn digest(&self, name: &str) -> Result<String> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("the settings can't be told: {error}")))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        hasher.update(b"\0");
        hasher.update(&text);
        for folder in self.incus_folders.iter().filter(|_| name == "incus") {
            for file in ["config.yml", "client.crt", "client.key", "servercerts"] {
                let changed = std::fs::metadata(folder.join(file)).and_then(|meta| meta.modified());
                hasher.update(format!("{:?}\0", changed.ok()).as_bytes());
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Looks at the machine that a backend drives, as far as one comes, before it is opened. Nothing where
/// there is nothing to see.
pub async fn examine(name: &str, config: &Config) -> Vec<Check> {
    match name {
        #[cfg(feature = "incus")]
        "incus" => incus::examine(incus_config(config)).await,
        #[cfg(feature = "truenas")]
        "truenas" => truenas::examine(&config.truenas, config.host.as_deref()).await,
        #[cfg(all(feature = "nspawn", feature = "ssh"))]
        "nspawn" => match remote_config(config) {
            Some(config) => nspawn::remote::examine(&config).await,
            None => Vec::new(),
        },
        _ => {
            let _ = config;
            Vec::new()
        }
    }
}

#[cfg(feature = "incus")]
fn incus_config(config: &Config) -> incus::IncusConfig {
    incus::IncusConfig {
        host: config.host.clone(),
        folders: config.incus_folders.clone(),
        socket: config.incus_socket.clone(),
        project: config.incus_project.clone(),
        helper: config.helper.clone(),
        ..incus::IncusConfig::default()
    }
}

#[cfg(all(feature = "nspawn", feature = "ssh"))]
fn remote_config(config: &Config) -> Option<nspawn::remote::RemoteConfig> {
    Some(nspawn::remote::RemoteConfig {
        host: config.host.clone()?,
        access: config.nspawn.clone(),
        helper: config.helper.clone(),
        image: None,
        image_server: config.image_server.clone(),
    })
}

/// Opens a backend by name.
pub async fn open(name: &str, config: &Config) -> Result<Arc<dyn Backend>> {
    #[cfg(all(feature = "nspawn", feature = "ssh"))]
    if name == "nspawn"
        && let Some(config) = remote_config(config)
    {
        return Ok(Arc::new(nspawn::remote::open(config).await?));
    }
    if let (Some(host), "local" | "nspawn" | "fake") = (&config.host, name) {
        return Err(Error::invalid_hint(
            "host",
            format!("backend '{name}' is on this machine and can't be on '{host}'"),
            "leave the host out, or name a backend that drives another machine",
        ));
    }
    match name {
        #[cfg(feature = "local")]
        "local" => {
            let store = config.store.clone().ok_or_else(|| {
                Error::invalid("store", "backend 'local' needs a folder to keep its sandboxes in")
            })?;
            let config = local::LocalConfig {
                store,
                helper: config.helper.clone(),
                single_id: config.single_id,
                image_server: config.image_server.clone(),
                ..local::LocalConfig::default()
            };
            Ok(Arc::new(local::LocalBackend::open(config)?))
        }
        #[cfg(feature = "incus")]
        "incus" => Ok(Arc::new(incus::IncusBackend::open(incus_config(config)).await?)),
        #[cfg(feature = "truenas")]
        "truenas" => {
            let config = config.truenas.config(config.host.as_deref())?;
            Ok(Arc::new(truenas::TrueNasBackend::open(config).await?))
        }
        #[cfg(feature = "nspawn")]
        "nspawn" => {
            let config = nspawn::NspawnConfig {
                store: config.nspawn_store.clone(),
                helper: config.helper.clone(),
                image_server: config.image_server.clone(),
                ..nspawn::NspawnConfig::default()
            };
            Ok(Arc::new(nspawn::NspawnBackend::open(config).await?))
        }
        "fake" => Ok(Arc::new(fake::FakeBackend::new())),
        _ => {
            let near = NAMES.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
            let hint = match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("the backends are {}", NAMES.join(", ")),
            };
            Err(Error::not_found_hint(Kind::Backend, name, hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_name_opens_and_no_other_does() {
        for name in NAMES.iter().filter(|name| !matches!(**name, "incus" | "nspawn" | "truenas")) {
            let folder = tempfile::tempdir().unwrap();
            let config = Config {
                store: Some(folder.path().join("store")),
                helper: Some("/bin/false".into()),
                ..Config::default()
            };
            let backend = open(name, &config).await.unwrap();
            assert_eq!(backend.capabilities().backend, *name);
        }
        for name in ["local", "fake"].into_iter().filter(|name| NAMES.contains(name)) {
            let config = Config { host: Some("nas".into()), ..Config::default() };
            let error = open(name, &config).await.err().unwrap();
            assert!(matches!(&error, Error::InvalidInput { what, .. } if what == "host"));
        }
        let error = open("nope", &Config::default()).await.err().unwrap();
        assert!(matches!(&error, Error::NotFound { kind: Kind::Backend, .. }));
        assert!(error.hint().unwrap().contains("fake"));
    }
}
