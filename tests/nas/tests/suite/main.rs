//! The simulator's tests: the fifty traps, clients that others wrote, faults, load, leftovers.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod alone;
mod client;
mod containers;
mod faults;
mod leftovers;
mod load;
mod logins;
mod pool_traps;
mod readme;
mod results;
mod rig;
mod shell;
mod sources;
mod trap;
mod traps_25;
mod traps_26;
mod wire;
mod wire_traps;

fn main() {
    let args = libtest_mimic::Arguments::from_args();
    let mut tests = Vec::new();
    tests.extend(wire_traps::tests());
    tests.extend(pool_traps::tests());
    tests.extend(traps_25::tests());
    tests.extend(traps_26::tests());
    tests.extend(wire::tests());
    tests.extend(logins::tests());
    tests.extend(containers::tests());
    tests.extend(faults::tests());
    tests.extend(load::tests());
    tests.extend(leftovers::tests());
    tests.extend(readme::tests());
    tests.extend(results::tests());
    tests.extend(sources::tests());
    let numbered = |n: u8| tests.iter().any(|t| t.name().starts_with(&format!("trap_{n:02}::")));
    assert!((1..=nas_sim::TRAPS).all(numbered), "each trap has a test");
    let conclusion = libtest_mimic::run(&args, tests);
    // Statics are not dropped: what is shared between tests goes here.
    rig::end();
    conclusion.exit();
}
