//! Calls: whether there is such a function, and whether the arguments fit it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::import::{Asked, Given, numbers};
use super::shape::Shape;
use super::walk::Walk;
use crate::api::{Args, FnSpec, Opt, ScriptError, Type, Use, Value, suggest, to_duration};
use crate::lang::tree::{At, Callee, Kind, Node};
use crate::sandbox;

impl<'a> Walk<'a> {
    pub fn call(&mut self, callee: &'a Callee, args: &'a [Node], at: At) -> Shape {
        match callee {
            Callee::Function(name) => self.plain(name, args, at),
            Callee::Method(of, name) => self.method(of, name, args, at),
            Callee::Member(module, name) => {
                let given = self.given(args);
                self.qualified(module, name, Asked::Call(Some(given)), at);
                self.block(args);
                Shape::Unknown
            }
            Callee::Value(of) => {
                if let Kind::Field(module, name) = &of.kind
                    && let Shape::Module(import) = self.quietly(module)
                {
                    let given = self.given(args);
                    self.member(&import, name, Asked::Call(Some(given)), of.at);
                    self.block(args);
                    return Shape::Unknown;
                }
                self.colon_forgotten(of, args);
                self.visit(of);
                self.block(args);
                Shape::Unknown
            }
        }
    }

    fn plain(&mut self, name: &'a str, args: &'a [Node], at: At) -> Shape {
        if let Some(shape) = self.lookup(name) {
            self.block(args);
            let given = self.given(args);
            if let Shape::Function(Some(takes)) = shape
                && !self.takes_it(&takes, given)
            {
                self.own_arity(name, &takes, at);
            }
            return Shape::Unknown;
        }
        if let Some(takes) = self.functions.get(name).cloned() {
            self.block(args);
            if self.tree.builtin.flat_functions && !takes.contains(&args.len()) {
                self.own_arity(name, &takes, at);
            }
            return Shape::Unknown;
        }
        if let Some(spec) = self.registry.function(name).cloned() {
            return self.entry(&spec, args, at);
        }
        self.block(args);
        let known = self.tree.builtin.callable.contains(name) || self.tree.unread.contains(name);
        if !known {
            let error = self.left_out(name).unwrap_or_else(|| self.unknown_function(name));
            self.report("unknown-function", at, error);
        }
        Shape::Unknown
    }

    fn own_arity(&mut self, name: &str, takes: &BTreeSet<usize>, at: At) {
        let error =
            ScriptError::runtime(format!("{name}() is called with the wrong number of arguments"))
                .hint(format!("the script's own {name}() takes {}", numbers(takes)));
        self.report("wrong-arity", at, error);
    }

    fn unknown_function(&self, name: &str) -> ScriptError {
        let mut on = self.registry.specs().iter().filter(|spec| spec.name == name);
        if let Some(receiver) = on.find_map(|spec| spec.receiver) {
            let mark = self.tree.builtin.method_mark;
            let handle = receiver.to_lowercase();
            return ScriptError::runtime(format!("{name}() is a function of {receiver}"))
                .hint(format!("call it on one: {handle}{mark}{name}(…)"));
        }
        let functions = self.registry.functions();
        let own = self.functions.keys().copied();
        let builtin = self.tree.builtin.callable.iter().map(String::as_str);
        let near = suggest::nearest(name, functions.into_iter().chain(own).chain(builtin));
        ScriptError::runtime(format!("there is no function '{name}'"))
            .hint(near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default())
    }

    fn method(&mut self, of: &'a Node, name: &'a str, args: &'a [Node], at: At) -> Shape {
        let shape = self.visit(of);
        match &shape {
            Shape::Handle(receiver, own) => {
                let own: Rc<[String]> = own.clone().unwrap_or_default();
                match self.registry.member(receiver, name).cloned() {
                    Some(spec) if spec.usage == Use::Call => return self.entry(&spec, args, at),
                    None if own.iter().any(|field| field == name) => {}
                    None if self.flat_own(name) => {}
                    _ => {
                        let error =
                            self.registry.unknown_member_of(receiver, &own, name, Use::Call);
                        self.report("unknown-function", at, error);
                    }
                }
            }
            Shape::Module(import) => {
                // It gets the module itself first.
                let given = Given { hidden: 1, ..self.given(args) };
                self.member(&Rc::clone(import), name, Asked::Call(Some(given)), at);
            }
            _ if self.may_have(name) => {
                self.block(args);
                return self.guessed(name, args, at);
            }
            _ => {
                let members = self.registry.specs().iter().filter(|spec| spec.receiver.is_some());
                let near = suggest::nearest(name, members.map(|spec| spec.name));
                let hint = near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default();
                let error =
                    ScriptError::runtime(format!("nothing has a function '{name}'")).hint(hint);
                self.report("unknown-function", at, error);
            }
        }
        self.block(args);
        Shape::Unknown
    }

