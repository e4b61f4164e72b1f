//! Machines of other programs, made into machine files.

mod draft;
pub mod jailmaker;
pub mod nspawn;
mod options;
mod settings;
pub mod words;

use std::path::Path;

use super::error::{MachineError, Place, Result};
use crate::sandbox::check_name;

/// A machine file that was made, and what is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What the machine is called.
    pub name: String,
    /// The file.
    pub text: String,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Makes a machine file of a `.nspawn` file, or of the folder of a jail of jailmaker's.
///
/// # Errors
/// `Io`; `Invalid` where it is neither, or can't be read as that.
pub fn import(path: &Path) -> Result<Imported> {
    let read = |path: &Path| super::read_text(path);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let shown = path.display().to_string();
    let folder = if path.file_name().is_some_and(|name| name == "config") {
        path.parent().unwrap_or(path)
    } else {
        path
    };
    if folder.is_dir() {
        let config = folder.join("config");
        let text = read(&config)?;
        let folder = folder.canonicalize().map_err(|error| MachineError::io(folder, &error))?;
        return jailmaker::import(&config.display().to_string(), &text, &folder);
    }
    if path.extension().is_some_and(|extension| extension == "nspawn") {
        let (name, note) = fitting(&stem(path));
        let mut imported = nspawn::import(&shown, &read(path)?, &name)?;
        imported.notes.extend(note);
        return Ok(imported);
    }
    let what = if path.exists() {
        "is neither a .nspawn file nor a jail's folder"
    } else {
        "is not there"
    };
    Err(MachineError::invalid(Place::file(shown), what)
        .or_hint("give NAME.nspawn, or the folder of a jail with config and rootfs in it"))
}

/// A name that a machine may have, and what is said where it is another.
fn fitting(name: &str) -> (String, Option<String>) {
    if check_name(name).is_ok() {
        return (name.to_owned(), None);
    }
    let lower = name.to_ascii_lowercase();
    let plain: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    let begun = if plain.starts_with(|c: char| c.is_ascii_lowercase()) {
        plain.to_owned()
    } else {
        format!("m-{plain}")
    };
    let short: String = begun.chars().take(63).collect();
    let short = short.trim_end_matches('-').to_owned();
    let note = format!("'{name}' is no name for a machine here: it is called {short}");
    (short, Some(note))
}
