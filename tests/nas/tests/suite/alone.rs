//! A simulator as a program of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nas_sim::Release;
use serde_json::Value;

use crate::rig;

/// A simulator as a program of its own.
pub struct Program {
    /// Its process.
    pub child: Child,
    /// What it said when it was ready.
    pub about: Value,
    /// Its folder.
    pub state: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// Starts one.
pub fn program(release: Release, rootfs: Option<&Path>) -> Program {
    with(release, rootfs, &[])
}

/// Starts one with these options, too.
pub fn with(release: Release, rootfs: Option<&Path>, more: &[&str]) -> Program {
    let state = tempfile::tempdir().unwrap().keep();
    let mut command = Command::new(rig::program());
    // What is free is given back to one place, so that growth is growth.
    command.env("MALLOC_ARENA_MAX", "1");
    command
        .args(["--check-results", "--release", release.name(), "--state"])
        .arg(&state)
        .args(more);
    if let Some(rootfs) = rootfs {
        command.arg("--rootfs").arg(rootfs);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Program { child, about: serde_json::from_str(&line).unwrap_or_default(), state }
}