    /// In Rhai a function can be called as a method of anything.
    fn flat_own(&self, name: &str) -> bool {
        let builtin = &self.tree.builtin;
        builtin.flat_functions
            && (self.functions.contains_key(name) || builtin.callable.contains(name))
    }

    /// A method of a value of which nothing is known. When only one function has that name, and
    /// an options map stands in the call, its options can be looked at all the same.
    fn guessed(&mut self, name: &str, args: &'a [Node], at: At) -> Shape {
        let builtin = &self.tree.builtin;
        if builtin.callable.contains(name) || self.functions.contains_key(name) {
            return Shape::Unknown;
        }
        let all = self.registry.specs().iter();
        let named: Vec<Arc<FnSpec>> =
            all.filter(|spec| spec.name == name && spec.receiver.is_some()).cloned().collect();
        let [spec] = named.as_slice() else { return Shape::Unknown };
        if let Some(error) = spec.count_error(args.len()).filter(|_| spec.usage == Use::Call) {
            self.report("wrong-arity", at, error);
        }
        Shape::of(&spec.returns)
    }

    /// `box.run("make")` in Lua hands over no box.
    fn colon_forgotten(&mut self, of: &'a Node, args: &'a [Node]) {
        let Kind::Field(handle, name) = &of.kind else { return };
        if self.tree.builtin.flat_functions {
            return;
        }
        let Shape::Handle(receiver, _) = self.quietly(handle) else { return };
        let called = self.registry.member(receiver, name).is_some_and(|s| s.usage == Use::Call);
        let itself = match (&handle.kind, args.first().map(|first| &first.kind)) {
            (Kind::Name(handle), Some(Kind::Name(first))) => handle == first,
            _ => false,
        };
        if called && !itself {
            let message = format!("'{name}' of {receiver} is called with a dot");
            let hint = format!("call it with a colon: :{name}(…)");
            self.report("unknown-function", of.at, ScriptError::runtime(message).hint(hint));
        }
    }

    /// What a variable is, without looking at it as a use.
    fn quietly(&mut self, node: &'a Node) -> Shape {
        match &node.kind {
            Kind::Name(name) => self.lookup(name).unwrap_or_default(),
            Kind::Import(..) => self.visit(node),
            _ => Shape::Unknown,
        }
    }

    fn given(&self, args: &[Node]) -> Given {
        Given { count: args.len(), open: self.spread(args), hidden: 0 }
    }

    /// Whether the last argument may stand for none or for many, as in Lua.
    fn spread(&self, args: &[Node]) -> bool {
        let last = args.last().map(|last| &last.kind);
        !self.tree.builtin.flat_functions && matches!(last, Some(Kind::Call(..) | Kind::Other(_)))
    }

    /// A call of an entry of the registry.
    fn entry(&mut self, spec: &Arc<FnSpec>, args: &'a [Node], at: At) -> Shape {
        let spread = self.spread(args);
        let count = match spread {
            true => args.len().max(spec.arity().0),
            false => args.len(),
        };
        if let Some(error) = spec.count_error(count) {
            self.report("wrong-arity", at, error);
            self.block(args);
            return Shape::of(&spec.returns);
        }
        let mut next = 0;
        let mut options = None;
        let mut sure = true;
        for arg in args {
            if let Kind::Map(entries) = &arg.kind
                && options.is_none()
                && !spec.options.is_empty()
                && spec.params.get(next).is_none_or(|param| fits(&param.ty, arg) != Some(true))
            {
                options = Some(entries);
                entries.iter().for_each(|(_, _, value)| drop(self.visit(value)));
                continue;
            }
            let skipped = spec.params.iter().enumerate().skip(next);
            let mut found = None;
            for (index, param) in skipped {
                let unit = arg.literal().is_some_and(|value| value.is_unit()) && param.optional;
                match fits(&param.ty, arg) {
                    _ if unit => found = Some(index),
                    Some(false) if param.optional => continue,
                    Some(false) => {}
                    Some(true) | None => found = Some(index),
                }
                break;
            }
            let param = found.map(|index| &spec.params[index]);
            self.argument(param.map(|param| &param.ty), arg, args);
            match found {
                Some(index) => {
                    sure = sure && fits(&spec.params[index].ty, arg).is_some();
                    next = index + 1;
                }
                None if sure => {
                    if let Some(value) = arg.literal() {
                        let error = Args::mismatch(spec, next, options.is_some(), &value);
                        self.report("wrong-type", arg.at, error);
                    }
                    sure = false;
                }
                None => {}
            }
        }
        if sure
            && !spread
            && let Some(error) = Args::unfilled(spec, next)
        {
            self.report("wrong-arity", at, error);
        }
        if spec.receiver == Some("Sandbox")
            && let Some(arg) = args.first()
        {
            match spec.name {
                "set_egress" => self.egress(arg),
                "allow" | "deny" => self.rules(arg),
                _ => {}
            }
        }
        for (key, at, value) in options.into_iter().flatten() {
            self.option(spec, key, *at, value);
        }
        if let Some(entries) = options.filter(|_| spec.receiver.is_none() && spec.name == "matrix")
        {
            self.matrix(entries, at);
        }
        Shape::of(&spec.returns)
    }

