//! Rules that guests keep to themselves, on a real Incus daemon that is treated as one elsewhere: containers
//! with an interface on its bridge, and a way to the made-up internet. Hostile are the guest's ordinary users; what
//! its root can undo is told in docs/egress.md.

use sandscript::sandbox::{Backend, Cancel, CloneSpec, Policy, Protocol, Reason};

use crate::rig::{Rig, Sandbox, eventually};
use crate::{Test, attacks, names, survival};

/// Those of others that are run here, too.
pub fn tests() -> Vec<Test> {
    let wanted = [
        "only_allowed_names_are_resolved",
        "networks_ports_and_order",
        "a_log_is_not_another_sandboxes",
        "live_changes",
        "attack_another_dns_server",
        "attack_a_connection_held_open",
        "attack_ipv6_literals",
        "attack_another_sandbox",
        "attack_udp",
        "attack_filling_the_set",
        "attack_what_another_one_has_asked_for",
        "attack_the_hosts_own_services",
    ];
    let all = [names::TESTS, attacks::TESTS, survival::TESTS].into_iter().flatten();
    all.filter(|(name, _)| wanted.contains(name)).chain(OWN).copied().collect()
}

const OWN: &[Test] = &[
    ("names_are_reached_by_what_was_told", names_are_reached),
    ("udp_by_address_and_by_explicit_names", udp),
    ("refusals_are_logged", refusals_are_logged),
    ("attack_rebinding_to_a_private_address", rebinding),
    ("a_change_after_thousands_of_names", after_thousands_of_names),
    ("attack_by_an_ordinary_user", ordinary_user),
    ("attack_restart_restore_and_clone", restart_restore_and_clone),
    ("attack_a_clones_first_packets", first_packets),
    ("attack_reboot_from_inside", reboot),
    ("attack_kill_of_the_guard", kill_of_the_guard),
];

/// What only those can be made to do who may speak to the server.
pub fn by_the_server() -> Vec<Test> {
    vec![("attack_a_copy_by_another_client", copied_by_another)]
}

const DNS: &str = "9.9.9.9:53";
const ALLOWED: [&str; 3] = ["get", "203.0.113.10:80", "allowed.test"];
const OTHER: [&str; 3] = ["get", "203.0.113.20:80", "x"];

fn ask(sandbox: &Sandbox<'_>, name: &str) -> String {
    sandbox.probe(&["ask", DNS, name, "a"])
}

fn names_are_reached(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test", "*.allowed.test:443"]);
    sandbox.is_refused(&["touch", "203.0.113.10:80"]);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.reaches(&["banner", "203.0.113.10:22"], "203.0.113.10");
    sandbox.reaches(&["tls", "203.0.113.11:443", "www.allowed.test"], "203.0.113.11");
    sandbox.is_refused(&["get", "203.0.113.20:80", "denied.test"]);
    sandbox.is_refused(&["udp", "203.0.113.10:123"]);
    assert!(sandbox.sh("getent ahostsv4 allowed.test").contains("203.0.113.10"));
    // A change keeps what was told, as far as it is still allowed.
    sandbox.set(&Policy::allowlist(["allowed.test:80"]).unwrap());
    sandbox.reaches(&["get", "203.0.113.10:80", "x"], "203.0.113.10");
    sandbox.is_refused(&["banner", "203.0.113.10:22"]);
}

fn udp(rig: &Rig) {
    let sandbox = rig.sandbox(&[
        "udp://203.0.113.0/28:123",
        "udp://allowed.test:443",
        "cdn.test",
        "10.66.0.5",
    ]);
    sandbox.reaches(&["udp", "203.0.113.10:123"], "203.0.113.10");
    sandbox.reaches(&["udp", "10.66.0.5:443"], "10.66.0.5");
    sandbox.is_refused(&["udp", "203.0.113.20:123"]);
    sandbox.is_refused(&["udp", "203.0.113.10:443"]);
    assert!(ask(&sandbox, "allowed.test").contains("203.0.113.10"));
    sandbox.reaches(&["udp", "203.0.113.10:443"], "203.0.113.10");
    assert!(ask(&sandbox, "cdn.test").contains("203.0.113.30"));
    sandbox.is_refused(&["udp", "203.0.113.30:443"]);
    sandbox.allow("udp://cdn.test:443");
    sandbox.reaches(&["udp", "203.0.113.30:443"], "203.0.113.30");
    let log = sandbox.log();
    let of = |host: &str| log.denied.iter().find(|one| one.host() == host && one.port == 443);
    assert_eq!(of("cdn.test").unwrap().rule().unwrap().to_string(), "udp://cdn.test:443");
}

