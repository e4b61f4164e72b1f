//! Whether a host path lies where scripts may go.

use std::path::{Path, PathBuf};

use crate::sandbox::{Error, Result};

/// The real path of `path`, when it is `root` or lies below it.
///
/// Links are followed on both sides before they are compared, so that a link inside `root` leads
/// nowhere else. The last parts of `path` may be missing still.
pub fn confine(path: &Path, root: &Path) -> Result<PathBuf> {
    let root = std::fs::canonicalize(root)
        .map_err(|error| Error::invalid("path", format!("{}: {error}", root.display())))?;
    let real = real(path)
        .map_err(|error| Error::invalid("path", format!("{}: {error}", path.display())))?;
    if real.starts_with(&root) {
        return Ok(real);
    }
    Err(Error::invalid_hint(
        "path",
        format!("'{}' lies outside {}", path.display(), root.display()),
        format!("allow it with --allow-path {}", real.display()),
    ))
}

/// Canonical form of a path of which the last parts may be missing.
fn real(path: &Path) -> std::io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut here = std::path::absolute(path)?;
    loop {
        match std::fs::canonicalize(&here) {
            Ok(mut real) => {
                real.extend(missing.iter().rev());
                return Ok(real);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A dangling link is there, but nothing can be said about where it leads.
                let (Some(name), false) = (here.file_name(), here.is_symlink()) else {
                    return Err(error);
                };
                missing.push(name.to_os_string());
                here.pop();
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(folder.path().join("root2")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        for good in ["", "sub", "sub/new/file", "new"] {
            assert!(confine(&root.join(good), &root).is_ok(), "{good}");
        }
        for bad in ["..", "../root2", "up/root2", "sub/../../x", "missing/../../x", "dangling"] {
            let error = confine(&root.join(bad), &root).unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{bad}");
        }
    }
}
