//! What is in `/run` of the machines of files, on a host that systemd has booted: it is made from the store, and
//! is taken away with the machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::Inner;
use super::authored::Authored;
use super::command;
use super::machine::render::stamp::{Whose, whose};
use super::machine::render::unit_name;
use super::record::Machine;
use crate::backend::local::store_error;
use crate::sandbox::{Error, Result};

/// Where an administrator says what machines are like: systemd-nspawn looks there first.
const THEIRS: &str = "/etc/systemd/nspawn";
/// Where machinectl looks for machines that can be started, as long as the host is up.
const IMAGES: &str = "/run/machines";
/// Where others have theirs.
const OTHERS: &str = "/var/lib/machines";
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

/// Whether a path is a machine's folder, or leads there.
fn leads(path: &Path, root: &Path) -> bool {
    let same = |to: PathBuf| root.canonicalize().is_ok_and(|root| root == to);
    path == root
        || fs::read_link(path).is_ok_and(|to| to == root)
        || path.canonicalize().is_ok_and(same)
}

/// Somebody else's machine of this name.
fn another(known: &str, root: &Path) -> Option<PathBuf> {
    let others = Path::new(OTHERS);
    let all =
        [others.join(known), others.join(format!("{known}.raw")), Path::new(IMAGES).join(known)];
    all.into_iter().find(|path| path.symlink_metadata().is_ok() && !leads(path, root))
}

/// Refuses a name that somebody else's machine has.
///
/// # Errors
/// `InvalidInput`.
fn is_alone(known: &str, root: &Path) -> Result<()> {
    match another(known, root) {
        None => Ok(()),
        Some(path) => Err(Error::invalid_hint(
            "machine",
            format!("{} is another machine of this host that is called '{known}'", path.display()),
            "give one of them another name; to take that one over, say it in the file: image = { folder = \"…\" }",
        )),
    }
}

impl Inner {
    /// Refuses a new machine whose name this host's systemd knows from somebody else.
    ///
    /// # Errors
    /// `InvalidInput` where there is a machine of that name, or one that starts with the host.
    pub(super) fn is_unknown(&self, name: &str, root: &Path) -> Result<()> {
        if self.host.systemd().is_none() {
            return Ok(());
        }
        let known = self.store.machine_name(name);
        is_alone(&known, root)?;
        let wanted = Path::new(WANTS).join(unit_name(&known));
        // Whoever takes a machine over takes that over, too.
        if wanted.symlink_metadata().is_err() || Path::new(OTHERS).join(&known).exists() {
            return Ok(());
        }
        Err(Error::invalid_hint(
            "machine",
            format!("{} has another machine start that is called '{known}'", wanted.display()),
            format!("give it another name, or: machinectl disable {known}"),
        ))
    }

    /// Writes what systemd reads of a machine, and tells it so.
    ///
    /// # Errors
    /// `InvalidInput` where something is there that somebody else wrote, or changed, or is another machine of the
    /// same name.
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
        is_alone(&authored.file.name, root)?;
        let link = Path::new(IMAGES).join(&authored.file.name);
        if link.symlink_metadata().is_err() {
            let made =
                fs::create_dir_all(IMAGES).and_then(|()| std::os::unix::fs::symlink(root, &link));
            made.map_err(|error| store_error("making", &link, error))?;
        }
        if !authored.plan.write()?.is_empty() {
            let doing = format!("rendering '{}'", authored.file.name);
            command::run("systemctl", ["daemon-reload"], &doing).await?;
        }
        Ok(())
    }

    /// Takes away what systemd knows of a machine that is deleted: what we rendered, the link by which it would
    /// start with the host, and that of its journal. What is somebody else's stays.
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
        let known = &authored.file.name;
        let is_link = |link: &Path| link.symlink_metadata().is_ok_and(|found| found.is_symlink());
        let (wanted, link) = (Path::new(WANTS).join(&authored.unit), Path::new(IMAGES).join(known));
        let root = self.root(name, machine);
        // What starts another machine of this name stays, and that of a folder that stays.
        let alone = another(known, &root).is_none() && !Path::new(OTHERS).join(known).exists();
        if alone && is_link(&wanted) {
            let _ = fs::remove_file(wanted);
        }
        if is_link(&link) && leads(&link, &root) {
            let _ = fs::remove_file(link);
        }
        let doing = format!("deleting '{name}'");
        let _ = command::run("systemctl", ["reset-failed", &authored.unit], &doing).await;
        let _ = command::run("systemctl", ["daemon-reload"], &doing).await;
    }
}
