//! `import` in Rhai.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::rhai::{
    AST, ASTNode, Engine, EvalAltResult, Expr, GlobalRuntimeState, Module, ModuleResolver,
    NativeCallContext, Position, Scope, Shared, Stmt,
};

use super::bind::raise;
use super::body::Body;
use super::unit::Unit;
use super::world::{self, World};
use super::{body, check, error};
use crate::api::{self, Registry, Result, ScriptError, suggest};
use crate::lang::{self, Source};
use crate::workflow::RunContext;

/// A function that no script can name: gives the state of the file that calls it.
const SEAL: &str = "sealed_by_sandscript";

/// The modules of a run.
pub(super) struct Modules {
    /// Where they are looked for.
    places: Mutex<lang::Modules>,
    /// What was found under a name so far.
    named: Mutex<HashMap<String, String>>,
    /// The script itself, which no module can import.
    script: (String, String),
    loaded: Mutex<HashMap<String, Shared<Module>>>,
}

thread_local! {
    /// The modules that this thread is reading, the outermost first: file and name.
    static READING: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
    /// The state that was last sealed on this thread.
    static SEALED: RefCell<Option<GlobalRuntimeState>> = const { RefCell::new(None) };
}

impl Modules {
    /// Lets the engine import what `source` may.
    pub(super) fn install(engine: &mut Engine, source: &Source, run: &RunContext) -> Arc<Modules> {
        let file = std::path::Path::new(&*source.name);
        let id = file.canonicalize().unwrap_or_default().display().to_string();
        let modules = Arc::new(Modules {
            places: Mutex::new(lang::Modules::new(source, "rhai", run)),
            named: Mutex::default(),
            script: (id, file.file_stem().unwrap_or_default().display().to_string()),
            loaded: Mutex::default(),
        });
        engine.set_module_resolver(Resolver(Arc::clone(&modules)));
        engine.register_fn(SEAL, |context: NativeCallContext<'_>| {
            let state = context.global_runtime_state().clone();
            SEALED.with(|sealed| *sealed.borrow_mut() = Some(state));
        });
        modules
    }

    /// Goes on with another file: modules are looked for beside it.
    pub(super) fn beside(&self, source: &Source, run: &RunContext) {
        *lock(&self.places) = lang::Modules::new(source, "rhai", run);
    }

    fn load(
        &self,
        engine: &Engine,
        global: &GlobalRuntimeState,
        name: &str,
        at: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let Some(body) = body::with(|body| body.cloned()) else {
            return Err(raise(ScriptError::runtime("modules can't be imported here")));
        };
        let mut looked: Vec<PathBuf> = Vec::new();
        let places = lock(&self.places).clone();
        let found = places.find(name, &mut looked);
        looked.into_iter().for_each(|file| body.ctx.host.imported(file));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                // A conversation keeps what a file imported that lies elsewhere.
                let before = lock(&self.named).get(name).cloned();
                let module = before.and_then(|id| self.loaded().get(&id).cloned());
                return module.ok_or_else(|| raise(error.focus(name)));
            }
        };
        let id = match &found.file {
            Some(file) => file.display().to_string(),
            None => name.to_owned(),
        };
        lock(&self.named).insert(name.to_owned(), id.clone());
        if let Some(module) = self.loaded().get(&id) {
            return Ok(Arc::clone(module));
        }
        let _reading = self.start(&id, name)?;
        let standard = found.file.is_none();
        let file = found.source.name.to_string();
        let module = self
            .read(
                engine,
                &body.script.units,
                &body.ctx.host.registry,
                found.source,
                standard,
                global,
            )
            .map_err(|error| match error {
                Failed::Script(error) => raise(imported(error, global, at)),
                Failed::Rhai(error) if error.is_system_exception() => match error::held(&error) {
                    Some(error) => raise(imported(error, global, at)),
                    None => error,
                },
                Failed::Rhai(error) => EvalAltResult::ErrorInModule(file, error, at).into(),
            })?;
        Ok(Arc::clone(self.loaded().entry(id).or_insert(module)))
    }

    /// Compiles a module and runs it.
    fn read(
        &self,
        engine: &Engine,
        units: &super::unit::Units,
        registry: &Registry,
        source: Source,
        standard: bool,
        from: &GlobalRuntimeState,
    ) -> Result<Shared<Module>, Failed> {
        let ast = check::compile(engine, &source, registry).map_err(Failed::Script)?;
        let unit = Arc::new(Unit { ast, source, standard });
        units.add(&unit);
        let tail = engine.compile(format!("{SEAL}();")).unwrap_or_else(|_| AST::empty());
        let mut ast = unit.ast.merge(&tail);
        ast.set_source(&*unit.source.name);
        let mut global = engine.new_global_runtime_state();
        global.level = from.level + 1;
        SEALED.with(|sealed| *sealed.borrow_mut() = None);
        let exported = Module::eval_ast_as_new_raw(engine, &mut Scope::new(), &mut global, &ast);
        let exported = exported.map_err(Failed::Rhai)?;
        match SEALED.with(|sealed| sealed.borrow_mut().take()) {
            Some(state) => Ok(World::new(Some(unit), state).module(&exported).into()),
            None => Err(Failed::Script(
                ScriptError::runtime(format!("'{}' returns before its end", unit.source.name))
                    .hint("a module has no return outside of its functions"),
            )),
        }
    }

    fn start(&self, id: &str, name: &str) -> Result<Reading, Box<EvalAltResult>> {
        READING.with(|reading| {
            let mut reading = reading.borrow_mut();
            let own = (&self.script, reading.iter());
            let chain: Vec<&(String, String)> = std::iter::once(own.0).chain(own.1).collect();
            if let Some(again) = chain.iter().position(|one| one.0 == id) {
                let way: Vec<&str> = chain[again..].iter().map(|one| one.1.as_str()).collect();
                return Err(raise(lang::cycle(&way)));
            }
            reading.push((id.to_owned(), name.to_owned()));
            Ok(Reading)
        })
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<String, Shared<Module>>> {
        lock(&self.loaded)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The modules as the engine asks for them.
struct Resolver(Arc<Modules>);

/// The error with the place of an import on its way, where it has a place of its own.
fn imported(mut error: ScriptError, global: &GlobalRuntimeState, at: Position) -> ScriptError {
    if let (Some(line), Some(_)) = (at.line(), &error.position) {
        let file = global.source().unwrap_or_default().to_owned();
        error.imported_at.push(api::Position { file, line, column: at.position().unwrap_or(0) });
    }
    error
}

enum Failed {
    /// With a place of its own, or about the import itself.
    Script(ScriptError),
    /// In a statement of the module.
    Rhai(Box<EvalAltResult>),
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        at: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        self.0.load(engine, &engine.new_global_runtime_state(), path, at)
    }

    fn resolve_raw(
        &self,
        engine: &Engine,
        global: &mut GlobalRuntimeState,
        _scope: &mut Scope<'_>,
        path: &str,
        at: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        self.0.load(engine, global, path, at).map_err(|mut error| {
            if error.position().is_none() {
                error.set_position(at);
            }
            error
        })
    }
}

/// A module that this thread is reading.
struct Reading;

impl Drop for Reading {
    fn drop(&mut self) {
        READING.with(|reading| drop(reading.borrow_mut().pop()));
    }
}

/// The modules that a file imports by a literal name: alias and name.
pub(super) fn imports(ast: &AST) -> Vec<(String, String)> {
    let mut found = Vec::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last()
            && let Expr::StringConstant(name, _) = &import.0
        {
            found.push((import.1.name.to_string(), name.to_string()));
        }
        true
    });
    found
}

