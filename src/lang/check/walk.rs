//! The walk over a script: which names mean what where.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::import::{Asked, Imports};
use super::shape::Shape;
use super::{Checker, Finding, located};
use crate::api::{Registry, ScriptError, Use, suggest};
use crate::lang::Source;
use crate::lang::tree::{At, Callee, Kind, Node, Tree, needs};

/// No script has so many mistakes of its own.
const MOST: usize = 200;

pub(super) struct Walk<'a> {
    pub source: &'a Source,
    pub tree: &'a Tree,
    pub registry: &'a Registry,
    pub checker: &'a Checker<'a>,
    found: Vec<Finding>,
    scopes: Vec<Scope>,
    /// The script's own functions: how many arguments each takes.
    pub functions: BTreeMap<&'a str, BTreeSet<usize>>,
    /// The names of fields that the script itself gives to values.
    pub fields: BTreeSet<&'a str>,
    /// The variables that get another content somewhere.
    assigned: BTreeSet<&'a str>,
    pub imports: Imports,
    /// How many functions are around what is looked at.
    pub depth: usize,
}

#[derive(Default)]
struct Scope {
    names: BTreeMap<String, Shape>,
    /// The variables around it can't be seen.
    sealed: bool,
}

impl<'a> Walk<'a> {
    pub fn over(source: &'a Source, tree: &'a Tree, checker: &'a Checker<'a>) -> Vec<Finding> {
        let mut walk = Walk {
            source,
            tree,
            registry: checker.registry,
            checker,
            found: Vec::new(),
            scopes: vec![Scope::default()],
            functions: BTreeMap::new(),
            fields: BTreeSet::new(),
            assigned: BTreeSet::new(),
            imports: Imports::default(),
            depth: 0,
        };
        walk.survey();
        walk.block(&tree.body);
        walk.unused_imports();
        walk.found
    }

    /// What is declared and set anywhere.
    fn survey(&mut self) {
        let (functions, fields, assigned) =
            (&mut self.functions, &mut self.fields, &mut self.assigned);
        self.tree.walk(&mut |node| match &node.kind {
            Kind::Function(Some(name), params, _) => {
                functions.entry(name).or_default().insert(params.len());
            }
            Kind::Assign(target, _) => match &target.kind {
                Kind::Name(name) => drop(assigned.insert(name)),
                Kind::Field(_, name) => drop(fields.insert(name)),
                _ => {}
            },
            Kind::Map(entries) => fields.extend(entries.iter().map(|(key, ..)| key.as_str())),
            _ => {}
        });
    }

    pub fn report(&mut self, code: &'static str, at: At, error: ScriptError) {
        if self.found.len() < MOST {
            self.found.push(Finding { code, error: located(error, self.source, at) });
        }
    }

