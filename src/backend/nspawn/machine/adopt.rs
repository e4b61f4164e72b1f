//! A `.nspawn` file that somebody else wrote or changed, taken over into the machine file.

use std::path::Path;

use toml_edit::{Array, Value};

use super::edit::Edit;
use super::error::{MachineError, Result};
use super::import;
use super::render::{Plan, stamp};

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Keys of the machine file that are new.
    pub taken: Vec<String>,
    /// Settings of the machine file that the other file did not have, and that hold again.
    pub kept: Vec<String>,
}

/// Puts what the `.nspawn` file of a plan says otherwise into the machine file at `path`, below
/// `[nspawn]`, and lets the `.nspawn` file be written again. Nothing is done where it is ours.
///
/// # Errors
/// `Invalid` for a file that can't be read as one; `Changed`; `Io`.
pub fn adopt(path: &Path, plan: &Plan) -> Result<Adopted> {
    let there = &plan.nspawn.path;
    let text = match std::fs::read_to_string(there) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Adopted::default()),
        Err(error) => return Err(MachineError::io(there, &error)),
    };
    if stamp::whose(&text) == stamp::Whose::Ours {
        return Ok(Adopted::default());
    }
    let theirs = import::nspawn::read(&there.display().to_string(), &text)?;
    let mut edit = Edit::open(path)?;
    let mut adopted = Adopted::default();
    for setting in theirs.iter() {
        let ours = plan.settings.get(&setting.section, &setting.key);
        let new: Vec<&String> = setting.values.iter().filter(|one| !ours.contains(one)).collect();
        let value = match new.as_slice() {
            [] => continue,
            [one] => Value::from(one.as_str()),
            all => Value::Array(all.iter().map(|one| one.as_str()).collect::<Array>()),
        };
        let key = format!("nspawn.{}.{}", setting.section, setting.key);
        edit.put(&key, value)?;
        adopted.taken.push(key);
    }
    for setting in plan.settings.iter() {
        if theirs.get(&setting.section, &setting.key).is_empty() {
            adopted.kept.push(format!("{}.{}", setting.section, setting.key));
        }
    }
    if !adopted.taken.is_empty() {
        edit.save()?;
    }
    // Theirs stays beside it under a name that systemd does not read.
    let aside = there.with_extension("nspawn.adopted");
    std::fs::rename(there, &aside).map_err(|error| MachineError::io(there, &error))?;
    Ok(adopted)
}
