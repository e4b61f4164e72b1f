//! Host paths: confined to the project folder and what else was allowed.

use std::path::PathBuf;

use super::{Ctx, Result, ScriptError};
use crate::transfer::{self, PackOptions};

/// The real path of a host file or folder that a script names, relative to the project folder.
/// The last parts of it may be missing.
pub(super) fn confined(ctx: &Ctx, given: &str) -> Result<PathBuf> {
    let run = &ctx.host.run;
    if given.is_empty() || given.contains('\0') {
        return Err(ScriptError::runtime(format!("{given:?} is not a host path"))
            .hint("name a file or a folder; \".\" is the project folder"));
    }
    let path = run.project.join(given);
    let mut roots = std::iter::once(&run.project).chain(&run.allowed);
    if let Some(found) = roots.find_map(|root| transfer::confine(&path, root).ok()) {
        return Ok(found);
    }
    // Say the same in the script writer's own words.
    let real = path.canonicalize().unwrap_or(path);
    Err(ScriptError::runtime(format!(
        "'{given}' lies outside the project folder {}",
        run.project.display()
    ))
    .hint(format!("allow it with --allow-path {}", real.display())))
}

/// Like [`confined`], for what must be there and is read now.
pub(super) async fn existing(ctx: &Ctx, given: &str) -> Result<PathBuf> {
    let found = there(ctx, given);
    if let (Err(_), Ok(path)) = (&found, confined(ctx, given)) {
        // It may come.
        ctx.reading(&path, &PackOptions::default()).await;
    }
    found
}

/// Like [`confined`], for what must be there.
pub(super) fn there(ctx: &Ctx, given: &str) -> Result<PathBuf> {
    let path = confined(ctx, given)?;
    match std::fs::symlink_metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ScriptError::from(crate::sandbox::Error::not_found(
                crate::sandbox::Kind::File,
                path.display().to_string(),
            ))
            .hint(format!("host paths are relative to {}", ctx.host.run.project.display())))
        }
        Err(error) => Err(ScriptError::runtime(format!("{}: {error}", path.display()))),
    }
}
