//! The command line, as a person meets it: the real binary in a hermetic environment.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod base;
mod caches;
mod check;
mod docs;
mod egress;
mod enter;
mod environment;
mod errors;
mod faults;
mod gc;
mod images;
mod init;
mod local;
#[cfg(feature = "nspawn")]
mod machine_files;
mod machines;
mod matrix;
mod plan;
mod ports;
mod progress;
mod readme;
mod repl;
mod repl_modules;
mod repl_terminal;
mod reports;
mod run;
mod runs;
mod secrets;
mod settings;
mod signals;
mod stubs;
mod terminal;
mod verbs;
mod watch;
