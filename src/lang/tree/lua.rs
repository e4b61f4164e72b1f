//! Lua's tree, read by a parser that goes on after a mistake, as ours.

use full_moon::LuaVersion;
use full_moon::ast::{
    Block, Call, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, Index, LastStmt,
    Parameter, Prefix, Stmt, Suffix, Var,
};
use full_moon::node::Node as _;
use full_moon::tokenizer::{Position, StringLiteralQuoteType, TokenReference, TokenType};

use super::needs::ANY;
use super::{At, Callee, Exports, Kind, Node};
use crate::api::Value;

/// A larger script is only read by Lua itself.
const LARGEST: usize = 256 << 10;
/// So is one that is nested deeper: the parser takes a long time for it.
const DEEPEST: usize = 40;
/// Virtual: enough for the deepest tree that a script of that size can have.
const STACK: usize = 512 << 20;

/// A mistake in the text: where, and what the parser says.
pub type Mistake = (At, String);

/// The script's statements, as far as they can be read, and what is wrong in the others. None when
/// the script is too large for it.
pub fn tree(text: &str) -> Option<(Vec<Node>, Vec<Mistake>)> {
    if text.len() > LARGEST || depth(text) > DEEPEST {
        return None;
    }
    // The parser walks down into what is nested, and has no limit of its own.
    std::thread::scope(|scope| {
        let work = move || {
            let parsed = full_moon::parse_fallible(text, LuaVersion::lua54());
            let mistakes = parsed.errors().iter().map(mistake).collect();
            (block(parsed.ast().nodes()), mistakes)
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

/// How deep brackets are nested, those in strings and comments included.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for c in text.bytes() {
        match c {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What a module gives, where its text tells.
pub fn exports(body: &[Node]) -> Option<Exports> {
    Exports::returned(body)
}

fn mistake(error: &full_moon::Error) -> Mistake {
    (place(error.range().0), error.error_message().to_string())
}

fn place(position: Position) -> At {
    At { line: position.line(), column: position.character() }
}

fn at(token: &TokenReference) -> At {
    place(token.token().start_position())
}

fn name(token: &TokenReference) -> String {
    token.token().to_string()
}

fn named(token: &TokenReference) -> (String, At) {
    (name(token), at(token))
}

fn block(block: &Block) -> Vec<Node> {
    let mut nodes: Vec<Node> = block.stmts().flat_map(statement).collect();
    if let Some(LastStmt::Return(values)) = block.last_stmt() {
        nodes.push(Node::new(at(values.token()), Kind::Return(exprs(values.returns()))));
    }
    nodes
}

fn other(at: At, parts: Vec<Node>) -> Node {
    Node::new(at, Kind::Other(parts))
}

fn scope(place: At, inner: &Block) -> Node {
    Node::new(place, Kind::Block(block(inner)))
}

fn statement(statement: &Stmt) -> Vec<Node> {
    let one = |node| vec![node];
    let start = statement.start_position().map(place).unwrap_or_default();
    match statement {
        Stmt::Assignment(assignment) => {
            let mut values = exprs(assignment.expressions()).into_iter();
            let targets: Vec<Node> = assignment.variables().iter().map(variable).collect();
            let assigned = targets.into_iter().map(|target| {
                let value = values.next().unwrap_or_else(|| other(target.at, Vec::new()));
                Node::new(target.at, Kind::Assign(Box::new(target), Box::new(value)))
            });
            assigned.collect()
        }
        Stmt::LocalAssignment(local) => {
            let names: Vec<(String, At)> = local.names().iter().map(named).collect();
            let values = exprs(local.expressions());
            if let ([(name, at)], [Node { kind: Kind::Import(path, None), .. }]) =
                (names.as_slice(), values.as_slice())
            {
                return one(Node::new(*at, Kind::Import(path.clone(), Some(name.clone()))));
            }
            one(Node::new(start, Kind::Declare(names, values)))
        }
        Stmt::FunctionCall(call) => one(called(call)),
        Stmt::LocalFunction(local) => {
            let (own, place) = named(local.name());
            one(Node::new(place, function(Some(own), None, local.body())))
        }
        Stmt::FunctionDeclaration(declared) => {
            let names: Vec<&TokenReference> = declared.name().names().iter().collect();
            let method = declared.name().method_name();
            if let ([only], None) = (names.as_slice(), method) {
                return one(Node::new(at(only), function(Some(name(only)), None, declared.body())));
            }
            let mut parts = names.into_iter().chain(method);
            let Some(first) = parts.next() else { return Vec::new() };
            let first = Node::new(at(first), Kind::Name(name(first)));
            let target = parts
                .fold(first, |of, part| Node::new(at(part), Kind::Field(Box::new(of), name(part))));
            let this = method.map(|_| "self".to_owned());
            let value = Node::new(start, function(None, this, declared.body()));
            one(Node::new(start, Kind::Assign(Box::new(target), Box::new(value))))
        }
        Stmt::Do(inner) => one(scope(start, inner.block())),
        Stmt::If(branch) => {
            let mut parts = vec![expr(branch.condition()), scope(start, branch.block())];
            for more in branch.else_if().into_iter().flatten() {
                parts.extend([expr(more.condition()), scope(start, more.block())]);
            }
            parts.extend(branch.else_block().map(|inner| scope(start, inner)));
            one(other(start, parts))
        }
        Stmt::While(repeated) => {
            one(other(start, vec![expr(repeated.condition()), scope(start, repeated.block())]))
        }
        Stmt::Repeat(repeated) => {
            // The condition sees what the body declares.
            let mut inner = block(repeated.block());
            inner.push(expr(repeated.until()));
            one(Node::new(start, Kind::Block(inner)))
        }
        Stmt::NumericFor(counted) => {
            let mut parts = vec![expr(counted.start()), expr(counted.end())];
            parts.extend(counted.step().map(expr));
            let names = vec![named(counted.index_variable())];
            let over = Box::new(other(start, parts));
            one(Node::new(start, Kind::For(names, over, block(counted.block()))))
        }
        Stmt::GenericFor(walked) => {
            let names = walked.names().iter().map(named).collect();
            let mut over = exprs(walked.expressions());
            let over = match over.len() {
                1 => over.remove(0),
                _ => other(start, over),
            };
            one(Node::new(start, Kind::For(names, Box::new(over), block(walked.block()))))
        }
        _ => Vec::new(),
    }
}

fn function(own: Option<String>, this: Option<String>, body: &FunctionBody) -> Kind {
    let given = body.parameters().iter().filter_map(|parameter| match parameter {
        Parameter::Name(token) => Some(name(token)),
        Parameter::Ellipsis(_) => Some(ANY.to_owned()),
        _ => None,
    });
    Kind::Function(own, this.into_iter().chain(given).collect(), block(body.block()))
}

fn exprs<'a>(exprs: impl IntoIterator<Item = &'a Expression>) -> Vec<Node> {
    exprs.into_iter().map(expr).collect()
}

fn expr(expression: &Expression) -> Node {
    let start = expression.start_position().map(place).unwrap_or_default();
    let literal = |value: Value| Node::new(start, Kind::Literal(value));
    match expression {
        Expression::BinaryOperator { .. } => other(start, operands(expression)),
        Expression::Parentheses { expression, .. } => expr(expression),
        Expression::UnaryOperator { expression: inner, unop } => {
            let inner = expr(inner);
            match (&inner.kind, unop.token().token().to_string().as_str()) {
                (Kind::Literal(Value::Int(number)), "-") => literal((-number).into()),
                (Kind::Literal(Value::Float(number)), "-") => literal((-number).into()),
                _ => other(start, vec![inner]),
            }
        }
        Expression::Function(function_) => Node::new(start, function(None, None, function_.body())),
        Expression::FunctionCall(call) => called(call),
        Expression::TableConstructor(table) => fields(start, table.fields().iter()),
        Expression::Number(token) => match number(&name(token)) {
            Some(value) => literal(value),
            None => other(start, Vec::new()),
        },
        Expression::String(token) => match text(token) {
            Some(text) => literal(text.into()),
            None => other(start, Vec::new()),
        },
        Expression::Symbol(token) => match name(token).as_str() {
            "true" => literal(true.into()),
            "false" => literal(false.into()),
            "nil" => literal(Value::Unit),
            _ => other(start, Vec::new()),
        },
        Expression::Var(var) => variable(var),
        _ => other(start, Vec::new()),
    }
}

/// What a chain of operators works on; it may be longer than a stack is deep.
fn operands(chain: &Expression) -> Vec<Node> {
    let (mut rest, mut parts) = (vec![chain], Vec::new());
    while let Some(next) = rest.pop() {
        match next {
            Expression::BinaryOperator { lhs, rhs, .. } => rest.extend([&**rhs, &**lhs]),
            operand => parts.push(expr(operand)),
        }
    }
    parts
}

fn number(text: &str) -> Option<Value> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok().map(Value::Int);
    }
    let int = text.parse().ok().map(Value::Int);
    int.or_else(|| text.parse().ok().map(Value::Float))
}

/// What a string literal stands for; none when it has rare escapes.
fn text(token: &TokenReference) -> Option<String> {
    let TokenType::StringLiteral { literal, quote_type, .. } = token.token().token_type() else {
        return None;
    };
    if *quote_type == StringLiteralQuoteType::Brackets {
        return Some(literal.strip_prefix('\n').unwrap_or(literal).to_owned());
    }
    let mut text = String::new();
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                'n' | '\n' => '\n',
                't' => '\t',
                'r' => '\r',
                plain @ ('\\' | '"' | '\'') => plain,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(text)
}

/// A table: a map when all of it has names, a list when nothing has.
fn fields<'a>(start: At, all: impl Iterator<Item = &'a Field>) -> Node {
    let (mut entries, mut items, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for field in all {
        match field {
            Field::NameKey { key, value, .. } => entries.push((name(key), at(key), expr(value))),
            Field::ExpressionKey { key, value, .. } => match expr(key) {
                Node { kind: Kind::Literal(Value::String(key)), at } => {
                    entries.push((key, at, expr(value)));
                }
                key => rest.extend([key, expr(value)]),
            },
            Field::NoKey(value) => items.push(expr(value)),
            _ => {}
        }
    }
    match (items.is_empty(), entries.is_empty(), rest.is_empty()) {
        (true, _, true) => Node::new(start, Kind::Map(entries)),
        (false, true, true) => Node::new(start, Kind::List(items)),
        _ => {
            rest.extend(items);
            rest.extend(entries.into_iter().map(|(_, _, value)| value));
            other(start, rest)
        }
    }
}

fn variable(var: &Var) -> Node {
    match var {
        Var::Name(token) => Node::new(at(token), Kind::Name(name(token))),
        Var::Expression(path) => path.suffixes().fold(prefix(path.prefix()), suffix),
        _ => other(At::default(), Vec::new()),
    }
}

fn prefix(prefix: &Prefix) -> Node {
    match prefix {
        Prefix::Expression(inner) => expr(inner),
        Prefix::Name(token) => Node::new(at(token), Kind::Name(name(token))),
        _ => other(At::default(), Vec::new()),
    }
}

fn called(call: &FunctionCall) -> Node {
    call.suffixes().fold(prefix(call.prefix()), suffix)
}

fn suffix(of: Node, suffix: &Suffix) -> Node {
    match suffix {
        Suffix::Call(Call::AnonymousCall(args)) => {
            let (place, args) = (of.at, arguments(args));
            if let (Kind::Name(name), [path]) = (&of.kind, args.as_slice())
                && name == "require"
            {
                let path = match path.literal() {
                    Some(Value::String(path)) if path.contains('/') => Some(path),
                    Some(Value::String(path)) => Some(path.replace('.', "/")),
                    _ => None,
                };
                return Node::new(place, Kind::Import(path, None));
            }
            let callee = match of.kind {
                Kind::Name(name) => Callee::Function(name),
                _ => Callee::Value(Box::new(of)),
            };
            Node::new(place, Kind::Call(callee, args))
        }
        Suffix::Call(Call::MethodCall(method)) => {
            let callee = Callee::Method(Box::new(of), name(method.name()));
            Node::new(at(method.name()), Kind::Call(callee, arguments(method.args())))
        }
        Suffix::Index(Index::Dot { name: field, .. }) => {
            Node::new(at(field), Kind::Field(Box::new(of), name(field)))
        }
        Suffix::Index(Index::Brackets { expression, .. }) => {
            let place = of.at;
            other(place, vec![of, expr(expression)])
        }
        _ => of,
    }
}

fn arguments(args: &FunctionArgs) -> Vec<Node> {
    match args {
        FunctionArgs::Parentheses { arguments, .. } => exprs(arguments),
        FunctionArgs::String(token) => {
            let value = text(token).map_or(Kind::Other(Vec::new()), |t| Kind::Literal(t.into()));
            vec![Node::new(at(token), value)]
        }
        FunctionArgs::TableConstructor(table) => {
            let start = table.start_position().map(place).unwrap_or_default();
            vec![fields(start, table.fields().iter())]
        }
        _ => Vec::new(),
    }
}
