//! The engine: its limits, and what is switched off.

use std::sync::Arc;

use ::rhai::packages::{Package, StandardPackage};
use ::rhai::{Dynamic, Engine, OptimizationLevel, Token};

use super::{bind, body, unknown};
use crate::api::Registry;

/// How deep functions may call each other.
pub(super) const CALL_LEVELS: usize = 100;
/// How deep expressions may be nested.
const EXPR_DEPTH: usize = 128;
/// How long a string may grow, in bytes.
const STRING_SIZE: usize = 256 << 20;
/// How many items a list or map may hold, with those of the lists and maps in it. Bounds how deep
/// they may be nested, too, and so the stack that copying and dropping them takes.
const ITEMS: usize = 1 << 16;

/// An engine with everything in the registry.
pub(super) fn build(registry: &Arc<Registry>) -> Engine {
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    // Calls have effects, so nothing is ever evaluated ahead of time.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    engine.set_max_call_levels(CALL_LEVELS);
    engine.set_max_expr_depths(EXPR_DEPTH, EXPR_DEPTH);
    engine.set_max_string_size(STRING_SIZE);
    engine.set_max_array_size(ITEMS);
    engine.set_max_map_size(ITEMS);
    engine.set_max_variables(10_000);
    engine.set_max_functions(10_000);
    engine.disable_symbol("eval");
    engine.on_progress(|_| {
        body::progress();
        body::stopped().then_some(Dynamic::UNIT)
    });
    engine.on_print(|text| body::with(|body| body.iter().for_each(|body| body.ctx.print(text))));
    engine.on_debug(|text, _, _| {
        body::with(|body| {
            let level = crate::workflow::Level::Debug;
            body.iter().for_each(|body| body.ctx.log(level, text));
        });
    });
    free_words(&mut engine, registry);
    unknown::hooks(&mut engine, registry);
    bind::all(&mut engine, registry);
    engine
}

/// Gives scripts the words that Rhai reserves for itself and the registry uses, such as `spawn`.
fn free_words(engine: &mut Engine, registry: &Arc<Registry>) {
    let registry = Arc::clone(registry);
    #[allow(deprecated, reason = "not deprecated: marked so because it may change")]
    engine.on_parse_token(move |token, _, _| match token {
        Token::Reserved(word) if registry.specs().iter().any(|spec| spec.name == word.as_str()) => {
            Token::Identifier(word)
        }
        other => other,
    });
}
