//! Rhai's own tree as ours.

use std::collections::HashMap;

use ::rhai::{
    AST, ASTFlags, ASTNode, Expr, FnAccess, FnCallExpr, FnPtr, Position, Stmt, StmtBlock,
};

use super::{At, Callee, Exports, Kind, Node};
use crate::api::Value;

/// The script's statements, and its functions after them.
pub fn tree(ast: &AST) -> Vec<Node> {
    let lower = Lower { functions: functions(ast) };
    let mut body = lower.all(ast.statements());
    let main = body.len();
    for function in lower.functions.values().filter(|function| !anonymous(&function.name)) {
        let (params, name) = (function.params.clone(), function.name.clone());
        let kind = Kind::Function(Some(name), params, lower.all(&function.body));
        body.push(Node::new(function.at, kind));
    }
    body[main..].sort_by_key(|node| node.at);
    body
}

/// What the script gives to those that import it.
pub fn exports(ast: &AST) -> Exports {
    let mut exports = Exports::default();
    for own in ast.iter_functions().filter(|own| own.this_type.is_none() && !anonymous(own.name)) {
        match own.access {
            FnAccess::Public => {
                let takes = exports.functions.entry(own.name.to_owned()).or_default();
                takes.insert(own.params.len());
            }
            _ => drop(exports.private.insert(own.name.to_owned())),
        }
    }
    ast.walk(&mut |path| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(parts, flags, _)))
                if flags.contains(ASTFlags::EXPORTED) =>
            {
                exports.variables.insert(parts.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::Export(parts, _))) => {
                let (name, alias) = &**parts;
                let given = if alias.name.is_empty() { name } else { alias };
                exports.variables.insert(given.name.to_string());
            }
            _ => {}
        }
        true
    });
    exports
}

struct Function {
    name: String,
    params: Vec<String>,
    at: At,
    body: Vec<Stmt>,
}

struct Lower {
    functions: HashMap<(String, usize), Function>,
}

fn anonymous(name: &str) -> bool {
    name.starts_with("anon$")
}

/// An import, or what it imports: `a::b`.
fn joined<'a>(path: impl Iterator<Item = &'a str>) -> String {
    path.collect::<Vec<_>>().join("::")
}

fn at(position: Position) -> At {
    At { line: position.line().unwrap_or(0), column: position.position().unwrap_or(0) }
}

/// The functions with their bodies. Rhai tells the statements of all bodies in one row, so each goes
/// to the innermost body around it.
fn functions(ast: &AST) -> HashMap<(String, usize), Function> {
    let mut spans: Vec<(At, Option<At>, Function)> = ast
        .shared_lib()
        .iter_script_fn_info()
        .map(|(.., def)| {
            let start = at(def.body.start_position());
            let end = Some(def.body.end_position()).filter(|end| !end.is_none()).map(at);
            let params = def.params.iter().map(|param| param.to_string()).collect();
            let function =
                Function { name: def.name.to_string(), params, at: start, body: Vec::new() };
            (start, end, function)
        })
        .collect();
    let mut roots = Vec::new();
    ast.walk(&mut |path| {
        if let [ASTNode::Stmt(statement)] = path {
            roots.push((*statement).clone());
        }
        true
    });
    for statement in roots.into_iter().skip(ast.statements().len()) {
        let place = at(statement.position());
        let around = spans.iter_mut().filter(|(start, end, _)| match end {
            Some(end) => *start <= place && place <= *end,
            // A body that is one expression.
            None => *start == place,
        });
        // The latest to begin; of two at one place the one expression is further inside.
        if let Some((.., function)) = around.max_by_key(|(start, end, _)| (*start, end.is_none())) {
            function.body.push(statement);
        }
    }
    let keyed = |function: Function| ((function.name.clone(), function.params.len()), function);
    spans.into_iter().map(|(.., function)| keyed(function)).collect()
}

impl Lower {
    fn all(&self, statements: &[Stmt]) -> Vec<Node> {
        statements.iter().filter_map(|statement| self.statement(statement)).collect()
    }

    fn block(&self, block: &StmtBlock) -> Node {
        Node::new(at(block.position()), Kind::Block(self.all(block.statements())))
    }

