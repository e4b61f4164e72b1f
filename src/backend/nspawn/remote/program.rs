//! The program that is sent to other hosts: this one, as a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::sandbox::{Error, Result};

/// It, and what it is known by.
#[derive(Clone)]
pub(super) struct Program {
    path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// How many bytes it has.
    pub size: u64,
}

impl Program {
    /// This program, or the helper that stands in for it.
    pub fn find(helper: Option<&Path>) -> Result<Program> {
        // It may have been replaced by a newer one since it was started.
        let path = helper.unwrap_or(Path::new("/proc/self/exe")).to_owned();
        let failed = |error: io::Error| Error::io(format!("reading {}", path.display()), error);
        let mut file = File::open(&path).map_err(failed)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Program { path, sha256, size })
    }

    /// Its bytes.
    pub async fn open(&self) -> Result<tokio::fs::File> {
        let opened = tokio::fs::File::open(&self.path).await;
        opened.map_err(|error| Error::io(format!("reading {}", self.path.display()), error))
    }
}
