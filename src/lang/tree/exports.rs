//! What a script gives to those that import it.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "lua")]
use super::{Callee, Kind, Node};

/// What a script gives to those that import it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Its functions: with how many arguments each may be called. None where any number may be
    /// right.
    pub functions: BTreeMap<String, BTreeSet<usize>>,
    /// Functions that it keeps for itself.
    pub private: BTreeSet<String>,
    /// Its variables.
    pub variables: BTreeSet<String>,
}

impl Exports {
    /// What a script gives that ends with the table of its functions, as modules in Lua do. None
    /// when the text does not tell all that is in the table.
    #[cfg(feature = "lua")]
    pub(super) fn returned(body: &[Node]) -> Option<Exports> {
        let (last, rest) = body.split_last()?;
        let Kind::Return(values) = &last.kind else { return None };
        if rest.iter().any(returns) {
            return None;
        }
        let mut exports = Exports::default();
        match values.as_slice() {
            [Node { kind: Kind::Map(entries), .. }] => {
                entries.iter().for_each(|(key, _, value)| exports.add(key, value));
                Some(exports)
            }
            [Node { kind: Kind::Name(table), .. }] => {
                let mut made = rest.iter().filter_map(|node| match &node.kind {
                    Kind::Declare(names, values) => match (names.as_slice(), values.as_slice()) {
                        ([(name, _)], [Node { kind: Kind::Map(entries), .. }]) => {
                            (name == table).then_some(entries)
                        }
                        _ => None,
                    },
                    _ => None,
                });
                let entries = made.next()?;
                entries.iter().for_each(|(key, _, value)| exports.add(key, value));
                exports.fill(table, rest).then_some(exports)
            }
            _ => None,
        }
    }

    #[cfg(feature = "lua")]
    fn add(&mut self, name: &str, value: &Node) {
        match &value.kind {
            Kind::Function(_, params, body) => {
                let takes = super::needs::takes(params, body);
                self.functions
                    .entry(name.to_owned())
                    // One of several: any number may be right.
                    .and_modify(BTreeSet::clear)
                    .or_insert(takes);
            }
            _ => drop(self.variables.insert(name.to_owned())),
        }
    }

    /// Adds the fields that the table of this name gets. False when it is used in another way, by
    /// which it may get more.
    #[cfg(feature = "lua")]
    fn fill(&mut self, table: &str, body: &[Node]) -> bool {
        let named = |names: &[(String, super::At)]| names.iter().any(|(name, _)| name == table);
        let (mut uses, mut plain, mut declared) = (0, 0, 0);
        // What stands in functions whose parameter has the same name.
        let mut hidden: BTreeSet<*const Node> = BTreeSet::new();
        for node in body {
            node.walk(&mut |node| {
                let is = |node: &Node| {
                    matches!(&node.kind, Kind::Name(name) if name == table)
                        && !hidden.contains(&std::ptr::from_ref(node))
                };
                match &node.kind {
                    Kind::Name(_) if is(node) => uses += 1,
                    Kind::Field(of, _) | Kind::Call(Callee::Method(of, _), _) if is(of) => {
                        plain += 1;
                    }
                    Kind::Assign(target, value) => match &target.kind {
                        Kind::Field(of, name) if is(of) => self.add(name, value),
                        _ => {}
                    },
                    Kind::Declare(names, _) | Kind::For(names, ..) if named(names) => declared += 1,
                    Kind::Import(_, Some(name)) if name == table => declared += 1,
                    Kind::Function(Some(name), ..) if name == table => declared += 1,
                    Kind::Function(_, params, body) if params.iter().any(|one| one == table) => {
                        let mut hide = |node: &Node| hidden.extend([std::ptr::from_ref(node)]);
                        body.iter().for_each(|node| node.walk(&mut hide));
                    }
                    _ => {}
                }
            });
        }
        uses == plain && declared == 1
    }
}

/// Whether the script itself may end here.
#[cfg(feature = "lua")]
fn returns(node: &Node) -> bool {
    match &node.kind {
        Kind::Return(_) => true,
        Kind::Block(nodes) | Kind::Other(nodes) => nodes.iter().any(returns),
        Kind::For(_, _, body) => body.iter().any(returns),
        _ => false,
    }
}

#[cfg(all(test, feature = "lua"))]
mod tests {
    use super::*;
    use crate::lang::tree::lua::tree;

    fn names(text: &str) -> Option<(Vec<String>, Vec<String>)> {
        let exports = Exports::returned(&tree(text)?.0)?;
        Some((exports.functions.into_keys().collect(), exports.variables.into_iter().collect()))
    }

    fn known(text: &str, functions: &[&str], variables: &[&str]) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(text), Some((owned(functions), owned(variables))), "{text}");
    }

    #[test]
    fn tables_that_the_text_tells() {
        known("return { a = 1, f = function() end }", &["f"], &["a"]);
        known("local m = { a = 1 } function m.f() return m.a end return m", &["f"], &["a"]);
        known("local m = {} function m:f() end m.g = print return m", &["f"], &["g"]);
        known("local m = {} local function h() m.late = 1; m.f() end return m", &[], &["late"]);
        known("local m = {} if os then m.f = function() return 1 end end return m", &["f"], &[]);
        known("local m = {} local function f(m) m.x = m[1] end m.a = 1 return m", &[], &["a"]);
    }

    #[test]
    fn tables_that_may_have_more() {
        for text in [
            "",
            "return",
            "return 1",
            "return setmetatable({}, {})",
            "return { 1, a = 2 }",
            "local m = {} setmetatable(m, {}) return m",
            "local m = {} m[key] = 1 return m",
            "local m = {} local n = m n.f = print return m",
            "local m = {} for k, v in pairs({}) do rawset(m, k, v) end return m",
            "local m = {} m = other return m",
            "local m = {} do local m = {} m.x = 1 end return m",
            "local m = {} if early then return other end return m",
            "local m = {} while early do do return {} end end return m",
            "local m = require('other') return m",
            "m = {} return m",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }
}
