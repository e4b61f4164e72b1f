//! How many arguments a function needs where a language does not say so.

use std::collections::BTreeSet;

use super::{Callee, Kind, Node};

/// The last parameter of a function that takes any number of arguments.
pub(in crate::lang) const ANY: &str = "...";

/// The numbers of arguments that a function of Lua takes: at most as many as it has parameters, and
/// at least those that it can't do without. Empty when any number may be right.
pub(in crate::lang) fn takes(params: &[String], body: &[Node]) -> BTreeSet<usize> {
    if params.last().is_some_and(|last| last == ANY) {
        return BTreeSet::new();
    }
    let mut needs = Needs { open: params.iter().map(String::as_str).collect(), least: 0, params };
    for node in body {
        if !needs.statement(node) {
            break;
        }
    }
    (needs.least..=params.len()).collect()
}

struct Needs<'a> {
    params: &'a [String],
    /// The parameters that are still what was given.
    open: BTreeSet<&'a str>,
    least: usize,
}

impl<'a> Needs<'a> {
    /// Looks at what surely runs. False when what follows may not.
    fn statement(&mut self, node: &'a Node) -> bool {
        match &node.kind {
            Kind::Assign(target, value) => {
                self.value(value);
                match &target.kind {
                    Kind::Name(name) => self.taken(name),
                    _ => self.value(target),
                }
            }
            Kind::Declare(names, values) => {
                values.iter().for_each(|value| self.value(value));
                self.open.retain(|open| names.iter().all(|(name, _)| name != open));
            }
            Kind::Function(Some(name), ..) | Kind::Import(_, Some(name)) => self.taken(name),
            Kind::Call(..) => self.value(node),
            Kind::Return(values) => {
                values.iter().for_each(|value| self.value(value));
                return false;
            }
            _ => return false,
        }
        true
    }

    /// Looks at a value that is surely asked for.
    fn value(&mut self, node: &'a Node) {
        match &node.kind {
            Kind::Call(callee, args) => {
                match callee {
                    Callee::Function(name) => self.need(name),
                    Callee::Method(of, _) => self.part(of),
                    Callee::Value(of) => self.value(of),
                    Callee::Member(..) => {}
                }
                args.iter().for_each(|arg| self.value(arg));
            }
            Kind::Field(of, _) => self.part(of),
            Kind::List(items) => items.iter().for_each(|item| self.value(item)),
            Kind::Map(entries) => entries.iter().for_each(|(.., value)| self.value(value)),
            _ => {}
        }
    }

    /// The name stands for something else from here.
    fn taken(&mut self, name: &str) {
        self.open.remove(name);
    }

    /// Something of a value is used.
    fn part(&mut self, of: &'a Node) {
        match &of.kind {
            Kind::Name(name) => self.need(name),
            _ => self.value(of),
        }
    }

    fn need(&mut self, name: &str) {
        if self.open.contains(name)
            && let Some(at) = self.params.iter().position(|param| param == name)
        {
            self.least = self.least.max(at + 1);
        }
    }
}

#[cfg(all(test, feature = "lua"))]
mod tests {
    use super::*;
    use crate::lang::tree::lua::tree;

    fn numbers(text: &str) -> Vec<usize> {
        let Some((body, _)) = tree(text) else { panic!("{text}") };
        let Kind::Function(_, params, body) = &body[0].kind else { panic!("{text}") };
        takes(params, body).into_iter().collect()
    }

    #[test]
    fn what_a_function_can_not_do_without() {
        assert_eq!(numbers("local function f() end"), [0]);
        assert_eq!(numbers("local function f(a, b) end"), [0, 1, 2]);
        assert_eq!(numbers("local function f(a, ...) a.x() end"), [0; 0]);
        assert_eq!(numbers("local function f(box) box:run('x') end"), [1]);
        assert_eq!(numbers("local function f(box, o) print(box.name, o) end"), [1, 2]);
        assert_eq!(numbers("local function f(a, b) local c = b.x return a end"), [2]);
        assert_eq!(numbers("local function f(a, go) return { x = go() } end"), [2]);
        assert_eq!(numbers("local function f(a) a = a or {} a.x() end"), [0, 1]);
        assert_eq!(numbers("local function f(a) if a then a.x() end end"), [0, 1]);
        assert_eq!(numbers("local function f(a) if not a then return end a.x() end"), [0, 1]);
        assert_eq!(numbers("local function f(a) local a = {} a.x() end"), [0, 1]);
        assert_eq!(numbers("local function f(a) return a and a.x end"), [0, 1]);
        assert_eq!(numbers("local function f(a) return function() a.x() end end"), [0, 1]);
    }
}
