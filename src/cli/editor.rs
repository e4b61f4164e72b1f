//! The files that editors read: type stubs, and where their language servers look for them.

use std::path::{Path, PathBuf};

use super::{CommandError, Result};
use crate::api::Registry;
use crate::lang;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Wrote,
    /// It is another now.
    Updated,
    /// It was as it should be.
    Same,
    /// It is somebody's own and was left alone; what they can do.
    Left(String),
}

/// A file and what became of it.
pub type Done = (PathBuf, Change);

/// Writes the stubs into `stubs`, and sets up the editor files of `project`.
pub fn set_up(project: &Path, stubs: &Path) -> Result<Vec<Done>> {
    let registry = Registry::standard();
    let files = [
        ("sandscript.d.lua", lang::stubs_lua(&registry)),
        ("sandscript.d.rhai", lang::stubs_rhai(&registry)),
    ];
    // Nothing is written when one of them can't be.
    for (name, _) in &files {
        let path = stubs.join(name);
        if read(&path)?.is_some_and(|there| !there.contains(lang::MARK)) {
            let message = format!("'{}' was not made by sandscript stubs", path.display());
            return Err(CommandError::usage(message)
                .hint("move it away, or write to another folder with --out"));
        }
    }
    let mut done = Vec::new();
    make_folder(stubs)?;
    for (name, text) in &files {
        done.push(write(stubs.join(name), text)?);
    }
    done.push(luarc(project, stubs)?);
    done.push(rhai(project)?);
    Ok(done)
}

/// `.luarc.json`, which LuaLS and EmmyLua read.
fn luarc(project: &Path, stubs: &Path) -> Result<Done> {
    let path = project.join(".luarc.json");
    let library = serde_json::json!(shown(project, stubs)).to_string();
    let entry = format!("\"workspace.library\": [{library}]");
    let Some(there) = read(&path)? else {
        let text = format!(
            "{{\n  \"runtime.version\": \"Lua 5.4\",\n  \"workspace.checkThirdParty\": false,\n  {entry}\n}}\n"
        );
        return write(path, &text);
    };
    if there.contains(&library) {
        return Ok((path, Change::Same));
    }
    // Only ever adds a line, so that comments and order stay.
    let start = there.find('{').filter(|at| there[..*at].trim().is_empty());
    match start {
        Some(at) if !there.contains("workspace") => {
            let (head, tail) = there.split_at(at + 1);
            let comma = if tail.trim_start().starts_with('}') { "\n" } else { "," };
            write(path, &format!("{head}\n  {entry}{comma}{tail}"))
        }
        _ => Ok((path, Change::Left(format!("add to it: {entry}")))),
    }
}

/// `Rhai.toml`, which Rhai's language server reads.
fn rhai(project: &Path) -> Result<Done> {
    let path = project.join("Rhai.toml");
    match read(&path)? {
        // Without a line about it, the server reads every file that ends in .rhai.
        Some(there) if !there.contains("include") => Ok((path, Change::Same)),
        Some(there) if there.contains(".rhai") => Ok((path, Change::Same)),
        Some(_) => Ok((path, Change::Left("let include name \"**/*.rhai\", too".into()))),
        None => write(path, "[source]\ninclude = [\"**/*.rhai\"]\n"),
    }
}

/// The folder as it is written into a file of the project.
fn shown(project: &Path, folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let project = project.canonicalize().unwrap_or_else(|_| project.to_owned());
    real.strip_prefix(&project).unwrap_or(&real).display().to_string()
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(CommandError::usage(format!("'{}' can't be read: {error}", path.display())))
        }
    }
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| {
        CommandError::usage(format!("the folder '{}' can't be made: {error}", path.display()))
    })
}

/// Writes a file that nobody else writes, unless it is the same.
pub fn write(path: PathBuf, text: &str) -> Result<Done> {
    let there = read(&path)?;
    if there.as_deref() == Some(text) {
        return Ok((path, Change::Same));
    }
    let change = if there.is_some() { Change::Updated } else { Change::Wrote };
    std::fs::write(&path, text).map_err(|error| {
        CommandError::usage(format!("'{}' can't be written: {error}", path.display()))
    })?;
    Ok((path, change))
}
