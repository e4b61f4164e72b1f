//! Entry by entry: a scope and functions that live on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::rhai::{AST, Dynamic, Engine, Expr, ParseErrorType, Scope, Stmt};
use async_trait::async_trait;

use super::body::{Body, Script};
use super::convert::{to_dynamic, to_value};
use super::modules::Modules;
use super::unit::{Unit, Units};
use super::{check, engine, words};
use crate::api::{Ctx, Host, Position, Registry, Result, ScriptError, Value};
use crate::lang::{Session, Source, TYPED, settle};

/// Rhai counts lines up to 65,535; before that the count starts again.
const MOST_LINES: usize = 60_000;

/// A conversation in Rhai.
pub(super) struct RhaiSession {
    engine: Arc<Engine>,
    modules: Arc<Modules>,
    units: Arc<Units>,
    registry: Arc<Registry>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    scope: Scope<'static>,
    /// What the entries declared with `fn`, and the bodies of their closures.
    functions: AST,
    /// The imports so far: Rhai forgets them at the end of each entry.
    imports: Vec<(String, String)>,
    told: Told,
}

/// Everything that was entered, as one text: an entry's lines come after those of the one before.
#[derive(Default)]
struct Told {
    text: String,
    lines: usize,
    parts: Vec<Part>,
    /// How many lines were typed.
    typed: usize,
}

/// Where an entry stands in the text, and what its lines are called.
struct Part {
    first: usize,
    lines: usize,
    file: Arc<str>,
    named_from: usize,
}

/// What the whole text is called in places that were not translated yet.
const WHOLE: &str = "\u{0}";

impl Told {
    /// Adds an entry; returns how many lines are before it.
    fn add(&mut self, entry: &Source) -> usize {
        let lines = entry.text.matches('\n').count() + 1;
        // One line above each entry is for what is imported again.
        if self.lines + lines + 1 > MOST_LINES {
            (self.lines, self.text) = (0, String::new());
            self.parts.clear();
        }
        self.text.push('\n');
        self.text.push_str(&entry.text);
        self.text.push('\n');
        let first = self.lines + 1;
        let typed = *entry.name == *TYPED;
        let named_from = if typed { self.typed } else { 0 };
        self.parts.push(Part { first, lines, file: Arc::clone(&entry.name), named_from });
        self.lines = first + lines;
        if typed {
            self.typed += lines;
        }
        first
    }

    fn source(&self) -> Source {
        Source::new(WHOLE, self.text.as_str())
    }

    /// The place as the user knows it.
    fn place(&self, position: &mut Position) {
        if position.file != WHOLE {
            return;
        }
        let at = position.line.saturating_sub(1);
        let part =
            self.parts.iter().find(|part| (part.first..part.first + part.lines).contains(&at));
        match part {
            Some(part) => {
                position.file = part.file.to_string();
                position.line = at - part.first + part.named_from + 1;
            }
            None => position.file = TYPED.into(),
        }
    }

    fn translate(&self, mut error: ScriptError) -> ScriptError {
        if let Some(position) = &mut error.position {
            self.place(position);
        }
        error.trace.iter_mut().for_each(|frame| self.place(&mut frame.called_at));
        error.imported_at.iter_mut().for_each(|position| self.place(position));
        error
    }
}

impl State {
    /// The entry with empty lines before it, so that its places are those in the whole text.
    fn padded(&self, text: &str, before: usize) -> String {
        let imports: Vec<&str> = self.imports.iter().map(|(_, import)| import.as_str()).collect();
        format!("{}{}\n{text}", "\n".repeat(before.saturating_sub(1)), imports.join(" "))
    }

    /// Keeps what the entry declared beside its variables.
    fn keep(&mut self, ast: &AST) {
        self.functions = ast.clone_functions_only();
        if self.scope.len() > 64 {
            self.scope = self.scope.clone_visible();
        }
    }

    fn import(&mut self, ast: &AST) {
        for statement in ast.statements() {
            let Stmt::Import(import, _) = statement else { continue };
            let (Expr::StringConstant(path, _), name) = (&import.0, &import.1.name) else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            self.imports.retain(|(known, _)| known != name.as_str());
            let path = path.replace('\\', "\\\\").replace('"', "\\\"");
            self.imports.push((name.to_string(), format!("import \"{path}\" as {name};")));
        }
    }
}

