//! The tool, its keeper or a process 1 is killed at any moment: nothing is lost, left or stuck.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use sandscript::sandbox::Spec;

use crate::Test;
use crate::rig::{Outcome, Rig, astray, empty, program, scratch, text, within};

pub const TESTS: &[Test] = &[
    ("crash_create", |rig| killed(rig, "create")),
    ("crash_snapshot_idle", |rig| killed(rig, "snapshot-idle")),
    ("crash_snapshot_live", |rig| killed(rig, "snapshot-live")),
    ("crash_clone", |rig| killed(rig, "clone")),
    ("crash_restore", |rig| killed(rig, "restore")),
    ("crash_delete", |rig| killed(rig, "delete")),
    ("crash_stop_and_start", |rig| killed(rig, "start")),
    ("crash_base", |rig| killed(rig, "base")),
    ("crash_ahead", |rig| killed(rig, "ahead")),
    ("crash_first_image", first_image),
    ("crash_keeper", keeper),
    ("ahead_is_like_any_other", ahead),
];

const ROUNDS: u64 = 20;

/// What processes of the command line's program run, as far as this user may see.
fn running(store: &Path) -> Option<String> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names: Vec<String> = fs::read_dir(store.join("boxes"))
        .ok()?
        .flatten()
        .map(|entry| format!("/boxes/{}/", entry.file_name().to_string_lossy()))
        .collect();
    let tag = tag(store);
    let stray = sockets
        .lines()
        .find(|line| line.contains(&tag) && !names.iter().any(|name| line.contains(name.as_str())));
    stray.map(str::to_owned)
}

/// A part of every name in this store, so that its sandboxes can be told from others.
fn tag(store: &Path) -> String {
    let name = store.parent().unwrap().file_name().unwrap().to_string_lossy().to_lowercase();
    name.replace("sandscript-faults-", "t").replace(|c: char| !c.is_ascii_alphanumeric(), "x")
}

fn cgroups(tag: &str) -> Vec<String> {
    fn below(folder: &Path, depth: usize, tag: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(tag) {
                    found.push(entry.path().display().to_string());
                }
                below(&entry.path(), depth - 1, tag, found);
            }
        }
    }
    let mut found = Vec::new();
    below(Path::new("/sys/fs/cgroup"), 6, tag, &mut found);
    found
}

/// The cgroups of a store's sandboxes.
fn groups(store: &Path) -> Vec<String> {
    let scope = blake3::hash(store.as_os_str().as_encoded_bytes()).to_hex();
    let folders = cgroups(&format!("sandscript-{}", &scope[..8]));
    folders.iter().flat_map(|folder| cgroups_in(Path::new(folder))).collect()
}

fn cgroups_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path().display().to_string()).collect()
}

