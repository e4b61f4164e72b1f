//! Why a step or a cell did not succeed.

use crate::sandbox::{Error, Exit};

/// Why a step or a cell's body did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A command ran and did not succeed.
    #[error("{command}: {exit}")]
    Exit {
        /// The command as a person would type it.
        command: String,
        /// How it ended.
        exit: Exit,
    },
    /// A script said so: a failed assertion, a thrown value.
    #[error("{message}")]
    Failed {
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A sandbox call failed.
    #[error(transparent)]
    Error(#[from] Error),
}

impl Failure {
    /// A [`Failure::Failed`] without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Failure::Failed { message: message.into(), hint: None }
    }

    /// Whether it is a cancel and nothing else.
    pub fn is_cancel(&self) -> bool {
        matches!(self, Failure::Error(Error::Cancelled))
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Failure::Failed { hint, .. } => hint.clone(),
            Failure::Error(error) => error.hint(),
            Failure::Exit { .. } => None,
        }
    }
}
