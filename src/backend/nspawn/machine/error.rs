//! What can be wrong with a machine file, and where.

use std::fmt;
use std::path::PathBuf;

use crate::sandbox;

/// The result of work on machine files.
pub type Result<T, E = MachineError> = std::result::Result<T, E>;

/// A place in a file: both numbers from 1; both 0 where only the file is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// A whole file.
    pub fn file(name: impl Into<String>) -> Place {
        Place { file: name.into(), ..Place::default() }
    }

    /// Where byte `offset` of `text` is.
    pub fn at(file: &str, text: &str, offset: usize) -> Place {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Place { file: file.into(), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (line, 0) => write!(f, ":{line}"),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

/// Why a machine file can't be used, or a rendered one not be written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineError {
    /// What the file says can't be.
    #[error("{place}: {message}")]
    Invalid {
        /// Where it is said.
        place: Place,
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// A file that is to be rendered was written, or changed, by somebody else.
    #[error("{} {why}, and is left as it is", path.display())]
    Clobber {
        /// The file.
        path: PathBuf,
        /// How it is known.
        why: String,
    },
    /// Somebody changed the file since it was read.
    #[error("{} was changed since it was read; nothing is written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The host lacks something, or it can't be rendered for it.
    #[error("{what}")]
    Host {
        /// What is the matter.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file can't be read or written.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
}

impl MachineError {
    /// Something that a file says is wrong.
    pub fn invalid(place: Place, message: impl Into<String>) -> MachineError {
        MachineError::Invalid { place, message: message.into(), hint: None }
    }

    /// A system call on a file failed.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> MachineError {
        MachineError::Io { path: path.into(), message: error.to_string() }
    }

    /// With what would be right, where it says nothing yet.
    pub fn or_hint(mut self, text: impl Into<String>) -> MachineError {
        if let MachineError::Invalid { hint: hint @ None, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            MachineError::Invalid { hint, .. } => hint.clone(),
            MachineError::Clobber { .. } => Some(
                "--adopt takes it over into the machine file; or move it away, then render again"
                    .into(),
            ),
            MachineError::Changed { .. } => Some("look at what changed, then try again".into()),
            MachineError::Host { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            MachineError::Io { .. } => None,
        }
    }
}

impl From<MachineError> for sandbox::Error {
    fn from(error: MachineError) -> Self {
        let hint = error.hint();
        let message = error.to_string();
        match error {
            MachineError::Host { what, hint } => {
                sandbox::Error::unsupported(format!("machine: {what}"), "nspawn", hint)
            }
            _ => sandbox::Error::InvalidInput { what: "machine".into(), message, hint },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters() {
        let text = "a = 1\nä = 2\n";
        assert_eq!(Place::at("f", text, 0).to_string(), "f:1:1");
        assert_eq!(Place::at("f", text, 9).to_string(), "f:2:3");
        assert_eq!(Place::at("f", text, 7).to_string(), "f:2:1");
        assert_eq!(Place::at("f", text, 999).to_string(), "f:3:1");
        assert_eq!(Place::file("f").to_string(), "f");
    }
}
