//! The policy holds through everything that ends and begins again.

use std::time::Duration;

use rustix::process::Signal;
use sandscript::sandbox::{Cancel, Policy};

use crate::Test;
use crate::rig::{Rig, eventually, is_root, kill, processes, signal};

pub const TESTS: &[Test] = &[
    ("ids_are_those_that_there_are", ids),
    ("attack_restart_restore_and_clone", restart_restore_and_clone),
    ("attack_before_the_first_process", before_the_first_process),
    ("attack_kill_of_the_gate", kill_of_the_gate),
    ("attack_crash_of_everything", crash_of_everything),
    ("a_sandbox_that_hangs_keeps_none_waiting", one_hangs),
];

const DENIED: [&str; 3] = ["get", "203.0.113.20:80", "denied.test"];
const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];

fn restart_restore_and_clone(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    let held = |sandbox: &crate::rig::Sandbox<'_>| {
        sandbox.reaches(&ALLOWED, "203.0.113.10");
        sandbox.is_refused(&DENIED);
        sandbox.is_refused(&["get", "203.0.113.30:80", "cdn.test"]);
    };
    held(&sandbox);
    // Another command's change is kept, too.
    let rule = "cdn.test".parse().unwrap();
    let another = rig.another();
    rig.wait(another.allow(&sandbox.name, &rule, &Cancel::new())).unwrap();
    sandbox.reaches(&["get", "203.0.113.30:80", "cdn.test"], "203.0.113.30");
    sandbox.snapshot("s");
    sandbox.deny("cdn.test");
    sandbox.stop();
    sandbox.start();
    held(&sandbox);
    sandbox.restore("s");
    held(&sandbox);
    held(&sandbox.clone_of());
    // A clone of one that may reach everything is told apart from it.
    let open = rig.sandbox_of(Policy::Unrestricted);
    let clone = open.clone_of();
    clone.set(&Policy::allowlist(["allowed.test"]).unwrap());
    held(&clone);
    open.reaches(&["get", "203.0.113.20:80", "x"], "203.0.113.20");
}

/// A process that is there from the first moment tries from its first moment on.
fn before_the_first_process(rig: &Rig) {
    for _ in 0..5 {
        let sandbox = rig.sandbox(&["allowed.test"]);
        sandbox.is_refused(&DENIED);
        sandbox.stop();
        sandbox.start();
        sandbox.is_refused(&DENIED);
    }
}

fn kill_of_the_gate(rig: &Rig) {
    // A store of its own: other tests' sandboxes are served by the other gate.
    let own = rig.own();
    let sandbox = own.sandbox(&["allowed.test"]);
    let line = |words: &[&str; 3], file: &str| {
        format!(
            "while ! [ -e /tmp/go ]; do sleep 0.05; done; /srv/probe/probe probe {} > {file}",
            words.join(" ")
        )
    };
    for (words, file) in [(&ALLOWED, "/tmp/allowed"), (&DENIED, "/tmp/denied")] {
        let mut command = sandscript::sandbox::Command::shell(line(words, file));
        command.detached = true;
        own.wait(async {
            drop(own.backend.spawn(&sandbox.name, &command, &Cancel::new()).await.unwrap());
        });
    }
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.background(&["hold", "203.0.113.10:80", "allowed.test"], "/tmp/held");
    eventually("it is held", || sandbox.file("/tmp/held").contains("I am"));
    let gates = own.gates();
    assert_eq!(gates.len(), 1);
    kill(gates[0]);
    eventually("it is gone", || own.gate_is_gone());
    let content: sandscript::sandbox::Reader = Box::new(std::io::Cursor::new(Vec::new()));
    let options = sandscript::sandbox::WriteOptions::default();
    own.wait(own.backend.write(&sandbox.name, "/tmp/go", content, &options, &Cancel::new()))
        .unwrap();
    // Nobody lets anything through, allowed or not.
    std::thread::sleep(Duration::from_secs(1));
    assert!(own.gate_is_gone());
    for file in ["/tmp/allowed", "/tmp/denied"] {
        let options = sandscript::sandbox::ReadOptions::default();
        let read = own.wait(async {
            use tokio::io::AsyncReadExt;
            let mut text = String::new();
            let reader = own.backend.read(&sandbox.name, file, options, &Cancel::new()).await;
            if let Ok(mut reader) = reader {
                reader.read_to_string(&mut text).await.unwrap();
            }
            text
        });
        assert!(!read.contains("I am"), "{file}: {read}");
    }
    // The next command brings it back.
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.is_refused(&DENIED);
    assert_eq!(own.gates().len(), 1);
    eventually("the old connection is cut", || sandbox.file("/tmp/held").contains("cut"));
    drop(sandbox);
    own.close().unwrap();
}

/// Of some the process 1 stands still while a new gate takes over; the others are served all the same, and
/// those as soon as it goes on.
fn one_hangs(rig: &Rig) {
    let own = rig.own();
    let hanging: Vec<_> = (0..3).map(|_| own.sandbox(&["allowed.test"])).collect();
    let serving: Vec<_> = (0..3).map(|_| own.sandbox(&["allowed.test"])).collect();
    let inits: Vec<i32> = hanging.iter().map(|sandbox| sandbox.init()).collect();
    inits.iter().for_each(|init| signal(*init, Signal::STOP));
    own.gates().into_iter().for_each(kill);
    eventually("it is gone", || own.gate_is_gone());
    for sandbox in &serving {
        sandbox.reaches(&ALLOWED, "203.0.113.10");
        sandbox.is_refused(&DENIED);
    }
    inits.iter().for_each(|init| signal(*init, Signal::CONT));
    for sandbox in &hanging {
        sandbox.reaches(&ALLOWED, "203.0.113.10");
        sandbox.is_refused(&DENIED);
    }
    drop((hanging, serving));
    own.close().unwrap();
}

fn crash_of_everything(rig: &Rig) {
    let own = rig.own();
    let sandbox = own.sandbox(&["allowed.test"]);
    let init = sandbox.init();
    for pid in own.gates().into_iter().chain([init]) {
        kill(pid);
    }
    eventually("they are gone", || own.gate_is_gone() && !processes().contains(&init));
    sandbox.start();
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.is_refused(&DENIED);
    drop(sandbox);
    own.close().unwrap();
}

/// The tests are about a guest that has many user ids wherever it may.
fn ids(rig: &Rig) {
    let own = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let all = is_root() && own.split_whitespace().eq(["0", "0", "4294967295"]);
    let many = all || std::env::var_os("SANDSCRIPT_TEST_RANGE").is_some();
    let map = rig.sandbox_of(Policy::None).file("/proc/self/uid_map");
    let count = |line: &str| line.split_whitespace().last().unwrap().parse::<u32>().unwrap();
    assert_eq!(map.lines().map(count).sum::<u32>(), if many { 65_536 } else { 1 }, "{map}");
}
