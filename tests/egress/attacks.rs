//! The table of attacks: each with root in the guest.

use std::net::TcpListener;

use sandscript::sandbox::{Policy, Reason};

use crate::Test;
use crate::rig::{Rig, eventually};

pub const TESTS: &[Test] = &[
    ("attack_rules_routes_addresses_and_raw_sockets", tools_of_the_trade),
    ("attack_new_namespaces", new_namespaces),
    ("attack_spoofed_source", spoofed_source),
    ("attack_what_only_lenient_servers_take", lenient_servers),
    ("attack_another_dns_server", another_dns_server),
    ("attack_dns_over_https_on_an_allowed_address", another_name_on_an_allowed_address),
    ("attack_a_second_request_for_another_host", second_request),
    ("attack_silence_before_the_greeting", silence),
    ("attack_rebinding_to_a_private_address", rebinding),
    ("attack_ipv6_literals", ipv6_literals),
    ("attack_a_connection_held_open", held_open),
    ("attack_filling_the_set", filling_the_set),
    ("attack_the_hosts_own_services", host_services),
    ("attack_another_sandbox", another_sandbox),
    ("attack_the_gate_itself", gate_itself),
    ("attack_udp", udp),
    ("attack_what_another_one_has_asked_for", anothers_questions),
    ("attack_hundreds_of_busy_connections", busy_connections),
];

const DNS: &str = "9.9.9.9:53";
const DENIED: [&str; 3] = ["get", "203.0.113.20:80", "denied.test"];
const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];

fn tools_of_the_trade(rig: &Rig) {
    for policy in [Policy::allowlist(["allowed.test"]).unwrap(), Policy::None] {
        let sandbox = rig.sandbox_of(policy);
        assert_eq!(sandbox.probe(&["escape"]), "nothing is open");
        // With the usual programs, where the image has them.
        sandbox.sh(
            "PATH=$PATH:/usr/sbin:/sbin; nft flush ruleset; iptables -F; ip route flush table all; \
             ip route add default dev lo; ip addr add 203.0.113.20/24 dev lo; ip link set lo down",
        );
        sandbox.is_refused(&DENIED);
    }
}

fn new_namespaces(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    let inside = sandbox.sh("unshare --user --map-root-user --net echo new 2>&1 || echo no");
    assert!(inside.ends_with("no"), "{inside}");
    let inside = sandbox.sh("unshare --net echo new 2>&1 || echo no");
    assert!(inside.ends_with("no"), "{inside}");
    let inside = sandbox.sh("nsenter --net=/proc/1/ns/net echo new 2>&1 || echo no");
    assert!(inside.ends_with("no"), "{inside}");
    sandbox.is_refused(&DENIED);
}

fn spoofed_source(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for source in ["203.0.113.10", "203.0.113.1", "10.66.0.6", "127.0.0.1", "192.0.0.2"] {
        for server in ["203.0.113.20:123", "203.0.113.10:123"] {
            sandbox.is_refused(&["from", source, server]);
        }
    }
    for source in ["2001:db8:1::10", "2001:db8:1::1", "fd73:616e:6473::5", "::1"] {
        for server in ["[2001:db8:1::20]:123", "[2001:db8:1::10]:123"] {
            sandbox.is_refused(&["from", source, server]);
        }
    }
    // Allowed for the guest, not for whom it claims to be: the answer would begin a talk of two others.
    let sandbox = rig.sandbox(&["udp://203.0.113.0/24"]);
    sandbox.is_refused(&["from", "203.0.113.20", "203.0.113.10:7"]);
    assert_eq!(sandbox.log().carried, []);
    sandbox.reaches(&["from", "192.0.0.2", "203.0.113.10:123"], "203.0.113.10");
    let sandbox = rig.sandbox(&["udp://[2001:db8:1::/64]"]);
    sandbox.is_refused(&["from", "2001:db8:1::20", "[2001:db8:1::10]:123"]);
    assert_eq!(sandbox.log().carried, []);
    sandbox.reaches(&["from", "fd73:616e:6473:1::2", "[2001:db8:1::10]:123"], "2001:db8:1::10");
}

