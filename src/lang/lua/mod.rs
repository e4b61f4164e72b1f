//! The Lua adapter.

mod bind;
mod body;
mod callback;
mod check;
mod convert;
mod error;
mod machine;
mod modules;
mod native;
mod session;
mod state;
mod unknown;
mod vm;

use std::sync::Arc;

use async_trait::async_trait;

use super::tree::Tree;
use super::{Language, Session, Source};
use crate::api::{Ctx, Host, Registry, Result, Value};
use vm::Vm;

/// The Lua language, version 5.4.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lua;

#[async_trait]
impl Language for Lua {
    fn name(&self) -> &'static str {
        "Lua"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["lua"]
    }

    fn tree(&self, source: &Source, _registry: &Registry) -> Tree {
        check::tree(source)
    }

    async fn run(&self, source: &Source, ctx: &Ctx) -> Result<Value> {
        Vm::start(&ctx.host)?.run(source, ctx).await
    }

    fn session(&self, host: &Arc<Host>) -> Option<Arc<dyn Session>> {
        let session = session::LuaSession::new(host).ok()?;
        Some(Arc::new(session))
    }
}
