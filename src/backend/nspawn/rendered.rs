//! What is in `/run` of the machines of files, on a host that systemd has booted: it is made from the store, and
//! is taken away with the machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::Inner;
use super::authored::Authored;
use super::command;
use super::machine::render::stamp::{Whose, whose};
use super::record::Machine;
use crate::backend::local::store_error;
use crate::sandbox::{Error, Result};

/// Where an administrator says what machines are like: systemd-nspawn looks there first.
const THEIRS: &str = "/etc/systemd/nspawn";
/// Where machinectl looks for machines that can be started, as long as the host is up.
const IMAGES: &str = "/run/machines";
/// Where those are noted that systemd is to start with the host.
const WANTS: &str = "/etc/systemd/system/machines.target.wants";
/// Where the host's journal has those of machines.
const JOURNAL: &str = "/var/log/journal";

/// The file of somebody else's that systemd-nspawn would read in the place of ours.
fn in_the_way(known: &str) -> Option<PathBuf> {
    let path = Path::new(THEIRS).join(format!("{known}.nspawn"));
    let text = fs::read_to_string(&path).ok()?;
    (whose(&text) != Whose::Ours).then_some(path)
}

impl Inner {
    /// Writes what systemd reads of a machine, and tells it so.
    ///
    /// # Errors
    /// `InvalidInput` where something is there that somebody else wrote, or changed.
    pub(super) async fn render(&self, authored: &Authored, root: &Path) -> Result<()> {
        if let Some(path) = in_the_way(&authored.file.name) {
            return Err(Error::invalid_hint(
                "machine",
                format!(
                    "{} says what '{}' is like, and is not ours",
                    path.display(),
                    authored.file.name
                ),
                "take it over ('sandscript machine import' reads it), or move it away: systemd-nspawn reads that one first",
            ));
        }
        let link = Path::new(IMAGES).join(&authored.file.name);
        if fs::read_link(&link).ok().as_deref() != Some(root) {
            let made = fs::create_dir_all(IMAGES).and_then(|()| {
                if fs::read_link(&link).is_ok() {
                    fs::remove_file(&link)?;
                }
                std::os::unix::fs::symlink(root, &link)
            });
            made.map_err(|error| store_error("making", &link, error))?;
        }
        if !authored.plan.write()?.is_empty() {
            let doing = format!("rendering '{}'", authored.file.name);
            command::run("systemctl", ["daemon-reload"], &doing).await?;
        }
        Ok(())
    }

    /// Takes away what systemd knows of a machine that is deleted: what we rendered, the link by which it would
    /// start with the host, and that of its journal. What somebody else wrote stays.
    pub(super) async fn unrender(&self, name: &str, machine: &Machine) {
        // Of a file that can't be read any more nothing is known but the names.
        let Ok(Some(authored)) = self.authored(name, machine) else { return };
        authored.plan.remove();
        let journal = Path::new(JOURNAL).join(&machine.machine_id);
        if fs::read_link(&journal).is_ok() {
            let _ = fs::remove_file(journal);
        }
        if self.host.systemd().is_none() {
            return;
        }
        let wanted = Path::new(WANTS).join(&authored.unit);
        for link in [wanted, Path::new(IMAGES).join(&authored.file.name)] {
            if fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
                let _ = fs::remove_file(link);
            }
        }
        let doing = format!("deleting '{name}'");
        let _ = command::run("systemctl", ["reset-failed", &authored.unit], &doing).await;
        let _ = command::run("systemctl", ["daemon-reload"], &doing).await;
    }
}