    fn argument(&mut self, ty: Option<&Type>, arg: &'a Node, args: &'a [Node]) {
        if let (Some(Type::Callback(declared)), Kind::Function(_, params, body)) = (ty, &arg.kind) {
            let mut shapes: Vec<Shape> = declared.iter().map(|(_, ty)| Shape::of(ty)).collect();
            for shape in &mut shapes {
                if let Shape::Handle("Cell", fields) = shape {
                    *fields = self.cell_fields(args);
                }
            }
            shapes.resize(params.len(), Shape::Unknown);
            self.function(params, shapes, body, false);
            return;
        }
        self.visit(arg);
    }

    fn option(&mut self, spec: &Arc<FnSpec>, key: &str, at: At, value: &Node) {
        let literal = value.literal();
        if let Err(error) = Args::check_option(spec, key, literal.as_ref()) {
            let known = spec.options.iter().any(|option| option.name == key);
            let code = if known { "wrong-type" } else { "unknown-option" };
            self.report(code, at, error);
            return;
        }
        let option = spec.options.iter().find(|option| option.name == key);
        if let (Some(Opt { ty, .. }), Some(Value::String(text))) = (option, literal) {
            let failed = match ty {
                Type::Size => sandbox::parse_size(&text).err().map(ScriptError::from),
                Type::Duration => to_duration(&Value::String(text)).err(),
                _ => None,
            };
            if let Some(error) = failed {
                let why = error.message.split_once(": ").map_or(&*error.message, |(_, why)| why);
                let message = format!("option '{key}' of {}: {why}", spec.title());
                let hint = error.hint.clone().unwrap_or_default();
                self.report("wrong-type", value.at, ScriptError::runtime(message).hint(hint));
            }
        }
        if key == "egress" {
            self.egress(value);
        }
        if key == "mounts"
            && let Kind::List(mounts) = &value.kind
        {
            self.mounts(mounts);
        }
    }

    fn mounts(&mut self, mounts: &[Node]) {
        const KEYS: [&str; 3] = ["source", "target", "readonly"];
        for mount in mounts {
            let Kind::Map(entries) = &mount.kind else { continue };
            for (key, at, _) in entries.iter().filter(|(key, ..)| !KEYS.contains(&key.as_str())) {
                let error = ScriptError::runtime(format!("unknown key '{key}' of a mount"))
                    .hint(suggest::hint(key, KEYS).unwrap_or_default());
                self.report("unknown-option", *at, error);
            }
        }
    }
}

/// Whether a value that stands in the script is of the type; none when only the run knows.
fn fits(ty: &Type, node: &Node) -> Option<bool> {
    match (ty, &node.kind, node.literal()) {
        (Type::Any, ..) => Some(true),
        (_, _, Some(value)) => Some(ty.accepts(&value)),
        (Type::OneOf(types), ..) => {
            let all: Vec<Option<bool>> = types.iter().map(|ty| fits(ty, node)).collect();
            match all.contains(&Some(true)) {
                true => Some(true),
                false => all.into_iter().find(Option::is_none).unwrap_or(Some(false)),
            }
        }
        (Type::Callback(_), Kind::Function(..), _) => Some(true),
        (_, Kind::Function(..), _) => Some(false),
        // With something in it that only the run knows.
        (Type::List(_) | Type::Command, Kind::List(_), _) => None,
        (Type::Map | Type::MapOf(_), Kind::Map(_), _) => None,
        (_, Kind::List(_) | Kind::Map(_), _) => Some(false),
        _ => None,
    }
}
