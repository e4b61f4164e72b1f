//! The one place where an error becomes sentences and an exit code.

use serde_json::{Value, json};

use crate::api::ScriptError;
use crate::sandbox::{Error, Kind};
use crate::workflow::exit;

/// An error as the user reads it.
#[derive(Clone, Debug)]
pub struct CommandError {
    /// The exit code.
    pub code: u8,
    /// A stable word for programs.
    pub word: &'static str,
    /// What is wrong, and where.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The domain's error behind it.
    pub source: Option<Box<Error>>,
}

impl CommandError {
    /// The command line, a setting or a file that the user wrote is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        CommandError {
            code: exit::USAGE,
            word: "usage",
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A fault of sandscript or of the machine.
    pub fn internal(message: impl Into<String>) -> Self {
        CommandError {
            code: exit::INTERNAL,
            word: "internal",
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A fault of the machine that a system call told.
    pub fn system(what: &str, error: &std::io::Error) -> Self {
        let command = CommandError::internal(format!("{what}: {error}"));
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                command.hint(Error::MORE_FILES)
            }
            _ => command,
        }
    }

    /// A script's error: where it stands in the script belongs to the message.
    pub fn from_script(error: &ScriptError, code: u8) -> Self {
        let report = error.render();
        let report = report.strip_prefix("error: ").unwrap_or(&report);
        let (message, hint) = match report.split_once("\n  hint: ") {
            Some((message, hint)) => (message, Some(hint.trim_end().replace("\n        ", "\n"))),
            None => (report.trim_end(), None),
        };
        CommandError { code, word: error.code(), message: message.into(), hint, source: None }
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// For `--format json`.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "code": self.word,
            "exit": self.code,
            "message": self.message,
            "hint": self.hint,
        }})
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::InvalidInput { .. } => exit::USAGE,
            // A verb has no script that could be wrong: what it was asked did not succeed.
            _ => match exit::of_error(&error) {
                exit::SCRIPT => exit::FAILED,
                code => code,
            },
        };
        CommandError {
            code,
            word: error.code(),
            message: error.to_string(),
            hint: hint(&error),
            source: Some(Box::new(error)),
        }
    }
}

/// The hint in words of the command line, where the domain speaks of scripts.
fn hint(error: &Error) -> Option<String> {
    match error {
        Error::AlreadyExists { kind: Kind::Sandbox, name } => {
            Some(format!("choose another name, or delete that one: sandscript delete {name}"))
        }
        Error::NotFound { kind: Kind::Sandbox, .. } => {
            Some("'sandscript list' shows what is there".into())
        }
        Error::Internal { .. } => Some("'sandscript doctor' says what this machine lacks".into()),
        other => other.hint(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_have_no_script_errors() {
        let code = |error: Error| CommandError::from(error).code;
        assert_eq!(code(Error::not_found(Kind::Sandbox, "x")), exit::FAILED);
        assert_eq!(code(Error::invalid("name", "bad")), exit::USAGE);
        assert_eq!(code(Error::unsupported("limit-cpu", "local", "")), exit::UNSUPPORTED);
        assert_eq!(code(Error::Cancelled), exit::INTERRUPTED);
    }
}
