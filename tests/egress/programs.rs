//! Which program of the guest's was refused.

use sandscript::sandbox::{Denied, Policy};

use crate::Test;
use crate::rig::{Rig, Sandbox};

pub const TESTS: &[Test] = &[("log_knows_the_program", known)];

const DNS: &str = "9.9.9.9:53";

/// Tries until the program is known: on a busy machine it may not be found in time.
#[track_caller]
fn finds(
    sandbox: &Sandbox<'_>,
    run: impl Fn(u16) -> String,
    is: impl Fn(&Denied, u16) -> bool,
) -> String {
    for number in 1000..1060 {
        sandbox.sh(&run(number));
        let log = sandbox.log();
        let one = log.denied.iter().find(|one| is(one, number));
        let one = one.unwrap_or_else(|| panic!("{number} is not in {log:?}"));
        if let Some(process) = &one.process {
            return process.clone();
        }
    }
    panic!("never found: {:?}", sandbox.log());
}

fn known(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::allowlist(["allowed.test", "tcp://192.0.2.7"]).unwrap());
    sandbox.sh("cp /srv/probe/probe /tmp/installer; cp /srv/probe/probe '/tmp/a (b) c'");
    let by_address = |program: &'static str, to: &'static str| {
        let run = move |port| format!("'{program}' probe get {to}:{port} denied.test");
        finds(&sandbox, run, move |one, port| one.port == port)
    };
    assert_eq!(by_address("/tmp/installer", "203.0.113.20"), "installer");
    let mapped = |port| format!("/tmp/installer probe get '[::ffff:203.0.113.20]:{port}' x");
    let port = |one: &Denied, port| one.port == port + 100;
    assert_eq!(finds(&sandbox, |number| mapped(number + 100), port), "installer");
    let name = |one: &Denied, number| one.name == Some(format!("n{number}.test"));
    let ask = |kind: &str, number| format!("'/tmp/a (b) c' probe {kind} {DNS} n{number}.test a");
    assert_eq!(finds(&sandbox, |number| ask("ask", number), name), "a (b) c");
    let name = |one: &Denied, number| one.name == Some(format!("n{}.test", number + 100));
    let asked = finds(&sandbox, |number| ask("ask-tcp", number + 100), name);
    assert_eq!(asked, "a (b) c");
    // By the C library, as programs do it.
    let name = |one: &Denied, number| one.name == Some(format!("c{number}.test"));
    let call = |number| format!("/tmp/installer probe call c{number}.test 80");
    assert_eq!(finds(&sandbox, call, name), "installer");
}
