//! Imports: whether there is such a module, what it has, and whether it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::shape::Shape;
use super::walk::Walk;
use crate::api::{ScriptError, find_word, suggest};
use crate::lang::modules::{cycle, unknown_alias};
use crate::lang::stdlib;
use crate::lang::tree::{At, Exports};

/// The imports of a script by the names they got: where, and whether they are used.
#[derive(Default)]
pub(super) struct Imports {
    all: BTreeMap<Rc<str>, (At, bool)>,
}

/// What an import gave.
#[derive(Debug)]
pub(super) struct Import {
    /// The name it was imported by.
    alias: Option<Rc<str>>,
    /// The name of the module, as the script writes it.
    title: String,
    /// What the module has, where that is known.
    exports: Option<Arc<Exports>>,
}

/// How something of an import is used.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// As a value.
    Value,
    /// As a function, with these arguments.
    Call(Option<Given>),
}

/// The arguments of a call.
#[derive(Clone, Copy)]
pub(super) struct Given {
    /// How many stand there.
    pub count: usize,
    /// Whether the last of them may stand for none or for many.
    pub open: bool,
    /// How many there are besides, which nobody wrote.
    pub hidden: usize,
}

impl Imports {
    pub fn used(&mut self, import: &Import) {
        if let Some(alias) = &import.alias {
            self.used_name(alias);
        }
    }

    /// Whether there is an import of this name; it is used then.
    fn used_name(&mut self, alias: &str) -> bool {
        let found = self.all.get_mut(alias);
        found.map(|(_, used)| *used = true).is_some()
    }
}

impl<'a> Walk<'a> {
    pub fn import(&mut self, path: Option<&str>, name: Option<&str>, at: At) -> Shape {
        let found = path.map(|path| self.checker.exports(self.source, path)).unwrap_or(Ok(None));
        if let Some(path) = path
            && self.depth == 0
            && found.is_ok()
            && let Some(way) = self.checker.circle(self.source, path)
        {
            let way: Vec<String> = way.iter().map(|name| self.module_name(name)).collect();
            let way: Vec<&str> = way.iter().map(String::as_str).collect();
            self.report("import-cycle", at, cycle(&way));
        }
        // One that is missing is a mistake, whether it is used or not.
        let missing = found.is_err();
        let exports = found.unwrap_or_else(|error| {
            self.report("unknown-module", at, error);
            None
        });
        let alias: Option<Rc<str>> = name.map(Into::into);
        let title = self.module_name(path.unwrap_or_default());
        let shape = Shape::Module(Rc::new(Import { alias: alias.clone(), title, exports }));
        if let Some(alias) = alias {
            self.declare(&alias, shape.clone());
            self.imports.all.entry(alias).or_insert((at, missing));
        }
        shape
    }

    /// The name of a module as the language writes it.
    fn module_name(&self, name: &str) -> String {
        match self.tree.builtin.flat_functions {
            true => name.to_owned(),
            false => name.replace('/', "."),
        }
    }

    /// Something of a module, named with the name of the import: `apt::install`.
    pub fn qualified(&mut self, module: &str, name: &str, asked: Asked, at: At) {
        let (alias, inner) = match module.split_once("::") {
            Some((alias, inner)) => (alias, Some(inner)),
            None => (module, None),
        };
        match (self.lookup(alias), inner) {
            (Some(Shape::Module(import)), None) => self.check_member(&import, name, asked, at),
            _ if self.imports.used_name(alias) || alias == "global" => {}
            _ if self.tree.unread.contains(alias) => {}
            _ => self.report("unknown-module", at, unknown_alias(alias, self.source)),
        }
    }

    /// Something of a module, as of any value: `apt.install`.
    pub fn member(&mut self, import: &Import, name: &str, asked: Asked, at: At) {
        self.imports.used(import);
        // Where modules are no values, this is a variable that has the same name.
        if !self.tree.builtin.flat_functions {
            self.check_member(import, name, asked, at);
        }
    }

    fn check_member(&mut self, import: &Import, name: &str, asked: Asked, at: At) {
        self.imports.used(import);
        let Some(exports) = &import.exports else { return };
        if self.fields.contains(name) && !self.tree.builtin.flat_functions {
            return;
        }
        let found = match asked {
            Asked::Call(given) => self.called(import, exports, name, given),
            Asked::Value => self.read(import, exports, name),
        };
        if let Some((code, error)) = found {
            self.report(code, at, error);
        }
    }

