//! Finding the modules that scripts import, alike in every language.
//!
//! `std/NAME` is a module of the standard library. Any other name is a file beside the script, else
//! in the project folder, named without its ending. Nothing outside the project folder and the
//! folders that were allowed is ever read.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Source, stdlib};
use crate::api::{Result, ScriptError, suggest};
use crate::workflow::RunContext;

/// Where the modules of a script are.
#[derive(Clone, Debug)]
pub struct Modules {
    extension: &'static str,
    beside: PathBuf,
    project: PathBuf,
    allowed: Vec<PathBuf>,
}

/// A module that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its text; the name is that of the file, as messages show it.
    pub source: Source,
    /// The real path of its file; none for a module of the standard library.
    pub file: Option<PathBuf>,
}

/// A file or folder that holds more names than this is not searched for similar ones.
const NAMES: usize = 1_000;

impl Modules {
    /// The modules that `script`, whose files end in `extension`, may import in this run.
    pub fn new(script: &Source, extension: &'static str, run: &RunContext) -> Modules {
        Modules::within(script, extension, &run.project, &run.allowed)
    }

    /// The same where nothing is run.
    pub fn within(
        script: &Source,
        extension: &'static str,
        project: &Path,
        allowed: &[PathBuf],
    ) -> Modules {
        let beside = Path::new(&*script.name).parent().unwrap_or(Path::new("")).to_owned();
        Modules { extension, beside, project: project.to_owned(), allowed: allowed.to_owned() }
    }

    /// Finds and reads a module. `looked` gets the paths of the files that were looked for, missing
    /// ones, too.
    pub fn find(&self, name: &str, looked: &mut Vec<PathBuf>) -> Result<Found> {
        if let Some(rest) = name.strip_prefix(stdlib::PREFIX) {
            return match stdlib::text(rest, self.extension) {
                Some(text) => Ok(Found {
                    source: Source::new(format!("{name}.{}", self.extension), text),
                    file: None,
                }),
                None => {
                    let known = stdlib::titles();
                    let known: Vec<String> = known.iter().map(|one| self.named(one)).collect();
                    let hint = suggest::hint(&self.named(name), known.iter().map(String::as_str));
                    Err(self.no_module(name).hint(hint.unwrap_or_default()))
                }
            };
        }
        self.plain(name)?;
        let mut outside = None;
        for folder in self.folders() {
            let path = folder.join(format!("{name}.{}", self.extension));
            let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
            match self.open(&path) {
                Ok(Some((file, real))) => {
                    looked.push(absolute);
                    let source = Source::from_file(&shown(&path), &file)?;
                    return Ok(Found { source, file: Some(real) });
                }
                Ok(None) => looked.push(absolute),
                Err(error) => outside = outside.or(Some(error)),
            }
        }
        Err(outside.unwrap_or_else(|| self.missing(name)))
    }

    /// Where a file is looked for, in this order.
    fn folders(&self) -> Vec<PathBuf> {
        let beside = if self.beside.as_os_str().is_empty() { Path::new(".") } else { &self.beside };
        let real = beside.canonicalize().unwrap_or_default();
        let mut folders = vec![self.beside.clone()];
        if real != self.project {
            folders.push(self.project.clone());
        }
        folders
    }

    /// The name as the language writes it.
    fn named(&self, name: &str) -> String {
        if self.extension == "lua" { name.replace('/', ".") } else { name.to_owned() }
    }

    fn no_module(&self, name: &str) -> ScriptError {
        ScriptError::runtime(format!("there is no module '{}'", self.named(name)))
    }

    /// Whether `name` may be that of a module.
    fn plain(&self, name: &str) -> Result<()> {
        let bad = |why: &str, hint: String| {
            Err(ScriptError::runtime(format!("{name:?} is no module's name: {why}")).hint(hint))
        };
        if name.is_empty() || name.contains(['\0', '\n', '\\']) {
            return bad("it is no path", "name a file, such as \"lib/util\"".into());
        }
        if name.starts_with('/') {
            let hint = "modules are named from the script's folder or the project folder";
            return bad("it begins with '/'", hint.into());
        }
        let path = Path::new(name);
        if path.components().any(|part| part == Component::ParentDir) {
            let hint = "modules are named from the script's folder or the project folder; put the \
                        module below one of them";
            return bad("'..' leads out", hint.into());
        }
        if let Some(stem) = name.strip_suffix(&format!(".{}", self.extension)) {
            return bad("it has an ending", format!("leave the ending out: \"{stem}\""));
        }
        Ok(())
    }

