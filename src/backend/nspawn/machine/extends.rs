//! `extends`: a machine as a template, or another file, with what is different.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{MachineError, Result};
use super::reader::text;
use super::templates;
use super::tree::{self, Node, Source, Value};
use crate::suggest;

/// How many files may extend each other: far more than anyone can follow.
const MOST: usize = 16;

/// Lays a file over all that it extends, and names those, the nearest first.
///
/// A word is one of our templates; what has a `/` or ends in `.toml` is a file, from the folder of
/// the one that names it.
///
/// # Errors
/// `Invalid` where it is named that a template is not known, a file can't be read, or they extend
/// each other in a circle.
pub fn resolve(source: &Arc<Source>, folder: &Path) -> Result<(Node, Vec<String>)> {
    let mut layers = vec![tree::parse(source)?];
    let mut folder = folder.to_owned();
    // By what a file is, so that two ways to write a path are one.
    let first = folder.join(Path::new(&source.name).file_name().unwrap_or_default());
    let mut seen = vec![first.canonicalize().unwrap_or(first)];
    let mut chain = Vec::new();
    while let Some(top) = layers.last() {
        let Value::Table(table) = &top.value else { break };
        let Some(node) = table.get("extends") else { break };
        let word = text(node)?;
        let place = node.origin.place();
        let (next, inside) = find(&word, &folder).map_err(|(message, hint)| {
            MachineError::invalid(place.clone(), message).or_hint(hint)
        })?;
        let id = inside.clone().unwrap_or_else(|| PathBuf::from(&next.name));
        if seen.contains(&id) || seen.len() > MOST {
            chain.push(word);
            let all = chain.join(" → ");
            return Err(MachineError::invalid(place, format!("it extends itself: {all}")));
        }
        seen.push(id);
        chain.push(word);
        if let Some(path) = inside {
            folder = path.parent().map(Path::to_owned).unwrap_or_default();
        }
        layers.push(tree::parse(&Arc::new(next))?);
    }
    let mut merged: Option<Node> = None;
    while let Some(layer) = layers.pop() {
        merged = Some(match merged {
            Some(below) => tree::over(below, layer),
            None => layer,
        });
    }
    merged
        .map(|root| (root, chain))
        .ok_or_else(|| MachineError::invalid(Default::default(), "there is no file"))
}

/// The file, and where it is if it is none of ours.
fn find(word: &str, folder: &Path) -> Result<(Source, Option<PathBuf>), (String, String)> {
    if let Some(template) = templates::find(word) {
        let source =
            Source { name: format!("template {word}"), text: template.text.into(), trusted: true };
        return Ok((source, None));
    }
    if !word.contains('/') && !word.ends_with(".toml") {
        let names = templates::ALL.iter().map(|template| template.name);
        let hint = suggest::hint(word, names).unwrap_or_default();
        return Err((format!("there is no template '{word}'"), hint));
    }
    let path = folder.join(word);
    let read = path.canonicalize().and_then(|path| Ok((std::fs::read_to_string(&path)?, path)));
    let (text, path) = read.map_err(|error| {
        (
            format!("'{word}' can't be read: {error}"),
            "it is looked for from this file's folder".into(),
        )
    })?;
    let name = path.display().to_string();
    Ok((Source { name, text, trusted: false }, Some(path)))
}