fn killed(rig: &Rig, what: &str) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    let tag = tag(&store);
    let (kept, victim) = (format!("kept-{tag}"), format!("victim-{tag}"));
    rig.ok(&store, &["create", &kept]);
    rig.ok(
        &store,
        &[
            "exec",
            &kept,
            "--",
            "sh",
            "-c",
            "echo data >/data; head -c 300000 /dev/urandom >/big; sha256sum /big >/sum",
        ],
    );
    rig.ok(&store, &["snapshot", "create", &kept, "s"]);
    if what == "snapshot-live" {
        rig.ok(&store, &["exec", &kept, "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 &"]);
    }
    let script = folder.path().join("base.rhai");
    fs::write(&script, format!(
        "let b = base(\"b-{tag}\", |b| {{ b.run(\"echo one >/one\"); b.run(\"sleep 0.1; echo two >/two\"); b.run(\"echo three >/three\"); }});\n\
         let s = sandbox(\"{victim}\", #{{ from: b }}); s.run(\"cat /one /two /three\");\n"
    )).unwrap();
    let script = script.to_str().unwrap();
    // From the third one on, the next one is always being made ahead.
    let many = folder.path().join("many.rhai");
    fs::write(&many, format!(
        "for n in 0..40 {{ let s = sandbox(\"{victim}-\" + n); s.run(\"true\"); s.delete(); }}\n"
    )).unwrap();
    let many = many.to_str().unwrap();
    for round in 0..ROUNDS {
        let label = format!("r{round}");
        let args: Vec<&str> = match what {
            "create" => vec!["create", &victim],
            "snapshot-idle" | "snapshot-live" => vec!["snapshot", "create", &kept, &label],
            "clone" => vec!["clone", &kept, &victim],
            "restore" => vec!["snapshot", "restore", &kept, "s"],
            "delete" => {
                let made = rig.call(&store, &["clone", &kept, &victim, "--label", "s"]);
                let there = String::from_utf8_lossy(&made.stderr).contains("exists");
                assert!(made.status.success() || there, "{}", text(&made));
                vec!["delete", &victim, "--yes"]
            }
            "start" => {
                if round % 2 == 0 {
                    vec!["stop", &kept, "--force"]
                } else {
                    vec!["start", &kept]
                }
            }
            "base" => vec!["run", script],
            "ahead" => vec!["run", many],
            _ => unreachable!(),
        };
        if what.starts_with("snapshot") {
            rig.ok(&store, &["start", &kept]);
            rig.ok(&store, &["exec", &kept, "--", "sh", "-c", &format!("echo {round} >/round")]);
        }
        let span = if ["base", "ahead"].contains(&what) { 400 } else { 40 };
        let mut child = rig.cli(&store, &args).spawn().unwrap();
        // Spread over the whole call, each round elsewhere.
        std::thread::sleep(Duration::from_micros(round * span * 1000 / ROUNDS));
        child.kill().unwrap();
        child.wait().unwrap();
        rig.ok(&store, &["list"]);
        if what.starts_with("snapshot") {
            rig.ok(&store, &["start", &kept]);
            assert_eq!(
                rig.ok(&store, &["exec", &kept, "--", "cat", "/round"]).trim(),
                round.to_string()
            );
        }
        if ["create", "clone"].contains(&what) && round % 3 == 0 {
            let deleted = rig.call(&store, &["delete", &victim, "--yes"]);
            let gone = String::from_utf8_lossy(&deleted.stderr).contains("not found");
            assert!(deleted.status.success() || gone, "{}", text(&deleted));
        }
    }
    rig.ok(&store, &["start", &kept]);
    assert_eq!(rig.ok(&store, &["exec", &kept, "--", "cat", "/data"]), "data\n");
    rig.ok(&store, &["exec", &kept, "--", "sha256sum", "-c", "/sum"]);
    let fresh = format!("fresh-{tag}");
    rig.ok(&store, &["clone", &kept, &fresh, "--label", "s"]);
    rig.ok(&store, &["exec", &fresh, "--", "sha256sum", "-c", "/sum"]);
    if what == "base" {
        rig.ok(&store, &["run", script]);
    }
    within("left after gc", || {
        rig.ok(&store, &["gc", "--yes"]);
        let (astray, trash) = (astray(&store), fs::read_dir(store.join("trash")).unwrap().count());
        (!astray.is_empty() || trash > 0).then(|| format!("{astray:?}, {trash} in the trash"))
    })
    .unwrap();
    within("a sandbox without a folder", || running(&store)).unwrap();
    empty(rig, &store);
    within("still running", || running(&store)).unwrap();
    within("cgroups", || {
        rig.call(&store, &["gc", "--yes"]);
        cgroups(&tag).into_iter().chain(groups(&store)).next()
    })
    .unwrap();
    Outcome::Done
}

/// The first image of a store is being made.
fn first_image(rig: &Rig) -> Outcome {
    for round in 0..6 {
        let folder = scratch();
        let store = folder.path().join("store");
        let mut child = rig.cli(&store, &["create", "one"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 15));
        child.kill().unwrap();
        child.wait().unwrap();
        rig.ok(&store, &["gc", "--yes"]);
        rig.ok(&store, &["create", "two"]);
        assert_eq!(rig.ok(&store, &["exec", "two", "--", "echo", "alive"]), "alive\n");
        within("left after gc", || {
            rig.ok(&store, &["gc", "--yes"]);
            let left = astray(&store);
            (!left.is_empty()).then(|| format!("{left:?}"))
        })
        .unwrap();
        empty(rig, &store);
    }
    Outcome::Done
}

