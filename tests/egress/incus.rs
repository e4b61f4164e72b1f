//! The same on a real Incus daemon of this machine: what its guests are asked to try is what sandboxes of the
//! backend `local` are, and what only these can, whose root may do with their own network as it likes.

use std::fs;

use crate::rig::{Rig, Sandbox, eventually, kill, processes};
use crate::{Test, attacks, names, networks, ports, programs, survival};

/// Those of others that are run here, too. What a guest may not even try on `local` is below.
pub fn tests() -> Vec<Test> {
    let others = [
        "attack_rules_routes_addresses_and_raw_sockets",
        "attack_new_namespaces",
        // The gate's own affair, whose guests they are.
        "attack_filling_the_set",
        "attack_hundreds_of_busy_connections",
        "attack_what_another_one_has_asked_for",
        "attack_what_only_lenient_servers_take",
        "attack_silence_before_the_greeting",
    ];
    let attacks = attacks::TESTS.iter().filter(|(name, _)| !others.contains(name));
    let wanted = [
        "attack_restart_restore_and_clone",
        "attack_kill_of_the_gate",
        "ports_outlive_the_gate",
        "none_becomes_an_allowlist",
        "a_log_is_not_another_sandboxes",
        "log_knows_the_program",
        "attack_a_network_from_outside",
        "attack_joining_a_network_from_inside",
        "attack_the_host_through_a_network",
        "attack_a_members_name_taken",
        "attack_a_network_without_its_gate",
    ];
    let some = [survival::TESTS, ports::TESTS, names::TESTS, networks::TESTS, programs::TESTS];
    let some = some.into_iter().flatten().filter(|(name, _)| wanted.contains(name));
    attacks.chain(some).chain(OWN).copied().collect()
}

const OWN: &[Test] = &[
    ("attack_rules_routes_addresses_and_raw_sockets", tools_of_the_trade),
    ("attack_new_namespaces", new_namespaces),
    ("attack_reboot_from_inside", reboot),
    ("attack_kill_of_the_door", kill_of_the_door),
];

const DENIED: [&str; 3] = ["get", "203.0.113.20:80", "denied.test"];
const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];

/// Nobody gets out, by any way that there may be.
#[track_caller]
pub fn is_shut_in(sandbox: &Sandbox<'_>) {
    sandbox.is_refused(&DENIED);
    sandbox.is_refused(&["get", "203.0.113.20:80", "allowed.test.denied.test"]);
    sandbox.is_refused(&["udp", "203.0.113.20:123"]);
    sandbox.is_refused(&["banner", "203.0.113.1:22"]);
}

pub fn tools_of_the_trade(rig: &Rig) {
    let lines = [
        "nft flush ruleset",
        "ip route flush table all; ip route flush table local",
        "ip link add up0 type dummy; ip addr add 203.0.113.99/24 dev up0; ip link set up0 up; \
         ip route replace default via 203.0.113.2 dev up0 onlink",
        "ip link add up1 type veth peer name in1; ip link set up1 up; ip link set in1 up; \
         ip route replace default dev up1; nft delete table inet sandscript",
        "nft 'table inet mine { chain out { type nat hook output priority -200; \
         ip daddr 203.0.113.20 dnat ip to 203.0.113.10; }; }'; ip link set lo down; ip link set lo up",
    ];
    for line in lines {
        let sandbox = rig.sandbox(&["allowed.test"]);
        sandbox.sh(line);
        is_shut_in(&sandbox);
    }
    let sandbox = rig.sandbox(&["allowed.test"]);
    // It may open what it likes: there is nobody at the other end.
    assert_ne!(sandbox.probe(&["escape"]), "nothing is open");
    is_shut_in(&sandbox);
}

pub fn new_namespaces(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for way in [
        "unshare --net",
        "unshare --user --map-root-user --net",
        "nsenter --net=/proc/1/ns/net",
        "nsenter --net=/proc/self/ns/net unshare --net",
    ] {
        let said = sandbox.sh(&format!("{way} /srv/probe/probe probe {} 2>&1", DENIED.join(" ")));
        assert!(!said.contains("I am"), "{way}: {said}");
    }
    is_shut_in(&sandbox);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
}

/// A guest that restarts by itself has no way out, from its first process on, until somebody lets it in.
fn reboot(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test", "203.0.113.20"]);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    let tries = "(cat /proc/sys/kernel/random/uuid; for i in 1 2 3 4 5 6 7 8 9; do \
        /srv/probe/probe probe get 203.0.113.20:80 x; \
        /srv/probe/probe probe get 203.0.113.10:80 allowed.test; done; echo over) >> /root/boot 2>&1 &";
    sandbox.sh(&format!(
        "cat > /root/boot.sh <<'END'\n{tries}\nEND\nsed -i 's|^while (1)|system q(sh /root/boot.sh); while (1)|' /sbin/init; \
         grep -c boot.sh /sbin/init"
    ));
    let doors = || doors(&sandbox.name);
    let before = doors();
    assert_eq!(before.len(), 1);
    // As root in the guest does with `reboot -f`.
    sandbox
        .background_line("sleep 0.3; perl -e 'syscall 169, 0xfee1dead, 672274793, 0x01234567, 0'");
    eventually("its door is gone", || doors().is_empty());
    let boot = format!("/proc/{}/root/root/boot", rig.process_one(&sandbox.name));
    eventually("it has tried", || {
        fs::read_to_string(&boot).is_ok_and(|text| text.contains("over"))
    });
    let tried = fs::read_to_string(&boot).unwrap();
    assert!(tried.contains("refused") && !tried.contains("I am"), "{tried}");
    assert!(doors().is_empty());
    // The next command lets it in, with what it had.
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.reaches(&["get", "203.0.113.20:80", "x"], "203.0.113.20");
    sandbox.is_refused(&["get", "203.0.113.30:80", "cdn.test"]);
}

/// What holds a guest's sockets ends: nothing gets out until the next command.
pub fn kill_of_the_door(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    sandbox.background(&["hold", "203.0.113.10:80", "allowed.test"], "/tmp/held");
    eventually("it is held", || sandbox.file("/tmp/held").contains("I am"));
    for _ in 0..2 {
        doors(&sandbox.name).into_iter().for_each(kill);
        eventually("it is gone", || doors(&sandbox.name).is_empty());
        sandbox.reaches(&ALLOWED, "203.0.113.10");
        sandbox.is_refused(&DENIED);
        assert_eq!(doors(&sandbox.name).len(), 1);
    }
    eventually("the old connection is cut", || sandbox.file("/tmp/held").contains("cut"));
}

/// Those of a sandbox.
fn doors(name: &str) -> Vec<i32> {
    let wanted = format!("sandscript:door\0{name}\0");
    let is = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted)
    };
    processes().into_iter().filter(is).collect()
}
