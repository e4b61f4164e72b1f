//! Which entries of a host tree are moved.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::sandbox::{Error, Kind, Result};

/// What of a tree is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackOptions {
    /// Honour `.gitignore`, `.ignore` and `.sandscriptignore` in the tree, and leave `.git` out.
    /// Ignore files outside the tree have no say, so that the same tree gives the same selection anywhere.
    pub ignore_files: bool,
    /// More to leave out: globs as in a `.gitignore`, without a leading `!`.
    pub exclude: Vec<String>,
    /// The source must lie below this folder.
    pub confine: Option<PathBuf>,
}

impl Default for PackOptions {
    fn default() -> Self {
        PackOptions { ignore_files: true, exclude: Vec::new(), confine: None }
    }
}

/// One selected entry.
pub(super) struct Entry {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Its name in the archive, relative.
    pub name: PathBuf,
    /// Its metadata, not following a link.
    pub meta: std::fs::Metadata,
}

/// The entries of a tree, or a single file, in a fixed order: parents first, names by their bytes.
pub(super) struct Selection {
    root: PathBuf,
    single: Option<OsString>,
    walk: Option<ignore::Walk>,
}

impl Selection {
    /// Checks the source and the options; reads nothing of the tree yet.
    pub(super) fn open(source: &Path, options: &PackOptions) -> Result<Selection> {
        let root = match &options.confine {
            Some(root) if source.exists() => super::confine(source, root)?,
            _ => std::fs::canonicalize(source).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    Error::not_found(Kind::File, source.display().to_string())
                }
                io::ErrorKind::PermissionDenied => {
                    Error::Permission { what: source.display().to_string() }
                }
                _ => Error::invalid("path", format!("{}: {error}", source.display())),
            })?,
        };
        if !root.is_dir() {
            if !root.is_file() {
                return Err(Error::invalid(
                    "path",
                    format!("'{}' is neither a file nor a folder", source.display()),
                ));
            }
            let name = source.file_name().or(root.file_name()).map(OsString::from);
            return Ok(Selection { root, single: name, walk: None });
        }
        let mut walk = ignore::WalkBuilder::new(&root);
        walk.hidden(false)
            .parents(false)
            .follow_links(false)
            .ignore(options.ignore_files)
            .git_ignore(options.ignore_files)
            .git_global(false)
            .git_exclude(false)
            .require_git(false)
            .sort_by_file_name(|a, b| a.cmp(b))
            .overrides(overrides(&root, &options.exclude)?);
        if options.ignore_files {
            walk.add_custom_ignore_filename(".sandscriptignore");
            walk.filter_entry(|entry| entry.file_name() != ".git");
        }
        Ok(Selection { root, single: None, walk: Some(walk.build()) })
    }
}

fn overrides(root: &Path, exclude: &[String]) -> Result<ignore::overrides::Override> {
    let wrong = |glob: &str, why: String| {
        Error::invalid_hint(
            "exclude",
            format!("'{glob}' is not a glob: {why}"),
            "write it as in a .gitignore, e.g. \"*.o\" or \"/build/\"",
        )
    };
    let mut builder = ignore::overrides::OverrideBuilder::new(root);
    for glob in exclude {
        if glob.is_empty() || glob.starts_with('!') {
            return Err(wrong(glob, "it is empty or starts with '!'".into()));
        }
        builder.add(&format!("!{glob}")).map_err(|error| wrong(glob, error.to_string()))?;
    }
    builder.build().map_err(|error| Error::invalid("exclude", error.to_string()))
}

impl Selection {
    /// The real path of the tree or file.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

impl Iterator for Selection {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if let Some(name) = self.single.take() {
            let path = self.root.clone();
            return Some(describe(path, PathBuf::from(name)));
        }
        loop {
            let path = match self.walk.as_mut()?.next()? {
                Ok(entry) => entry.into_path(),
                Err(error) => return Some(Err(walk_error(error))),
            };
            match path.strip_prefix(&self.root) {
                Ok(name) if name.as_os_str().is_empty() => continue,
                Ok(name) => {
                    let name = name.to_path_buf();
                    return Some(describe(path, name));
                }
                Err(error) => return Some(Err(io::Error::other(error))),
            }
        }
    }
}

fn describe(path: PathBuf, name: PathBuf) -> io::Result<Entry> {
    let meta = path.symlink_metadata().map_err(|error| named(&path, &error))?;
    Ok(Entry { path, name, meta })
}

fn walk_error(error: ignore::Error) -> io::Error {
    let kind = error.io_error().map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, error.to_string())
}

/// The same error, with the path it is about.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
