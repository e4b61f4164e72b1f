//! Machines of files, from the command line: on a host that systemd has booted, which is then booted again, and on
//! one where systemd is not the first process. Each boots machines of its own: most of the time is theirs.
#![cfg(feature = "nspawn")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../nspawn/rig.rs"]
mod booted;
#[path = "../compiler/mod.rs"]
mod compiler;
mod jails;
mod oci;
mod place;
mod reboot;
#[path = "../nspawn/systemd.rs"]
mod systemd;
mod workflows;

use place::Place;

/// A machine with a bit of everything; `data` is a folder of its host's.
pub fn web(image: &str, data: &str) -> String {
    format!(
        r##"# mine
image = {{ tarball = "{image}" }}
binds = ["{data}:/data"]
nics = [
    {{ bridge = "br7", address = "192.0.2.7/24" }},
    {{ veth = true, name = "lan0", address = "198.51.100.2/30", gateway = "198.51.100.1" }},
]
resolv_conf = {{ dns = ["192.0.2.1"] }}

[limits]
memory = "256MiB"

[security]
seccomp = "docker"

[env]
COLOUR = "green"

[cloud_init]
user_data = "#cloud-config\n"

[setup]
steps = [
    {{ name = "one", run = "echo one >> /root/steps" }},
    {{ name = "two", run = "echo two >> /root/steps; test -e /data/go" }},
]

[hooks]
host.pre_start = "echo pre_start >> {data}/hooks"
host.post_start = "echo post_start >> {data}/hooks"
host.pre_stop = "echo pre_stop >> {data}/hooks"
host.post_stop = "echo post_stop >> {data}/hooks"
guest.post_start = "echo up >> /root/up"
"##
    )
}

/// What holds on each kind of host, from the making of a machine to its end.
fn life(place: &Place, data: &str) {
    place.shell("ip link add br7 type bridge && ip link set br7 up");
    let made = place.call(&["machine", "create", "web.toml"]);
    assert_eq!(made.code, 70, "{made:?}");
    assert!(made.stderr.contains("step 'two'"), "{made:?}");
    // It is there, and goes on where it stopped.
    place.shell(&format!("touch {data}/go"));
    place.ok(&["start", "web"]);
    assert_eq!(place.exec("web", "cat /root/steps"), "one\ntwo\ntwo\n");
    place.ok(&["start", "web"]);
    assert_eq!(place.exec("web", "cat /root/steps"), "one\ntwo\ntwo\n");
    assert_eq!(place.exec("web", "echo $COLOUR"), "green\n");
    // Whose a file is is the same on both sides.
    place.exec("web", "touch /data/inside");
    assert_eq!(place.shell(&format!("stat -c %u {data}/inside")), "0\n");
    // Names are asked of whom the file says, in a plain file that all may read.
    assert_eq!(place.exec("web", "grep -c 192.0.2.1 /etc/resolv.conf"), "1\n");
    assert_eq!(place.exec("web", "stat -c %a /etc/resolv.conf"), "644\n");
    assert_eq!(
        place.exec("web", "head -1 /var/lib/cloud/seed/nocloud/user-data"),
        "#cloud-config\n"
    );
    assert_eq!(place.exec("web", "cat /root/up"), "up\n");
    // No networkd is on the host: both ends are plugged in all the same.
    for address in ["192.0.2.7/24", "198.51.100.2/30"] {
        place.until(&format!("{address} is there"), || {
            place.exec("web", "ip -o address").contains(address)
        });
    }
    assert!(place.shell("ip -o link show master br7").contains("vb-web"), "not in the bridge");
    place.until("the host's end answers", || {
        place.call(&["exec", "web", "--", "ping", "-c1", "-W1", "198.51.100.1"]).code == 0
    });
    assert_eq!(place.shell(&format!("cat {data}/hooks")), "pre_start\npost_start\n");
    // What is not the file's is not the machine's.
    let ruled = place.call(&["egress", "allow", "web", "example.com"]);
    assert_eq!(ruled.code, 11, "{ruled:?}");
    place.ok(&["stop", "web"]);
    let all = "pre_start\npost_start\npre_stop\npost_stop\n";
    assert_eq!(place.shell(&format!("cat {data}/hooks")), all);
    place.ok(&["start", "web"]);
    let twice = place.call(&["clone", "web", "twin"]);
    assert!(twice.code == 11 && twice.stderr.contains("fixed address"), "{twice:?}");
    place.ok(&["snapshot", "create", "web", "clean"]);
    place.exec("web", "rm /root/steps");
    place.ok(&["snapshot", "restore", "web", "clean"]);
    assert_eq!(place.exec("web", "cat /root/steps"), "one\ntwo\ntwo\n");
}

