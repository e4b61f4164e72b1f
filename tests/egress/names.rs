//! What rules let through, and how it is counted.

use sandscript::sandbox::{Policy, Protocol, Reason};

use crate::Test;
use crate::rig::{Rig, eventually};

pub const TESTS: &[Test] = &[
    ("names_are_reached_by_http_tls_and_what_they_were_told", names_are_reached),
    ("only_allowed_names_are_resolved", only_allowed_names_are_resolved),
    ("networks_ports_and_order", networks_ports_and_order),
    ("ipv6_is_treated_as_ipv4", ipv6),
    ("live_changes", live_changes),
    ("none_becomes_an_allowlist", none_becomes_an_allowlist),
    ("unrestricted_reaches_everything", unrestricted),
    ("udp_by_address_and_by_explicit_names", udp),
    ("udp_of_any_size_both_ways", udp_sizes),
    ("refusals_and_bytes_are_logged", refusals_and_bytes_are_logged),
    ("a_log_is_not_another_sandboxes", a_log_is_not_another_sandboxes),
];

const DNS: &str = "9.9.9.9:53";

fn names_are_reached(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    sandbox.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
    sandbox.reaches(&["tls", "203.0.113.11:443", "Allowed.Test"], "203.0.113.11");
    // Without a name in the greeting: by what the resolver said.
    assert!(sandbox.probe(&["ask", DNS, "allowed.test", "a"]).contains("203.0.113.10"));
    sandbox.reaches(&["banner", "203.0.113.10:22"], "203.0.113.10");
    sandbox.reaches(&["text", "203.0.113.10:8080", "SSH-2.0-x\r\n"], "203.0.113.10");
    // It is dialled where the name leads, not where the guest says.
    sandbox.reaches(&["get", "203.0.113.66:80", "allowed.test"], "203.0.113.10");
    for words in [
        ["get", "203.0.113.20:80", "denied.test"],
        ["tls", "203.0.113.20:443", "denied.test"],
        ["text", "203.0.113.20:8080", "SSH-2.0-x\r\n"],
    ] {
        sandbox.is_refused(&words);
    }
    sandbox.is_refused(&["banner", "203.0.113.20:22"]);
}

fn only_allowed_names_are_resolved(rig: &Rig) {
    let sandbox =
        rig.sandbox(&["*.allowed.test", "ring.test", "deny x.allowed.test", "nothing.test"]);
    let ask = |verb: &str, server: &str, name: &str, kind: &str| {
        sandbox.probe(&[verb, server, name, kind])
    };
    // Through an alias that no rule names.
    let found = "203.0.113.10 203.0.113.11";
    for (verb, server) in [("ask", DNS), ("ask", "203.0.113.53:53"), ("ask-tcp", DNS)] {
        assert_eq!(ask(verb, server, "www.allowed.test", "a"), found);
        assert_eq!(ask(verb, server, "denied.test", "a"), "missing");
        assert_eq!(ask(verb, server, "allowed.test", "a"), "missing");
    }
    assert_eq!(ask("ask", DNS, "www.allowed.test", "aaaa"), "2001:db8:1::10");
    assert_eq!(ask("ask", DNS, "www.allowed.test", "https"), "empty");
    assert_eq!(ask("ask", DNS, "nothing.test", "a"), "missing");
    assert_eq!(ask("ask", DNS, "ring.test", "a"), "empty");
    // The guest's own tools ask the same resolver.
    assert!(sandbox.sh("getent ahostsv4 www.allowed.test").contains("203.0.113.10"));
    assert_eq!(sandbox.sh("getent ahostsv4 denied.test"), "");
}

fn networks_ports_and_order(rig: &Rig) {
    let sandbox = rig.sandbox(&[
        "deny 203.0.113.11",
        "203.0.113.8/29:80-443",
        "deny allowed.test:8080",
        "allowed.test",
        "10.66.0.5",
    ]);
    sandbox.reaches(&["get", "203.0.113.10:80", "whatever"], "203.0.113.10");
    sandbox.reaches(&["tls", "203.0.113.10:443", "-"], "203.0.113.10");
    sandbox.is_refused(&["get", "203.0.113.11:80", "whatever"]);
    sandbox.is_refused(&["get", "203.0.113.10:8080", "allowed.test"]);
    sandbox.is_refused(&["get", "203.0.113.20:80", "whatever"]);
    sandbox.reaches(&["get", "10.66.0.5:80", "whatever"], "10.66.0.5");
    sandbox.is_refused(&["get", "10.66.0.6:80", "whatever"]);
}