    pub fn block(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            self.visit(node);
        }
    }

    fn scoped(&mut self, sealed: bool, work: impl FnOnce(&mut Self)) {
        self.scopes.push(Scope { sealed, ..Scope::default() });
        work(self);
        self.scopes.pop();
    }

    pub fn declare(&mut self, name: &str, shape: Shape) {
        let shape = if self.assigned.contains(name) { Shape::Unknown } else { shape };
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.to_owned(), shape);
        }
    }

    /// What a variable is; none when there is no such variable here.
    pub fn lookup(&self, name: &str) -> Option<Shape> {
        for scope in self.scopes.iter().rev() {
            if let Some(shape) = scope.names.get(name) {
                return Some(shape.clone());
            }
            if scope.sealed {
                // Imports of the script are seen from its functions, too.
                let outer = self.scopes.first().and_then(|scope| scope.names.get(name));
                return outer.filter(|shape| matches!(shape, Shape::Module(_))).cloned();
            }
        }
        None
    }

    /// Looks at a part of the script and says what its value is.
    pub fn visit(&mut self, node: &'a Node) -> Shape {
        match &node.kind {
            Kind::Assign(target, value) => {
                self.visit(value);
                match &target.kind {
                    // A new global, where the language has that.
                    Kind::Name(name)
                        if !self.tree.builtin.flat_functions && self.lookup(name).is_none() =>
                    {
                        if let Some(scope) = self.scopes.first_mut() {
                            scope.names.insert(name.clone(), Shape::Unknown);
                        }
                    }
                    Kind::Field(of, _) => drop(self.visit(of)),
                    _ => drop(self.visit(target)),
                }
                Shape::Unknown
            }
            Kind::Block(nodes) => {
                self.scoped(false, |walk| walk.block(nodes));
                Shape::Unknown
            }
            Kind::Call(callee, args) => self.call(callee, args, node.at),
            Kind::Declare(names, values) => {
                let mut shapes: Vec<Shape> = values.iter().map(|value| self.visit(value)).collect();
                shapes.resize(names.len(), Shape::Unknown);
                for ((name, _), shape) in names.iter().zip(shapes) {
                    self.declare(name, shape);
                }
                Shape::Unknown
            }
            Kind::Field(of, name) => self.field(of, name, node.at),
            Kind::For(names, over, body) => {
                let shapes = self.loop_shapes(over);
                self.scoped(false, |walk| {
                    for (index, (name, _)) in names.iter().enumerate() {
                        walk.declare(name, shapes.get(index).cloned().unwrap_or_default());
                    }
                    walk.block(body);
                });
                Shape::Unknown
            }
            Kind::Function(name, params, body) => {
                let flat = self.tree.builtin.flat_functions;
                let takes = (!flat).then(|| Rc::new(needs::takes(params, body)));
                if let Some(name) = name.as_ref().filter(|_| !flat) {
                    // Of two that have one name the later may be called before it is declared.
                    let one = self.functions.get(name.as_str()).is_some_and(|all| all.len() == 1);
                    self.declare(name, Shape::Function(takes.clone().filter(|_| one)));
                }
                let shapes = vec![Shape::Unknown; params.len()];
                self.function(params, shapes, body, flat && name.is_some());
                Shape::Function(takes)
            }
            Kind::Import(path, name) => self.import(path.as_deref(), name.as_deref(), node.at),
            Kind::List(items) => {
                let shapes: Vec<Shape> = items.iter().map(|item| self.visit(item)).collect();
                Shape::List(Box::new(shapes.into_iter().next().unwrap_or_default()))
            }
            Kind::Literal(_) => Shape::Unknown,
            Kind::Map(entries) => {
                entries.iter().for_each(|(_, _, value)| drop(self.visit(value)));
                Shape::Unknown
            }
            Kind::Member(module, name) => {
                self.qualified(module, name, Asked::Value, node.at);
                Shape::Unknown
            }
            Kind::Name(name) => self.name(name, node.at),
            Kind::Other(parts) | Kind::Return(parts) => {
                self.block(parts);
                Shape::Unknown
            }
        }
    }

    /// Looks at a function whose parameters are known to be of these shapes.
    pub fn function(
        &mut self,
        params: &[String],
        shapes: Vec<Shape>,
        body: &'a [Node],
        sealed: bool,
    ) {
        self.depth += 1;
        self.scoped(sealed, |walk| {
            for (name, shape) in params.iter().zip(shapes) {
                walk.declare(name, shape);
            }
            walk.block(body);
        });
        self.depth -= 1;
    }

    /// What the names of a loop are. In Lua a list is walked over by `ipairs`.
    fn loop_shapes(&mut self, over: &'a Node) -> Vec<Shape> {
        if let Kind::Call(Callee::Function(name), args) = &over.kind
            && matches!(name.as_str(), "ipairs" | "pairs")
            && !self.tree.builtin.flat_functions
            && let [list] = args.as_slice()
        {
            return vec![Shape::Unknown, self.visit(list).item()];
        }
        vec![self.visit(over).item()]
    }

    fn name(&mut self, name: &str, at: At) -> Shape {
        if let Some(shape) = self.lookup(name) {
            if let Shape::Module(import) = &shape {
                self.imports.used(import);
            }
            return shape;
        }
        let known = self.tree.builtin.variables.contains(name) || self.tree.unread.contains(name);
        let function = self.registry.function(name).is_some() || self.functions.contains_key(name);
        if known || (function && !self.tree.builtin.flat_functions) {
            return Shape::Unknown;
        }
        // A global of Lua that is set further down, or in a function.
        if !self.tree.builtin.flat_functions && self.assigned.contains(name) {
            return Shape::Unknown;
        }
        if let Some(error) = self.left_out(name) {
            self.report("unknown-variable", at, error);
            return Shape::Unknown;
        }
        let error = ScriptError::runtime(format!("there is no variable '{name}'"));
        let error = if function {
            error.hint(format!("'{name}' is a function: call it with parentheses"))
        } else if self.scopes.iter().any(|scope| scope.names.contains_key(name)) {
            error.hint("a function sees no variables around it: hand it over as an argument")
        } else {
            let visible = self.scopes.iter().flat_map(|scope| scope.names.keys());
            let near = suggest::nearest(name, visible.map(String::as_str));
            error.hint(match (near, self.tree.builtin.flat_functions) {
                (Some(near), _) => format!("did you mean '{near}'?"),
                (None, true) => format!("declare it with: let {name} = …;"),
                (None, false) => format!("declare it with: local {name} = …"),
            })
        };
        self.report("unknown-variable", at, error);
        Shape::Unknown
    }

    /// The error for something that the language has elsewhere, and scripts do not get.
    pub fn left_out(&self, name: &str) -> Option<ScriptError> {
        let (_, why) = self.tree.builtin.left_out.iter().find(|(left, _)| left == name)?;
        Some(ScriptError::runtime(format!("scripts have no '{name}'")).hint(*why))
    }

    fn field(&mut self, of: &'a Node, name: &'a str, at: At) -> Shape {
        let shape = self.visit(of);
        if let Kind::Name(library) = &of.kind
            && self.lookup(library).is_none()
            && let Some(error) = self.left_out(&format!("{library}.{name}"))
        {
            self.report("unknown-function", at, error);
        }
        match &shape {
            Shape::Handle(receiver, own) => {
                let Some(own) = own else { return self.property(receiver, name) };
                if own.iter().any(|field| field == name) {
                    return Shape::Unknown;
                }
                match self.registry.member(receiver, name) {
                    Some(spec) if spec.usage == Use::Property => Shape::of(&spec.returns),
                    // In Lua it can be handed on: pcall(box.run, box, "make").
                    Some(_) if !self.tree.builtin.flat_functions => Shape::Function(None),
                    Some(_) => {
                        let mark = self.tree.builtin.method_mark;
                        let message = format!("'{name}' of {receiver} is a function");
                        let hint = format!("call it: {mark}{name}(…)");
                        self.report("unknown-field", at, ScriptError::runtime(message).hint(hint));
                        Shape::Unknown
                    }
                    None => {
                        let error =
                            self.registry.unknown_member_of(receiver, own, name, Use::Property);
                        self.report("unknown-field", at, error);
                        Shape::Unknown
                    }
                }
            }
            Shape::Module(import) => {
                self.member(&Rc::clone(import), name, Asked::Value, at);
                Shape::Unknown
            }
            _ => Shape::Unknown,
        }
    }

    fn property(&self, receiver: &str, name: &str) -> Shape {
        match self.registry.member(receiver, name) {
            Some(spec) if spec.usage == Use::Property => Shape::of(&spec.returns),
            _ => Shape::Unknown,
        }
    }

    /// Whether a value of which nothing is known may have this as a function.
    pub fn may_have(&self, name: &str) -> bool {
        let builtin = &self.tree.builtin;
        builtin.callable.contains(name)
            || self.fields.contains(name)
            || self.functions.contains_key(name)
            || self.tree.unread.contains(name)
            || (builtin.flat_functions && self.registry.function(name).is_some())
            || self.registry.specs().iter().any(|spec| spec.name == name && spec.receiver.is_some())
    }
}
