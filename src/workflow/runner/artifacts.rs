//! What is copied out of a cell's sandbox.

use std::path::{Path, PathBuf};

use crate::sandbox::{Backend, Cancel, Error, FileKind, Result};
use crate::transfer::{UnpackOptions, unpack};

use super::super::{Cell, Event};
use super::executor::Shared;
use super::lane::Lane;

impl Shared {
    /// Copies what there is of the artifacts; the folder they are in now, when there were some.
    pub async fn artifacts(
        &self,
        lane: &Lane,
        sandbox: &str,
        cell: &Cell,
        cancel: &Cancel,
    ) -> Option<PathBuf> {
        let root = self.ctx.artifacts.as_ref().filter(|_| !self.spec.artifacts.is_empty())?;
        let folder = root.join(name(&self.spec.name)).join(name(&cell.id));
        let mut copied = false;
        for path in &self.spec.artifacts {
            match copy(lane.ctx.backend.as_ref(), sandbox, path, &folder, cancel).await {
                Ok(()) => copied = true,
                Err(Error::NotFound { .. } | Error::Cancelled) => {}
                Err(error) => {
                    let message =
                        format!("'{path}' of cell '{}' could not be copied out: {error}", cell.id);
                    self.ctx.events.send(Event::Warning { message, hint: error.hint() });
                }
            }
        }
        copied.then_some(folder)
    }
}

/// What can be the name of a folder, and stays readable.
fn name(text: &str) -> String {
    let safe = |c: char| if c == '/' || c == '\0' || c.is_control() { '_' } else { c };
    let name: String = text.chars().map(safe).take(120).collect();
    match name.trim_matches('.').is_empty() {
        true => format!("_{name}"),
        false => name,
    }
}

async fn copy(
    backend: &dyn Backend,
    sandbox: &str,
    path: &str,
    folder: &Path,
    cancel: &Cancel,
) -> Result<()> {
    let entry = backend.stat(sandbox, path, cancel).await?;
    let target = match entry.kind {
        FileKind::Dir => folder.join(name(&entry.name)),
        _ => folder.to_owned(),
    };
    let tar = backend.pack(sandbox, path, cancel).await?;
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::internal(format!("{}: {error}", folder.display())))?;
    unpack(tar, &target, &UnpackOptions::default()).await.map(drop)
}
