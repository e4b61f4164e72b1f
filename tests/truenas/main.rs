//! The TrueNAS client and backend against simulated releases.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../incus/rig/mod.rs"]
mod daemon;

mod calls;
mod client;
mod cold;
mod cuts;
mod faults;
mod forks;
mod hardware;
mod jobs;
mod life;
mod program;
mod rig;
mod session;
mod session_end;
#[cfg(feature = "ssh")]
mod ssh;
mod walk;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    // The simulated host's own commands are this program by other names.
    let argv: Vec<String> = std::env::args().collect();
    let name = argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if nas_sim::tool::NAMES.contains(&name) {
        return (nas_sim::tool::run(name, &argv[1..]) as u8).into();
    }
    let mut arguments = Arguments::from_args();
    // Most of the time somebody boots or waits.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    arguments.test_threads.get_or_insert(cores * 2);
    let trials: Vec<Trial> = [
        calls::trials(),
        client::trials(),
        cold::trials(),
        cuts::trials(),
        faults::trials(),
        forks::trials(),
        hardware::trials(),
        jobs::trials(),
        life::trials(),
        program::trials(),
        session::trials(),
        session_end::trials(),
        #[cfg(feature = "ssh")]
        ssh::trials(),
        walk::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    rig::end();
    conclusion.exit_code()
}
