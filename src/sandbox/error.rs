//! Typed errors. Callers decide by variant, never by matching message text.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of a domain call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a [`Error::NotFound`] or [`Error::AlreadyExists`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// A backend name.
    Backend,
    /// A folder that outlives sandboxes.
    Cache,
    /// A program to execute inside a sandbox.
    Command,
    /// A path inside a sandbox, or a host path named by the user.
    File,
    /// A root file system to create from.
    Image,
    /// A machine of a cluster.
    Member,
    /// A recorded run.
    Run,
    /// A sandbox.
    Sandbox,
    /// A snapshot of a sandbox.
    Snapshot,
    /// A user account inside a sandbox.
    User,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Backend => "backend",
            Kind::Cache => "cache",
            Kind::Command => "command",
            Kind::File => "file",
            Kind::Image => "image",
            Kind::Member => "member of the cluster",
            Kind::Run => "run",
            Kind::Sandbox => "sandbox",
            Kind::Snapshot => "snapshot",
            Kind::User => "user",
        })
    }
}

/// Everything that can go wrong in a domain call.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// The named thing is in use already.
    #[error("{kind} '{name}' exists already")]
    AlreadyExists {
        /// What kind of thing.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The server did not accept the credentials.
    #[error("not authorised: {message}")]
    Auth {
        /// What the server said.
        message: String,
    },
    /// Something else is working on the sandbox.
    #[error("sandbox '{name}' is busy: {what}")]
    Busy {
        /// The sandbox.
        name: String,
        /// What is going on.
        what: String,
    },
    /// Another sandbox has the cache, and one of the two does not share it. Nothing was done: it may
    /// be tried again.
    #[error("cache '{name}' is in use{}", by.as_ref().map_or(String::new(), |by| format!(" by sandbox '{by}'")))]
    CacheInUse {
        /// The cache.
        name: String,
        /// The sandbox that has it, where it is known.
        by: Option<String>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A resource ran out: disk space, inodes, memory, processes.
    #[error("{what}")]
    Exhausted {
        /// What ran out, where.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A fault of ours, or of the machine, that the caller can't mend by other arguments.
    #[error("{message}")]
    Internal {
        /// What failed.
        message: String,
    },
    /// An argument is wrong. Found before any I/O where that is possible.
    #[error("{what}: {message}")]
    InvalidInput {
        /// The argument.
        what: String,
        /// What is wrong with it.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The member of a cluster that holds the sandbox does not answer; the others may.
    #[error("{what}: member '{member}' of the cluster does not answer")]
    MemberAway {
        /// The member.
        member: String,
        /// What was to be done.
        what: String,
    },
    /// The named thing does not exist.
    #[error("{kind} '{name}' not found")]
    NotFound {
        /// What kind of thing.
        kind: Kind,
        /// Its name.
        name: String,
        /// Which ones there are, or how to get it.
        hint: Option<String>,
    },
    /// The sandbox is stopped, and the call needs it running.
    #[error("sandbox '{name}' is not running")]
    NotRunning {
        /// The sandbox.
        name: String,
    },
    /// The guest's own permissions forbid it.
    #[error("permission denied: {what}")]
    Permission {
        /// The path or program.
        what: String,
    },
    /// The call took longer than allowed.
    #[error("{what} timed out after {}", crate::sandbox::units::format_duration(*after))]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The connection to the backend or the sandbox broke; the outcome may be unknown.
    #[error("lost contact: {message}")]
    Transport {
        /// What happened.
        message: String,
    },
    /// The backend can't do this here.
    #[error("{verb} is not supported by backend '{backend}' here")]
    Unsupported {
        /// What was asked.
        verb: String,
        /// Who refused.
        backend: String,
        /// Why, and what to do instead.
        hint: String,
    },
}

impl Error {
    /// An [`Error::InvalidInput`] without a hint.
    pub fn invalid(what: impl Into<String>, message: impl Into<String>) -> Self {
        Error::InvalidInput { what: what.into(), message: message.into(), hint: None }
    }

    /// An [`Error::InvalidInput`] with a hint.
    pub fn invalid_hint(
        what: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Error::InvalidInput { what: what.into(), message: message.into(), hint: Some(hint.into()) }
    }

    /// An [`Error::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal { message: message.into() }
    }

    /// What a refusal of the system means: an [`Error::Internal`], or one of too many open files.
    pub fn io(doing: impl AsRef<str>, error: impl std::borrow::Borrow<std::io::Error>) -> Self {
        let (doing, error) = (doing.as_ref(), error.borrow());
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                Self::too_many_files(doing)
            }
            _ => Self::internal(format!("{doing}: {error}")),
        }
    }

    /// An [`Error::Exhausted`]: this process may open no more files.
    pub fn too_many_files(doing: &str) -> Self {
        Error::Exhausted {
            what: format!("too many open files: {doing}"),
            hint: Self::MORE_FILES.into(),
        }
    }

    /// How a process may open more files.
    pub const MORE_FILES: &str = "raise the limit: ulimit -n 1024";

    /// An [`Error::NotFound`].
    pub fn not_found(kind: Kind, name: impl Into<String>) -> Self {
        Error::NotFound { kind, name: name.into(), hint: None }
    }

    /// An [`Error::NotFound`] with a hint.
    pub fn not_found_hint(kind: Kind, name: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::NotFound { kind, name: name.into(), hint: Some(hint.into()) }
    }

    /// An [`Error::AlreadyExists`].
    pub fn exists(kind: Kind, name: impl Into<String>) -> Self {
        Error::AlreadyExists { kind, name: name.into() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(
        verb: impl Into<String>,
        backend: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Error::Unsupported { verb: verb.into(), backend: backend.into(), hint: hint.into() }
    }

    /// What the user can do about it, where the variant knows.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Exhausted { hint, .. } | Error::Unsupported { hint, .. } => Some(hint.clone()),
            Error::InvalidInput { hint, .. } | Error::NotFound { hint, .. } => hint.clone(),
            Error::AlreadyExists { kind: Kind::Sandbox, name } => {
                Some(format!("use open(\"{name}\") to work with it, or choose another name"))
            }
            Error::CacheInUse { by: Some(by), .. } => {
                Some(format!("wait until it is done, or stop it: sandscript stop {by}"))
            }
            Error::MemberAway { .. } => {
                Some("it is there again when the member is: see `incus cluster list`".into())
            }
            Error::NotRunning { name } => Some(format!("start it first: sandscript start {name}")),
            _ => None,
        }
        .filter(|hint| !hint.is_empty())
    }

    /// A stable word for the variant, for machine-readable output.
    pub fn code(&self) -> &'static str {
        match self {
            Error::AlreadyExists { .. } => "already_exists",
            Error::Auth { .. } => "auth",
            Error::Busy { .. } | Error::CacheInUse { .. } => "busy",
            Error::Cancelled => "cancelled",
            Error::Exhausted { .. } => "exhausted",
            Error::Internal { .. } => "internal",
            Error::InvalidInput { .. } => "invalid_input",
            Error::MemberAway { .. } => "transport",
            Error::NotFound { .. } => "not_found",
            Error::NotRunning { .. } => "not_running",
            Error::Permission { .. } => "permission",
            Error::Timeout { .. } => "timeout",
            Error::Transport { .. } => "transport",
            Error::Unsupported { .. } => "unsupported",
        }
    }
}