fn another_dns_server(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test", "front.test"]);
    // Servers that would answer anything are asked, and ours answers.
    for server in ["203.0.113.20:53", "203.0.113.10:53", "203.0.113.53:53", "10.66.0.5:53"] {
        for verb in ["ask", "ask-tcp"] {
            assert_eq!(sandbox.probe(&[verb, server, "denied.test", "a"]), "missing", "{server}");
        }
    }
    sandbox.is_refused(&["tls", "203.0.113.53:853", "dns.test"]);
}

fn another_name_on_an_allowed_address(rig: &Rig) {
    // Both names are on one address.
    let sandbox = rig.sandbox(&["cdn.test"]);
    assert_eq!(sandbox.probe(&["ask", DNS, "cdn.test", "a"]), "203.0.113.30");
    sandbox.reaches(&["tls", "203.0.113.30:443", "cdn.test"], "203.0.113.30");
    for words in [
        ["tls", "203.0.113.30:443", "front.test"],
        ["tls", "203.0.113.30:443", "-"],
        ["tls", "203.0.113.30:443", "203.0.113.30"],
        ["get", "203.0.113.30:80", "front.test"],
        ["get", "203.0.113.30:443", "front.test"],
        ["get", "203.0.113.30:80", "203.0.113.30"],
    ] {
        sandbox.is_refused(&words);
    }
    // An allowed name does not open another's address.
    let said = sandbox.probe(&["tls", "203.0.113.20:443", "cdn.test"]);
    assert_eq!(said, "I am 203.0.113.30");
    let said = sandbox.probe(&["text", "203.0.113.30:80", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
    assert!(said.starts_with("refused"), "{said}");
}

fn second_request(rig: &Rig) {
    let sandbox = rig.sandbox(&["cdn.test"]);
    let said = sandbox.probe(&["twice", "203.0.113.30:80", "cdn.test", "cdn.test"]);
    assert_eq!(said, "I am 203.0.113.30, then I am 203.0.113.30");
    let said = sandbox.probe(&["twice", "203.0.113.30:80", "cdn.test", "front.test"]);
    assert!(said.starts_with("refused"), "{said}");
    // A proxy that is allowed is no way to what is not.
    let asked = "CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test:443\r\n\r\n";
    sandbox.is_refused(&["text", "203.0.113.30:80", asked]);
}

/// There are servers that pass over each of these and take what follows.
fn lenient_servers(rig: &Rig) {
    let sandbox = rig.sandbox(&["cdn.test"]);
    assert!(sandbox.probe(&["ask", "9.9.9.9:53", "cdn.test", "a"]).contains("203.0.113.30"));
    for before in ["150301000201 5a", "1602", "1604", "140303000101", "802e010301"] {
        let before = before.replace(' ', "");
        sandbox.is_refused(&["tls-after", "203.0.113.30:443", &before, "front.test"]);
    }
    for before in ["\r\n", "\n", " ", "\t\r\n"] {
        let text = format!("{before}GET / HTTP/1.1\r\nHost: front.test\r\n\r\n");
        sandbox.is_refused(&["text", "203.0.113.30:80", &text]);
    }
    for line in
        ["GET /\tHTTP/1.1", "GET\t/ HTTP/1.1", "GET http://cdn.test/ HTTP/1.1", "get / http/1.1"]
    {
        let text = format!("{line}\r\nHost: front.test\r\n\r\n");
        sandbox.is_refused(&["text", "203.0.113.30:80", &text]);
    }
    sandbox.reaches(&["text", "203.0.113.30:8080", "SSH-2.0-x\r\n"], "203.0.113.30");
}

fn silence(rig: &Rig) {
    let sandbox = rig.sandbox(&["cdn.test"]);
    assert_eq!(sandbox.probe(&["ask", DNS, "cdn.test", "a"]), "203.0.113.30");
    sandbox.is_refused(&["late", "203.0.113.30:443", "front.test"]);
    sandbox.is_refused(&["late", "203.0.113.30:443", "-"]);
}

fn rebinding(rig: &Rig) {
    let sandbox = rig.sandbox(&["moving.test", "meta.test", "inner.test@10.66.0.5", "host.test"]);
    rig.put_name("moving.test 1 203.0.113.10");
    assert_eq!(sandbox.probe(&["ask", DNS, "moving.test", "a"]), "203.0.113.10");
    sandbox.reaches(&["get", "203.0.113.10:80", "moving.test"], "203.0.113.10");
    rig.put_name("moving.test 1 10.66.0.6");
    // When what it was told has run out.
    eventually("the new address is refused", || {
        sandbox.probe(&["ask", DNS, "moving.test", "a"]) == "empty"
    });
    for to in ["10.66.0.6:80", "203.0.113.10:80"] {
        sandbox.is_refused(&["get", to, "moving.test"]);
    }
    assert_eq!(sandbox.probe(&["ask", DNS, "meta.test", "a"]), "empty");
    sandbox.is_refused(&["get", "169.254.169.254:80", "meta.test"]);
    // The host's own address is public, and still not for guests.
    sandbox.is_refused(&["get", "203.0.113.1:80", "host.test"]);
    // One that the rule says has a private address.
    assert_eq!(sandbox.probe(&["ask", DNS, "inner.test", "a"]), "10.66.0.5");
    sandbox.reaches(&["get", "10.66.0.5:80", "inner.test"], "10.66.0.5");
    let log = sandbox.log();
    assert!(log.denied.iter().any(|one| {
        one.name.as_deref() == Some("moving.test") && one.reason == Reason::Private
    }));
}

fn ipv6_literals(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for to in
        ["[2001:db8:1::20]:80", "[::ffff:203.0.113.20]:80", "[fe80::1]:80", "[fd00:ec2::254]:80"]
    {
        sandbox.is_refused(&["get", to, "x"]);
        sandbox.is_refused(&["get", to, "denied.test"]);
    }
    sandbox.is_refused(&["udp", "[2001:db8:1::20]:123"]);
}

fn held_open(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test", "203.0.113.20"]);
    sandbox.background(&["hold", "203.0.113.10:80", "allowed.test"], "/tmp/name");
    sandbox.background(&["hold", "203.0.113.20:80", "x"], "/tmp/network");
    for file in ["/tmp/name", "/tmp/network"] {
        eventually("it is held", || sandbox.file(file).contains("I am"));
    }
    sandbox.set(&Policy::allowlist(["cdn.test"]).unwrap());
    for file in ["/tmp/name", "/tmp/network"] {
        eventually("it is cut", || sandbox.file(file).contains("cut"));
    }
}

fn filling_the_set(rig: &Rig) {
    rig.put_name("*.many.test 60 203.0.113.66");
    let sandbox = rig.sandbox(&["*.many.test", "allowed.test"]);
    let other = rig.sandbox(&["allowed.test"]);
    assert_eq!(sandbox.probe(&["flood", DNS, "many.test", "20000"]), "flooded");
    sandbox.is_refused(&DENIED);
    eventually("it is served again", || sandbox.probe(&ALLOWED) == "I am 203.0.113.10");
    other.reaches(&ALLOWED, "203.0.113.10");
    // So many refusals, too.
    sandbox.probe(&["flood", DNS, "denied.test", "5000"]);
    eventually("it is served again", || sandbox.probe(&ALLOWED) == "I am 203.0.113.10");
    assert!(sandbox.log().denied.len() <= 1000);
}

/// Serves on all addresses of this machine: the port.
pub fn host_service() -> u16 {
    let service = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"I am the host");
        }
    });
    port
}

