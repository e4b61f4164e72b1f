//! `binds`: folders and files of the host in the machine.

use super::error::{MachineError, Place, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};

/// Whose the files look like in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idmap {
    /// As on the host: what belongs to 1000 there belongs to 1000 in it.
    Same,
    /// The owner of the folder is its root, and everything else nobody's.
    Root,
    /// The owner of the folder is the owner of its target.
    Owner,
    /// Nothing is mapped: with a range of its own, everything is nobody's.
    No,
}

impl Idmap {
    /// As an option of a bind mount.
    pub fn word(self) -> &'static str {
        match self {
            Idmap::Same => "idmap",
            Idmap::Root => "rootidmap",
            Idmap::Owner => "owneridmap",
            Idmap::No => "noidmap",
        }
    }
}

/// A folder or file of the host in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The absolute path on the host.
    pub source: String,
    /// The absolute path in the machine.
    pub target: String,
    /// Whether the machine can't write to it.
    pub readonly: bool,
    /// Whose the files are; by the machine's range where it is not said.
    pub idmap: Option<Idmap>,
    /// Whether the machine starts without it where it is not there.
    pub optional: bool,
    /// Whether mounts below it stay behind.
    pub flat: bool,
}

impl Bind {
    /// A bind of both paths, to be written to.
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Bind {
        Bind {
            source: source.into(),
            target: target.into(),
            readonly: false,
            idmap: None,
            optional: false,
            flat: false,
        }
    }

    /// Whose the files are: as said, else as on the host; but nodes and sockets can't be mapped.
    pub fn mapping(&self, namespace: bool) -> Option<Idmap> {
        let special = ["/dev", "/proc", "/sys", "/run"].iter().any(|top| {
            self.source
                .strip_prefix(top)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        match self.idmap {
            _ if !namespace => None,
            Some(Idmap::No) => None,
            Some(idmap) => Some(idmap),
            None if special => None,
            None => Some(Idmap::Same),
        }
    }

    /// As systemd-nspawn reads it: `SOURCE:TARGET[:OPTIONS]`.
    pub fn native(&self, namespace: bool) -> String {
        let escape = |path: &str| path.replace('\\', "\\\\").replace(':', "\\:");
        let optional = if self.optional { "-" } else { "" };
        let mut text = format!("{optional}{}:{}", escape(&self.source), escape(&self.target));
        let flat = self.flat.then_some("norbind");
        let options: Vec<&str> =
            flat.into_iter().chain(self.mapping(namespace).map(Idmap::word)).collect();
        if !options.is_empty() {
            text.push(':');
            text.push_str(&options.join(","));
        }
        text
    }

    /// Reads a table, or `"SOURCE:TARGET[:ro]"`.
    pub(super) fn read(node: &Node) -> Result<Bind> {
        let place = node.origin.place();
        let bind = if let Value::Text(_) = &node.value {
            let word = text(node)?;
            let (word, readonly) = match word.strip_suffix(":ro") {
                Some(rest) => (rest.to_owned(), true),
                None => (word, false),
            };
            let (source, target) = word.split_once(':').unwrap_or((&word, &word));
            Bind { readonly, ..Bind::new(source, target) }
        } else {
            let reader = Reader::new(node)?;
            let Some(source) = reader.text("source")? else {
                return Err(MachineError::invalid(place, "a bind has no source")
                    .or_hint("write it as { source = \"/tank/media\", target = \"/media\" }"));
            };
            let target = reader.text("target")?.unwrap_or_else(|| source.clone());
            let idmap = match reader.text("idmap")?.as_deref() {
                None => None,
                Some("idmap") => Some(Idmap::Same),
                Some("rootidmap") => Some(Idmap::Root),
                Some("owneridmap") => Some(Idmap::Owner),
                Some("noidmap") => Some(Idmap::No),
                Some(other) => {
                    let message = format!("'{other}' is no way to map files");
                    return Err(MachineError::invalid(reader.place_of("idmap"), message)
                        .or_hint("it is idmap, rootidmap, owneridmap or noidmap"));
                }
            };
            let bind = Bind {
                source,
                target,
                readonly: reader.flag("readonly")?.unwrap_or(false),
                idmap,
                optional: reader.flag("optional")?.unwrap_or(false),
                flat: reader.flag("flat")?.unwrap_or(false),
            };
            reader.finish()?;
            bind
        };
        bind.check(place)?;
        Ok(bind)
    }

    fn check(&self, place: Place) -> Result<()> {
        for (what, path) in [("source", &self.source), ("target", &self.target)] {
            let clean = path.starts_with('/') && path.split('/').all(|part| part != "..");
            if !clean || path.contains(['\n', '\0']) {
                let path = path.escape_debug();
                let message = format!("{what} '{path}' is not an absolute path without '..'");
                return Err(MachineError::invalid(place, message));
            }
        }
        if self.target.trim_matches('/').is_empty() {
            return Err(MachineError::invalid(place, "the root itself can't be a target"));
        }
        Ok(())
    }
}
