//! Reading a script without running it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::rhai::{AST, ASTNode, Engine, Expr, FnCallExpr, ParseErrorType, Position, Scope, Stmt};

use super::{engine, error, unknown};
use crate::api::{ErrorKind, Registry, Result, ScriptError};
use crate::lang::tree::{self, Builtin, Tree};
use crate::lang::{self, Source, syntax};

/// Compiles the script, and finds calls of functions that nobody has.
pub(super) fn compile(engine: &Engine, source: &Source, registry: &Registry) -> Result<AST> {
    compile_in(engine, &Scope::new(), &source.text, source, registry)
}

/// Compiles `text`, which knows the variables in `scope`. Its lines are those of `source`.
pub(super) fn compile_in(
    engine: &Engine,
    scope: &Scope<'_>,
    text: &str,
    source: &Source,
    registry: &Registry,
) -> Result<AST> {
    let mut ast = engine.compile_with_scope(scope, text).map_err(|failed| {
        let position = failed.position();
        let mut found = match failed.err_type() {
            ParseErrorType::VariableUndefined(name) => {
                let mut error = error::unknown_variable(name, source, registry);
                error.kind = ErrorKind::Syntax;
                error
            }
            ParseErrorType::ModuleUndefined(alias) => {
                let mut error = lang::modules::unknown_alias(alias, source);
                error.kind = ErrorKind::Syntax;
                error
            }
            ParseErrorType::ExprTooDeep => {
                syntax("an expression is nested too deep").hint("split it with variables")
            }
            ParseErrorType::Reserved(word) if !word.starts_with(char::is_alphabetic) => {
                syntax(format!("'{word}' means nothing in Rhai"))
            }
            ParseErrorType::Reserved(word) => {
                syntax(format!("'{word}' is a word of Rhai itself")).hint("use another name")
            }
            other => syntax(error::clean(&other.to_string())),
        };
        locate(&mut found, source, position);
        found
    })?;
    ast.set_source(&*source.name);
    Ok(ast)
}

/// The script for the checks, which look for unknown names themselves.
pub(super) fn tree(source: &Source, registry: &Registry) -> Tree {
    let registry = Arc::new(registry.with(Vec::new()));
    let mut engine = engine::build(&registry);
    engine.set_strict_variables(false);
    let builtin = Builtin {
        callable: unknown::builtin().clone(),
        variables: ["this", "global"].map(String::from).into(),
        flat_functions: true,
        left_out: Vec::new(),
        method_mark: ".",
    };
    match compile(&engine, source, &registry) {
        Ok(ast) => Tree {
            body: tree::rhai::tree(&ast),
            exports: Some(tree::rhai::exports(&ast)),
            builtin,
            ..Tree::default()
        },
        Err(error) => Tree { errors: vec![error], builtin, ..Tree::default() },
    }
}

/// Finds calls that can't work: of unknown functions, or with a wrong number of arguments.
pub(super) fn calls(ast: &AST, source: &Source, registry: &Registry) -> Result<()> {
    let own = unknown::functions(ast);
    let variables = error::declared(&source.text);
    let mut found: Option<(ScriptError, Position)> = None;
    ast.walk(&mut |path| {
        let (call, position, method) = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position))) => (call, *position, false),
            Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => (call, *position, false),
            Some(ASTNode::Expr(Expr::MethodCall(call, position))) => (call, *position, true),
            _ => return true,
        };
        let wrong = wrong_call(registry, &own, &variables, call, method);
        found = found.take().or(wrong.map(|error| (error, position)));
        found.is_none()
    });
    match found {
        Some((mut error, position)) => {
            locate(&mut error, source, position);
            Err(error)
        }
        None => Ok(()),
    }
}

fn wrong_call(
    registry: &Registry,
    own: &[(String, usize)],
    variables: &BTreeSet<&str>,
    call: &FnCallExpr,
    method: bool,
) -> Option<ScriptError> {
    let name = call.name.as_str();
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let known = unknown::builtin().contains(name)
        || own.iter().any(|(own, takes)| own == name && *takes == call.args.len() + usize::from(method))
        // A closure in a variable or a map.
        || variables.contains(name);
    if !plain || known || call.is_qualified() {
        return None;
    }
    if method {
        let member = registry.specs().iter().any(|spec| spec.name == name);
        return (!member && !own.iter().any(|(own, _)| own == name)).then(|| {
            let members = registry.specs().iter().filter(|spec| spec.receiver.is_some());
            let known = members.map(|spec| spec.name);
            let near = crate::api::suggest::nearest(name, known);
            ScriptError::runtime(format!("nothing has a function '{name}'"))
                .hint(near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default())
        });
    }
    match registry.function(name) {
        Some(spec) => spec.count_error(call.args.len()),
        None => Some(unknown::unknown_among(registry, name, None, own)),
    }
}

/// Sets where in the script an error is.
pub(super) fn locate(error: &mut ScriptError, source: &Source, position: Position) {
    if let Some(line) = position.line() {
        error.locate(&source.name, &source.text, line, position.position().unwrap_or(0));
    }
}