fn refusals_are_logged(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for _ in 0..3 {
        sandbox.is_refused(&["touch", "203.0.113.20:443"]);
    }
    assert_eq!(ask(&sandbox, "denied.test"), "missing");
    sandbox.is_refused(&["touch", "10.66.0.5:80"]);
    let log = sandbox.log();
    let of = |host: &str| log.denied.iter().find(|one| one.host() == host).unwrap().clone();
    let one = of("203.0.113.20");
    assert_eq!((one.count, one.port, one.protocol), (3, 443, Protocol::Tcp));
    assert_eq!(one.rule().unwrap().to_string(), "203.0.113.20:443");
    assert_eq!(of("denied.test").rule().unwrap().to_string(), "denied.test");
    assert_eq!(of("10.66.0.5").reason, Reason::Private);
    assert_eq!(log.refused(), 5);
    // It outlives the run, and goes on after a start; on a NAS it is read while it runs.
    sandbox.stop();
    if rig.nas().is_none() {
        assert_eq!(sandbox.log().refused(), 5);
    }
    sandbox.start();
    sandbox.is_refused(&["touch", "203.0.113.30:8080"]);
    assert_eq!(sandbox.log().refused(), 6);
    assert_eq!(sandbox.clone_of().log().refused(), 0);
}

fn rebinding(rig: &Rig) {
    let sandbox = rig.sandbox(&["moving.test", "meta.test", "inner.test@10.66.0.5", "host.test"]);
    rig.put_name("moving.test 1 203.0.113.10");
    assert_eq!(ask(&sandbox, "moving.test"), "203.0.113.10");
    sandbox.reaches(&["get", "203.0.113.10:80", "x"], "203.0.113.10");
    rig.put_name("moving.test 1 10.66.0.6");
    eventually("the new address is refused", || ask(&sandbox, "moving.test") == "empty");
    sandbox.is_refused(&["touch", "10.66.0.6:80"]);
    eventually("the old one is forgotten", || {
        sandbox.probe(&["touch", "203.0.113.10:80"]).starts_with("refused")
    });
    assert_eq!(ask(&sandbox, "meta.test"), "empty");
    sandbox.is_refused(&["touch", "169.254.169.254:80"]);
    assert_eq!(ask(&sandbox, "host.test"), "empty");
    sandbox.is_refused(&["touch", "203.0.113.1:80"]);
    assert_eq!(ask(&sandbox, "inner.test"), "10.66.0.5");
    sandbox.reaches(&["get", "10.66.0.5:80", "inner.test"], "10.66.0.5");
}

/// What was told is let through still, however much it is.
fn after_thousands_of_names(rig: &Rig) {
    let sandbox = rig.sandbox(&["*.spread.test", "203.0.113.10"]);
    let line = "nft list table inet sandscript | grep -o '0x912' | wc -l";
    let told = || sandbox.sh(line).parse::<u32>().unwrap();
    // As many as one message to the kernel does not hold.
    let said = sandbox.probe(&["learn", DNS, "spread.test", "6400"]);
    let before = told();
    assert!(before > 6000, "{said}, of which {before} are let through");
    sandbox.allow("203.0.113.20");
    sandbox.reaches(&OTHER, "203.0.113.20");
    let now = told();
    assert!(now > before - 100, "{before} were told, and {now} are let through");
}

/// What the guest's root could undo, nobody else in there can.
fn ordinary_user(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    for line in [
        "nft flush ruleset",
        "nft delete table inet sandscript",
        "ip route flush table all",
        "kill -9 $(pgrep -f sandscript-guard); pkill -9 -f sandscript-guard",
        "cat /etc/sandscript/policy",
        "echo reload | socat - UNIX:/etc/sandscript/socket",
        "rm -rf /etc/sandscript",
        "perl -e 'socket my $s, 2, 2, 0; setsockopt $s, 1, 36, pack \"I\", 0x53616e64 or exit 1'",
        "perl -e 'socket my $s, 2, 2, 0; bind $s, pack \"S n a4 x8\", 2, 1010, \"\\0\" x 4 or exit 1'",
        "perl -e 'socket my $s, 17, 3, 8 or exit 1'",
        "perl -e 'socket my $s, 16, 3, 12 or exit 1; send $s, pack(\"L S S L L a4\", 20, 0xA02, 5, 1, 0, \"\\1\"), 0; recv $s, my $said, 999, 0; exit 1 if unpack \"x16 l\", $said'",
        "unshare --user --map-root-user nft flush ruleset",
    ] {
        let said = sandbox.sh_as("nobody", &format!("({line}) >/dev/null 2>&1 && echo done"));
        assert_eq!(said, "", "{line}");
    }
    let said = sandbox.probe_as("nobody", &OTHER);
    assert!(said.starts_with("refused"), "{said}");
    // By the port of an answer that the guard has just had from there, not even the guard is reached.
    let said = sandbox.probe_as("nobody", &["ask", "203.0.113.53:53", "denied.test", "a"]);
    assert!(said == "missing" || said.starts_with("refused"), "{said}");
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.is_refused(&OTHER);
}

