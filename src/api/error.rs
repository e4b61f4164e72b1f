//! Errors as a script writer sees them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{Handle, Object, Value};
use crate::sandbox;

/// The result of a script function.
pub type Result<T, E = ScriptError> = std::result::Result<T, E>;

/// What went wrong in a script, where, and what to do about it. `Display` is the message alone;
/// [`ScriptError::render`] is the whole report.
#[derive(Clone, Debug)]
pub struct ScriptError(Box<Report>);

/// The parts of a [`ScriptError`].
#[derive(Clone, Debug)]
pub struct Report {
    /// What kind of error.
    pub kind: ErrorKind,
    /// One sentence: what is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the script.
    pub position: Option<Position>,
    /// The text of that line.
    pub source_line: Option<String>,
    /// The word the error is about, when the position is that of the whole call.
    pub focus: Option<String>,
    /// The user's own functions it happened in, innermost first.
    pub trace: Vec<Frame>,
    /// Where the module it happened in is imported, innermost first; empty for the script itself.
    pub imported_at: Vec<Position>,
}

/// What kind of error it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `assert` or `assert_eq` did not hold.
    Assert,
    /// The run was cancelled. A script can't catch it.
    Cancelled,
    /// A command that had to succeed did not; the result it had, where it is known.
    Command(Option<Handle>),
    /// The script used more than it may. A script can't catch it.
    Limit,
    /// A wrong call or a fault in the script's own logic.
    Runtime,
    /// A sandbox call failed.
    Sandbox(sandbox::Error),
    /// The script can't be parsed.
    Syntax,
    /// The script threw this itself.
    Thrown(Value),
    /// The run's time is over. A script can't catch it.
    Timeout,
    /// What the run was started with does not fit the script.
    Usage,
}

/// A place in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file as it was named on the command line.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1; 0 when only the line is known.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.column > 0 { write!(f, ":{}", self.column) } else { Ok(()) }
    }
}

/// One of the user's functions on the way to the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name; none for a function without one.
    pub function: Option<String>,
    /// Where it was called.
    pub called_at: Position,
}

impl ScriptError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ScriptError(Box::new(Report {
            kind,
            message: message.into(),
            hint: None,
            position: None,
            source_line: None,
            focus: None,
            trace: Vec::new(),
            imported_at: Vec::new(),
        }))
    }

    /// A wrong call.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Runtime, message)
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.0.hint = Some(hint).filter(|hint| !hint.is_empty());
        self
    }

    /// About a word that stands in the script near the call.
    pub fn focus(mut self, word: impl Into<String>) -> Self {
        self.0.focus = Some(word.into());
        self
    }

    /// A stable word for the kind: `assert`, `cancelled`, `command_failed`, `limit`, `runtime`,
    /// `syntax`, `thrown`, `timeout`, `usage`, or the code of the sandbox error.
    pub fn code(&self) -> &'static str {
        match &self.0.kind {
            ErrorKind::Assert => "assert",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Command(_) => "command_failed",
            ErrorKind::Limit => "limit",
            ErrorKind::Runtime => "runtime",
            ErrorKind::Sandbox(error) => error.code(),
            ErrorKind::Syntax => "syntax",
            ErrorKind::Thrown(_) => "thrown",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Usage => "usage",
        }
    }

    /// Whether `try` in a script may catch it.
    pub fn catchable(&self) -> bool {
        use ErrorKind::{Cancelled, Limit, Syntax, Timeout};
        !matches!(self.0.kind, Cancelled | Limit | Syntax | Timeout)
    }

    /// From a value that a script threw. A map may carry `message`, `hint` and `code`.
    pub fn thrown(value: Value) -> Self {
        if let Value::Handle(handle) = &value
            && let Some(error) = handle.downcast::<ErrorObject>()
        {
            return error.0.clone();
        }
        let part = |key: &str| match &value {
            Value::Map(map) => map.get(key).map(Value::to_string),
            _ => None,
        };
        let message = part("message").unwrap_or_else(|| value.to_string());
        let hint = part("hint");
        let mut error = Self::new(ErrorKind::Thrown(value), message);
        error.hint = hint;
        error
    }

    /// As a value that a script can catch and look into.
    pub fn into_value(self) -> Value {
        match self.0.kind {
            ErrorKind::Thrown(value) if self.0.position.is_none() => value,
            _ => Value::object(ErrorObject(self)),
        }
    }
}

impl Deref for ScriptError {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for ScriptError {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ScriptError {}

impl From<sandbox::Error> for ScriptError {
    fn from(error: sandbox::Error) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        let mut script = Self::new(ErrorKind::Sandbox(error), message);
        script.hint = hint;
        script
    }
}

/// What `catch` gets: properties `code`, `message`, `hint`, and `result` for a failed command.
pub struct ErrorObject(pub ScriptError);

impl Object for ErrorObject {
    fn type_name(&self) -> &'static str {
        "Error"
    }

    fn describe(&self) -> String {
        self.0.message.clone()
    }
}
