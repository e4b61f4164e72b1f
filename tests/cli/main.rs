//! The command line, as a person meets it: the real binary in a hermetic environment.

mod docs;
mod environment;
mod errors;
mod settings;
mod verbs;