/// Our own child: the keeper of a backend of this test's own.
fn keeper(rig: &Rig) -> Outcome {
    use sandscript::backend::local::{LocalBackend, LocalConfig};
    use sandscript::sandbox::{Backend, Cancel, Command, exec};
    let folder = scratch();
    let store = folder.path().join("store");
    let config =
        LocalConfig { store: store.clone(), helper: Some(program()), ..LocalConfig::default() };
    rig.wait(async {
        let backend = LocalBackend::open(config).unwrap();
        let cancel = Cancel::new();
        let names = [rig.name("keeper"), rig.name("keeper"), rig.name("keeper")];
        for name in &names {
            backend.create(&Spec::new(name), &cancel).await.unwrap();
            let keeper = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let status = fs::read_to_string(entry.path().join("status")).ok()?;
                let ours = format!("PPid:\t{}\n", std::process::id());
                let argv = fs::read(entry.path().join("cmdline")).ok()?;
                // That of the rig goes on: it was started from this very program.
                let other = fs::metadata(entry.path().join("exe"))
                    .map_or(argv.starts_with(b"sandscript:keeper") && pid > 1, |exe| {
                        exe.ino() == fs::metadata(program()).unwrap().ino()
                    });
                (status.contains(&ours) && status.contains("Name:\tsandscript-keep") && other)
                    .then_some(pid)
            });
            let Some(keeper) = keeper else { continue };
            std::process::Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let output = exec(&backend, name, &Command::argv(["echo", "alive"]), &cancel).await;
            assert_eq!(output.unwrap().stdout, b"alive\n");
        }
        for name in &names {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    empty(rig, &store);
    Outcome::Done
}

/// The third sandbox of a kind is made before it is asked for. No collector takes it, it is nobody until it
/// is asked for, and it is gone with the backend.
fn ahead(rig: &Rig) -> Outcome {
    use sandscript::backend::local::{LocalBackend, LocalConfig};
    use sandscript::sandbox::{Backend, Cancel, Command, exec};
    let folder = scratch();
    let store = folder.path().join("store");
    let config =
        LocalConfig { store: store.clone(), helper: Some(program()), ..LocalConfig::default() };
    let upper = |name: &str| {
        let record = fs::read(store.join("boxes").join(name).join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["upper"].as_str().unwrap().to_owned()
    };
    rig.wait(async {
        let backend = LocalBackend::open(config).unwrap();
        let cancel = Cancel::new();
        let names = [rig.name("ahead"), rig.name("ahead"), rig.name("ahead")];
        let mut ids = BTreeSet::new();
        let mut made = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let mut spec = Spec::new(name);
            spec.env.insert("NUMBER".into(), index.to_string());
            backend.create(&spec, &cancel).await.unwrap();
            let line = "echo $NUMBER $(hostname) $(cat /etc/hostname); cat /etc/machine-id";
            let output = exec(&backend, name, &Command::shell(line), &cancel).await.unwrap();
            let output = String::from_utf8(output.stdout).unwrap();
            let (first, id) = output.trim().split_once('\n').unwrap();
            assert_eq!(first, format!("{index} {name} {name}"));
            assert!(ids.insert(id.to_owned()), "machine ids are alike: {output}");
            match index {
                0 => assert_eq!(astray(&store), [] as [&str; 0]),
                1 => {
                    within("nothing is made ahead", || astray(&store).is_empty().then(String::new))
                        .unwrap();
                    rig.ok(&store, &["gc", "--yes"]);
                    made = astray(&store);
                    assert_eq!(made.len(), 1);
                }
                _ => assert_eq!(vec![upper(name)], made),
            }
        }
        for name in &names {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    within("left by the backend", || astray(&store).first().cloned()).unwrap();
    within("its cgroups", || groups(&store).first().cloned()).unwrap();
    empty(rig, &store);
    Outcome::Done
}
