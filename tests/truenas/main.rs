//! The TrueNAS client and backend against simulated releases.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod calls;
mod client;
mod jobs;
mod program;
mod rig;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [calls::trials(), client::trials(), jobs::trials(), program::trials()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
