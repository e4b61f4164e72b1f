//! The sandscript command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sandscript::cli::main())
}
