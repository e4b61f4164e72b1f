//! The text of a script.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::api::ScriptError;
use crate::sandbox::{self, format_size};

/// A script: its name, which says the language, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file as it was named.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

impl Source {
    /// The largest script that is read.
    pub const MAX_SIZE: u64 = 4 << 20;

    /// A script that is in memory; `name` has the ending of its language.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// A script from a file.
    pub fn read(path: impl AsRef<Path>) -> Result<Source, ScriptError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
        Source::from_file(&name, &file)
    }

    /// A script from an open file, which messages call `name`.
    pub fn from_file(name: &str, file: &std::fs::File) -> Result<Source, ScriptError> {
        let failed = |error: std::io::Error| unreadable(name, &error);
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(
                ScriptError::runtime(format!("'{name}' is a folder")).hint("name a script in it")
            );
        }
        if meta.len() > Self::MAX_SIZE {
            return Err(ScriptError::runtime(format!(
                "'{name}' has {}; a script has {} at most",
                format_size(meta.len()),
                format_size(Self::MAX_SIZE)
            ))
            .hint("put data into a file of its own and push() it"));
        }
        let mut bytes = Vec::new();
        // A file of another kind has no size, and may have no end.
        file.take(Self::MAX_SIZE).read_to_end(&mut bytes).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            ScriptError::runtime(format!(
                "'{name}' is not UTF-8 text: line {line} holds other bytes"
            ))
            .hint("save it as UTF-8")
        })?;
        // Some editors begin a file with a mark of its encoding.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Ok(Source { name: name.into(), text: text.into() })
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> ScriptError {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            ScriptError::from(sandbox::Error::not_found(sandbox::Kind::File, name))
        }
        _ => ScriptError::runtime(format!("'{name}' can't be read: {error}")),
    }
}
