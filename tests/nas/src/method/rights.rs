//! Which datasets are the system's own, and how what ZFS refuses looks on the wire.

use crate::fail::{Fail, Fault};
use crate::nas::Nas;
use crate::release::Release;
use crate::zfs::Refused;

/// Whether queries leave a dataset out.
pub fn hidden(nas: &Nas, name: &str) -> bool {
    if !nas.traps.on(37) {
        return false;
    }
    let part = if nas.release.is_26() { ".truenas_containers" } else { ".ix-virt" };
    name.split('/').any(|p| p == part || p == ".system" || p == "ix-apps" || p == "ix-applications")
}

/// Refuses a path that only the system may touch.
pub fn protected(nas: &Nas, attribute: &str, path: &str) -> Result<(), Fail> {
    let dataset = path.split('@').next().unwrap_or(path);
    let internal = dataset.split('/').any(|p| p == ".truenas_containers");
    if internal && nas.release == Release::V26Rc && nas.traps.on(36) {
        let text = format!("'{dataset}' is a protected path.");
        return Err(Fail::Validation(vec![Fault::new(attribute, text, 13)]));
    }
    Ok(())
}

/// A snapshot that exists already: trap 38.
pub fn exists(nas: &Nas, path: &str) -> Fail {
    if nas.release.is_26() == nas.traps.on(38) {
        let name = path.split('@').next_back().unwrap_or(path);
        Fail::invalid_errno("pool.snapshot.create", format!("{name} already exists."), 17)
    } else {
        Fail::Call(17, format!("Failed to snapshot {path}: dataset already exists"))
    }
}

/// A rollback over newer snapshots: trap 39.
pub fn newer(nas: &Nas, path: &str, all: &[String]) -> Fail {
    if nas.release.is_26() == nas.traps.on(39) {
        let text = "Cannot rollback: more recent snapshots or bookmarks exist. Please pass `recursive: true` to destroy them";
        Fail::Raised("ValueError", text.into())
    } else {
        Fail::fault(format!(
            "Failed to rollback snapshot: cannot rollback to '{path}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\n{}",
            all.join("\n")
        ))
    }
}

/// Everything else that ZFS refuses. `what` is the method's own word for what it tried.
pub fn refused(nas: &Nas, what: &str, refused: Refused) -> Fail {
    let new = nas.release.is_26();
    match refused {
        Refused::Missing(path) if new => {
            Fail::Raised("ZFSPathNotFoundException", format!("'{path}': not found"))
        }
        Refused::Missing(_) => Fail::fault(format!("Failed to {what}: dataset does not exist")),
        Refused::Exists(path) if what == "snapshot" => exists(nas, &path),
        Refused::Exists(path) if new => {
            Fail::invalid_errno(what, format!("{path} already exists."), 17)
        }
        Refused::Exists(_) => {
            Fail::fault(format!("Failed to {what} snapshot: dataset already exists"))
        }
        Refused::Newer(path, all) => newer(nas, &path, &all),
        Refused::Children(path, _) => Fail::Call(
            39,
            format!("Failed to delete dataset: cannot destroy '{path}': filesystem has children"),
        ),
        Refused::Clones(path, clones) if new => Fail::invalid_errno(
            "zfs.resource.snapshot.destroy",
            format!("'{path}' has dependent clones: {}", clones.join(", ")),
            16,
        ),
        Refused::Clones(path, clones) => Fail::Validation(vec![Fault::new(
            "options.defer",
            format!(
                "Please set this attribute as '{path}' snapshot has dependent clones: {}",
                clones.join(", ")
            ),
            22,
        )]),
        Refused::Held(path) if new => {
            Fail::invalid_errno("zfs.resource.snapshot.destroy", format!("'{path}' is held"), 16)
        }
        Refused::Held(path) | Refused::Busy(path) => {
            Fail::Call(16, format!("Failed to {what}: cannot destroy '{path}': dataset is busy"))
        }
        Refused::Full => Fail::Call(28, format!("Failed to {what}: out of space")),
        Refused::NotAClone(_) => Fail::Call(74, "Only cloned datasets can be promoted.".into()),
        Refused::BadName(name) => {
            Fail::invalid(&format!("{what}_create.name"), format!("{name}: invalid name"))
        }
        Refused::Storage(text) => Fail::fault(format!("Failed to {what}: {text}")),
    }
}
