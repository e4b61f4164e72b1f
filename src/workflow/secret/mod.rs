//! Secrets: values that are used and never shown.
//!
//! A [`Secret`] comes from a [`SecretSource`]. From then on the run's [`Mask`] knows it, and takes it
//! out of everything that is told: every event goes through the mask, and so does what commands
//! print, byte by byte, before a report, a tail or a file sees it.

mod forms;
mod mask;
mod masker;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use mask::{MASKED, Mask};
pub use masker::Masker;
pub use source::SecretSource;

use crate::sandbox::{Error, Result};

/// How short a secret may be: a mask of less would cover half of what is printed.
const SHORTEST: usize = 4;

/// A value that is never shown. Neither its `Debug` form nor that of what holds it has the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: Arc<str>,
    value: Arc<[u8]>,
}

impl Secret {
    /// A secret. One of less than four bytes can't be masked and is refused.
    pub fn new(name: impl Into<Arc<str>>, value: impl Into<Arc<[u8]>>) -> Result<Secret> {
        let (name, value) = (name.into(), value.into());
        if value.trim_ascii().len() < SHORTEST {
            return Err(Error::invalid_hint(
                "secret",
                format!("'{name}' has less than {SHORTEST} characters"),
                "it could not be masked: every such text would look like it",
            ));
        }
        Ok(Secret { name, value })
    }

    /// Stands for a secret where nothing is run: its value is empty.
    pub fn unread(name: impl Into<Arc<str>>) -> Secret {
        Secret { name: name.into(), value: Arc::new([]) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value. Whoever asks for it must not show it.
    pub fn expose(&self) -> &[u8] {
        &self.value
    }

    /// The value as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.value).map_err(|_| {
            Error::invalid_hint(
                "secret",
                format!("'{}' is not UTF-8 text", self.name),
                "give it as standard input or as a file's content",
            )
        })
    }

    /// What stands for it where a text is made of it.
    pub fn shown(name: &str) -> String {
        format!("<secret {name}>")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Secret::shown(&self.name))
    }
}

/// Which parts of a command are secrets: their names are in a step's key, their values nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSecrets {
    /// For each such environment variable the secret's name.
    pub env: BTreeMap<String, String>,
    /// The secret that is the standard input.
    pub stdin: Option<String>,
}
