//! Networks that sandboxes of one run share, against root in the guest.

use std::net::TcpListener;

use sandscript::sandbox::{Policy, Reason, Spec};

use crate::Test;
use crate::rig::{Rig, Sandbox, eventually, kill};

pub const TESTS: &[Test] = &[
    ("networks_work_under_every_policy", every_policy),
    ("networks_carry_datagrams", datagrams),
    ("networks_by_each_family", families),
    ("attack_a_network_from_outside", from_outside),
    ("attack_another_network_of_a_member", another_network),
    ("attack_joining_a_network_from_inside", joining),
    ("attack_the_host_through_a_network", the_host),
    ("attack_a_members_name_taken", name_taken),
    ("attack_a_network_without_its_gate", without_the_gate),
];

const DNS: &str = "9.9.9.9:53";
const DENIED: [&str; 3] = ["get", "203.0.113.20:80", "denied.test"];

/// Lets it say who it is to whoever comes to port 4000.
fn serve(sandbox: &Sandbox<'_>, address: &str) {
    sandbox.background(&["stay", &format!("{address}:4000"), &sandbox.name], "/tmp/served");
    eventually("it serves", || sandbox.file("/tmp/served").contains("serving"));
}

/// The IPv6 address by which a member knows another one.
fn address6(from: &Sandbox<'_>, to: &Sandbox<'_>) -> String {
    let said = from.probe(&["ask", DNS, &to.name, "aaaa"]);
    assert!(said.starts_with("fd73:616e:6473::"), "{said}");
    said
}

/// The address by which a member knows another one.
fn address(from: &Sandbox<'_>, to: &Sandbox<'_>) -> String {
    let said = from.probe(&["ask", DNS, &to.name, "a"]);
    assert!(said.starts_with("198.18.") || said.starts_with("198.19."), "{said}");
    said
}

/// Of IPv4 and of IPv6: both have the same number.
fn refused_everywhere(from: &Sandbox<'_>, to: &Sandbox<'_>, address: &str) {
    let four = u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()) & 0x1_ffff;
    let six = format!("fd73:616e:6473::{:x}:{:x}", four >> 16, four & 0xffff);
    from.is_refused(&["banner", &format!("[{six}]:4000")]);
    from.is_refused(&["udp", &format!("[{six}]:4000")]);
    from.is_refused(&["call", &to.name, "4000"]);
    from.is_refused(&["banner", &format!("{address}:4000")]);
    from.is_refused(&["banner", &format!("[::ffff:{address}]:4000")]);
    from.is_refused(&["text", &format!("{address}:4000"), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"]);
}

fn every_policy(rig: &Rig) {
    let rules = Policy::allowlist(["allowed.test"]).unwrap();
    let all = [Policy::None, rules, Policy::Unrestricted];
    let members: Vec<_> =
        all.iter().map(|policy| rig.member(policy.clone(), "r", &["n"])).collect();
    members.iter().for_each(|member| serve(member, "0.0.0.0"));
    for from in &members {
        for to in &members {
            from.reaches(&["call", &to.name, "4000"], &to.name);
            from.reaches(&["banner", &format!("{}:4000", address(from, to))], &to.name);
            let at = address6(from, to);
            from.reaches(&["banner", &format!("[{at}]:4000")], &to.name);
            // There is no hint, nor anything else.
            assert_eq!(from.probe(&["ask", DNS, &to.name, "https"]), "empty");
            assert_eq!(from.probe(&["ask", DNS, &to.name, "txt"]), "empty");
        }
    }
    // Beside that, each reaches what its own policy says.
    members[0].is_refused(&DENIED);
    members[1].is_refused(&DENIED);
    members[1].reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
    members[2].reaches(&DENIED, "203.0.113.20");
    // A change of policy is none of the network.
    members[2].set(&Policy::None);
    members[2].is_refused(&DENIED);
    members[2].reaches(&["call", &members[0].name, "4000"], &members[0].name);
    members[0].reaches(&["call", &members[2].name, "4000"], &members[2].name);
    let carried = members[0].log().carried;
    assert!(carried.iter().any(|one| one.host == members[1].name && one.received > 0));
}

fn datagrams(rig: &Rig) {
    let none = || rig.member(Policy::None, "r", &["n"]);
    let (one, two, own, outsider) = (none(), none(), none(), rig.sandbox_of(Policy::Unrestricted));
    let serve = |sandbox: &Sandbox<'_>, address: &str| {
        let at = format!("{address}:4001");
        sandbox.background(&["stay-udp", &at, &sandbox.name], "/tmp/echo");
        eventually("it serves", || sandbox.file("/tmp/echo").contains("serving"));
    };
    serve(&one, "0.0.0.0");
    serve(&own, "127.0.0.1");
    let at = format!("{}:4001", address(&two, &one));
    if !two.probe(&["udp", &at]).contains("I am") && is_without_datagrams(rig) {
        return;
    }
    two.reaches(&["udp", &at], &one.name);
    two.is_refused(&["udp", &format!("{}:4001", address(&two, &own))]);
    outsider.is_refused(&["udp", &at]);
    // Through a restart of the other end, which is another network namespace then.
    two.background(&["keep-asking", &at], "/tmp/asked");
    eventually("it is answered", || two.file("/tmp/asked").contains("I am"));
    one.stop();
    let last = || two.sh("tail -n 1 /tmp/asked");
    eventually("it is not answered", || !last().contains("I am"));
    one.start();
    serve(&one, "0.0.0.0");
    eventually("it is answered again", || last().contains("I am"));
}