fn host_services(rig: &Rig) {
    let port = host_service();
    let sandbox = rig.sandbox(&["*", "0.0.0.0/0", "::/0", "203.0.113.0/24"]);
    for address in ["203.0.113.1", "127.0.0.1", "127.0.0.2", "0.0.0.0", "192.0.0.1", "192.0.0.2"] {
        sandbox.is_refused(&["banner", &format!("{address}:{port}")]);
    }
    sandbox.is_refused(&["banner", &format!("[::ffff:127.0.0.1]:{port}")]);
    sandbox.is_refused(&["get", "169.254.169.254:80", "x"]);
    sandbox.is_refused(&["get", "10.66.0.5:80", "x"]);
    sandbox.reaches(&["get", "203.0.113.20:80", "x"], "203.0.113.20");
    // Only by its very address.
    sandbox.allow("203.0.113.1");
    assert_eq!(sandbox.probe(&["banner", &format!("203.0.113.1:{port}")]), "I am the host");
}

fn another_sandbox(rig: &Rig) {
    let (one, two) = (rig.sandbox(&["*"]), rig.sandbox(&["*"]));
    one.background(&["serve", "4000"], "/tmp/served");
    eventually("it serves", || one.file("/tmp/served").contains("serving"));
    let mut addresses = vec!["127.0.0.1".to_owned(), "192.0.0.2".into(), "203.0.113.1".into()];
    let cancel = sandscript::sandbox::Cancel::new();
    let call = sandscript::sandbox::Backend::get(rig.backend.as_ref(), &one.name, &cancel);
    addresses.extend(rig.wait(call).unwrap().addresses);
    for address in addresses {
        two.is_refused(&["banner", &format!("{address}:4000")]);
    }
}

