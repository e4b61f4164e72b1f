//! The command line, as a person meets it: the real binary in a hermetic environment.

mod docs;
mod environment;
mod errors;
mod local;
mod progress;
mod readme;
mod run;
mod settings;
mod signals;
mod terminal;
mod verbs;