fn restart_restore_and_clone(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.20"]);
    sandbox.reaches(&OTHER, "203.0.113.20");
    sandbox.snapshot("open");
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    for round in 0..3 {
        sandbox.is_refused(&OTHER);
        sandbox.reaches(&ALLOWED, "203.0.113.10");
        match round {
            0 => {
                sandbox.stop();
                sandbox.start();
            }
            // The files are those of the time when more was allowed.
            1 => sandbox.restore("open"),
            _ => {}
        }
    }
    let clone = sandbox.clone_of();
    clone.is_refused(&OTHER);
    clone.reaches(&ALLOWED, "203.0.113.10");
    sandbox.stop();
    sandbox.set(&Policy::allowlist(["203.0.113.20"]).unwrap());
    sandbox.start();
    sandbox.reaches(&OTHER, "203.0.113.20");
    sandbox.is_refused(&ALLOWED);
}

/// Tries from the first process on to reach what only the source may: in the clone and after a restore
/// nothing of it gets out.
fn try_at_boot(sandbox: &Sandbox<'_>) {
    let tries = "(cat /etc/machine-id; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do \
        /srv/probe/probe probe get 203.0.113.20:80 x; sleep 0.1; done; echo over) > /root/boot 2>&1 &";
    let changed = sandbox.sh(&format!(
        "cat > /root/boot.sh <<'END'\n{tries}\nEND\nsed -i 's|^while (1)|system q(sh /root/boot.sh); while (1)|' /sbin/init; \
         grep -c boot.sh /sbin/init"
    ));
    assert_eq!(changed, "1");
}

fn tried(sandbox: &Sandbox<'_>) -> String {
    eventually("it has tried", || sandbox.file("/root/boot").contains("over"));
    sandbox.file("/root/boot")
}

fn first_packets(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.20"]);
    try_at_boot(&sandbox);
    sandbox.snapshot("eager");
    for policy in [Policy::allowlist(["allowed.test"]).unwrap(), Policy::None] {
        let mut spec = CloneSpec::new(rig.name());
        spec.egress = Some(policy);
        let cancel = Cancel::new();
        let backend = rig.backend.as_ref();
        rig.wait(Backend::clone(backend, &sandbox.name, &spec, &cancel)).unwrap();
        let clone = Sandbox { rig, name: spec.name };
        let said = tried(&clone);
        assert!(said.contains("refused") && !said.contains("I am"), "{said}");
    }
    // As it was when more was allowed, but with what is allowed now.
    sandbox.set(&Policy::allowlist(["allowed.test"]).unwrap());
    sandbox.restore("eager");
    let said = tried(&sandbox);
    assert!(said.contains("refused") && !said.contains("I am"), "{said}");
}

/// One that somebody else copies and starts, with the source's interface and what was written for the source, boots
/// closed: it is another machine.
fn copied_by_another(rig: &Rig) {
    let sandbox = rig.sandbox(&["203.0.113.20"]);
    sandbox.reaches(&OTHER, "203.0.113.20");
    try_at_boot(&sandbox);
    let copy = rig.name();
    rig.incus(&["copy", &sandbox.name, &copy]);
    rig.incus(&["start", &copy]);
    let inside = |line: &str| rig.incus(&["exec", &copy, "--", "sh", "-c", line]);
    eventually("it has tried", || inside("cat /root/boot 2>&1 || true").contains("over"));
    let (said, cards) = (inside("cat /root/boot"), inside("ls /sys/class/net; hostname"));
    rig.incus(&["delete", "--force", &copy]);
    assert!(cards.contains("eth0") && cards.contains(&copy), "{cards}");
    assert!(said.contains("refused") && !said.contains("I am"), "{said}");
    // The source's is still its own.
    sandbox.reaches(&OTHER, "203.0.113.20");
}

/// A guest that restarts by itself keeps to what it has from its first process on.
fn reboot(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    try_at_boot(&sandbox);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.sh("touch /run/before");
    sandbox
        .background_line("sleep 0.3; perl -e 'syscall 169, 0xfee1dead, 672274793, 0x01234567, 0'");
    let boot = || format!("/proc/{}/root", rig.process_one(&sandbox.name));
    eventually("it has tried", || {
        std::fs::read_to_string(format!("{}/root/boot", boot()))
            .is_ok_and(|text| text.contains("over"))
    });
    let said = tried(&sandbox);
    assert!(said.contains("refused") && !said.contains("I am"), "{said}");
    eventually("it is served again", || sandbox.probe(&ALLOWED) == "I am 203.0.113.10");
    sandbox.is_refused(&OTHER);
}

/// Nothing is open that was not, and it comes back by itself.
fn kill_of_the_guard(rig: &Rig) {
    let sandbox = rig.sandbox(&["allowed.test"]);
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    let kill = "for p in /proc/[0-9]*; do grep -qs ^sandscript-guard $p/cmdline && kill -9 ${p#/proc/}; done; echo killed";
    assert_eq!(sandbox.sh(kill), "killed");
    sandbox.is_refused(&OTHER);
    assert!(ask(&sandbox, "denied.test") != "203.0.113.20");
    // Its keeper, too: then the next change or start brings it back.
    sandbox.set(&Policy::allowlist(["allowed.test:80"]).unwrap());
    sandbox.reaches(&ALLOWED, "203.0.113.10");
    sandbox.is_refused(&OTHER);
}