fn ipv6(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test:80", "2001:db8:1::20"]);
    sandbox.reaches(&["get", "[2001:db8:1::10]:80", "allowed.test"], "2001:db8:1::10");
    sandbox.is_refused(&["get", "[2001:db8:1::10]:80", "denied.test"]);
    sandbox.is_refused(&["tls", "[2001:db8:1::10]:443", "allowed.test"]);
    sandbox.reaches(&["tls", "[2001:db8:1::20]:443", "-"], "2001:db8:1::20");
    sandbox.is_refused(&["get", "[2001:db8:1::1]:9000", "x"]);
}

fn live_changes(rig: &Rig) {
    let sandbox = rig.sandbox(&["cdn.test"]);
    let get = ["get", "203.0.113.10:80", "allowed.test"];
    sandbox.is_refused(&get);
    sandbox.allow("allowed.test");
    sandbox.reaches(&get, "203.0.113.10");
    // What closes an open connection cuts it; others stay.
    sandbox.background(&["hold", "203.0.113.10:80", "allowed.test"], "/tmp/one");
    sandbox.background(&["hold", "203.0.113.30:80", "cdn.test"], "/tmp/two");
    for file in ["/tmp/one", "/tmp/two"] {
        eventually("it is held", || sandbox.file(file).contains("I am"));
    }
    sandbox.deny("allowed.test");
    sandbox.is_refused(&get);
    eventually("it is cut", || sandbox.file("/tmp/one").contains("cut"));
    assert_eq!(sandbox.file("/tmp/two"), "I am 203.0.113.30");
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    sandbox.reaches(&get, "203.0.113.10");
    eventually("it is cut", || sandbox.file("/tmp/two").contains("cut"));
    sandbox.is_refused(&["get", "203.0.113.30:80", "cdn.test"]);
    sandbox.set(&Policy::None);
    sandbox.is_refused(&get);
    sandbox.set(&Policy::Unrestricted);
    sandbox.reaches(&["get", "203.0.113.20:80", "whatever"], "203.0.113.20");
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    sandbox.is_refused(&["get", "203.0.113.20:80", "whatever"]);
}

fn none_becomes_an_allowlist(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::None);
    let get = ["get", "203.0.113.10:80", "allowed.test"];
    sandbox.is_refused(&get);
    assert!(sandbox.probe(&["ask", DNS, "allowed.test", "a"]).starts_with("refused"));
    sandbox.allow("allowed.test");
    sandbox.reaches(&get, "203.0.113.10");
    assert!(sandbox.sh("getent ahostsv4 allowed.test").contains("203.0.113.10"));
}

fn unrestricted(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::Unrestricted);
    for address in ["203.0.113.10", "203.0.113.20", "10.66.0.5"] {
        sandbox.reaches(&["get", &format!("{address}:80"), "x"], address);
        sandbox.reaches(&["tls", &format!("{address}:443"), "-"], address);
    }
    sandbox.reaches(&["banner", "203.0.113.20:22"], "203.0.113.20");
    for to in ["203.0.113.20:123", "10.66.0.5:443", "[2001:db8:1::20]:123"] {
        let (address, _) = to.rsplit_once(':').unwrap();
        sandbox.reaches(&["udp", to], address.trim_matches(['[', ']']));
    }
    sandbox.reaches(&["get", "[2001:db8:1::20]:80", "x"], "2001:db8:1::20");
    // From everything to next to nothing, while it runs.
    sandbox.background(&["hold", "203.0.113.20:80", "denied.test"], "/tmp/held");
    eventually("it is held", || sandbox.file("/tmp/held").contains("I am"));
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    sandbox.is_refused(&["get", "203.0.113.20:80", "denied.test"]);
    sandbox.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
}

