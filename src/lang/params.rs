//! The parameters that a script declares, found without running it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tree::{At, Callee, Kind, Node, Tree};
use super::{Modules, Source, language};
use crate::api::{Registry, Value};

/// What a script and its modules ask for with `param`.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// The parameters, in the order they stand in the text.
    pub all: Vec<Declared>,
    /// Whether there may be more: a name is computed, or something could not be read.
    pub open: bool,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its default, where that is literal: it gives the type.
    pub default: Option<Value>,
    /// Its default as it is written; none when the parameter must be given.
    pub written: Option<String>,
    /// What it is for.
    pub doc: Option<String>,
}

impl Params {
    /// The parameters of a script and of the modules that it imports from the project.
    pub fn of(source: &Source, registry: &Registry, project: &Path, allowed: &[PathBuf]) -> Params {
        let mut params = Params::default();
        params.add(source, registry, project, allowed, &mut BTreeSet::new());
        params
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Declared> {
        self.all.iter().find(|param| param.name == name)
    }

    fn add(
        &mut self,
        source: &Source,
        registry: &Registry,
        project: &Path,
        allowed: &[PathBuf],
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let Ok(language) = language(&source.name) else { return };
        let tree = language.tree(source, registry);
        self.open |= !tree.errors.is_empty();
        self.collect(&tree, &source.text);
        let extension = language.extensions()[0];
        let modules = Modules::within(source, extension, project, allowed);
        for path in imports(&tree) {
            let found = path.and_then(|path| modules.find(path, &mut Vec::new()).ok());
            match found {
                Some(found) => {
                    let Some(file) = found.file else { continue };
                    if seen.insert(file) {
                        self.add(&found.source, registry, project, allowed, seen);
                    }
                }
                None => self.open = true,
            }
        }
    }

    fn collect(&mut self, tree: &Tree, text: &str) {
        tree.walk(&mut |node| {
            let Kind::Call(Callee::Function(function), args) = &node.kind else { return };
            if function != "param" {
                return;
            }
            let literal = |index: usize| args.get(index).and_then(Node::literal);
            let Some(Value::String(name)) = literal(0) else {
                self.open = true;
                return;
            };
            if self.get(&name).is_some() {
                return;
            }
            let default = literal(1);
            let written = match &default {
                Some(Value::Unit) => None,
                _ if args.len() > 1 => argument(text, node.at, 1),
                _ => None,
            };
            let doc = literal(2).and_then(|doc| doc.as_str().map(str::to_owned));
            self.all.push(Declared { name, default, written, doc });
        });
    }
}

/// What a script imports; none for a computed name.
pub(super) fn imports(tree: &Tree) -> Vec<Option<&str>> {
    let mut found = Vec::new();
    tree.walk(&mut |node| {
        if let Kind::Import(path, _) = &node.kind {
            found.push(path.as_deref());
        }
    });
    found
}

/// How an argument of the call at a place is written, on one line.
fn argument(text: &str, at: At, index: usize) -> Option<String> {
    let line: usize = text.split_inclusive('\n').take(at.line.checked_sub(1)?).map(str::len).sum();
    let rest: String = text[line..].chars().skip(at.column - 1).collect();
    let inside = rest.split_once('(')?.1;
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    let mut args = vec![String::new()];
    for c in inside.chars() {
        let plain = quote.is_none();
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') if depth == 0 => break,
            (None, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        match args.last_mut() {
            Some(_) if plain && c == ',' && depth == 0 => args.push(String::new()),
            Some(arg) => arg.push(c),
            None => {}
        }
    }
    let written = args.get(index)?.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(written).filter(|written| !written.is_empty())
}

/// The comment that a script begins with: what it is about.
pub fn about(source: &Source) -> String {
    let lines = source.text.lines().skip_while(|line| line.starts_with("#!"));
    let comment = lines.map_while(|line| {
        let text = line.strip_prefix("//").or_else(|| line.strip_prefix("--"))?;
        Some(text.strip_prefix(' ').unwrap_or(text).trim_end().to_owned())
    });
    comment.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_as_they_are_written() {
        let text = "x;\n  param(\"a, (b\", f(1,\n  [2, 3]), \"doc\");";
        let at = At { line: 2, column: 3 };
        assert_eq!(argument(text, at, 1).as_deref(), Some("f(1, [2, 3])"));
        assert_eq!(argument(text, at, 2).as_deref(), Some("\"doc\""));
        assert_eq!(argument(text, at, 3), None);
    }

    #[test]
    fn the_first_comment() {
        let about = |text: &str| about(&Source::new("x.rhai", text));
        assert_eq!(about("// one\n//\n//   two\nlet x = 1; // three"), "one\n\n  two");
        assert_eq!(about("let x = 1;\n// later"), "");
    }
}