fn families(rig: &Rig) {
    let none = || rig.member(Policy::None, "r", &["n"]);
    let (one, two) = (none(), none());
    let outsider = rig.sandbox_of(Policy::Unrestricted);
    let (at, at6) = (address(&two, &one), address6(&two, &one));
    let (own, own6) = (address(&one, &two), address6(&one, &two));
    // Whatever it listens on but the loopback interface, and however it is called: it sees who calls.
    let with_datagrams = !is_without_datagrams(rig);
    for (port, place) in [(4000, "0.0.0.0"), (4010, "[::]"), (4020, "127.0.0.1"), (4030, "[::1]")] {
        for (word, port) in [("stay", port), ("stay-udp", port + 1)] {
            let file = format!("/tmp/{port}");
            one.background(&[word, &format!("{place}:{port}"), "%"], &file);
            eventually("it serves", || one.file(&file).contains("serving"));
        }
    }
    for to in [&at, &format!("[{at6}]")] {
        // By its own family where that is listened on.
        two.reaches(&["banner", &format!("{to}:4000")], &own);
        two.reaches(
            &["banner", &format!("{to}:4010")],
            if to.contains('[') { &own6 } else { &own },
        );
        two.is_refused(&["banner", &format!("{to}:4020")]);
        two.is_refused(&["banner", &format!("{to}:4030")]);
        if with_datagrams {
            two.reaches(&["udp", &format!("{to}:4001")], &own);
            two.reaches(
                &["udp", &format!("{to}:4011")],
                if to.contains('[') { &own6 } else { &own },
            );
        }
        two.is_refused(&["udp", &format!("{to}:4021")]);
        two.is_refused(&["udp", &format!("{to}:4031")]);
        outsider.is_refused(&["banner", &format!("{to}:4000")]);
        outsider.is_refused(&["udp", &format!("{to}:4001")]);
    }
    // What nobody has, of the range and beside it.
    for to in ["fd73:616e:6473::1:fffe", "fd73:616e:6473:1::2", "fd73:616e:6473:1::1"] {
        two.is_refused(&["banner", &format!("[{to}]:4000")]);
        two.is_refused(&["banner", &format!("[{to}]:4010")]);
    }
    // Whose an address is, those know that may.
    let four: Vec<&str> = at.split('.').rev().collect();
    let four = format!("{}.in-addr.arpa", four.join("."));
    let six: String = at6
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets()
        .iter()
        .rev()
        .fold(String::new(), |name, byte| format!("{name}{:x}.{:x}.", byte & 15, byte >> 4));
    for name in [four, format!("{six}ip6.arpa")] {
        assert_eq!(two.probe(&["ask", DNS, &name, "ptr"]), one.name);
        assert!(!outsider.probe(&["ask", DNS, &name, "ptr"]).contains(&one.name));
    }
    assert_eq!(outsider.log().denied.iter().filter(|one| one.port == 53).count(), 0);
}