/// The module that a file imports as `alias`: its name and its file.
fn aliased(alias: &str, body: &Body, file: &Unit) -> Option<(String, Arc<Unit>)> {
    let (_, name) = imports(&file.ast).into_iter().rev().find(|import| import.0 == alias)?;
    let modules = lang::Modules::new(&body.script.main.source, "rhai", &body.ctx.host.run);
    let found = modules.find(&name, &mut Vec::new()).ok()?;
    Some((name, body.script.units.get(&found.source.name)?))
}

/// The error for a variable that a module does not export.
pub(super) fn unknown_variable(alias: &str, name: &str, body: &Body, file: &Unit) -> ScriptError {
    let Some((title, unit)) = aliased(alias, body, file) else {
        return ScriptError::runtime(format!("'{alias}' has no '{name}'")).focus(name);
    };
    let error = ScriptError::runtime(format!("module '{title}' exports no '{name}'")).focus(name);
    if unit.ast.iter_functions().any(|own| own.name == name) {
        return error.hint(format!("it is a function: call it with {alias}::{name}(…)"));
    }
    let exported = unit.source.text.split("export ").skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches("const ").trim_start_matches("let ");
        rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
    });
    error.hint(suggest::hint(name, exported).unwrap_or_default())
}

/// The error for a function that a module does not have.
pub(super) fn unknown_function(
    alias: &str,
    name: &str,
    given: usize,
    body: &Body,
    file: &Unit,
) -> ScriptError {
    let Some((title, unit)) = aliased(alias, body, file) else {
        return ScriptError::runtime(format!("'{alias}' has no function '{name}'"));
    };
    let functions = || unit.ast.iter_functions().filter(world::is_public);
    let takes: BTreeSet<usize> =
        functions().filter(|own| own.name == name).map(|own| own.params.len()).collect();
    let takes: Vec<String> = takes.iter().map(usize::to_string).collect();
    if !takes.is_empty() {
        let s = if takes == ["1"] { "" } else { "s" };
        return ScriptError::runtime(format!(
            "{alias}::{name}() takes {} argument{s}, got {given}",
            takes.join(" or ")
        ))
        .focus(name);
    }
    let private = unit.ast.iter_functions().any(|own| own.name == name);
    if private {
        return ScriptError::runtime(format!("'{name}' is private in module '{title}'"))
            .focus(name);
    }
    let hint = suggest::hint(name, functions().map(|own| own.name));
    ScriptError::runtime(format!("module '{title}' has no function '{name}'"))
        .hint(hint.unwrap_or_default())
        .focus(name)
}
