//! Attacks on the local backend and its faults: hostile guests, killed tools, full disks, forbidden
//! namespaces. Runs as whoever starts it; what can't be tried then is skipped with its reason.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod crash;
mod denied;
mod full;
mod guest;
mod hosts;
mod rig;
mod share;
mod store;
mod turns;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use sandscript::backend::local::{LocalBackend, LocalConfig};

use rig::{Outcome, Rig};

type Test = (&'static str, fn(&Rig) -> Outcome);

fn main() -> ExitCode {
    let store = std::env::temp_dir().join("sandscript-never-made");
    let forgotten = LocalBackend::open(LocalConfig { store, ..LocalConfig::default() });
    sandscript::backend::local::init();
    let forgotten = forgotten.err().map(|error| error.to_string());
    let mut arguments = Arguments::from_args();
    // Its tests keep both of two processors busy each.
    arguments.test_threads.get_or_insert(3);
    let rig = match Rig::open() {
        Ok(rig) => Arc::new(rig),
        Err(error) => {
            println!("skip: backend local can't work here: {error}");
            return ExitCode::SUCCESS;
        }
    };
    let mut trials = vec![Trial::test("init_forgotten", move || {
        let message = forgotten.clone().unwrap_or_default();
        if message.contains("init() was not called") { Ok(()) } else { Err(message.into()) }
    })];
    let all: [&[Test]; 8] = [
        guest::TESTS,
        hosts::TESTS,
        store::TESTS,
        crash::TESTS,
        share::TESTS,
        full::TESTS,
        denied::TESTS,
        turns::TESTS,
    ];
    for (name, test) in all.into_iter().flatten() {
        let rig = rig.clone();
        trials.push(Trial::test(*name, move || run(name, *test, &rig)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    match rig.close() {
        Ok(()) if !conclusion.has_failed() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(101),
        Err(left) => {
            eprintln!("not left clean: {left}");
            ExitCode::from(101)
        }
    }
}

fn run(name: &str, test: fn(&Rig) -> Outcome, rig: &Rig) -> Result<(), Failed> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(rig)));
    match done {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Skipped(why)) => {
            println!("skip: {name}: {why}");
            Ok(())
        }
        Err(panic) => Err(match panic.downcast::<String>() {
            Ok(text) => (*text).into(),
            Err(panic) => panic.downcast::<&str>().map_or("panicked".into(), |text| (*text).into()),
        }),
    }
}
