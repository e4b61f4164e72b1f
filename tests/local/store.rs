//! What a guest leaves in the store: folders without end, odd names, forged overlay attributes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use sandscript::sandbox::{Backend, Cancel, Exit};

use crate::Test;
use crate::rig::{Outcome, Rig, astray, scratch, within};

pub const TESTS: &[Test] = &[
    ("store_folders_without_end", folders_without_end),
    ("store_odd_names", odd_names),
    ("store_many_hard_links", many_hard_links),
    ("store_forged_overlay_attributes", forged_overlay_attributes),
    ("store_files_that_change_during_a_snapshot", files_that_change),
    ("store_killed_process_1", killed_process_1),
    ("store_damaged_records", damaged_records),
    ("store_nothing_is_left_for_the_next", nothing_is_left),
];

fn folders_without_end(rig: &Rig) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    if !crate::rig::installed("perl") {
        return Outcome::Skipped("perl is not installed".into());
    }
    rig.ok(&store, &["create", "deep"]);
    rig.ok(&store, &["exec", "deep", "--", "perl", "-e",
        "mkdir '/deep'; chdir '/deep'; for (1..5000) { mkdir 'd' or die $!; chdir 'd' or die $! }"]);
    rig.ok(&store, &["snapshot", "create", "deep", "idle"]);
    // The state to copy is empty again; nest anew with something running.
    rig.ok(&store, &["exec", "deep", "--", "perl", "-e",
        "mkdir '/more'; chdir '/more'; for (1..2500) { mkdir 'd' or die $!; chdir 'd' or die $! }"]);
    rig.ok(&store, &["exec", "deep", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 &"]);
    let refused = rig.call(&store, &["snapshot", "create", "deep", "live"]);
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("nested"), "{message}");
    rig.ok(&store, &["delete", "deep", "--yes"]);
    let end = within("left in the store", || {
        rig.call(&store, &["gc", "--yes"]);
        let left = fs::read_dir(store.join("trash")).unwrap().count();
        let astray = astray(&store);
        (left > 0 || !astray.is_empty()).then(|| format!("{left} in the trash, {astray:?}"))
    });
    crate::rig::empty(rig, &store);
    end.unwrap();
    Outcome::Done
}

const LISTING: &str = "cd /odd && find . -mindepth 1 -printf '%P %y %m %U %G %s %T@ %n\\n' | sort";

fn odd_names(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("names");
    sandbox.run(
        "mkdir -p '/odd/.work-0' /odd/meta.json && cd /odd && touch -- -rf '..x' \"$(printf 'a\\nb\\377\\001')\" \
         '.wh.x' \"$(printf 'x%.0s' $(seq 255))\" && mkfifo fifo && mkdir '/.work-9' && touch /meta.json && \
         chmod 0 /odd/..x && mkdir -m 0 /odd/closed",
    );
    let before = sandbox.run(LISTING);
    sandbox.snapshot("idle").unwrap();
    sandbox.run("touch /again");
    sandbox.background("sleep 600");
    sandbox.snapshot("live").unwrap();
    for label in ["idle", "live"] {
        let clone = sandbox.clone_of(label);
        let after = clone.run(LISTING);
        assert_eq!(before, after, "{label}");
        assert_eq!(clone.run("ls -d /.work-9 /meta.json"), "/.work-9\n/meta.json", "{label}");
    }
    Outcome::Done
}

fn many_hard_links(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("hard");
    if sandbox.sh("command -v perl").exit != Exit::Code(0) {
        return Outcome::Skipped("perl is not installed".into());
    }
    // More of them than a process may usually have open.
    sandbox.run("perl -e 'for (1..3000) { mkdir \"/h$_\"; open F, \">\", \"/h$_/a\"; close F; link \"/h$_/a\", \"/h$_/b\" or die }'");
    sandbox.background("sleep 600");
    sandbox.snapshot("live").unwrap();
    let clone = sandbox.clone_of("live");
    assert_eq!(clone.run("[ /h1/a -ef /h1/b ] && [ /h3000/a -ef /h3000/b ] && echo same"), "same");
    Outcome::Done
}