/// On a kernel that can't hand what is meant for others to the gate there is no UDP but the resolver's.
fn is_without_datagrams(rig: &Rig) -> bool {
    let open = rig.sandbox_of(Policy::Unrestricted);
    !open.probe(&["udp", "203.0.113.20:123"]).contains("I am")
}

fn from_outside(rig: &Rig) {
    let (one, two) =
        (rig.member(Policy::None, "r1", &["n"]), rig.member(Policy::None, "r1", &["n"]));
    serve(&one, "0.0.0.0");
    let at = address(&two, &one);
    two.reaches(&["call", &one.name, "4000"], &one.name);
    let outsiders = [
        rig.sandbox_of(Policy::None),
        rig.sandbox(&["*", "0.0.0.0/0", "198.18.0.0/15", &one.name]),
        rig.sandbox_of(Policy::Unrestricted),
        // Of the same name in another run, and in another network of this one.
        rig.member(Policy::Unrestricted, "r2", &["n"]),
        rig.member(Policy::allowlist(["*", "198.18.0.0/15"]).unwrap(), "r1", &["m"]),
        // A clone is none of its source's networks.
        one.clone_of(),
    ];
    for outsider in &outsiders {
        refused_everywhere(outsider, &one, &at);
        assert!(!outsider.probe(&["ask", DNS, &one.name, "a"]).contains(&at));
    }
    let refused = outsiders[3].log().denied;
    let no_peer = refused.iter().find(|one| one.reason == Reason::NoPeer);
    let refused = no_peer.unwrap_or_else(|| panic!("{refused:?}"));
    assert!(refused.host() == at || refused.host().starts_with("fd73:"), "{refused:?}");
    assert_eq!((refused.port, refused.rule()), (4000, None));
}

fn another_network(rig: &Rig) {
    let front = rig.member(Policy::None, "r", &["front"]);
    let middle = rig.member(Policy::None, "r", &["front", "back"]);
    let back = rig.member(Policy::None, "r", &["back"]);
    [&front, &middle, &back].into_iter().for_each(|sandbox| serve(sandbox, "0.0.0.0"));
    for (from, to) in [(&front, &middle), (&middle, &front), (&middle, &back), (&back, &middle)] {
        from.reaches(&["call", &to.name, "4000"], &to.name);
    }
    let (front_at, back_at) = (address(&middle, &front), address(&middle, &back));
    refused_everywhere(&front, &back, &back_at);
    refused_everywhere(&back, &front, &front_at);
}

fn joining(rig: &Rig) {
    let (one, two) = (rig.member(Policy::None, "r", &["n"]), rig.member(Policy::None, "r", &["n"]));
    serve(&one, "0.0.0.0");
    let at = address(&two, &one);
    for policy in [Policy::None, Policy::Unrestricted] {
        let outsider = rig.sandbox_of(policy);
        // What a guest calls itself, and what it believes, is its own affair.
        outsider.sh(&format!(
            "PATH=$PATH:/usr/sbin:/sbin; hostname {0}; echo {0} > /etc/hostname; \
             echo '{at} {1}' >> /etc/hosts; ip addr add 198.18.0.1/15 dev lo; \
             ip route add 198.18.0.0/15 dev lo; ip route add 198.18.0.0/15 via 192.0.0.1",
            two.name, one.name
        ));
        refused_everywhere(&outsider, &one, &at);
    }
    // Nor does a member become another one, for whom it calls.
    one.background(&["stay", "[::]:4010", "%"], "/tmp/who");
    one.background(&["stay-udp", "[::]:4011", "%"], "/tmp/who-udp");
    eventually("they serve", || {
        ["/tmp/who", "/tmp/who-udp"].iter().all(|file| one.file(file).contains("serving"))
    });
    let three = rig.member(Policy::None, "r", &["n"]);
    let (at6, own, own6) = (address6(&two, &one), address(&one, &two), address6(&one, &two));
    let (other, other6) = (address(&one, &three), address6(&one, &three));
    two.reaches(&["from-tcp", &other, &format!("{at}:4010")], &own);
    two.reaches(&["from-tcp", &other6, &format!("[{at6}]:4010")], &own6);
    two.is_refused(&["from", &other, &format!("{at}:4011")]);
    two.is_refused(&["from", &other6, &format!("[{at6}]:4011")]);
    serve(&two, "0.0.0.0");
    two.sh(&format!("hostname {}; ip addr add {at}/32 dev lo", one.name));
    two.reaches(&["banner", &format!("{at}:4000")], &one.name);
    assert_eq!(address(&one, &one), at);
}

