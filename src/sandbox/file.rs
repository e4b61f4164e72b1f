//! Files inside a sandbox.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// One entry of a directory, or the answer of `stat`. Links are not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The last part of the path.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits, e.g. `0o644`.
    pub mode: u32,
    /// Owner inside the sandbox.
    pub uid: u32,
    /// Group inside the sandbox.
    pub gid: u32,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// What part of a file to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// First byte.
    pub offset: u64,
    /// How many bytes at most; to the end when not given.
    pub length: Option<u64>,
}

/// How to write a file. Mode and owner hold on overwrite too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Permission bits; when not given, those of the file that is replaced, else `0o644`.
    pub mode: Option<u32>,
    /// `user` or `user:group`, names or numbers; when not given, those of the file that is replaced, else root.
    pub owner: Option<String>,
    /// Create missing parent directories (mode 0755, root).
    pub parents: bool,
}