    /// Opens a file, when it is there; fails when it lies elsewhere.
    fn open(&self, path: &Path) -> Result<Option<(File, PathBuf)>> {
        // Something that is no file must not make the open wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => {
                return Err(ScriptError::runtime(format!(
                    "'{}' can't be read: {}",
                    shown(path),
                    std::io::Error::from(error)
                )));
            }
        };
        let kind = file.metadata().map(|meta| meta.file_type());
        if !kind.is_ok_and(|kind| kind.is_file() || kind.is_dir()) {
            return Err(ScriptError::runtime(format!("'{}' is no file", shown(path))));
        }
        // What was opened counts, not what the name leads to a moment later.
        use std::os::fd::AsRawFd;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .or_else(|_| path.canonicalize())
            .map_err(|error| ScriptError::runtime(format!("'{}': {error}", shown(path))))?;
        let mut roots = std::iter::once(&self.project).chain(&self.allowed);
        if roots.any(|root| real.starts_with(root)) {
            return Ok(Some((file, real)));
        }
        let folder = real.parent().unwrap_or(&real);
        Err(ScriptError::runtime(format!(
            "module '{}' lies outside the project folder {}",
            shown(path),
            self.project.display()
        ))
        .hint(format!("allow it with --allow-path {}", folder.display())))
    }

    /// The error for a module that is nowhere: a similar name, or where it was looked for.
    fn missing(&self, name: &str) -> ScriptError {
        let error = self.no_module(name);
        for folder in self.folders() {
            for other in ["lua", "rhai"].into_iter().filter(|other| *other != self.extension) {
                let path = folder.join(format!("{name}.{other}"));
                if path.exists() {
                    return error.hint(format!(
                        "{} is there, but a script imports modules in its own language",
                        shown(&path)
                    ));
                }
            }
        }
        let mut known = stdlib::titles();
        known.extend(self.folders().iter().flat_map(|folder| self.beside_names(folder, name)));
        let last = name.rsplit('/').next().unwrap_or(name);
        let near = suggest::nearest(name, known.iter().map(String::as_str)).or_else(|| {
            let same = |one: &&String| one.rsplit('/').next() == Some(last);
            known.iter().find(same).map(String::as_str)
        });
        let file = format!("{name}.{}", self.extension);
        let places: Vec<String> =
            self.folders().iter().map(|folder| shown(&folder.join(&file))).collect();
        error.hint(match near {
            Some(near) => format!("did you mean \"{}\"?", self.named(near)),
            None => format!("looked for {}", places.join(" and ")),
        })
    }

    /// The names of the modules in the same folder as `name`, below `folder`.
    fn beside_names(&self, folder: &Path, name: &str) -> Vec<String> {
        let prefix = name.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        let mut names = Vec::new();
        let mut folders = vec![PathBuf::from(prefix)];
        let top = std::fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES);
        folders.extend(
            top.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| PathBuf::from(entry.file_name()))
                .filter(|name| !name.to_string_lossy().starts_with('.')),
        );
        for inner in folders {
            let entries = std::fs::read_dir(folder.join(&inner)).into_iter().flatten().flatten();
            for entry in entries.take(NAMES) {
                let path = inner.join(entry.file_name());
                if path.extension().is_some_and(|end| end == self.extension) {
                    names.push(path.with_extension("").display().to_string());
                }
            }
        }
        names
    }
}

/// The path as messages show it: below the working directory without that.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix("./").unwrap_or(path);
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// The error for a module that is imported while it is being read: `way` are the modules that import
/// one another, the last of which imports the first.
pub fn cycle(way: &[&str]) -> ScriptError {
    let first = way.first().copied().unwrap_or_default();
    let message = match way.len() {
        0 | 1 => format!("'{first}' imports itself"),
        _ => format!("modules import each other in a circle: {} → {first}", way.join(" → ")),
    };
    ScriptError::runtime(message).hint("put what both need into a module of its own")
}

/// The error for a module that a script uses and does not import.
pub(in crate::lang) fn unknown_alias(alias: &str, source: &Source) -> ScriptError {
    let alias = alias.split("::").next().unwrap_or(alias);
    let error = ScriptError::runtime(format!("no module is imported as '{alias}'")).focus(alias);
    let imported = source.text.split("import ").skip(1).filter_map(|rest| {
        let (_, rest) = rest.lines().next()?.split_once(" as ")?;
        rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
    });
    let name = stdlib::names().find(|name| *name == alias);
    match (suggest::nearest(alias, imported), name) {
        (Some(near), _) => error.hint(format!("did you mean '{near}'?")),
        (None, Some(name)) => {
            error.hint(format!("import it first: import \"{}{name}\" as {name};", stdlib::PREFIX))
        }
        (None, None) => error.hint(format!("import it first: import \"…\" as {alias};")),
    }
}
