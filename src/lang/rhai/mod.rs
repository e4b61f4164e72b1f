//! The Rhai adapter.

mod bind;
mod body;
mod callback;
mod check;
mod convert;
mod definitions;
mod engine;
mod error;
mod modules;
mod pieces;
mod recover;
mod session;
mod unit;
mod unknown;
mod words;
mod world;

use std::sync::Arc;

use async_trait::async_trait;

use super::tree::Tree;
use super::{Language, Session, Source};
use crate::api::{Ctx, Host, Registry, Result, Value};
use body::{Body, Script};
pub use definitions::definitions;
use modules::Modules;
use unit::{Unit, Units};

/// The Rhai language.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rhai;

#[async_trait]
impl Language for Rhai {
    fn name(&self) -> &'static str {
        "Rhai"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["rhai"]
    }

    fn tree(&self, source: &Source, registry: &Registry) -> Tree {
        check::tree(source, registry)
    }

    async fn run(&self, source: &Source, ctx: &Ctx) -> Result<Value> {
        let mut engine = engine::build(&ctx.host.registry);
        Modules::install(&mut engine, source, &ctx.host.run);
        let ast = check::compile(&engine, source, &ctx.host.registry)?;
        let unit = Arc::new(Unit { ast, source: source.clone(), standard: false });
        let units = Arc::new(Units::default());
        units.add(&unit);
        let body = Body {
            script: Arc::new(Script { engine: Arc::new(engine), main: Arc::clone(&unit), units }),
            unit,
            ctx: ctx.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        body.run(|script| script.engine.eval_ast(&script.main.ast)).await
    }

    fn session(&self, host: &Arc<Host>) -> Option<Arc<dyn Session>> {
        Some(Arc::new(session::RhaiSession::new(host)))
    }
}
