//! Snapshots in turns: of sandboxes whose trees are written to or not, idle and busy, one after another.

use std::collections::BTreeMap;

use sandscript::sandbox::{Backend, Cancel, Restore};

use crate::Test;
use crate::rig::{Outcome, Rig};

pub const TESTS: &[Test] =
    &[("turns_modes_of_the_tops", modes_of_the_tops), ("turns_any_order", any_order)];

/// The folders that a tree begins with hold no file when only their mode is changed.
fn modes_of_the_tops(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("tops");
    let modes = "stat -c '%a %u %n' / /usr";
    sandbox.snapshot("made").unwrap();
    let before = sandbox.run(modes);
    for (label, line) in
        [("usr", "chmod 711 /usr"), ("root", "chmod 711 /"), ("both", "chmod 751 / /usr")]
    {
        sandbox.run(line);
        let now = sandbox.run(modes);
        sandbox.snapshot(label).unwrap();
        assert_eq!(sandbox.run(modes), now, "after the snapshot '{label}'");
        assert_eq!(sandbox.clone_of(label).run(modes), now, "the clone of '{label}'");
    }
    assert_eq!(sandbox.clone_of("made").run(modes), before);
    Outcome::Done
}

/// Everything that the steps below may have changed, by content.
const STATE: &str = "cd / && find usr/local/t usr/games opt/t etc/t root -printf '%p %y %m %U %l\\n' 2>/dev/null | sort; \
    find usr/local/t opt/t etc/t root -type f -exec md5sum {} + 2>/dev/null | sort -k 2; \
    stat -c '%a %n' / /usr /usr/local; ls / usr usr/local";

fn any_order(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("turns");
    let changes = [
        "mkdir -p /usr/local/t; date +%N >/usr/local/t/a",
        "mkdir -p /opt/t /etc/t; date +%N >/opt/t/a; date +%N >/etc/t/b",
        ":",
        "rm -rf /usr/local/t; mkdir /usr/local/t; ln -s x /usr/local/t/link",
        "chmod 700 /usr/local/t /opt/t",
        "date +%N >/root/only-the-root-tree",
        "rm -rf /opt/t/a /usr/local/t/link /usr/local/t",
        "rm -rf /opt/t; mkdir -p /opt/t/a /usr/local/t/a; chmod 711 /usr",
        ":",
        "mkdir -p /usr/local/t; date +%N >/usr/local/t/b; chmod 755 /usr /usr/local/t",
        "mv /usr/local/t/b /usr/local/t/c; rm -f /root/only-the-root-tree",
    ];
    let mut states = BTreeMap::new();
    for (turn, change) in changes.iter().enumerate() {
        sandbox.run(change);
        let busy = turn % 4 == 2;
        if busy {
            sandbox.background("exec sleep 600");
        }
        let (label, state) = (format!("s{turn}"), sandbox.run(STATE));
        sandbox.snapshot(&label).unwrap();
        assert_eq!(sandbox.run(STATE), state, "the snapshot {label} changed the sandbox");
        states.insert(label, state);
        match turn {
            // Processes end with a restore; so do mounts that outlived snapshots.
            3 => check_restore(&sandbox, rig, "s1", &states),
            7 => {
                check_restore(&sandbox, rig, "s3", &states);
                check_restore(&sandbox, rig, "s2", &states);
            }
            _ if busy => {
                sandbox.run("for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in 'sleep 600 ') kill -9 ${p#/proc/};; esac; done");
                crate::rig::within("the process goes on", || {
                    (sandbox.processes() > 0).then(String::new)
                })
                .unwrap();
            }
            _ => {}
        }
    }
    for (label, state) in &states {
        assert_eq!(sandbox.clone_of(label).run(STATE), *state, "the clone of {label}");
    }
    for label in ["s9", "s0", "s6"] {
        check_restore(&sandbox, rig, label, &states);
    }
    Outcome::Done
}

#[track_caller]
fn check_restore(
    sandbox: &crate::rig::Sandbox<'_>,
    rig: &Rig,
    label: &str,
    states: &BTreeMap<String, String>,
) {
    rig.wait(rig.backend.restore(&sandbox.name, label, Restore::default(), &Cancel::new()))
        .unwrap();
    assert_eq!(sandbox.run(STATE), states[label], "restored {label}");
}