/// Attributes by which overlayfs itself remembers what is hidden and where it comes from.
fn forged_overlay_attributes(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("forged");
    if sandbox.sh("command -v perl").exit != Exit::Code(0) {
        return Outcome::Skipped("perl is not installed".into());
    }
    let set = r#"perl -e 'require "syscall.ph"; 1' 2>/dev/null; perl -e '
        my ($p, @a) = @ARGV; my $n = `uname -m` =~ /x86_64/ ? 188 : 5;
        while (my ($k, $v) = splice @a, 0, 2) { syscall($n, $p, $k, $v, length $v, 0) }' "#;
    sandbox.run("mkdir -p /d/usr /opq/x /etc/hidden; touch /opq/x/file /zero; rm -rf /etc/hidden");
    sandbox.run(&format!(
        "{set} /d user.overlay.redirect /etc user.overlay.opaque y; {set} /opq user.overlay.opaque n; \
         {set} /zero user.overlay.metacopy '' user.overlay.redirect /etc/passwd user.overlay.origin x; \
         {set} /opq user.overlay.whiteouts y user.overlay.opaque x; {set} /opq/x/file user.overlay.whiteout y"
    ));
    sandbox.run("rm -rf /etc/alternatives /usr/local; mkdir -p /usr/local /etc/alternatives");
    let listing = "ls -A /d /d/usr /opq /opq/x /usr/local /etc/alternatives; stat -c %s /zero; [ -e /etc/hidden ] || echo gone";
    let before = sandbox.run(listing);
    for label in ["one", "two"] {
        sandbox.snapshot(label).unwrap();
        assert_eq!(sandbox.clone_of(label).run(listing), before, "{label}");
        assert_eq!(sandbox.run(listing), before, "{label}");
        sandbox.run("touch /d/usr/x && rm /d/usr/x");
        sandbox.background("sleep 600");
    }
    Outcome::Done
}

fn files_that_change(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("changing");
    sandbox.background(
        "mkdir -p /c; while :; do for i in 1 2 3 4 5 6 7 8 9; do echo $i >/c/$i; mv /c/$i /c/x$i; \
         ln -sf /etc/passwd /c/$i; rm -rf /c/x$i; mkdir /c/x$i; rmdir /c/x$i; done; done",
    );
    std::thread::sleep(Duration::from_millis(100));
    for round in 0..10 {
        let label = format!("r{round}");
        sandbox.snapshot(&label).unwrap();
        let clone = sandbox.clone_of(&label);
        let listing = "ls -lan /c";
        assert_eq!(clone.run(listing), clone.run(listing));
    }
    let mine: Vec<_> = rig.wait(rig.backend.snapshots(&sandbox.name, &Cancel::new())).unwrap();
    assert_eq!(mine.len(), 10);
    Outcome::Done
}

/// Process 1 is found by the name in its own cgroup or by its parent; killing it is a stop.
fn killed_process_1(rig: &Rig) -> Outcome {
    if !crate::rig::is_root() {
        return Outcome::Skipped(
            "needs root to tell one sandbox's process 1 from another's".into(),
        );
    }
    let sandbox = rig.sandbox("killed");
    sandbox.run("echo kept >/data");
    let name = &sandbox.name;
    let pid = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let own = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let host =
            || fs::read_to_string(entry.path().join("root/etc/hostname")).unwrap_or_default();
        (own("comm").trim() == "sandscript-init" && host().trim() == name.as_str())
            .then(|| entry.file_name().to_string_lossy().into_owned())
    });
    let pid = pid.expect("its process 1 is not found");
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    within("it still runs", || {
        let info = rig.wait(rig.backend.get(name, &Cancel::new())).unwrap();
        (info.state.word() != "stopped").then(|| info.state.word().to_owned())
    })
    .unwrap();
    rig.wait(rig.backend.start(name, &Cancel::new())).unwrap();
    assert_eq!(sandbox.run("cat /data"), "kept");
    Outcome::Done
}

