//! Imports: whether they are used.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::shape::Shape;
use super::walk::Walk;
use crate::api::ScriptError;
use crate::lang::tree::At;

/// The imports of a script by the names they got: where, and whether they are used.
#[derive(Default)]
pub(super) struct Imports {
    all: BTreeMap<Rc<str>, (At, bool)>,
}

impl Imports {
    pub fn used(&mut self, name: &str) {
        if let Some((_, used)) = self.all.get_mut(name) {
            *used = true;
        }
    }
}

impl<'a> Walk<'a> {
    pub fn import(&mut self, _path: Option<&str>, name: Option<&str>, at: At) -> Shape {
        let Some(name) = name else { return Shape::Unknown };
        let name: Rc<str> = name.into();
        self.imports.all.entry(Rc::clone(&name)).or_insert((at, false));
        self.declare(&name, Shape::Module(Rc::clone(&name)));
        Shape::Module(name)
    }

    /// Something of an import is used.
    pub fn member(&mut self, module: &str, _name: &str, _at: At) {
        self.imports.used(module);
    }

    pub fn unused_imports(&mut self) {
        let unread = &self.tree.unread;
        let all = self.imports.all.iter().filter(|(name, _)| !unread.contains(&***name));
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
