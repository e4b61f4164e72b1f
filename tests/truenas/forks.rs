//! What is cloned, and what it was cloned from: neither takes the other along.

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::backend::truenas::TrueNasBackend;
use sandscript::sandbox::{Backend, Cancel, CloneSpec, Error, Restore, SnapshotSpec, Spec};
use serde_json::json;

use crate::cuts::all;
use crate::rig::{Small, big, names, say, works};

const ONE: &[Release] = &[Release::V26Rc];

pub fn trials() -> Vec<Trial> {
    let mut releases = all(&Release::ALL);
    if releases.is_empty() {
        releases = vec![Release::V25_10, Release::V26Beta];
    }
    [
        big("fork_outlives", &releases, |nas, _| Box::pin(outlives(nas))),
        big("fork_in_the_way", ONE, |nas, _| Box::pin(in_the_way(nas))),
        big("fork_abandoned", ONE, |nas, _| Box::pin(abandoned(nas))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn labels(backend: &TrueNasBackend, name: &str) -> Vec<String> {
    let all = backend.snapshots(name, &Cancel::new()).await.unwrap();
    all.into_iter().map(|one| one.label).collect()
}

/// A clone has a label of the same name as its source, which goes.
async fn outlives(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    backend.create(&Spec::new("source"), &cancel).await.unwrap();
    for label in ["first", "same"] {
        say(&backend, "source", &format!("echo {label} > /kept; sync")).await;
        backend.snapshot("source", &SnapshotSpec::new(label), &cancel).await.unwrap();
    }
    for (label, name) in [("same", "fork"), ("first", "other")] {
        let spec = CloneSpec::of(label, name);
        Backend::clone(&*backend, "source", &spec, &cancel).await.unwrap();
    }
    backend.snapshot("fork", &SnapshotSpec::new("same"), &cancel).await.unwrap();
    backend.delete("source", &cancel).await.unwrap();
    assert_eq!(names(&backend).await, ["fork", "other"]);
    assert_eq!(say(&backend, "fork", "cat /kept").await, "same\n");
    assert_eq!(say(&backend, "other", "cat /kept").await, "first\n");
    say(&backend, "fork", "echo changed > /kept; sync").await;
    assert_eq!(labels(&backend, "fork").await, ["same"]);
    backend.restore("fork", "same", Restore::default(), &cancel).await.unwrap();
    assert_eq!(say(&backend, "fork", "cat /kept").await, "same\n");
    for name in ["fork", "other"] {
        backend.delete(name, &cancel).await.unwrap();
    }
    assert!(names(&backend).await.is_empty());
}

/// One can't go back to before what somebody was cloned from.
async fn in_the_way(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    backend.create(&Spec::new("base"), &cancel).await.unwrap();
    for label in ["a", "b"] {
        say(&backend, "base", &format!("echo {label} > /kept; sync")).await;
        backend.snapshot("base", &SnapshotSpec::new(label), &cancel).await.unwrap();
    }
    Backend::clone(&*backend, "base", &CloneSpec::of("b", "fork"), &cancel).await.unwrap();
    let discard = Restore { discard_newer: true };
    let error = backend.restore("base", "a", discard, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(error.hint().unwrap(), "clone 'a' instead, or delete first: fork");
    assert_eq!(labels(&backend, "base").await, ["a", "b"]);
    works(&backend, "base").await;
    backend.delete("fork", &cancel).await.unwrap();
    backend.restore("base", "a", discard, &cancel).await.unwrap();
    assert_eq!(say(&backend, "base", "cat /kept").await, "a\n");
    assert_eq!(labels(&backend, "base").await, ["a"]);
    backend.delete("base", &cancel).await.unwrap();
}

/// Runs a line as the NAS's root, by its cron.
pub async fn on_the_nas(backend: &TrueNasBackend, line: &str) {
    let cancel = Cancel::new();
    let row = json!({"user": "root", "command": line, "enabled": false});
    let made = backend.call("cronjob.create", vec![row], true, &cancel).await.unwrap();
    let id = vec![made["id"].clone()];
    backend.call("cronjob.run", id.clone(), true, &cancel).await.unwrap();
    backend.call("cronjob.delete", id, true, &cancel).await.unwrap();
}

/// What a program leaves that is killed in the middle of a clone is collected; what somebody may be about to
/// have is not.
async fn abandoned(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let info = backend.create(&Spec::new("box"), &cancel).await.unwrap();
    backend.snapshot("box", &SnapshotSpec::new("own"), &cancel).await.unwrap();
    let dataset = info.dataset.unwrap();
    let parent = dataset.rsplit_once('/').unwrap().0;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let of = "-o sandscript:of=- -o sandscript:created";
    let line = format!(
        "zfs snapshot {of}=1 {dataset}@sandscript-old && zfs clone -o sandscript:made=1 {dataset}@sandscript-old {parent}/old && \
         zfs snapshot {of}={now} {dataset}@sandscript-new && zfs clone -o sandscript:made={now} {dataset}@sandscript-new {parent}/new && \
         zfs snapshot {dataset}@auto-daily"
    );
    on_the_nas(&backend, &line).await;
    let left = async || {
        on_the_nas(&backend, &format!("zfs list -H -r -t all -o name {parent} > /mnt/tank/left"))
            .await;
        let text = std::fs::read_to_string(nas.sim.root().join("mnt/tank/left")).unwrap();
        let below = text.lines().filter_map(|line| line.strip_prefix(&format!("{parent}/")));
        let mut below: Vec<String> = below.map(str::to_owned).collect();
        below.sort();
        below
    };
    let all = [
        "box",
        "box@auto-daily",
        "box@own",
        "box@sandscript-new",
        "box@sandscript-old",
        "new",
        "old",
    ];
    assert_eq!(left().await, all);
    backend.gc(true, &cancel).await.unwrap();
    assert_eq!(left().await, all);
    backend.gc(false, &cancel).await.unwrap();
    assert_eq!(left().await, ["box", "box@auto-daily", "box@own", "box@sandscript-new", "new"]);
    on_the_nas(&backend, &format!("zfs destroy {parent}/new")).await;
    backend.delete("box", &cancel).await.unwrap();
    assert!(left().await.is_empty());
}
