//! Private id ranges for the sandboxes of root: one for each that runs, machine-wide.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::mode::RANGE;
use super::record::store_error;
use crate::sandbox::{Error, Result};

/// Above the ids that systemd gives to containers, below the sign bit that some tools trip over.
const FIRST: u32 = 0x7000_0000;
const COUNT: u32 = 0x0fff;
const FOLDER: &str = "/run/sandscript/ranges";

/// Finds a free range: its first id, and a lock that holds it. The lock goes to the sandbox's init,
/// whose death frees the range.
pub fn allocate() -> Result<(u32, OwnedFd)> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder).map_err(|error| store_error("making", folder, error))?;
    let mut seed = [0; 4];
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    let start = u32::from_ne_bytes(seed) % COUNT;
    for step in 0..COUNT {
        let number = (start + step) % COUNT;
        let path = folder.join(number.to_string());
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| store_error("opening", &path, error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok((FIRST + number * RANGE, file.into()));
        }
    }
    Err(Error::Exhausted {
        what: "all 4095 id ranges for sandboxes are in use".into(),
        hint: "stop some sandboxes: `sandscript list` shows them".into(),
    })
}