fn the_host(rig: &Rig) {
    let service = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"I am the host");
        }
    });
    let (one, two) = (rig.member(Policy::None, "r", &["n"]), rig.member(Policy::None, "r", &["n"]));
    let at = address(&one, &two);
    for target in [&at, "198.18.0.0", "198.19.255.255", "198.18.0.1", "203.0.113.1", "127.0.0.1"] {
        one.is_refused(&["banner", &format!("{target}:{port}")]);
    }
    // The gate of another one, and what listens for itself only.
    one.is_refused(&["get", &format!("{at}:3129"), "allowed.test"]);
    serve(&two, "127.0.0.1");
    two.reaches(&["banner", "127.0.0.1:4000"], &two.name);
    one.is_refused(&["call", &two.name, "4000"]);
    // By no other protocol either.
    for to in [format!("{at}:4000"), format!("198.18.0.1:{port}")] {
        one.is_refused(&["udp", &to]);
    }
    let at6 = address6(&one, &two);
    for target in [&at6, "fd73:616e:6473::1", "fd73:616e:6473:1::2", "2001:db8:1::1", "::1"] {
        one.is_refused(&["banner", &format!("[{target}]:{port}")]);
    }
    one.is_refused(&["get", &format!("[{at6}]:3129"), "allowed.test"]);
}

fn name_taken(rig: &Rig) {
    let one = rig.member(Policy::None, "r", &["n"]);
    let two = rig.member(Policy::Unrestricted, "r", &["n"]);
    serve(&one, "0.0.0.0");
    let (at, at6) = (address(&two, &one), address6(&two, &one));
    two.background(&["hold", &format!("{at}:4000"), "x"], "/tmp/held");
    eventually("it is held", || two.file("/tmp/held").contains("I am"));
    one.stop();
    let gone = || two.probe(&["ask", DNS, &one.name, "a"]) != at;
    eventually("the name is gone", gone);
    eventually("the old connection is cut", || two.file("/tmp/held").contains("cut"));
    two.is_refused(&["banner", &format!("{at}:4000")]);
    two.is_refused(&["banner", &format!("[{at6}]:4000")]);
    one.start();
    serve(&one, "0.0.0.0");
    assert_eq!(address(&two, &one), at);
    two.reaches(&["call", &one.name, "4000"], &one.name);
    // Another sandbox of that name, which is in no network, and in one of another run.
    let name = one.name.clone();
    drop(one);
    for networks in [Vec::new(), vec![sandscript::sandbox::Network::new("r2", "n")]] {
        let spec = Spec { networks, ..Spec::new(&name) };
        let other = rig.try_sandbox_of(spec).unwrap();
        serve(&other, "0.0.0.0");
        refused_everywhere(&two, &other, &at);
        drop(other);
    }
}

fn without_the_gate(rig: &Rig) {
    // A store of its own: other tests' sandboxes are served by the other gate.
    let own = rig.own();
    let (one, two) = (own.member(Policy::None, "r", &["n"]), own.member(Policy::None, "r", &["n"]));
    let outsider = own.member(Policy::None, "r", &["m"]);
    serve(&one, "0.0.0.0");
    let at = address(&two, &one);
    two.reaches(&["call", &one.name, "4000"], &one.name);
    for gate in own.gates() {
        kill(gate);
    }
    eventually("it is gone", || own.gate_is_gone());
    // The next command brings it back, with all networks as they were.
    eventually("it is reached again", || {
        two.probe(&["call", &one.name, "4000"]).contains(&one.name)
    });
    assert_eq!(address(&two, &one), at);
    refused_everywhere(&outsider, &one, &at);
    drop((one, two, outsider));
    own.close().unwrap();
}
