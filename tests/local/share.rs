//! Several processes on one store.

use std::fs;
use std::process::Child;

use crate::Test;
use crate::rig::{Outcome, Rig, astray, empty, scratch, text, within};

pub const TESTS: &[Test] =
    &[("share_everything_at_once", everything_at_once), ("share_one_base", one_base)];

fn everything_at_once(rig: &Rig) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    rig.ok(&store, &["create", "kept"]);
    rig.ok(&store, &["exec", "kept", "--", "sh", "-c", "echo data >/data"]);
    for round in 0..4 {
        let mut calls: Vec<(Vec<String>, Child)> = Vec::new();
        let label = format!("l{round}");
        let own: Vec<String> = (0..8).map(|n| format!("own-{n}")).collect();
        let mut call = |args: &[&str]| {
            let child = rig.cli(&store, args).spawn().unwrap();
            calls.push((args.iter().map(|arg| arg.to_string()).collect(), child));
        };
        for name in &own[..4] {
            call(&["create", "same"]);
            call(&["create", name]);
        }
        for name in &own[4..8] {
            call(&["clone", "kept", name]);
        }
        call(&["snapshot", "create", "kept", &label]);
        call(&["snapshot", "create", "kept", &label]);
        call(&["clone", "kept", "same"]);
        call(&["delete", "same", "--yes"]);
        call(&["list"]);
        call(&["gc", "--yes"]);
        call(&["show", "kept"]);
        call(&["show", "kept"]);
        let mut made = 0;
        for (args, child) in calls {
            let output = child.wait_with_output().unwrap();
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let contended = words.contains(&"same") || words.contains(&label.as_str());
            let fair = ["exists already", "not found", "is busy", "not running"]
                .iter()
                .any(|fair| error.contains(fair));
            assert!(output.status.success() || contended && fair, "{args:?}: {}", text(&output));
            made += usize::from(output.status.success() && words.contains(&label.as_str()));
        }
        assert_eq!(made, 1, "one snapshot of that label");
        for name in own.iter().map(String::as_str).chain(["same"]) {
            let deleted = rig.call(&store, &["delete", name, "--yes"]);
            assert!(deleted.status.success() || name == "same", "{}", text(&deleted));
        }
    }
    assert_eq!(rig.ok(&store, &["exec", "kept", "--", "cat", "/data"]), "data\n");
    rig.ok(&store, &["snapshot", "restore", "kept", "l0"]);
    assert_eq!(rig.ok(&store, &["exec", "kept", "--", "cat", "/data"]), "data\n");
    within("left after gc", || {
        rig.ok(&store, &["gc", "--yes"]);
        let left = astray(&store);
        (!left.is_empty()).then(|| format!("{left:?}"))
    })
    .unwrap();
    empty(rig, &store);
    Outcome::Done
}

/// One run builds, the others wait for it and take the hit.
fn one_base(rig: &Rig) -> Outcome {
    let folder = scratch();
    let (store, script, log) =
        (folder.path().join("store"), folder.path().join("base.rhai"), folder.path().join("log"));
    fs::create_dir(&log).unwrap();
    fs::write(
        &script,
        "let b = base(\"shared\", |b| { b.run(\"sleep 0.4; head -c 8 /dev/urandom | od -An -tx1 >/once\"); });\n\
         let s = sandbox(args()[0], #{ from: b }); print(s.run(\"cat /once\").stdout);\n",
    )
    .unwrap();
    let children: Vec<Child> = (0..4)
        .map(|n| {
            let name = format!("user-{n}");
            rig.cli(&store, &["run", script.to_str().unwrap(), "--", &name]).spawn().unwrap()
        })
        .collect();
    let mut seen = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        seen.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    assert!(seen.iter().all(|one| *one == seen[0] && !one.is_empty()), "built twice: {seen:?}");
    empty(rig, &store);
    Outcome::Done
}
