//! The sandscript command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandscript::backend::local::init();
    ExitCode::from(sandscript::cli::main())
}
