//! The command line, as a person meets it: the real binary in a hermetic environment.

mod docs;
mod environment;
mod errors;
mod progress;
mod run;
mod settings;
mod signals;
mod verbs;
