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

/// What can be the name of a folder, here and where a CI takes it, and stays readable: other
/// characters are percent-encoded, as in the ids of cells. Long ones are cut, and a digest makes up for it.
fn name(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        if "/:\\".contains(character) || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(character);
        }
    }
    if name.len() > LONGEST {
        let cut = (0..=LONGEST).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(cut);
        name.push_str(&format!("-{}", &blake3::hash(text.as_bytes()).to_hex()[..12]));
    }
    match name.trim_matches('.').is_empty() {
        true => format!("_{name}"),
        false => name,
    }
}

/// As many bytes of a name are kept; a file system takes 255.
const LONGEST: usize = 120;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_tell_cells_apart() {
        assert_eq!(name("local:debian/12/db=x"), "local%3Adebian%2F12%2Fdb=x");
        assert_eq!(name(".."), "_..");
        let long = |end: &str| name(&format!("{}{end}", "ä".repeat(200)));
        assert!(long("a") != long("b") && long("a").len() < 255, "{}", long("a"));
    }
}
