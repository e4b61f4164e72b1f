//! What bases and cells start from.

use super::BaseHandle;

/// What a base's first step or a cell's sandbox starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A built base.
    Base(Box<BaseHandle>),
    /// A root file system.
    Image {
        /// Its name; the backend's default when not given.
        image: Option<String>,
        /// Only for an image given by URL: the sha256 its bytes must have.
        sha256: Option<String>,
    },
    /// A snapshot of a sandbox.
    Snapshot {
        /// The sandbox.
        sandbox: String,
        /// The snapshot's label; the current state when not given (cells only).
        label: Option<String>,
    },
}

impl Source {
    /// An image by name.
    pub fn image(image: impl Into<String>) -> Self {
        Source::Image { image: Some(image.into()), sha256: None }
    }
}

impl From<BaseHandle> for Source {
    fn from(base: BaseHandle) -> Self {
        Source::Base(Box::new(base))
    }
}

impl Default for Source {
    /// The backend's default image.
    fn default() -> Self {
        Source::Image { image: None, sha256: None }
    }
}