impl RhaiSession {
    pub(super) fn new(host: &Arc<Host>) -> RhaiSession {
        let mut engine = engine::build(&host.registry);
        let modules = Modules::install(&mut engine, &Source::new("", ""), &host.run);
        RhaiSession {
            modules,
            engine: Arc::new(engine),
            units: Arc::default(),
            registry: Arc::clone(&host.registry),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry with all that it may use.
    fn read(&self, entry: &Source) -> Result<Script> {
        let mut state = self.state();
        let before = state.told.add(entry);
        let source = state.told.source();
        let text = state.padded(&entry.text, before);
        let ast = check::compile_in(&self.engine, &state.scope, &text, &source, &self.registry)
            .map_err(|error| state.told.translate(error))?;
        let mut ast = state.functions.merge(&ast);
        ast.set_source(WHOLE);
        state.keep(&ast);
        let main = Arc::new(Unit { ast, source, standard: false });
        self.units.add(&main);
        Ok(Script { engine: Arc::clone(&self.engine), main, units: Arc::clone(&self.units) })
    }
}

#[async_trait]
impl Session for RhaiSession {
    async fn eval(&self, entry: &Source, ctx: &Ctx) -> Result<Value> {
        let script = Arc::new(self.read(entry)?);
        self.modules.beside(entry, &ctx.host.run);
        let body = Body {
            unit: Arc::clone(&script.main),
            script: Arc::clone(&script),
            ctx: ctx.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let state = Arc::clone(&self.state);
        let result = body
            .run(move |script| {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let value: Dynamic =
                    script.engine.eval_ast_with_scope(&mut state.scope, &script.main.ast)?;
                Ok(match to_value(&value, None) {
                    Ok(_) => value,
                    Err(_) => format!("<{}>", words::of_type(value.type_name())).into(),
                })
            })
            .await;
        let mut state = self.state();
        if result.is_ok() {
            state.import(&script.main.ast);
        }
        settle(ctx, result).map_err(|error| state.told.translate(error))
    }

    fn incomplete(&self, text: &str) -> bool {
        let text = text.trim_end();
        let state = self.state();
        let padded = state.padded(text, 1);
        let Err(error) = self.engine.compile_with_scope(&state.scope, &padded) else {
            return open_comment(text);
        };
        let last = text.lines().last().unwrap_or_default();
        let end = (1 + text.lines().count(), last.chars().count());
        let at = error.position();
        let place = (at.line().unwrap_or(usize::MAX), at.position().unwrap_or(usize::MAX));
        match error.err_type() {
            ParseErrorType::BadInput(::rhai::LexError::UnterminatedString) => open_string(text),
            ParseErrorType::UnexpectedEOF | ParseErrorType::MissingToken(..) => place > end,
            _ => place > end || at.is_none(),
        }
    }

    fn names(&self) -> Vec<String> {
        let state = self.state();
        let functions = super::unknown::functions(&state.functions);
        let imports = state.imports.iter().map(|(name, _)| name.clone());
        let mut names: Vec<String> = state.scope.iter_raw().map(|(name, ..)| name.into()).collect();
        names.extend(functions.into_iter().map(|(name, _)| name).chain(imports));
        names.sort_unstable();
        names.dedup();
        names
    }

    fn get(&self, name: &str) -> Option<Value> {
        to_value(self.state().scope.get(name)?, None).ok()
    }

    fn set(&self, name: &str, value: Value) {
        let mut state = self.state();
        let value = to_dynamic(value);
        // A variable that closures share is changed for them, too.
        match state.scope.get_mut(name) {
            Some(known) if known.is_shared() => {
                known
                    .write_lock::<Dynamic>()
                    .into_iter()
                    .for_each(|mut known| *known = value.clone());
            }
            Some(known) => *known = value,
            None => drop(state.scope.push_dynamic(name.to_owned(), value)),
        }
    }

    fn statement(&self, entry: &str) -> String {
        let entry = entry.trim_end();
        let last = entry.lines().last().unwrap_or_default();
        if entry.is_empty() || entry.ends_with(';') || entry.trim_start().starts_with("fn ") {
            return entry.to_owned();
        }
        // Behind a comment nothing counts.
        format!("{entry}{};", if last.contains("//") { "\n" } else { "" })
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "as", "break", "catch", "const", "continue", "do", "else", "false", "fn", "for", "if",
            "import", "in", "let", "loop", "print", "return", "switch", "this", "throw", "true",
            "try", "type_of", "until", "while",
        ]
    }
}

/// Whether the text ends in a comment that goes on.
fn open_comment(text: &str) -> bool {
    matches!(ends_in(text), End::Comment)
}

/// Whether the text ends in a string that may have more lines.
fn open_string(text: &str) -> bool {
    matches!(ends_in(text), End::Backtick)
}

enum End {
    Code,
    Comment,
    Backtick,
}

/// What the text ends in.
fn ends_in(text: &str) -> End {
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '/' if rest.next_if_eq(&'/').is_some() => {
                while rest.next().is_some_and(|c| c != '\n') {}
            }
            '/' if rest.next_if_eq(&'*').is_some() => {
                let mut depth = 1;
                while depth > 0 {
                    match rest.next() {
                        Some('*') if rest.next_if_eq(&'/').is_some() => depth -= 1,
                        Some('/') if rest.next_if_eq(&'*').is_some() => depth += 1,
                        Some(_) => {}
                        None => return End::Comment,
                    }
                }
            }
            '"' => loop {
                match rest.next() {
                    Some('\\') => drop(rest.next()),
                    Some('"') | None => break,
                    Some(_) => {}
                }
            },
            '`' => loop {
                match rest.next() {
                    Some('`') => break,
                    Some(_) => {}
                    None => return End::Backtick,
                }
            },
            _ => {}
        }
    }
    End::Code
}

#[cfg(test)]
mod tests;
