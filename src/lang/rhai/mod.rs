//! The Rhai adapter.

mod bind;
mod body;
mod callback;
mod check;
mod convert;
mod engine;
mod error;
mod session;
mod threads;
mod unknown;
mod words;

use std::sync::Arc;

use async_trait::async_trait;

use super::{Language, Session, Source};
use crate::api::{Ctx, Host, Registry, Result, Value};
use body::{Body, Script};

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

    fn check(&self, source: &Source, registry: &Registry) -> Result<()> {
        let registry = Arc::new(registry.with(Vec::new()));
        let engine = engine::build(&registry);
        let ast = check::compile(&engine, source, &registry)?;
        check::calls(&ast, source, &registry)
    }

    async fn run(&self, source: &Source, ctx: &Ctx) -> Result<Value> {
        let engine = Arc::new(engine::build(&ctx.host.registry));
        let ast = check::compile(&engine, source, &ctx.host.registry)?;
        let body = Body {
            script: Arc::new(Script { engine, ast, source: source.clone() }),
            ctx: ctx.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        body.run(|script| script.engine.eval_ast(&script.ast)).await
    }

    fn session(&self, host: &Arc<Host>) -> Option<Arc<dyn Session>> {
        Some(Arc::new(session::RhaiSession::new(host)))
    }
}
