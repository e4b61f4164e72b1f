//! Script languages: one adapter each, all made from the same registry.

mod check;
mod guide;
#[cfg(feature = "lua")]
pub mod lua;
mod manual;
mod modules;
mod params;
#[cfg(feature = "rhai")]
pub mod rhai;
mod session;
mod source;
pub mod stdlib;
mod stubs;
#[cfg(any(feature = "lua", feature = "rhai"))]
mod threads;
pub mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

pub use check::{Checker, FINDINGS, Finding, check};
pub use guide::guide;
pub use manual::{manual, setting_lua, setting_rhai, spellings};
pub use modules::{Found, Modules, cycle};
pub use params::{Declared, Params, about};
pub use session::{Session, TYPED};
pub use source::Source;
pub use stubs::{MARK, stub_files, stub_lua_module, stub_rhai_module, stubs_lua, stubs_rhai};
use tree::Tree;

use crate::api::{Ctx, Host, Leftovers, Registry, ScriptError, Value, suggest};

/// A script language.
#[async_trait]
pub trait Language: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The endings of its files, without the dot.
    fn extensions(&self) -> &'static [&'static str];

    /// Reads the script without running it, as far as checks need it.
    fn tree(&self, source: &Source, registry: &Registry) -> Tree;

    /// Runs the script. When `ctx` is stopped the script ends soon after, and the result is the
    /// stop, whatever the script made of it.
    async fn run(&self, source: &Source, ctx: &Ctx) -> Result<Value, ScriptError>;

    /// Begins a conversation; none when the language can't hold one.
    fn session(&self, _host: &Arc<Host>) -> Option<Arc<dyn Session>> {
        None
    }
}

/// All languages that are built in.
pub fn languages() -> &'static [&'static dyn Language] {
    &[
        #[cfg(feature = "lua")]
        &lua::Lua,
        #[cfg(feature = "rhai")]
        &rhai::Rhai,
    ]
}

/// The language of a file, by its ending.
pub fn language(file: &str) -> Result<&'static dyn Language, ScriptError> {
    let given = Path::new(file).extension().and_then(|end| end.to_str()).unwrap_or_default();
    let known = || languages().iter().flat_map(|language| language.extensions()).copied();
    languages().iter().copied().find(|language| language.extensions().contains(&given)).ok_or_else(
        || {
            let ends: Vec<String> = known().map(|end| format!(".{end}")).collect();
            let hint = match suggest::nearest(given, known()) {
                Some(near) => format!("did you mean .{near}?"),
                None => format!("a script's name ends in {}", ends.join(" or ")),
            };
            ScriptError::runtime(format!("'{file}' is in no language that is known here"))
                .hint(hint)
        },
    )
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the script gave, or what went wrong.
    pub result: Result<Value, ScriptError>,
    /// What is still there.
    pub leftovers: Leftovers,
    /// The files of the modules that the script imported or tried to, see [`Host::modules`].
    pub modules: Vec<PathBuf>,
}

/// Runs a script, then deletes what it made and did not keep, however it ended.
pub async fn run(source: &Source, host: &Arc<Host>) -> Outcome {
    let ctx = host.start();
    let result = match language(&source.name) {
        Ok(language) => language.run(source, &ctx).await,
        Err(error) => Err(error),
    };
    let result = settle(&ctx, result).map_err(|error| host.masked(error));
    let leftovers = host.finish().await;
    Outcome { result, leftovers, modules: host.modules() }
}

/// The result, or the stop that the script swallowed: it then has not succeeded.
fn settle(ctx: &Ctx, result: Result<Value, ScriptError>) -> Result<Value, ScriptError> {
    match (ctx.stop.check(), result) {
        (Err(stopped), Ok(_)) => Err(stopped),
        (Err(stopped), Err(error)) if error.catchable() => {
            let mut stopped = stopped;
            stopped.position = error.position.clone();
            stopped.source_line = error.source_line.clone();
            Err(stopped)
        }
        (_, result) => result,
    }
}

/// An error of kind [`ErrorKind::Syntax`](crate::api::ErrorKind::Syntax).
#[cfg(any(feature = "lua", feature = "rhai"))]
fn syntax(message: impl Into<String>) -> ScriptError {
    ScriptError::new(crate::api::ErrorKind::Syntax, message)
}
