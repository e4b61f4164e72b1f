//! What is on the disk below machines, where their trees are not folders of the store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command as Run, Restore, SnapshotSpec, Spec, StopOptions, exec,
};

use crate::booted::pool::Pool;
use crate::native::Test;
use crate::rig::Rig;

/// All of them, by name. The first is not for ZFS: its daemon does not forget a mount as long as any other mount
/// namespace of this machine has it.
pub const ALL: &[(&str, Test)] = &[
    ("store_is_mounted_again_after_a_boot", |rig| Box::pin(again(rig))),
    ("store_keeps_what_depends_on_what_goes", |rig| Box::pin(dependents(rig))),
];

/// Those for this rig.
pub fn of(rig: &Rig) -> &'static [(&'static str, Test)] {
    if rig.name == crate::rig::ZFS { &ALL[1..] } else { ALL }
}

/// Whether they run on this rig.
pub fn is_one(rig: &Rig) -> bool {
    ["nspawn/overlay", "nspawn/zfs"].contains(&rig.name)
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn says(rig: &Rig, name: &str, line: &str) -> Result<String, String> {
    let done = exec(rig.backend.as_ref(), name, &Run::shell(line), &Cancel::new()).await;
    Ok(String::from_utf8_lossy(&done.map_err(told)?.stdout).trim().to_owned())
}

fn root(rig: &Rig) -> Result<PathBuf, String> {
    let disk = rig.disk.as_ref().ok_or("there is no disk")?;
    Ok(disk.path().join("store"))
}

fn tree(rig: &Rig, name: &str) -> Result<PathBuf, String> {
    root(rig)?.join("machines").join(name).join("tree").canonicalize().map_err(told)
}

/// A boot of the host ends all mounts.
async fn again(rig: Arc<Rig>) -> Result<(), String> {
    let (name, cancel) = ("store-again", Cancel::new());
    let spec = Spec::new(name);
    rig.backend.create(&spec, &cancel).await.map_err(told)?;
    says(&rig, name, "echo kept > /root/f; rm /etc/motd; mkdir /etc/motd; sync").await?;
    let force = StopOptions { force: true, ..StopOptions::default() };
    rig.backend.stop(name, force, &cancel).await.map_err(told)?;
    let tree = tree(&rig, name)?;
    let mut gone = false;
    for _ in 0..100 {
        // What was killed may still see it.
        gone = gone || Command::new("umount").arg(&tree).status().is_ok_and(|s| s.success());
        if gone {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(gone && !tree.join("etc").exists());
    rig.backend.start(name, &cancel).await.map_err(told)?;
    assert_eq!(says(&rig, name, "cat /root/f; stat -c %F /etc/motd").await?, "kept\ndirectory");
    rig.backend.delete(name, &cancel).await.map_err(told)
}

/// What the trees of machines and of their snapshots are called below. Other tests have theirs at the same time.
fn trees(rig: &Rig, names: &[String]) -> Result<BTreeSet<String>, String> {
    let mut all = BTreeSet::new();
    for name in names {
        let folder = root(rig)?.join("machines").join(name);
        let snapshots = std::fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
        let folders = snapshots.map(|entry| entry.path()).chain([folder]);
        for target in folders.filter_map(|folder| std::fs::read_link(folder.join("tree")).ok()) {
            let target = target.to_string_lossy().into_owned();
            all.extend(target.rsplit(['/', '@']).next().map(str::to_owned));
        }
    }
    Ok(all)
}

/// Those of them that are there.
fn left(rig: &Rig, trees: &BTreeSet<String>) -> Result<Vec<String>, String> {
    let there: Vec<String> = match rig.disk.as_ref().and_then(|disk| disk.pool.as_ref()) {
        Some(pool) => {
            let args = ["list", "-H", "-o", "name", "-t", "filesystem,snapshot", "-r", pool.name()];
            let said = Pool::says("zfs", &args)?;
            said.lines()
                .filter_map(|line| line.rsplit(['/', '@']).next().map(str::to_owned))
                .collect()
        }
        None => {
            let layers = std::fs::read_dir(root(rig)?.join("layers")).map_err(told)?;
            layers.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        }
    };
    Ok(there.into_iter().filter(|id| trees.contains(id)).collect())
}

/// What goes takes nothing with it that others were made from, in whatever order they go.
async fn dependents(rig: Arc<Rig>) -> Result<(), String> {
    let (backend, cancel) = (rig.backend.as_ref(), Cancel::new());
    let own = format!("{}-dependents", rig.name.replace('/', "-"));
    let names: Vec<String> = (0..4).map(|number| format!("{own}{number}")).collect();
    let spec = Spec { bare: true, ..Spec::new(&names[0]) };
    backend.create(&spec, &cancel).await.map_err(told)?;
    let write = |name: &str, text: &str| {
        let path = tree(&rig, name)?.join("root/f");
        std::fs::write(path, text).map_err(told)
    };
    let read = |name: &str| std::fs::read_to_string(tree(&rig, name)?.join("root/f")).map_err(told);
    let snapshot = async |name: &str, label: &str| {
        backend.snapshot(name, &SnapshotSpec::new(label), &cancel).await.map(drop).map_err(told)
    };
    let clone = async |from: &str, label: Option<&str>, to: &str| {
        let spec = CloneSpec { label: label.map(str::to_owned), bare: true, ..CloneSpec::new(to) };
        Backend::clone(backend, from, &spec, &cancel).await.map(drop).map_err(told)
    };
    let start = async |name: &str| {
        backend.start(name, &cancel).await.map_err(told)?;
        let force = StopOptions { force: true, ..StopOptions::default() };
        backend.stop(name, force, &cancel).await.map_err(told)
    };
    start(&names[0]).await?;
    for text in ["one", "two", "three"] {
        write(&names[0], text)?;
        snapshot(&names[0], text).await?;
        start(&names[0]).await?;
    }
    let mut all = trees(&rig, &names)?;
    clone(&names[0], Some("two"), &names[1]).await?;
    // Back to an old one: the newer one stays.
    backend.restore(&names[0], "one", Restore::default(), &cancel).await.map_err(told)?;
    start(&names[0]).await?;
    assert_eq!(read(&names[0])?, "one");
    clone(&names[0], Some("three"), &names[2]).await?;
    all.extend(trees(&rig, &names)?);
    clone(&names[1], None, &names[3]).await?;
    all.extend(trees(&rig, &names)?);
    backend.delete_snapshot(&names[0], "two", &cancel).await.map_err(told)?;
    backend.delete(&names[0], &cancel).await.map_err(told)?;
    backend.delete(&names[1], &cancel).await.map_err(told)?;
    for (name, text) in [(&names[2], "three"), (&names[3], "two")] {
        start(name).await?;
        assert_eq!(read(name)?, text);
    }
    let needed = left(&rig, &all)?;
    assert!(!needed.is_empty() && all.len() >= 8, "{needed:?} of {all:?}");
    backend.delete(&names[3], &cancel).await.map_err(told)?;
    backend.delete(&names[2], &cancel).await.map_err(told)?;
    for _ in 0..300 {
        backend.gc(false, &cancel).await.map_err(told)?;
        if left(&rig, &all)?.is_empty() {
            return Ok(());
        }
        // Whoever has it open for a moment, such as a container of somebody else's that starts.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(format!("{:?} are left", left(&rig, &all)?))
}
