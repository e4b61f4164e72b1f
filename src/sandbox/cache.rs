//! Caches: folders that outlive the sandboxes they are mounted in.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Error, Result, Spec, check_label};

/// A cache in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Which cache, of all that the backend keeps; made when there is none. See [`check_label`].
    pub name: String,
    /// Absolute path in the guest.
    pub target: String,
    /// Others that share it may have it at the same time.
    pub shared: bool,
}

impl CacheMount {
    /// One that nobody else has meanwhile.
    pub fn new(name: impl Into<String>, target: impl Into<String>) -> Self {
        CacheMount { name: name.into(), target: target.into(), shared: false }
    }
}

/// A cache as a backend reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// Its name.
    pub name: String,
    /// Bytes that its files hold.
    pub size: u64,
    /// When a sandbox last began to use it.
    pub used: SystemTime,
    /// A sandbox that runs has it.
    pub busy: bool,
    /// Which one, where it is one alone.
    pub by: Option<String>,
}

/// Refuses caches that no backend can mount, alone or beside the spec's own mounts.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let mut targets: Vec<Vec<&str>> =
        spec.mounts.iter().map(|mount| parts(&mount.target)).collect();
    let mut names: Vec<&str> = Vec::new();
    for cache in &spec.caches {
        check_label(&cache.name).map_err(|_| {
            Error::invalid_hint(
                "caches",
                format!("'{}' is not a name of a cache", cache.name.escape_debug()),
                "use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit",
            )
        })?;
        super::spec::check_target("caches", &cache.target)?;
        if names.contains(&cache.name.as_str()) {
            return Err(Error::invalid("caches", format!("'{}' is given twice", cache.name)));
        }
        let target = parts(&cache.target);
        if targets.contains(&target) {
            let message = format!("target '{}' is given twice", cache.target);
            return Err(Error::invalid("caches", message));
        }
        names.push(&cache.name);
        targets.push(target);
    }
    Ok(())
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect()
}
