//! Ports into a sandbox, when the gate is killed, and those that are root's.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sandscript::sandbox::{Cancel, Policy};

use crate::Test;
use crate::rig::{Rig, Sandbox, eventually, is_root, kill};

pub const TESTS: &[Test] = &[
    ("ports_outlive_the_gate", outlive_the_gate),
    ("ports_of_root_are_roots", of_root),
    ("attack_a_flood_of_a_published_port", flood),
];

fn publish(sandbox: &Sandbox<'_>, port: u16, at: &str) -> sandscript::sandbox::Result<SocketAddr> {
    let (rig, at) = (sandbox.rig, at.parse().unwrap());
    rig.wait(rig.backend.publish(&sandbox.name, port, Some(at), &Cancel::new()))
}

fn said(at: SocketAddr) -> String {
    let Ok(mut stream) = TcpStream::connect(at) else { return "closed".into() };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) => error.to_string(),
    }
}

fn outlive_the_gate(rig: &Rig) {
    // A store of its own: other tests' sandboxes are served by the other gate.
    let own = rig.own();
    let sandbox = own.sandbox_of(Policy::None);
    let low = if is_root() { "127.0.0.1:81" } else { "127.0.0.1:8100" };
    let places = [publish(&sandbox, 8080, "127.0.0.1:0"), publish(&sandbox, 8081, low)];
    for gate in own.gates() {
        kill(gate);
    }
    eventually("it is gone", || own.gate_is_gone());
    // The next one brings it back.
    publish(&sandbox, 8082, "127.0.0.1:0").unwrap();
    for (place, port) in places.into_iter().zip(["8080", "8081"]) {
        let place = place.unwrap();
        sandbox.background(&["serve", port], "/tmp/serving");
        eventually("it serves", || said(place) == "I am a sandbox");
    }
    sandbox.stop();
    drop(sandbox);
    own.close().unwrap();
}

fn of_root(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::None);
    let opened = publish(&sandbox, 80, "127.0.0.1:82");
    if is_root() {
        sandbox.background(&["serve", "80"], "/tmp/serving");
        let at = opened.unwrap();
        eventually("it serves", || said(at) == "I am a sandbox");
        return;
    }
    let error = opened.unwrap_err();
    let said = format!("{error}; {}", error.hint().unwrap());
    let wanted = "at: port 82 of this machine is root's; choose one from 1024 on: \"8080:80\"";
    assert_eq!(said, wanted);
}

/// Who reaches a published port opens as many connections as there can be: no other sandbox notices, and
/// they are served one after the other.
fn flood(rig: &Rig) {
    // A store of its own: what other tests have open does not count.
    let own = rig.own();
    let (sandbox, other) = (own.sandbox_of(Policy::None), own.sandbox(&["allowed.test"]));
    let at = publish(&sandbox, 4000, "127.0.0.1:0").unwrap();
    sandbox.background(&["stay", "0.0.0.0:4000", "flooded"], "/tmp/served");
    eventually("it serves", || sandbox.file("/tmp/served").contains("serving"));
    let held: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(at).unwrap()).collect();
    let gate = own.gates()[0];
    let sockets = || {
        let files = std::fs::read_dir(format!("/proc/{gate}/fd"));
        files.map_or(0, Iterator::count)
    };
    // The gate is not dumpable: only root may look.
    if is_root() {
        assert!(sockets() < 300 * 2, "{}", sockets());
    }
    other.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
    drop(held);
    eventually("it serves again", || said(at).starts_with("I am flooded"));
    drop((sandbox, other));
    own.close().unwrap();
}