#[test]
fn a_file_is_a_machine_where_systemd_is_not_the_first_process() {
    let Some(place) = Place::alone() else { return };
    let data = place.folder("data");
    place.write("web.toml", &web(&place.image(), &data));
    life(&place, &data);
    // Whoever started it was killed before it knew what it had started.
    let run = place.store().join("machines/web/run.json");
    forget(&run);
    assert!(place.ok(&["list"]).contains("running"), "it is forgotten");
    assert_eq!(place.exec("web", "echo there"), "there\n");
    place.ok(&["delete", "web", "--yes"]);
    assert_eq!(place.ok(&["list", "--format", "json"]).trim(), "[]");
    let hosted = place.call(&["host", "install"]);
    assert!(hosted.code == 11 && hosted.stderr.contains("host boot"), "{hosted:?}");
    place.write("auto.toml", "autostart = true\n");
    let auto = place.call(&["machine", "create", "auto.toml"]);
    assert!(auto.code == 11 && auto.stderr.contains("sandscript host install"), "{auto:?}");
    let both = "network = \"host\"\n[security]\nprivileged = true\n";
    place.write("both.toml", both);
    let both = place.call(&["machine", "create", "both.toml"]);
    assert!(both.code == 11 && both.stderr.contains("firewall"), "{both:?}");
    place.write("lacks.toml", "nics = [{ bridge = \"nobr7\" }]\ndevices = [\"/dev/nothing\"]\n");
    let lacks = place.call(&["machine", "create", "lacks.toml"]);
    assert!(lacks.code == 11 && lacks.stderr.contains("nobr7"), "{lacks:?}");
    assert!(lacks.stderr.contains("/dev/nothing"), "{lacks:?}");
}

/// What has no interface is behind the gate, as a machine that no file says.
fn gated(place: &Place) {
    let line = |more: &str| {
        format!("image = {{ tarball = \"{}\" }}\nhostname = \"first\"\n{more}", place.image())
    };
    let egress = "egress = { allow = [\"203.0.113.10\"], deny = [\"203.0.113.10:81\"] }\n";
    place.write("gated.toml", &line(egress));
    place.ok(&["machine", "create", "gated.toml"]);
    let shown = place.ok(&["egress", "show", "gated"]);
    assert!(shown.contains("deny 203.0.113.10:81"), "{shown}");
    // Nothing but the way to the gate.
    assert_eq!(place.exec("gated", "ls /sys/class/net"), "lo\n");
    assert_eq!(place.exec("gated", "cat /etc/resolv.conf"), "nameserver 192.0.0.1\n");
    let connect = |port: u16| {
        let line = format!("timeout 5 bash -c '</dev/tcp/198.51.100.9/{port}' 2>&1; echo over");
        place.exec("gated", &line)
    };
    connect(80);
    place.until("it is in the log", || {
        place.ok(&["egress", "log", "gated"]).contains("198.51.100.9")
    });
    place.ok(&["egress", "allow", "gated", "example.com"]);
    // No socket that leads past it.
    let other = "python3 -c 'import socket; socket.socket(socket.AF_VSOCK)' 2>&1 | tail -1";
    let said = place.exec("gated", other);
    assert!(said.contains("Errno"), "{said}");
    place.ok(&["clone", "gated", "twin"]);
    assert!(place.ok(&["egress", "show", "twin"]).contains("example.com"));
    place.ok(&["delete", "twin", "--yes"]);
    // What a file says anew holds from the next start on; what it may reach stays as it was set.
    let own = place.own_file("gated");
    place.ok(&[
        "machine",
        "set",
        &own,
        "hostname=second",
        "env.COLOUR=red",
        "limits.processes=300",
    ]);
    place.ok(&["stop", "gated"]);
    place.ok(&["start", "gated"]);
    assert_eq!(place.exec("gated", "hostname; echo $COLOUR"), "second\nred\n");
    let info = place.ok(&["list", "--format", "json"]);
    assert!(info.contains("300"), "{info}");
    assert!(place.ok(&["egress", "show", "gated"]).contains("example.com"));
    place.ok(&["delete", "gated", "--yes"]);
    // None when nothing is said.
    place.write("closed.toml", &line(""));
    place.ok(&["machine", "create", "closed.toml", "--bare"]);
    assert!(place.ok(&["egress", "show", "closed"]).contains("none"));
    place.ok(&["delete", "closed", "--yes"]);
    for (more, word) in [
        ("nics = [{ veth = true }]\negress = \"agent\"\n", "leave nics"),
        ("network = \"host\"\negress = \"none\"\n", "leave nics"),
        ("[nspawn.Network]\nBridge = \"br0\"\n[variables]\n", ""),
        ("network = \"gate\"\n[nspawn.Network]\nBridge = \"br0\"\n", "past the gate"),
    ] {
        place.write("refused.toml", &line(more));
        let said = place.call(&["machine", "explain", "refused.toml"]);
        match word {
            "" => assert_eq!(said.code, 0, "{more}: {said:?}"),
            word => assert!(said.code == 11 && said.stderr.contains(word), "{more}: {said:?}"),
        }
    }
}

#[test]
fn a_file_without_interfaces_is_behind_the_gate_where_systemd_is_not_the_first_process() {
    let Some(place) = Place::alone() else { return };
    gated(&place);
}

#[test]
fn a_file_without_interfaces_is_behind_the_gate_where_systemd_is() {
    let Some(place) = Place::booted() else { return };
    gated(&place);
}

/// The note of a run as it is before anybody knows its first process.
fn forget(run: &std::path::Path) {
    let text = std::fs::read_to_string(run).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["leader"] = 0.into();
    value["started"] = 0.into();
    std::fs::write(run, value.to_string()).unwrap();
}
