//! Where containers' datasets are, and what keeps them in step with the daemon.

use serde_json::Value;

use crate::nas::Nas;
use crate::zfs::{Refused, split};

/// The dataset that holds all containers.
pub fn parent(nas: &Nas) -> String {
    let part = if nas.release.is_26() { ".truenas_containers" } else { ".ix-virt" };
    format!("{}/{part}/containers", nas.zfs.pool)
}

/// The container's name in a dataset's.
pub fn container_of<'a>(nas: &Nas, dataset: &'a str) -> Option<&'a str> {
    let name = dataset.strip_prefix(&parent(nas))?.strip_prefix('/')?;
    (!name.contains('/')).then_some(name)
}

/// What the daemon calls a container of 26.
pub fn engine_name(row: &Value) -> String {
    format!("ct-{}", row["id"])
}

/// The daemon's name for the container whose dataset this is.
fn instance(nas: &Nas, dataset: &str) -> Option<String> {
    let name = container_of(nas, dataset)?;
    if !nas.release.is_26() {
        return Some(name.to_owned());
    }
    nas.rows.all("container").iter().find(|r| r["name"] == name).map(engine_name)
}

/// Whether somebody runs on a dataset.
pub async fn in_use(nas: &Nas, dataset: &str) -> bool {
    match (&nas.engine, instance(nas, dataset)) {
        (Some(engine), Some(name)) => engine.running(&name).await,
        _ => false,
    }
}

/// Takes over what the daemon made or removed by itself: on 25.x it owns the datasets.
pub async fn sync(nas: &Nas) {
    if nas.engine.is_none() || nas.release.is_26() {
        return;
    }
    let list = |folder: &str| -> Vec<String> {
        let entries =
            std::fs::read_dir(nas.zfs.storage.here(folder)).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    };
    let names = list("/mnt/incus/containers");
    let prefix = parent(nas);
    let mut tree = nas.zfs.tree();
    for name in &names {
        let dataset = format!("{prefix}/{name}");
        if tree.get(&dataset).is_err() && !name.ends_with(".rollback") {
            tree.insert(&dataset, format!("/mnt/incus/containers/{name}"), None, nas.now());
        }
        // Its own snapshots are datasets' snapshots, too.
        let folder = format!("/mnt/incus/containers-snapshots/{name}");
        let theirs = list(&folder);
        let known: Vec<String> = tree
            .get(&dataset)
            .map(|d| {
                d.snapshots
                    .iter()
                    .filter(|s| s.folder.starts_with(&folder))
                    .map(|s| s.name.clone())
                    .collect()
            })
            .unwrap_or_default();
        for snap in &theirs {
            let full = format!("snapshot-{snap}");
            if !known.contains(&full) {
                let snapshot = tree.snapshot(&full, format!("{folder}/{snap}"), nas.now());
                if let Ok(dataset) = tree.get_mut(&dataset) {
                    dataset.snapshots.push(snapshot);
                }
            }
        }
        if let Ok(dataset) = tree.get_mut(&dataset) {
            dataset.snapshots.retain(|s| {
                !s.folder.starts_with(&folder)
                    || theirs.iter().any(|t| s.name == format!("snapshot-{t}"))
            });
        }
    }
    let gone: Vec<String> = tree
        .below(&prefix)
        .into_iter()
        .filter(|d| !names.iter().any(|n| *d == format!("{prefix}/{n}")))
        .collect();
    for dataset in gone {
        tree.datasets.remove(&dataset);
    }
}

/// Makes a dataset of a snapshot; a container's goes where the daemon looks for it.
pub async fn clone_dataset(nas: &Nas, snapshot: &str, name: &str) -> Result<(), Refused> {
    if nas.faults(|f| f.full) {
        return Err(Refused::Full);
    }
    let folder = match (container_of(nas, name), nas.engine.is_some()) {
        (Some(container), true) if !nas.release.is_26() => {
            Some(format!("/mnt/incus/containers/{container}"))
        }
        (Some(_), true) => Some(format!("/mnt/incus/loose/{}", crate::random::text(12))),
        _ => None,
    };
    nas.zfs.clone_to(snapshot, name, folder, nas.now()).await?;
    link(nas, name);
    Ok(())
}

