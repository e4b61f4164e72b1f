//! Rendered files know themselves: a line at their head holds a digest of the rest, so that one that a
//! person or another program wrote, or changed, is told from ours and is never written over.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::error::{MachineError, Result};

/// How the line begins.
const HEAD: &str = "# sandscript ";

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours, as we wrote it.
    Ours,
    /// Ours, and changed since.
    Changed,
    /// Somebody else's.
    Foreign,
}

/// Whether a line must stay the first: that of an interpreter, or what tells cloud-init what a file is.
fn is_first(line: &str) -> bool {
    line.starts_with('#') && !line.starts_with(HEAD)
}

/// Puts the line in front; behind one that must stay the first.
pub fn stamp(text: &str, source: &str) -> String {
    let source: String = source.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let line = format!("{HEAD}{} made from {source}: change that, not this\n", digest(text));
    match text.split_once('\n') {
        Some((first, rest)) if is_first(first) => format!("{first}\n{line}{rest}"),
        _ => format!("{line}{text}"),
    }
}

/// Whose a file with this text is.
pub fn whose(text: &str) -> Whose {
    let (interpreter, text) = match text.split_once('\n') {
        Some((first, rest)) if is_first(first) => (format!("{first}\n"), rest),
        _ => (String::new(), text),
    };
    let Some((line, rest)) = text.split_once('\n') else { return Whose::Foreign };
    let Some(said) = line.strip_prefix(HEAD).and_then(|line| line.split(' ').next()) else {
        return Whose::Foreign;
    };
    if said == digest(&format!("{interpreter}{rest}")) { Whose::Ours } else { Whose::Changed }
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// Refuses a file that is there and is not ours as we wrote it.
///
/// # Errors
/// `Clobber`; `Io` where it can't be read.
pub fn check(path: &Path) -> Result<()> {
    let there = match std::fs::read(path) {
        Ok(there) => there,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(MachineError::io(path, &error)),
    };
    let whose = std::str::from_utf8(&there).map_or(Whose::Foreign, whose);
    let why = match whose {
        Whose::Ours => return Ok(()),
        Whose::Changed => "was changed by somebody else",
        Whose::Foreign => "was written by somebody else",
    };
    Err(MachineError::Clobber { path: path.to_owned(), why: why.into() })
}

/// Writes a file as a whole, unless it is there with the same text. Says whether it did.
///
/// # Errors
/// `Clobber` for one that is not ours; `Io`.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<bool> {
    check(path)?;
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(false);
    }
    replace(path, text, mode)?;
    Ok(true)
}

/// Takes a file away that is ours as we wrote it; one that is not there is gone already.
///
/// # Errors
/// `Clobber`; `Io`.
pub fn remove(path: &Path) -> Result<()> {
    check(path)?;
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(MachineError::io(path, &error)),
    }
}

/// Puts a whole new file in a path's place, so that nobody ever reads half of it.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let wrong = |error: std::io::Error| MachineError::io(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(wrong)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let done = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if done.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    done.map_err(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_knows_every_change(text in "(#!/bin/sh\n)?([a-z=\n]{0,40})", at in 0usize..200, c in "[A-Z]") {
            let mut stamped = stamp(&text, "x.toml");
            prop_assert_eq!(whose(&stamped), Whose::Ours);
            let at = at % (stamped.len() + 1);
            let head = stamped.find(" made from").unwrap();
            let note = head..stamped[head..].find('\n').unwrap() + head + 1;
            // The note itself may be changed: it says nothing that is acted on.
            prop_assume!(!note.contains(&at));
            stamped.insert_str(at, &c);
            prop_assert_ne!(whose(&stamped), Whose::Ours);
        }
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/x.nspawn");
        let text = stamp("[Exec]\nBoot=yes\n", "x.toml");
        assert!(write(&path, &text, 0o644).unwrap());
        assert!(!write(&path, &text, 0o644).unwrap());
        let newer = stamp("[Exec]\nBoot=no\n", "x.toml");
        assert!(write(&path, &newer, 0o644).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
        for theirs in [format!("{newer}User=me\n"), "[Exec]\n".into(), String::new()] {
            std::fs::write(&path, &theirs).unwrap();
            let error = write(&path, &text, 0o644).unwrap_err();
            assert!(matches!(&error, MachineError::Clobber { .. }), "{error}");
            assert!(error.hint().unwrap().contains("--adopt"));
            assert!(matches!(remove(&path).unwrap_err(), MachineError::Clobber { .. }));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        }
        std::fs::write(&path, &text).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