fn refusals_and_bytes_are_logged(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    // Who only looks whether a port is open is told that it is; the log knows better.
    sandbox.probe(&["touch", "203.0.113.20:8080"]);
    eventually("it is logged", || {
        sandbox.log().denied.iter().any(|one| one.to_string() == "203.0.113.20:8080")
    });
    // While the connection is there.
    sandbox.background(&["hold", "203.0.113.10:80", "allowed.test"], "/tmp/held");
    eventually("bytes are counted at once", || {
        sandbox.log().carried.iter().any(|one| one.sent > 20 && one.received > 10)
    });
    let sandbox = rig.sandbox(&["allowed.test"]);
    for _ in 0..3 {
        sandbox.is_refused(&["tls", "203.0.113.20:443", "denied.test"]);
    }
    sandbox.is_refused(&["get", "203.0.113.30:8080", "x"]);
    sandbox.probe(&["ask", DNS, "denied.test", "a"]);
    sandbox.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
    let log = sandbox.log();
    let all: Vec<String> = log
        .denied
        .iter()
        .map(|one| format!("{one} -> {}", one.rule().map(String::from).unwrap_or_default()))
        .collect();
    assert_eq!(
        all,
        [
            "denied.test:443 (3 times) -> denied.test:443",
            "x:8080 -> x:8080",
            "denied.test -> denied.test",
        ]
    );
    assert_eq!((log.denied[0].protocol, log.denied[0].reason), (Protocol::Tcp, Reason::NotAllowed));
    assert_eq!(log.refused(), 5);
    eventually("the bytes are counted", || {
        let log = sandbox.log();
        let one = log.carried.iter().find(|one| one.host == "allowed.test").unwrap();
        one.connections == 1 && one.sent > 20 && one.received > 10
    });
    // The rule that it names would have allowed it.
    sandbox.allow(&log.denied[0].rule().unwrap().to_string());
    sandbox.reaches(&["tls", "203.0.113.20:443", "denied.test"], "203.0.113.20");
    // It outlives the run, and goes on after a start.
    sandbox.stop();
    eventually("the log is written", || sandbox.log().refused() == 5);
    sandbox.start();
    sandbox.is_refused(&["get", "203.0.113.30:8080", "x"]);
    assert_eq!(sandbox.log().refused(), 6);
}

/// Folders of deleted sandboxes are used again; what the gate still had to write must not be found there.
fn a_log_is_not_another_sandboxes(rig: &Rig) {
    for _ in 0..12 {
        let sandbox = rig.sandbox(&["allowed.test"]);
        assert_eq!(sandbox.log().denied, []);
        assert_eq!(sandbox.log().carried, []);
        sandbox.is_refused(&["get", "203.0.113.30:8080", "x"]);
        drop(sandbox);
        std::thread::sleep(std::time::Duration::from_millis(120));
    }
}

fn udp(rig: &Rig) {
    let rules =
        ["udp://203.0.113.0/28:123", "udp://allowed.test:443", "cdn.test", "[2001:db8:1::20]:123"];
    let sandbox = rig.sandbox(&rules);
    sandbox.reaches(&["udp", "203.0.113.10:123"], "203.0.113.10");
    sandbox.reaches(&["udp", "203.0.113.11:123"], "203.0.113.11");
    sandbox.reaches(&["udp", "[2001:db8:1::20]:123"], "2001:db8:1::20");
    sandbox.is_refused(&["udp", "[2001:db8:1::10]:123"]);
    sandbox.is_refused(&["udp", "203.0.113.20:123"]);
    // By a name, once it has been asked for.
    sandbox.is_refused(&["udp", "203.0.113.10:443"]);
    assert!(sandbox.probe(&["ask", DNS, "allowed.test", "a"]).contains("203.0.113.10"));
    sandbox.reaches(&["udp", "203.0.113.10:443"], "203.0.113.10");
    // A rule that does not say so opens TCP only: nobody sees which name a datagram is for.
    assert!(sandbox.probe(&["ask", DNS, "cdn.test", "a"]).contains("203.0.113.30"));
    sandbox.is_refused(&["udp", "203.0.113.30:443"]);
    let log = sandbox.log();
    let of = |host: &str, port: u16| {
        log.denied.iter().find(|denied| denied.host() == host && denied.port == port).cloned()
    };
    let denied = of("203.0.113.20", 123).unwrap();
    assert_eq!((denied.protocol, denied.count), (Protocol::Udp, 1));
    assert_eq!(denied.rule().unwrap().to_string(), "udp://203.0.113.20:123");
    let denied = of("cdn.test", 443).unwrap();
    assert_eq!(denied.rule().unwrap().to_string(), "udp://cdn.test:443");
    sandbox.allow("udp://cdn.test:443");
    sandbox.reaches(&["udp", "203.0.113.30:443"], "203.0.113.30");
    sandbox.deny("udp://cdn.test:443");
    sandbox.is_refused(&["udp", "203.0.113.30:443"]);
}

fn udp_sizes(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.10"]);
    for length in ["0", "1", "1472", "1473", "9000", "65507"] {
        assert_eq!(sandbox.probe(&["echo", "203.0.113.10:7", length]), "the same");
    }
    // Many at once, from as many ports.
    assert_eq!(sandbox.probe(&["echoes", "203.0.113.10:7", "200"]), "200 of 200");
    // Nobody is there, and the guest is told so at once.
    let said = sandbox.probe(&["udp", "203.0.113.10:9"]);
    assert!(said.contains("refused"), "{said}");
    let log = || sandbox.log().carried;
    eventually("it is counted", || log().iter().any(|one| one.host == "203.0.113.10"));
}
