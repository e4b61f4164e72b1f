//! sandscript: a scripting host for Linux sandboxes.

pub mod backend;
pub mod image;
pub mod sandbox;
pub mod transfer;
pub mod workflow;
