//! A host that systemd has booted: what its own programs do with machines of files, and what starts with it.

use crate::place::Place;
use crate::{forget, life, web};

/// TrueNAS's program for its API, as far as its list of start-up commands goes: kept where an update leaves it.
const MIDCLT: &str = r#"#!/bin/sh
data=/var/lib/sandscript/middleware
mkdir -p "$data"
shift
case $1 in
initshutdownscript.query) [ -e "$data/1" ] && echo '[{"id": 1}]' || echo '[]' ;;
initshutdownscript.create) printf '%s' "$2" >"$data/1"; echo '{"id": 1}' ;;
initshutdownscript.update) printf '%s' "$3" >"$data/1"; echo '{"id": 1}' ;;
initshutdownscript.delete) rm "$data/1"; echo true ;;
*) echo "no method $1" >&2; exit 1 ;;
esac
"#;

/// What TrueNAS does when it has started: pools are there, then commands are run.
const POSTINIT: &str = r#"[Unit]
After=multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
ExecStart=/bin/sh -c 'mkdir -p /mnt/tank; mount --bind /var/lib/sandscript /mnt/tank; ! [ -e /mnt/tank/middleware/1 ] || sh -c "$$(sed \'s/.*"command":"\\([^"]*\\)".*/\\1/\' /mnt/tank/middleware/1)"'
"#;

fn runs(place: &Place, name: &str) -> bool {
    let all: serde_json::Value =
        serde_json::from_str(&place.ok(&["list", "--format", "json"])).unwrap();
    let found = all.as_array().unwrap().iter().find(|one| one["name"] == name);
    found.is_some_and(|one| one["state"] == "running")
}

#[test]
fn a_file_is_a_machine_that_starts_with_its_host() {
    let Some(place) = Place::booted() else { return };
    let data = place.folder("data");
    place.write("web.toml", &web(&place.image(), &data));
    life(&place, &data);
    let unit = "systemd-nspawn@web.service";
    let property = |name: &str| place.shell(&format!("systemctl show {unit} --value -p {name}"));
    assert_eq!(property("MemoryMax"), "268435456\n");
    assert_eq!(place.shell("machinectl list --no-legend | awk '{print $1}'"), "web\n");
    // systemd's own words do what ours do.
    place.shell(&format!("systemctl stop {unit}"));
    assert!(!runs(&place, "web"));
    place.shell("machinectl start web");
    assert!(runs(&place, "web"));
    assert_eq!(place.exec("web", "cat /root/steps"), "one\ntwo\ntwo\n");
    // Whoever started it was killed before it knew what it had started.
    forget(&place.store().join("machines/web/run.json"));
    assert!(runs(&place, "web"));
    assert_eq!(place.exec("web", "echo there"), "there\n");
    // Who supervises it is killed: nothing of it goes on.
    let leader = place.shell("machinectl show web --value -p Leader");
    place.shell(&format!("kill -9 {}", property("MainPID").trim()));
    place.until("its first process is gone", || {
        !place.holds(&format!("[ -e /proc/{} ]", leader.trim()))
    });
    place.until("it is stopped", || !runs(&place, "web"));
    // One that is somebody else's is not written over.
    let theirs = "/run/systemd/nspawn/web.nspawn";
    place.shell(&format!("echo Port=tcp:80 >> {theirs}"));
    let said = place.call(&["start", "web"]);
    assert!(said.code == 2 && said.stderr.contains("changed by somebody else"), "{said:?}");
    place.shell(&format!("rm {theirs}"));
    place.ok(&["start", "web"]);
    place.shell("machinectl enable web && echo x > /run/systemd/nspawn/other.nspawn");
    place.ok(&["delete", "web", "--yes"]);
    let left = "ls /run/machines /etc/systemd/system/machines.target.wants /run/systemd/nspawn /run/systemd/system /run/sandscript/machines 2>/dev/null | grep web";
    assert!(!place.holds(left), "something is left of it");
    assert!(place.holds("[ -e /run/systemd/nspawn/other.nspawn ]"));

    starts_again(&place);
    let store = place.store();
    crate::jails::all(&place, &store);
}

/// Boots the host twice: once as any, once as a TrueNAS that was updated.
fn starts_again(place: &Place) {
    let auto = |order: u32| {
        format!(
            "image = {{ tarball = \"{}\" }}\nautostart = {{ order = {order} }}\nnetwork = \"none\"\n",
            place.image()
        )
    };
    place.write("first.toml", &auto(1));
    place.write("second.toml", &auto(2));
    let said = place.call(&["machine", "create", "first.toml"]);
    assert!(said.code == 11 && said.stderr.contains("sandscript host install"), "{said:?}");
    place.ok(&["host", "install"]);
    place.ok(&["machine", "create", "first.toml"]);
    place.ok(&["machine", "create", "second.toml", "--bare"]);
    place.exec("first", "echo kept > /root/kept");
    place.reboot(|_| ());
    for name in ["first", "second"] {
        place.until("they run again", || runs(place, name));
    }
    assert_eq!(place.exec("first", "cat /root/kept"), "kept\n");
    let since = |name: &str| {
        let unit = format!("systemd-nspawn@{name}.service");
        let told =
            place.shell(&format!("systemctl show {unit} --value -p ActiveEnterTimestampMonotonic"));
        told.trim().parse::<u64>().unwrap()
    };
    place.until("both are ready", || since("first") > 0 && since("second") > 0);
    assert!(since("first") < since("second"), "out of order");
    place.ok(&["host", "uninstall"]);
    assert!(!place.holds("ls /etc/systemd/system/sandscript-boot-*"));

    place.shell("mkdir -p /mnt/tank && mount --bind /var/lib/sandscript /mnt/tank");
    place.write("midclt", MIDCLT);
    place.write("ix-postinit.service", POSTINIT);
    place.shell(
        "install -m 755 midclt /usr/bin/midclt
         install -m 644 ix-postinit.service /usr/lib/systemd/system/ix-postinit.service
         mkdir -p /usr/lib/systemd/system/multi-user.target.wants
         ln -s ../ix-postinit.service /usr/lib/systemd/system/multi-user.target.wants/",
    );
    let said = place.call(&["host", "install"]);
    assert!(said.code == 2 && said.stderr.contains("/mnt/POOL"), "{said:?}");
    place.ok(&["delete", "first", "second", "--yes"]);
    place.use_store("/mnt/tank");
    place.ok(&["host", "install"]);
    place.ok(&["host", "install"]);
    place.ok(&["machine", "create", "first.toml", "--bare"]);
    // An update: nothing is left of what was changed in /etc, and nothing of /run.
    place.reboot(|upper| {
        let _ = std::fs::remove_dir_all(upper.join("etc"));
    });
    place.until("its pools are there", || place.holds("mountpoint -q /mnt/tank"));
    place.until("it runs again", || runs(place, "first"));
    place.ok(&["delete", "first", "--yes"]);
}
