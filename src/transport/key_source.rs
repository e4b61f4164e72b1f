//! Where a key for SSH comes from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeySource {
    /// A file of somebody's, as OpenSSH writes it.
    File(PathBuf),
    /// The same, which is made when there is none.
    Made(PathBuf),
    /// An agent, by its socket.
    Agent(PathBuf),
}