fn gate_itself(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for to in ["127.0.0.1:3129", "192.0.0.2:3129", "[::1]:3129"] {
        sandbox.is_refused(&["get", to, "allowed.test"]);
    }
    // Its place can't be taken.
    let said = sandbox.probe(&["serve", "3129"]);
    assert!(said.starts_with("refused"), "{said}");
    // Garbage is refused, and does it no harm.
    for text in [
        "\x16\x03\x01\x40",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let said = sandbox.probe(&["text", "203.0.113.10:80", text]);
        assert!(!said.contains("I am"), "{text:?}: {said}");
    }
    sandbox.reaches(&ALLOWED, "203.0.113.10");
}

fn udp(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    assert!(sandbox.probe(&["ask", "9.9.9.9:53", "allowed.test", "a"]).contains("203.0.113.10"));
    let closed = [
        "203.0.113.20:123",
        "203.0.113.20:443",
        "203.0.113.10:443",
        "10.66.0.5:123",
        "169.254.169.254:123",
        "203.0.113.1:9999",
        "127.0.0.1:3130",
    ];
    for to in closed {
        sandbox.is_refused(&["udp", to]);
    }
    // Open until the policy changes; then nothing comes back.
    let open = rig.sandbox(&["203.0.113.10"]);
    open.background(&["echo-on", "203.0.113.10:7"], "/tmp/udp");
    eventually("it goes back and forth", || open.file("/tmp/udp").lines().count() > 2);
    open.set(&Policy::allowlist(["allowed.test"]).unwrap());
    eventually("it is cut", || open.file("/tmp/udp").ends_with("cut"));
}

/// What one has found out is not told to another one, nor how long ago it was.
fn anothers_questions(rig: &Rig) {
    let (one, two) = (rig.sandbox(&["*.asked.test"]), rig.sandbox(&["*.asked.test"]));
    let name = format!("n{}.asked.test", one.name);
    let ask = |sandbox: &crate::rig::Sandbox<'_>| sandbox.probe(&["ask", DNS, &name, "a"]);
    rig.put_name(&format!("{name} 3600 203.0.113.10"));
    assert_eq!(ask(&one), "203.0.113.10");
    rig.put_name(&format!("{name} 3600 203.0.113.11"));
    // It keeps what it was told; the other one gets what is true now.
    assert_eq!(ask(&one), "203.0.113.10");
    assert_eq!(ask(&two), "203.0.113.11");
}

/// However many connections of one guest are never idle: another one's requests are answered, each of them.
fn busy_connections(rig: &Rig) {
    let (busy, other) = (rig.sandbox(&["203.0.113.10"]), rig.sandbox(&["allowed.test"]));
    busy.background(&["pours", "203.0.113.10:9000", "300"], "/tmp/busy");
    eventually("it pours", || busy.file("/tmp/busy").contains("pouring"));
    let requests = ["requests", "203.0.113.10:80", "allowed.test"];
    // It prints how long one takes when all three hundred were answered.
    let answered = || other.probe(&requests).parse::<u64>().is_ok();
    assert!((0..3).any(|_| answered()), "{}", other.probe(&requests));
}
