//! Why a step or a cell did not succeed.

use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Exit};

/// A place in a file: of the script, or of what is tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1; 0 when only the line is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

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
    /// A failure of which the place is known.
    #[error("{failure}")]
    At {
        /// Where it is.
        place: Place,
        /// What it is.
        failure: Box<Failure>,
    },
    /// A cell in which there is nothing to do.
    #[error("{reason}")]
    Skipped {
        /// Why.
        reason: String,
    },
    /// A cell that failed, as it said it would.
    #[error("{reason}: {failure}")]
    Expected {
        /// Why it was expected.
        reason: String,
        /// What went wrong.
        failure: Box<Failure>,
    },
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
            Failure::At { failure, .. } => failure.hint(),
            Failure::Exit { .. } | Failure::Skipped { .. } | Failure::Expected { .. } => None,
        }
    }

    /// Where it happened, where that is known.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Failure::At { place, .. } => Some(place),
            Failure::Expected { failure, .. } => failure.place(),
            _ => None,
        }
    }
}
