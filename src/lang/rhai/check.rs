//! Reading a script without running it.

use std::sync::Arc;

use ::rhai::{AST, Engine, ParseError, ParseErrorType, Position, Scope};

use super::{engine, error, recover, unknown};
use crate::api::{ErrorKind, Registry, Result, ScriptError};
use crate::lang::tree::{self, Builtin, Tree};
use crate::lang::{self, Source, syntax};

/// Compiles the script.
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
    let compiled = engine.compile_with_scope(scope, text);
    let mut ast = compiled.map_err(|failed| explain(&failed, source, registry))?;
    ast.set_source(&*source.name);
    Ok(ast)
}

/// What is wrong in the text, for the one who wrote it.
fn explain(failed: &ParseError, source: &Source, registry: &Registry) -> ScriptError {
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
    let unclosed = match failed.err_type() {
        ParseErrorType::MissingToken(token, _) if token == "}" => {
            recover::never_closed(&source.text)
        }
        _ => None,
    };
    if let Some((brace, line)) = unclosed {
        found = found.hint(format!("the '{brace}' in line {line} is never closed"));
    }
    locate(&mut found, source, failed.position());
    found
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
    match engine.compile(&source.text) {
        Ok(ast) => Tree {
            body: tree::rhai::tree(&ast),
            exports: Some(tree::rhai::exports(&ast)),
            builtin,
            ..Tree::default()
        },
        Err(first) => {
            let recovered = recover::recover(&engine, &source.text, first);
            let explain = |mistake: &ParseError| explain(mistake, source, &registry);
            Tree {
                body: tree::rhai::tree(&recovered.ast),
                errors: recovered.mistakes.iter().map(explain).collect(),
                unread: recovered.unread,
                builtin,
                ..Tree::default()
            }
        }
    }
}

/// Sets where in the script an error is.
pub(super) fn locate(error: &mut ScriptError, source: &Source, position: Position) {
    if let Some(line) = position.line() {
        error.locate(&source.name, &source.text, line, position.position().unwrap_or(0));
    }
}
