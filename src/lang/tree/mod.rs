//! A script as far as its checks need it: one shape for every language.

mod exports;
#[cfg(feature = "lua")]
pub(super) mod lua;
pub(super) mod needs;
#[cfg(feature = "rhai")]
pub(super) mod rhai;

use std::collections::BTreeSet;

use crate::api::{ScriptError, Value};
pub use exports::Exports;

/// A place: line and column in characters, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A script that was read.
#[derive(Debug, Default)]
pub struct Tree {
    /// Its statements.
    pub body: Vec<Node>,
    /// What could not be read.
    pub errors: Vec<ScriptError>,
    /// The words in what could not be read: who knows what they declare.
    pub unread: BTreeSet<String>,
    /// What it gives to those that import it, where that is known.
    pub exports: Option<Exports>,
    /// What its language has by itself.
    pub builtin: Builtin,
}

/// What a language has by itself.
#[derive(Debug, Default)]
pub struct Builtin {
    /// Names that can be called, as functions or as methods of values.
    pub callable: BTreeSet<String>,
    /// Names that can be read as variables.
    pub variables: BTreeSet<String>,
    /// Whether the functions of a script can be called before they are declared, take an exact
    /// number of arguments, and see no variables around them; whether a method may be called as a
    /// function, and the other way round.
    pub flat_functions: bool,
    /// What scripts do not get, and what to use instead: `name` or `library.name`.
    pub left_out: Vec<(String, &'static str)>,
    /// How a method call is written between the value and the name.
    pub method_mark: &'static str,
}

/// A part of a script.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins; for a call or a field, where its name stands.
    pub at: At,
    /// What it is.
    pub kind: Kind,
}

/// What a part of a script is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A value gets another content.
    Assign(Box<Node>, Box<Node>),
    /// Statements with names of their own.
    Block(Vec<Node>),
    /// A call.
    Call(Callee, Vec<Node>),
    /// A name gets a meaning from here to the end of the block.
    Declare(Vec<(String, At)>, Vec<Node>),
    /// A field of a value.
    Field(Box<Node>, String),
    /// A loop: its names, what it walks over, its body.
    For(Vec<(String, At)>, Box<Node>, Vec<Node>),
    /// A function: the name it is declared with, its parameters, its body.
    Function(Option<String>, Vec<String>, Vec<Node>),
    /// An import: what, and the name it gets. Of a local one it matters whether it is used.
    Import(Option<String>, Option<String>),
    /// A list.
    List(Vec<Node>),
    /// A literal.
    Literal(Value),
    /// A map with plain keys.
    Map(Vec<(String, At, Node)>),
    /// A variable of an import.
    Member(String, String),
    /// A variable.
    Name(String),
    /// The end of a function, or of the script, with what it gives.
    Return(Vec<Node>),
    /// Anything else, with its parts.
    Other(Vec<Node>),
}

/// What is called.
#[derive(Clone, Debug)]
pub enum Callee {
    /// A function by its name.
    Function(String),
    /// A method of a value.
    Method(Box<Node>, String),
    /// A function of an import.
    Member(String, String),
    /// The value of an expression.
    Value(Box<Node>),
}

impl Node {
    /// A part at a place.
    pub fn new(at: At, kind: Kind) -> Node {
        Node { at, kind }
    }

    /// The value, when everything in it is literal.
    pub fn literal(&self) -> Option<Value> {
        match &self.kind {
            Kind::Literal(value) => Some(value.clone()),
            Kind::List(items) => {
                items.iter().map(Node::literal).collect::<Option<Vec<_>>>().map(Value::List)
            }
            Kind::Map(entries) => entries
                .iter()
                .map(|(key, _, value)| Some((key.clone(), value.literal()?)))
                .collect::<Option<_>>()
                .map(Value::Map),
            _ => None,
        }
    }

    /// Calls `look` on this part and all in it.
    pub fn walk<'a>(&'a self, look: &mut dyn FnMut(&'a Node)) {
        self.enter(&mut |node| {
            look(node);
            true
        });
    }

    /// Calls `look` on this part, and on what is in it where that says so.
    pub fn enter<'a>(&'a self, look: &mut dyn FnMut(&'a Node) -> bool) {
        if !look(self) {
            return;
        }
        let mut all = |nodes: &'a [Node]| nodes.iter().for_each(|node| node.enter(look));
        match &self.kind {
            Kind::Literal(_) | Kind::Name(_) | Kind::Import(..) | Kind::Member(..) => {}
            Kind::Assign(left, right) => {
                left.enter(look);
                right.enter(look);
            }
            Kind::Block(nodes) | Kind::List(nodes) | Kind::Other(nodes) | Kind::Return(nodes) => {
                all(nodes)
            }
            Kind::Declare(_, nodes) | Kind::Function(_, _, nodes) => all(nodes),
            Kind::Call(callee, args) => {
                match callee {
                    Callee::Method(of, _) | Callee::Value(of) => of.enter(look),
                    Callee::Function(_) | Callee::Member(..) => {}
                }
                args.iter().for_each(|node| node.enter(look));
            }
            Kind::Field(of, _) => of.enter(look),
            Kind::For(_, over, body) => {
                over.enter(look);
                body.iter().for_each(|node| node.enter(look));
            }
            Kind::Map(entries) => entries.iter().for_each(|(_, _, node)| node.enter(look)),
        }
    }
}

impl Tree {
    /// Calls `look` on every part.
    pub fn walk<'a>(&'a self, look: &mut dyn FnMut(&'a Node)) {
        self.body.iter().for_each(|node| node.walk(look));
    }

    /// What it imports as soon as it runs.
    pub fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.body {
            node.enter(&mut |node| {
                if let Kind::Import(Some(name), _) = &node.kind {
                    found.push(name.clone());
                }
                !matches!(node.kind, Kind::Function(..))
            });
        }
        found
    }
}