/// Shows a container's root file system of 26 at its mount point.
pub fn link(nas: &Nas, dataset: &str) {
    let Some(name) =
        container_of(nas, dataset).filter(|_| nas.release.is_26() && nas.engine.is_some())
    else {
        return;
    };
    let at =
        nas.host.root.join(format!("mnt/.truenas_containers/{}/containers/{name}", nas.zfs.pool));
    let _ = std::fs::remove_file(&at);
    if let Ok(found) = nas.zfs.tree().get(dataset) {
        let _ = std::os::unix::fs::symlink(format!("{}/rootfs", nas.inside(&found.folder)), at);
    }
}

/// Destroys a dataset, unless somebody runs on it.
pub async fn destroy_dataset(
    nas: &Nas,
    name: &str,
    recursive: bool,
    clones: bool,
) -> Result<(), Refused> {
    if in_use(nas, name).await {
        return Err(Refused::Busy(name.to_owned()));
    }
    nas.zfs.destroy(name, recursive, clones).await?;
    link(nas, name);
    Ok(())
}

/// Renames a dataset.
pub async fn rename_dataset(nas: &Nas, from: &str, to: &str) -> Result<(), Refused> {
    // A container's folder is the daemon's: only its name changes.
    let folder = match container_of(nas, to).filter(|_| nas.release.is_26() && nas.engine.is_some())
    {
        Some(_) => nas.zfs.tree().get(from).ok().map(|d| d.folder.clone()),
        None => None,
    };
    // Neither has a volume one that is named after it.
    let own = |d: &crate::zfs::Dataset| d.properties.contains_key("volsize");
    let volume = nas.zfs.tree().get(from).ok().filter(|d| own(d)).map(|d| d.folder.clone());
    let folder = folder.or(volume);
    nas.zfs.rename(from, to, folder).await?;
    link(nas, from);
    link(nas, to);
    Ok(())
}

/// Where a dataset is mounted, as far as the NAS tells.
pub fn mountpoint(nas: &Nas, name: &str, _folder: &str) -> String {
    if name.contains("/.ix-virt") {
        return "legacy".to_owned();
    }
    match split(name)
        .map_or(name, |(d, _)| d)
        .strip_prefix(&format!("{}/.truenas_containers", nas.zfs.pool))
    {
        Some(rest) => format!("/mnt/.truenas_containers/{}{rest}", nas.zfs.pool),
        None => format!("/mnt/{name}"),
    }
}

/// A path of the NAS as its root really has it.
pub async fn locate(nas: &Nas, path: &str) -> String {
    let (pool, traps) = (&nas.zfs.pool, nas.traps);
    let new = format!("/mnt/.truenas_containers/{pool}/containers/");
    let old = format!("/var/lib/incus/storage-pools/{pool}/containers/");
    if nas.engine.is_none() {
        return path.to_owned();
    }
    if let Some((name, rest)) =
        path.strip_prefix(&new).map(|p| p.split_once('/').unwrap_or((p, "")))
        && nas.release.is_26()
    {
        let folder =
            nas.zfs.tree().get(&format!("{}/{name}", parent(nas))).map(|d| nas.inside(&d.folder));
        return match folder {
            Ok(folder) if traps.on(41) => format!("{folder}/rootfs/{rest}"),
            Ok(folder) => format!("{folder}/{rest}"),
            Err(_) => path.to_owned(),
        };
    }
    if let Some((name, rest)) = path.strip_prefix(&old).and_then(|p| p.split_once('/'))
        && !nas.release.is_26()
    {
        // What is not mounted is a folder of the system's own disk.
        if !in_use(nas, &format!("{}/{name}", parent(nas))).await {
            return format!("/.unmounted/{name}/{rest}");
        }
        if !traps.on(41) {
            return format!("{old}{name}/rootfs/{rest}");
        }
    }
    path.to_owned()
}
