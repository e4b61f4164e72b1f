//! Hooks of machines on a host where systemd is not the first process: there it is us who run them.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Inner;
use super::authored::Authored;
use crate::sandbox::{Error, Result};

/// Runs a command of the host's to its end; what it says goes to the machine's console.
///
/// # Errors
/// `Internal` where it does not start, or fails.
pub(super) async fn run(words: &[String], log: &Path) -> Result<()> {
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    let shown = words.join(" ");
    let failed = |why: String| Error::internal(format!("'{shown}': {why}"));
    let log = File::options().append(true).create(true).open(log);
    let log = log.map_err(|error| failed(error.to_string()))?;
    let also = log.try_clone().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stdout(log).stderr(also).current_dir("/");
    let status = tokio::task::spawn_blocking(move || command.status()).await;
    match status.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if status.code() == Some(124) => Err(failed("it took too long".into())),
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

impl Inner {
    /// Runs a machine's hooks of one moment, by the name that a unit has for it.
    ///
    /// # Errors
    /// `Internal` for the first that fails.
    pub(super) async fn hooks(&self, name: &str, authored: &Authored, when: &str) -> Result<()> {
        let log = self.store.folder(name).join("console.log");
        for (_, words) in authored.plan.hooks.iter().filter(|(key, _)| *key == when) {
            run(words, &log).await.map_err(|error| Error::Internal {
                message: format!(
                    "a hook of sandbox '{name}' failed: {error}; what it said is in {}",
                    log.display()
                ),
            })?;
        }
        Ok(())
    }

    /// What is done before a machine is started.
    pub(super) async fn beforehand(&self, name: &str, authored: &Authored) -> Result<()> {
        authored.plan.write_files()?;
        let log = self.store.folder(name).join("console.log");
        for one in &authored.plan.prepare {
            match run(&one.argv, &log).await {
                Err(error) if !one.optional => return Err(error),
                _ => {}
            }
        }
        self.hooks(name, authored, "ExecStartPre").await
    }

    /// What is done when a machine is gone.
    pub(super) async fn afterwards(&self, name: &str, authored: &Authored) {
        // Nobody waits for what they say any more.
        let _ = self.hooks(name, authored, "ExecStopPost").await;
    }
}
