//! sandscript: a scripting host for Linux sandboxes.

pub mod api;
pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
pub mod egress;
#[cfg(feature = "local")]
pub mod image;
pub mod lang;
pub mod sandbox;
pub mod suggest;
pub mod transfer;
pub mod transport;
pub mod workflow;

pub use api::{Host, Leftovers, Registry, ScriptError, Value};
pub use lang::{Outcome, Source, check, run};
