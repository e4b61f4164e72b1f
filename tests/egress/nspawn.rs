//! The same on machines of systemd-nspawn: they boot a whole system, and their root may do with their own network
//! as it likes, which has no way out but the gate's.

use sandscript::sandbox::Policy;

use crate::rig::{Rig, eventually, kill, processes};
use crate::{Test, attacks, incus, names, nas, networks, programs, survival};

/// Those of others that are run here, too.
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
        "none_becomes_an_allowlist",
        "log_knows_the_program",
        "attack_a_network_from_outside",
        "attack_joining_a_network_from_inside",
        "attack_the_host_through_a_network",
        "attack_a_members_name_taken",
        "attack_a_network_without_its_gate",
    ];
    let some = [survival::TESTS, names::TESTS, networks::TESTS, programs::TESTS];
    let some = some.into_iter().flatten().filter(|(name, _)| wanted.contains(name));
    let all = std::env::var_os("SANDSCRIPT_ALL_CASES").is_some();
    let own = if all { OWN } else { &OWN[..7] };
    attacks.chain(some).chain(own).copied().collect()
}

const OWN: &[Test] = &[
    ("attack_rules_routes_addresses_and_raw_sockets", incus::tools_of_the_trade),
    ("attack_new_namespaces", incus::new_namespaces),
    ("attack_kill_of_the_door", incus::kill_of_the_door),
    ("attack_a_clones_first_packets", nas::first_packets),
    ("attack_reboot_from_inside", reboot),
    ("containers_in_a_machine_have_what_it_has", containers),
    // With all cases only.
    ("attack_sockets_past_the_network", past_the_network),
    ("attack_crash_of_everything", crash_of_everything),
    ("attack_what_is_masked", masked),
];

const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];

/// As engines of containers make them: a bridge, and namespaces that are plugged into it.
const CONTAINERS: &str = "\
    ip link add br0 type bridge; ip addr add 172.17.0.1/16 dev br0; ip link set br0 up; mkdir -p /run/netns; \
    for n in 2 3; do ip netns add c$n; ip link add v$n type veth peer name eth0 netns c$n; \
        ip link set v$n master br0 up; ip -n c$n link set lo up; ip -n c$n addr add 172.17.0.$n/16 dev eth0; \
        ip -n c$n link set eth0 up; ip -n c$n route add default via 172.17.0.1; done; \
    nft 'table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 oifname != br0 masquerade; }; }'";

/// No more, and no less.
fn containers(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    sandbox.sh(CONTAINERS);
    let inside = |words: &[&str]| {
        let line = format!("/srv/probe/probe probe {} 2>&1", words.join(" "));
        sandbox.sh(&format!("nsenter --net=/run/netns/c2 {line}"))
    };
    eventually("a container is let through", || inside(&ALLOWED) == "I am 203.0.113.10");
    let asked = inside(&["ask", "192.0.0.1:53", "allowed.test", "a"]);
    assert!(asked.contains("203.0.113.10"), "{asked}");
    assert_eq!(inside(&["ask", "9.9.9.9:53", "denied.test", "a"]), "missing");
    for words in [
        &["get", "203.0.113.20:80", "denied.test"][..],
        &["banner", "203.0.113.1:22"],
        &["banner", "203.0.113.20:22"],
        &["get", "192.0.0.2:3129", "allowed.test"],
        &["udp", "203.0.113.20:123"],
    ] {
        let said = inside(words);
        assert!(said.starts_with("refused"), "{words:?}: {said}");
    }
    // Among each other, and with the machine, they are as they were.
    let line = "serve='import socket; s = socket.create_server((\"\", 80)); [s.accept()[0].sendall(b\"hello\") for _ in range(2)]'; \
        nsenter --net=/run/netns/c3 timeout 20 python3 -c \"$serve\" & timeout 20 python3 -c \"$serve\" & sleep 1; \
        for at in 172.17.0.3 172.17.0.1 192.0.0.2; do \
            nsenter --net=/run/netns/c2 python3 -c \"import socket; print(socket.create_connection(('$at', 80), 5).recv(9).decode())\" 2>&1 | tail -1; \
        done; kill %1 %2";
    assert_eq!(sandbox.sh(line), "hello\nhello\nhello");
    assert!(sandbox.log().denied.iter().any(|one| one.name.as_deref() == Some("denied.test")));
    incus::is_shut_in(&sandbox);
}

/// It does not come back by itself, and with what it had when somebody starts it.
fn reboot(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    sandbox.background_line("sleep 0.3; systemctl reboot --force --force");
    eventually("it is stopped", || sandbox.try_sh("true").is_err());
    sandbox.start();
    incus::is_shut_in(&sandbox);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
}

/// The first process of a machine, and the gate.
fn crash_of_everything(rig: &Rig) {
    let own = rig.own();
    let sandbox = own.sandbox(&["allowed.test"]);
    let marker = format!("sleep 900{}", std::process::id());
    sandbox.background_line(&marker);
    let first = own.process_one(&sandbox.name);
    own.gates().into_iter().for_each(kill);
    kill(first);
    eventually("they are gone", || own.gate_is_gone() && !processes().contains(&first));
    sandbox.start();
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    incus::is_shut_in(&sandbox);
    drop(sandbox);
    own.close().unwrap();
}

/// No network namespace holds these.
fn past_the_network(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::None);
    // vsock, and io_uring by its number, by which others could be made.
    let line = "perl -e 'print socket(my $s, 40, 1, 0) ? q(open) : q(refused)'; \
        perl -e 'print syscall(425, 1, 0) < 0 && $!{EPERM} ? q( refused) : q( open)'";
    for user in ["root", "nobody"] {
        assert_eq!(sandbox.sh_as(user, line), "refused refused", "{user}");
    }
}

/// What is read-only there is no barrier that its root could not take away; what is behind it is the host's.
fn masked(rig: &Rig) {
    let sandbox = rig.sandbox_of(Policy::None);
    let held = "/proc/sys/kernel/core_pattern";
    let before = std::fs::read_to_string(held).unwrap();
    // Opened for writing, with nothing written.
    let tried = sandbox.sh(&format!(
        "umount -l /proc/sys; umount -l /proc/sysrq-trigger; true >> {held} && echo opened; \
         true >> /proc/sysrq-trigger && echo opened; mknod /tmp/d b 7 0 && echo made; \
         head -c 1 /proc/kcore > /tmp/core; test -s /tmp/core && echo read; \
         cat /proc/self/root/../../../../../../etc/hostname"
    ));
    assert_eq!(tried, sandbox.name, "{tried}");
    assert_eq!(std::fs::read_to_string(held).unwrap(), before);
}