    fn called(
        &self,
        import: &Import,
        exports: &Exports,
        name: &str,
        given: Option<Given>,
    ) -> Option<(&'static str, ScriptError)> {
        let Import { title, .. } = import;
        if let Some(takes) = exports.functions.get(name) {
            let error = self.wrong_count(import, name, takes, given?)?;
            return Some(("wrong-arity", error));
        }
        if exports.variables.contains(name) {
            return None;
        }
        let error = match exports.private.contains(name) {
            true => ScriptError::runtime(format!("'{name}' is private in module '{title}'")),
            false => {
                let known = exports.functions.keys().map(String::as_str);
                ScriptError::runtime(format!("module '{title}' has no function '{name}'"))
                    .hint(suggest::hint(name, known).unwrap_or_default())
            }
        };
        Some(("unknown-function", error))
    }

    fn wrong_count(
        &self,
        import: &Import,
        name: &str,
        takes: &BTreeSet<usize>,
        given: Given,
    ) -> Option<ScriptError> {
        let takes: BTreeSet<usize> =
            takes.iter().filter_map(|count| count.checked_sub(given.hidden)).collect();
        let (most, count) = (*takes.last()?, given.count);
        if self.takes_it(&takes, given) {
            return None;
        }
        let s = if most == 1 { "" } else { "s" };
        let mark = match (self.tree.builtin.flat_functions, given.hidden) {
            (true, _) => "::",
            (false, 0) => ".",
            (false, _) => self.tree.builtin.method_mark,
        };
        let module = import.alias.as_deref().unwrap_or(&import.title);
        Some(ScriptError::runtime(format!(
            "{module}{mark}{name}() takes {} argument{s}, got {count}",
            numbers(&takes)
        )))
    }

    /// Whether a function that takes these numbers of arguments can be called so.
    pub fn takes_it(&self, takes: &BTreeSet<usize>, given: Given) -> bool {
        let (Some(&least), Some(&most)) = (takes.first(), takes.last()) else { return true };
        match (self.tree.builtin.flat_functions, given.open) {
            (true, _) => takes.contains(&given.count),
            (false, false) => (least..=most).contains(&given.count),
            (false, true) => given.count <= most + 1,
        }
    }

    fn read(
        &self,
        import: &Import,
        exports: &Exports,
        name: &str,
    ) -> Option<(&'static str, ScriptError)> {
        let Import { title, .. } = import;
        if exports.variables.contains(name) {
            return None;
        }
        let function = exports.functions.contains_key(name);
        if self.tree.builtin.flat_functions {
            let error = ScriptError::runtime(format!("module '{title}' exports no '{name}'"));
            let alias = import.alias.as_deref().unwrap_or(title);
            let known = exports.variables.iter().map(String::as_str);
            let hint = match function {
                true => Some(format!("it is a function: call it with {alias}::{name}(…)")),
                false => suggest::hint(name, known),
            };
            return Some(("unknown-field", error.hint(hint.unwrap_or_default())));
        }
        // What a module of the project does not have is nil, and may be asked for.
        let standard = title.replace('.', "/").starts_with(stdlib::PREFIX);
        if function || !standard {
            return None;
        }
        let known = exports.functions.keys().chain(&exports.variables).map(String::as_str);
        let error = ScriptError::runtime(format!("module '{title}' has no '{name}'"))
            .hint(suggest::hint(name, known).unwrap_or_default());
        Some(("unknown-field", error))
    }

    pub fn unused_imports(&mut self) {
        // It may be used in what can't be read.
        let elsewhere = |name: &str, at: &At| {
            let lines = self.source.text.lines().zip(1..).filter(|(_, line)| *line != at.line);
            lines.into_iter().any(|(text, _)| find_word(text, name, 0).is_some())
        };
        let broken = !self.tree.errors.is_empty();
        let all = self.imports.all.iter();
        let all = all.filter(|(name, (at, _))| !(broken && elsewhere(name, at)));
        let unused: Vec<(Rc<str>, At)> = all
            .filter(|(_, (_, used))| !used)
            .map(|(name, (at, _))| (Rc::clone(name), *at))
            .collect();
        for (name, at) in unused {
            let error = ScriptError::runtime(format!("the import '{name}' is never used"))
                .hint("use it, or leave the line out");
            self.report("unused-import", at, error);
        }
    }
}

/// Numbers of arguments as a person says them.
pub(super) fn numbers(takes: &BTreeSet<usize>) -> String {
    let all: Vec<String> = takes.iter().map(usize::to_string).collect();
    match (takes.first(), takes.last()) {
        (Some(0), Some(most)) if takes.len() == most + 1 && *most > 0 => format!("at most {most}"),
        (Some(least), Some(most)) if all.len() > 2 && all.len() == most - least + 1 => {
            format!("{least} to {most}")
        }
        _ => all.join(" or "),
    }
}