    fn statement(&self, statement: &Stmt) -> Option<Node> {
        let place = at(statement.position());
        let node = |kind| Some(Node::new(place, kind));
        let other = |parts| Some(Node::new(place, Kind::Other(parts)));
        match statement {
            Stmt::Noop(_) | Stmt::Share(_) => None,
            Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..) => {
                other(vec![self.expr(&flow.expr), self.block(&flow.body), self.block(&flow.branch)])
            }
            Stmt::Switch(parts, _) => {
                let (on, cases) = &**parts;
                let mut all = vec![self.expr(on)];
                for case in &cases.expressions {
                    all.extend([self.expr(&case.lhs), self.expr(&case.rhs)]);
                }
                other(all)
            }
            Stmt::For(parts, _) => {
                let (item, counter, flow) = &**parts;
                let names = [Some(item), counter.as_ref()].into_iter().flatten();
                let names = names.map(|name| (name.name.to_string(), at(name.pos))).collect();
                let over = Box::new(self.expr(&flow.expr));
                node(Kind::For(names, over, self.all(flow.body.statements())))
            }
            Stmt::Var(parts, ..) => {
                let (name, value, _) = &**parts;
                let names = vec![(name.name.to_string(), at(name.pos))];
                node(Kind::Declare(names, vec![self.expr(value)]))
            }
            Stmt::Assignment(parts) => {
                let (_, sides) = &**parts;
                let (left, right) = (self.expr(&sides.lhs), self.expr(&sides.rhs));
                node(Kind::Assign(Box::new(left), Box::new(right)))
            }
            Stmt::FnCall(call, position) => Some(self.call(call, *position)),
            Stmt::Block(block) => Some(self.block(block)),
            Stmt::TryCatch(flow, _) => {
                let mut branch = self.all(flow.branch.statements());
                if let Expr::Variable(name, _, position) = &flow.expr {
                    let names = vec![(name.1.to_string(), at(*position))];
                    branch.insert(0, Node::new(at(*position), Kind::Declare(names, Vec::new())));
                }
                other(vec![self.block(&flow.body), Node::new(place, Kind::Block(branch))])
            }
            Stmt::Expr(expr) => Some(self.expr(expr)),
            Stmt::BreakLoop(value, ..) | Stmt::Return(value, ..) => {
                other(value.iter().map(|value| self.expr(value)).collect())
            }
            Stmt::Import(parts, position) => {
                let (path, name) = &**parts;
                let path = match path {
                    Expr::StringConstant(text, _) => Some(text.to_string()),
                    _ => None,
                };
                let name = Some(name.name.to_string()).filter(|name| !name.is_empty());
                Some(Node::new(at(*position), Kind::Import(path, name)))
            }
            Stmt::Export(parts, _) => {
                let name = &parts.0;
                Some(Node::new(at(name.pos), Kind::Name(name.name.to_string())))
            }
            _ => None,
        }
    }

    fn exprs(&self, exprs: &[Expr]) -> Vec<Node> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn expr(&self, expr: &Expr) -> Node {
        let place = at(expr.start_position());
        let node = |kind| Node::new(place, kind);
        let literal = |value: Value| Node::new(place, Kind::Literal(value));
        match expr {
            Expr::BoolConstant(value, _) => literal((*value).into()),
            Expr::IntegerConstant(value, _) => literal((*value).into()),
            Expr::FloatConstant(value, _) => literal((**value).into()),
            Expr::StringConstant(text, _) => literal(text.as_str().into()),
            Expr::Unit(_) => literal(Value::Unit),
            Expr::DynamicConstant(value, position) => match value.read_lock::<FnPtr>() {
                Some(function) => self.closure(function.fn_name(), 0, at(*position)),
                None => node(Kind::Other(Vec::new())),
            },
            Expr::Array(items, _) => node(Kind::List(self.exprs(items))),
            Expr::Map(parts, _) => {
                let entries = parts.0.iter();
                let entry = |(key, value): &(::rhai::Ident, Expr)| {
                    (key.name.to_string(), at(key.pos), self.expr(value))
                };
                node(Kind::Map(entries.map(entry).collect()))
            }
            Expr::Variable(parts, _, position) if parts.2.is_empty() => {
                Node::new(at(*position), Kind::Name(parts.1.to_string()))
            }
            Expr::Variable(parts, _, position) => {
                let of = joined(parts.2.path.iter().map(|part| part.name.as_str()));
                Node::new(at(*position), Kind::Member(of, parts.1.to_string()))
            }
            Expr::FnCall(call, position) => self.call(call, *position),
            Expr::Dot(sides, ..) => self.chain(self.expr(&sides.lhs), &sides.rhs),
            Expr::Index(sides, flags, _) => {
                self.index(self.expr(&sides.lhs), &sides.rhs, *flags, place)
            }
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                node(Kind::Other(self.exprs(parts)))
            }
            Expr::InterpolatedString(parts, _) => node(Kind::Other(self.exprs(parts))),
            Expr::Stmt(block) => self.statements(block),
            _ => node(Kind::Other(Vec::new())),
        }
    }

    /// A block as a value. A closure that uses variables around it is one, too: it shares them first.
    fn statements(&self, block: &StmtBlock) -> Node {
        match block.statements() {
            [Stmt::Share(_), Stmt::Expr(expr)] => self.expr(expr),
            [Stmt::Share(_), Stmt::FnCall(call, position)] => self.call(call, *position),
            _ => self.block(block),
        }
    }

    fn call(&self, call: &FnCallExpr, position: Position) -> Node {
        let place = at(position);
        if call.name == "curry"
            && let Some(Expr::DynamicConstant(value, position)) = call.args.first()
            && let Some(function) = value.read_lock::<FnPtr>()
            && anonymous(function.fn_name())
        {
            return self.closure(function.fn_name(), call.args.len() - 1, at(*position));
        }
        let args = self.exprs(&call.args);
        let plain = call.name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if call.is_operator_call() || !plain {
            return Node::new(place, Kind::Other(args));
        }
        let name = call.name.to_string();
        let module = joined(call.namespace.path.iter().map(|part| part.name.as_str()));
        let callee = match module.is_empty() {
            false => Callee::Member(module, name),
            true => Callee::Function(name),
        };
        Node::new(place, Kind::Call(callee, args))
    }

    /// What stands after a dot, on `of`.
    fn chain(&self, of: Node, after: &Expr) -> Node {
        match after {
            Expr::Property(parts, position) => {
                Node::new(at(*position), Kind::Field(Box::new(of), parts.2.to_string()))
            }
            Expr::MethodCall(call, position) => {
                let callee = Callee::Method(Box::new(of), call.name.to_string());
                Node::new(at(*position), Kind::Call(callee, self.exprs(&call.args)))
            }
            Expr::Dot(sides, ..) => self.chain(self.chain(of, &sides.lhs), &sides.rhs),
            Expr::Index(sides, flags, _) => {
                let place = of.at;
                self.index(self.chain(of, &sides.lhs), &sides.rhs, *flags, place)
            }
            other => Node::new(of.at, Kind::Other(vec![of, self.expr(other)])),
        }
    }

    /// `of[after]`, with what follows it: Rhai keeps that with the index.
    fn index(&self, of: Node, after: &Expr, flags: ASTFlags, place: At) -> Node {
        let one = |of, index| Node::new(place, Kind::Other(vec![of, index]));
        match after {
            Expr::Dot(sides, ..) if !flags.contains(ASTFlags::BREAK) => {
                self.chain(one(of, self.expr(&sides.lhs)), &sides.rhs)
            }
            Expr::Index(sides, inner, _) if !flags.contains(ASTFlags::BREAK) => {
                self.index(one(of, self.expr(&sides.lhs)), &sides.rhs, *inner, place)
            }
            other => one(of, self.expr(other)),
        }
    }

    /// A function without a name; its first parameters are the variables around it that it uses.
    fn closure(&self, name: &str, captured: usize, place: At) -> Node {
        let found = self.functions.iter().find(|((known, _), _)| known == name);
        let Some((_, function)) = found.filter(|_| anonymous(name)) else {
            return Node::new(place, Kind::Other(Vec::new()));
        };
        let params = function.params.iter().skip(captured).cloned().collect();
        Node::new(place, Kind::Function(None, params, self.all(&function.body)))
    }
}
