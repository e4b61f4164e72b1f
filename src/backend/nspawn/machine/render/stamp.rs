//! Rendered files know themselves: a line at their head holds a digest of the rest, so that one that a
//! person or another program wrote, or changed, is told from ours and is never written over.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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

/// How lines begin that must stay the first: that of an interpreter, and what tells cloud-init what a
/// file is. Several may follow each other: a template of a script, a script that is run at each boot.
const FIRST: &[&str] =
    &["#!", "## template:", "#cloud-", "#include", "#part-handler", "#upstart-job"];

/// A text as the lines that must stay the first, and the rest.
fn split(text: &str) -> (&str, &str) {
    let mut at = 0;
    while let Some((line, _)) = text[at..].split_once('\n')
        && FIRST.iter().any(|head| line.starts_with(head))
    {
        at += line.len() + 1;
    }
    text.split_at(at)
}

/// Puts the line in front; behind those that must stay the first.
pub fn stamp(text: &str, source: &str) -> String {
    let source: String = source.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let line = format!("{HEAD}{} made from {source}: change that, not this\n", digest(text));
    let (first, rest) = split(text);
    format!("{first}{line}{rest}")
}

/// Whose a file with this text is.
pub fn whose(text: &str) -> Whose {
    let (first, stamped) = split(text);
    let Some((line, rest)) = stamped.split_once('\n') else { return Whose::Foreign };
    let Some(said) = line.strip_prefix(HEAD).and_then(|line| line.split(' ').next()) else {
        return Whose::Foreign;
    };
    if said == digest(&format!("{first}{rest}")) { Whose::Ours } else { Whose::Changed }
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

/// Makes a folder that nobody but its owner can look into, or closes the one that is there.
///
/// # Errors
/// `Io`.
pub fn close(folder: &Path) -> Result<()> {
    let wrong = |error: std::io::Error| MachineError::io(folder, &error);
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        std::fs::create_dir_all(above).map_err(wrong)?;
    }
    if let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(folder)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(wrong(error));
    }
    let mode = std::fs::metadata(folder).map_err(wrong)?.permissions().mode() & 0o7777;
    if mode != 0o700 {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).map_err(wrong)?;
    }
    Ok(())
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
        fn a_stamp_knows_every_change(text in "(## template: jinja\n)?(#cloud-config\n|#!/bin/sh\n)?([a-z=\n]{0,40})", at in 0usize..200, c in "[A-Z]") {
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
            assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        }
    }

    #[test]
    fn what_tells_programs_what_a_file_is_stays_in_front() {
        for (head, rest) in [
            ("", "a=b\n"),
            ("", "# a remark\nnameserver 192.0.2.1\n"),
            ("#!/bin/sh\n", "# a remark\ntrue\n"),
            ("#cloud-config\n", "packages: [git]\n"),
            ("## template: jinja\n#cloud-config\n", "hostname: {{ ds.x }}\n"),
            ("#cloud-boothook\n#!/bin/sh\n", "true\n"),
            ("## template: jinja\n#cloud-boothook\n#!/bin/sh\n", "true\n"),
            ("#include\n", "https://example.org/x\n"),
        ] {
            let text = stamp(&format!("{head}{rest}"), "x.toml");
            assert!(text.starts_with(&format!("{head}{HEAD}")), "{text}");
            assert!(text.ends_with(&format!("not this\n{rest}")), "{text}");
            assert_eq!(whose(&text), Whose::Ours);
        }
    }

    #[test]
    fn a_folder_is_closed_that_was_open() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("a/web");
        let mode = || std::fs::metadata(&folder).unwrap().permissions().mode() & 0o7777;
        close(&folder).unwrap();
        assert_eq!(mode(), 0o700);
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        close(&folder).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