fn damaged_records(rig: &Rig) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    for name in ["good", "bad"] {
        rig.ok(&store, &["create", name]);
        rig.ok(&store, &["exec", name, "--", "sh", "-c", "echo kept >/data"]);
        rig.ok(&store, &["snapshot", "create", name, "s"]);
    }
    fs::write(store.join("boxes/bad/record.json"), "{\"versi").unwrap();
    for image in fs::read_dir(store.join("images")).unwrap().flatten() {
        if image.path().extension().is_some_and(|end| end == "json") {
            fs::write(image.path(), "").unwrap();
        }
    }
    assert!(rig.ok(&store, &["list"]).contains("error"));
    rig.ok(&store, &["create", "other"]);
    rig.ok(&store, &["delete", "other", "--yes"]);
    rig.ok(&store, &["clone", "good", "twin", "--label", "s"]);
    assert_eq!(rig.ok(&store, &["exec", "twin", "--", "cat", "/data"]), "kept\n");
    rig.ok(&store, &["delete", "bad", "--yes"]);
    rig.ok(&store, &["gc", "--yes"]);
    assert_eq!(astray(&store), [""; 0]);
    crate::rig::empty(rig, &store);
    Outcome::Done
}

/// What a new sandbox's own layer holds: paths, kinds, modes, owners, extended attributes.
fn own_layer(store: &Path, name: &str) -> Vec<String> {
    fn walk(top: &Path, path: &Path, all: &mut Vec<String>) {
        let found = fs::symlink_metadata(path).unwrap();
        let mut names = [0_u8; 4096];
        let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
        all.push(format!(
            "{} {:o} {}:{} {}",
            path.strip_prefix(top).unwrap().display(),
            found.mode(),
            found.uid(),
            found.gid(),
            String::from_utf8_lossy(&names[..length]).replace('\0', " ")
        ));
        // The kernel's own, which tells nothing of a guest.
        if found.is_dir() && path.file_name().is_none_or(|name| name != "work") {
            for entry in fs::read_dir(path).unwrap() {
                walk(top, &entry.unwrap().path(), all);
            }
        }
    }
    let record = fs::read(store.join(format!("boxes/{name}/record.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let layer = store.join("layers").join(record["upper"].as_str().unwrap());
    let mut all = Vec::new();
    walk(&layer, &layer, &mut all);
    all.sort();
    all
}

/// Folders of deleted sandboxes are used again: for a new one they must be as good as new.
fn nothing_is_left(rig: &Rig) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    rig.ok(&store, &["create", "first"]);
    let new = own_layer(&store, "first");
    let traces = "mkdir -p /deep/er /.work-0 /.work-3; echo secret >/deep/er/file; echo secret >/root/file; \
        echo mine >/etc/hostname; ln -s /etc/passwd /link; mkfifo /fifo; chmod 700 / /root; \
        chmod 777 /etc; rm -rf /srv; touch /usr/left /usr/share/left 2>/dev/null; true";
    rig.ok(&store, &["exec", "first", "--", "sh", "-c", traces]);
    rig.ok(&store, &["delete", "first", "--yes"]);
    let spare = |kind: &str| {
        let names = fs::read_dir(store.join("spare")).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with(kind)).count()
    };
    let kept = within("nothing was kept", || {
        (spare("layer-") + spare("box") < 2).then(|| "no folders".into())
    });
    kept.unwrap();
    std::thread::sleep(Duration::from_millis(400));
    rig.ok(&store, &["create", "second"]);
    assert_eq!(spare("layer-") + spare("box"), 0, "they are used again");
    assert_eq!(own_layer(&store, "second"), new);
    let seen = rig.ok(&store, &["exec", "second", "--", "sh", "-c",
        "cat /etc/hostname; ls -d /deep /root/file /link /fifo /usr/left /.work-3 2>/dev/null; stat -c %a /"]);
    assert_eq!(seen, "second\n755\n");
    // A mark that is not the overlay's own is a reason to begin anew.
    let marked = rig.call(
        &store,
        &[
            "exec",
            "second",
            "--",
            "python3",
            "-c",
            "import os; os.setxattr('/', 'user.mark', b'x')",
        ],
    );
    rig.ok(&store, &["delete", "second", "--yes"]);
    if marked.status.success() {
        let left = within("still there", || {
            let trash = fs::read_dir(store.join("trash")).unwrap().count();
            (trash > 0).then(|| format!("{trash} in the trash"))
        });
        left.unwrap();
        assert_eq!(spare("layer-"), 0);
    }
    rig.ok(&store, &["gc", "--yes"]);
    crate::rig::empty(rig, &store);
    Outcome::Done
}
