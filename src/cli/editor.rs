//! The files that editors read: type stubs, and where their language servers look for them.

use std::collections::BTreeSet;
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
    let mut files = lang::stub_files(&Registry::standard());
    files.extend(rhai_modules(project, stubs));
    let files: Vec<(PathBuf, String)> =
        files.into_iter().map(|(name, text)| (stubs.join(name), text)).collect();
    // Nothing is written when one of them can't be.
    for (path, _) in &files {
        if read(path)?.is_some_and(|there| !there.contains(lang::MARK)) {
            let message = format!("'{}' was not made by sandscript stubs", path.display());
            return Err(CommandError::usage(message)
                .hint("move it away, or write to another folder with --out"));
        }
    }
    let mut done: Vec<Done> = Vec::new();
    let mut modules: Option<Change> = None;
    for (path, text) in files {
        let folder = path.parent().unwrap_or(stubs);
        make_folder(folder)?;
        let module = folder.ends_with("std");
        let (path, change) = write(path, &text)?;
        if !module {
            done.push((path, change));
        } else if modules.as_ref().is_none_or(|so_far| *so_far == change) {
            modules = Some(change);
        } else {
            modules = Some(Change::Updated);
        }
    }
    done.extend(modules.map(|change| (stubs.join("std"), change)));
    done.push(luarc(project, stubs)?);
    done.push(rhai(project)?);
    Ok(done)
}

/// How many folders with scripts are looked for.
const FOLDERS: usize = 30;

/// The definitions of the standard library for Rhai's language server, which looks for a module from
/// the folder of the script: for the project's folder, and every other one with scripts in Rhai.
fn rhai_modules(project: &Path, stubs: &Path) -> Vec<(String, String)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (project, stubs) = (real(project), real(stubs));
    let mut folders = BTreeSet::from([PathBuf::new()]);
    let walk = ignore::WalkBuilder::new(&project).require_git(false).build();
    for entry in walk.flatten() {
        let name = entry.file_name().to_string_lossy();
        let script = name.ends_with(".rhai") && !name.ends_with(".d.rhai");
        let folder = entry.path().parent().and_then(|path| path.strip_prefix(&project).ok());
        if let Some(folder) = folder.filter(|_| script && folders.len() < FOLDERS) {
            folders.insert(folder.to_owned());
        }
    }
    let inside = stubs.strip_prefix(&project).ok();
    let mut files = Vec::new();
    for folder in folders {
        let place = folder.join("std");
        let back = inside.map(|inside| inside.join(&place).components().count());
        for name in lang::stdlib::names() {
            let module = place.join(name).display().to_string();
            let path = match back {
                Some(back) => format!("{}{module}", "../".repeat(back)),
                None => project.join(&module).display().to_string(),
            };
            files.push((format!("{module}.d.rhai"), lang::stub_rhai_module(name, &path)));
        }
    }
    files
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
