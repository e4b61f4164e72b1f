//! The backends, and the one place that names them all.

use std::path::PathBuf;
use std::sync::Arc;

use crate::sandbox::{Backend, Error, Kind, Result};

pub mod fake;
#[cfg(feature = "local")]
pub mod local;

/// The names [`open`] knows, the default first.
pub const NAMES: &[&str] = &["fake"];

/// What a backend is opened with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where `local` keeps its sandboxes; its usual folder when not given.
    pub store: Option<PathBuf>,
}

/// Opens a backend by name.
pub async fn open(name: &str, _config: &Config) -> Result<Arc<dyn Backend>> {
    match name {
        "fake" => Ok(Arc::new(fake::FakeBackend::new())),
        _ => {
            let hint = format!("the backends are {}", NAMES.join(", "));
            Err(Error::not_found_hint(Kind::Backend, name, hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_name_opens_and_no_other_does() {
        for name in NAMES {
            let config = Config { store: Some(std::env::temp_dir().join("sandscript-names")) };
            let backend = open(name, &config).await.unwrap();
            assert_eq!(backend.capabilities().backend, *name);
        }
        let error = open("nope", &Config::default()).await.err().unwrap();
        assert!(matches!(&error, Error::NotFound { kind: Kind::Backend, .. }));
        assert!(error.hint().unwrap().contains("fake"));
    }
}
