//! The same server elsewhere, where it encloses what rules say: hostile is root in the guest, who has taken all
//! of the guest's own rules away.

use sandscript::sandbox::{Backend, Cancel, CloneSpec, Command, Policy, exec};

use crate::rig::{Rig, Sandbox, eventually};
use crate::{Test, attacks, names};

/// Those of others that are run here, too.
pub fn tests() -> Vec<Test> {
    let wanted = [
        "networks_ports_and_order",
        "live_changes",
        "attack_another_dns_server",
        "attack_ipv6_literals",
        "attack_a_connection_held_open",
        "attack_the_hosts_own_services",
        "attack_another_sandbox",
        "attack_udp",
    ];
    let all = [names::TESTS, attacks::TESTS].into_iter().flatten();
    all.filter(|(name, _)| wanted.contains(name)).chain(OWN).copied().collect()
}

const OWN: &[Test] = &[
    ("attack_by_root", by_root),
    ("attack_changes_restarts_and_clones", changes),
    ("names_are_looked_up_again", names_again),
    ("what_addresses_can_not_say_is_the_guests", guests_own),
];

const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];
const OTHER: [&str; 3] = ["get", "203.0.113.20:80", "x"];

/// Takes away all that the guest keeps to itself.
fn undo(sandbox: &Sandbox<'_>) {
    sandbox.sh(
        "for p in /proc/[0-9]*; do grep -qs ^sandscript-guard $p/cmdline && kill -9 ${p#/proc/}; done; \
         rm -rf /etc/sandscript; nft flush ruleset",
    );
}

/// The address that it is sent out by.
fn gateway(sandbox: &Sandbox<'_>) -> String {
    sandbox.sh("ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'")
}

/// Whether an address is this machine's.
fn is_here(address: &str) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn by_root(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test", "tcp://10.66.0.5:80"]);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    let (gateway, address) = (gateway(&sandbox), sandbox.sh("hostname -I"));
    assert!(gateway.starts_with("198.19."), "{gateway}");
    undo(&sandbox);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.reaches(&["get", "10.66.0.5:80", "x"], "10.66.0.5");
    sandbox.is_refused(&OTHER);
    for to in ["203.0.113.20:443", "10.66.0.6:80", "169.254.169.254:80"] {
        sandbox.is_refused(&["touch", to]);
    }
    for udp in ["203.0.113.20:123", "203.0.113.10:123", "10.66.0.5:443"] {
        sandbox.is_refused(&["udp", udp]);
    }
    sandbox.is_refused(&["touch", "[2001:db8:1::20]:80"]);
    // No name server of others, and the network's own knows no name.
    for server in ["203.0.113.53:53", "9.9.9.9:53", &format!("{gateway}:53")] {
        let said = sandbox.probe(&["ask", server, "denied.test", "a"]);
        assert!(!said.contains("203.0.113"), "{server}: {said}");
    }
    // Nor the server itself, also by the address that is the guest's way out.
    let port = attacks::host_service();
    for own in ["203.0.113.1", &gateway] {
        let stream = std::net::TcpStream::connect((own, port)).unwrap();
        assert_eq!(std::io::read_to_string(stream).unwrap(), "I am the host");
        sandbox.is_refused(&["banner", &format!("{own}:{port}")]);
    }
    // With other addresses of its own, and another way.
    for line in [
        "ip addr add 203.0.113.99/24 dev eth0; ip route replace 203.0.113.20 dev eth0",
        &format!("ip route replace 203.0.113.20 via {gateway} dev eth0 src {address}"),
        "ip link set eth0 promisc on; ip neigh replace 203.0.113.20 lladdr ff:ff:ff:ff:ff:ff dev eth0",
    ] {
        sandbox.sh(line);
        sandbox.is_refused(&OTHER);
    }
    assert!(is_here(&gateway));
    drop(sandbox);
    assert!(!is_here(&gateway), "its network is left");
}

fn changes(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.20", "allowed.test"]);
    undo(&sandbox);
    sandbox.reaches(&OTHER, "203.0.113.20");
    sandbox.deny("203.0.113.20");
    undo(&sandbox);
    sandbox.is_refused(&OTHER);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.allow("203.0.113.20");
    sandbox.reaches(&OTHER, "203.0.113.20");
    sandbox.set(&Policy::allowlist(["deny 203.0.113.20", "*:80"]).unwrap());
    undo(&sandbox);
    sandbox.is_refused(&OTHER);
    sandbox.reaches(&["get", "203.0.113.30:80", "x"], "203.0.113.30");
    sandbox.stop();
    sandbox.start();
    undo(&sandbox);
    sandbox.is_refused(&OTHER);
    // A clone with less than its source has: what it tries, it tries in a network of its own.
    let mut spec = CloneSpec::new(rig.name());
    spec.egress = Some(Policy::allowlist(["allowed.test"]).unwrap());
    let backend = rig.backend.as_ref();
    rig.wait(Backend::clone(backend, &sandbox.name, &spec, &Cancel::new())).unwrap();
    let clone = Sandbox { rig, name: spec.name };
    undo(&clone);
    assert_ne!(gateway(&clone), gateway(&sandbox));
    clone.is_refused(&["get", "203.0.113.30:80", "x"]);
    clone.reaches(&ALLOWED, "203.0.113.10");
    // And nothing is left of it under another policy.
    clone.set(&Policy::None);
    assert_eq!(clone.sh("ls /sys/class/net"), "lo");
}

/// Whoever works with a sandbox sees to its names.
fn names_again(rig: &Rig) {
    rig.put_name("moves.test 1 203.0.113.10");
    let sandbox = rig.sandbox(&["moves.test:80"]);
    let get = |address: &str| sandbox.probe(&["get", &format!("{address}:80"), "moves.test"]);
    let ask = || sandbox.probe(&["ask", "9.9.9.9:53", "moves.test", "a"]);
    assert_eq!(ask(), "203.0.113.10");
    assert_eq!(get("203.0.113.10"), "I am 203.0.113.10");
    rig.put_name("moves.test 1 203.0.113.20");
    let other = rig.another();
    let line = Command::shell("getent ahostsv4 moves.test | head -1; sleep 1");
    eventually("the new address is there", || {
        let cancel = Cancel::new();
        let output = rig.wait(exec(other.as_ref(), &sandbox.name, &line, &cancel)).unwrap();
        String::from_utf8_lossy(&output.stdout).contains("203.0.113.20")
    });
    undo(&sandbox);
    assert_eq!(get("203.0.113.20"), "I am 203.0.113.20");
    assert!(get("203.0.113.30").starts_with("refused"));
}

fn guests_own(rig: &Rig) {
    let sandbox = rig.sandbox(&["*.allowed.test"]);
    assert!(!gateway(&sandbox).starts_with("198.19."));
    sandbox.is_refused(&OTHER);
    // From one to the other while it runs.
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    assert!(gateway(&sandbox).starts_with("198.19."));
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.set(&Policy::Unrestricted);
    assert!(!gateway(&sandbox).starts_with("198.19."));
    sandbox.reaches(&OTHER, "203.0.113.20");
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    undo(&sandbox);
    sandbox.is_refused(&OTHER);
}
