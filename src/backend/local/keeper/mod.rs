//! The keeper: this binary executed again, with one thread and nothing of the caller's memory. It
//! forks the sandboxes, and does the file work that needs the ids of a user namespace. One a
//! backend, started at the first need; it ends with its backend.

mod client;
mod flatten;
mod launch;
mod program;
mod serve;

pub use client::Keeper;
pub use serve::{ready_to_serve, serve_if_asked};
