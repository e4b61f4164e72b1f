//! The `zfs` command of the host.

use std::sync::Arc;

use serde_json::Value;

use super::table::{human, table};
use super::{Refused, ops::Destroy, split};
use crate::host::serve::said;
use crate::method;
use crate::nas::Nas;

/// Runs `zfs ARGV`.
pub async fn run(nas: &Arc<Nas>, argv: &[String]) -> Value {
    method::sync(nas).await;
    let Some((verb, rest)) = argv.split_first() else { return said("", "missing command\n", 2) };
    // Flags may stand together: `-rf`.
    let mut flags = String::new();
    let (mut options, mut words) = (Vec::new(), Vec::new());
    let mut rest = rest.iter();
    let takes = |verb: &str, flag: char| match verb {
        "list" | "get" => "otsSd".contains(flag),
        "create" | "clone" | "snapshot" | "snap" => flag == 'o',
        _ => false,
    };
    while let Some(word) = rest.next() {
        match word.strip_prefix('-') {
            Some(letters) if !letters.is_empty() && words.is_empty() => {
                for (i, letter) in letters.char_indices() {
                    if takes(verb, letter) {
                        let own = &letters[i + letter.len_utf8()..];
                        let value = if own.is_empty() {
                            rest.next().cloned()
                        } else {
                            Some(own.to_owned())
                        };
                        options.push((letter, value.unwrap_or_default()));
                        break;
                    }
                    flags.push(letter);
                }
            }
            _ => words.push(word.as_str()),
        }
    }
    let has = |flag: char| flags.contains(flag);
    let option = |letter: char| options.iter().find(|(l, _)| *l == letter).map(|(_, v)| v.as_str());
    let now = nas.now();
    let zfs = &nas.zfs;
    let done = match (verb.as_str(), &words[..]) {
        ("list", names) => return list(nas, names, &flags, option('t'), option('o')),
        ("get", [properties, names @ ..]) => {
            return get(nas, properties, names, &flags, option('o'), option('t'), option('s'));
        }
        ("set", [pairs @ .., name]) if !pairs.is_empty() => {
            let done = set(nas, pairs, name);
            if done.is_ok() {
                limit(nas, pairs, name).await;
            }
            done
        }
        ("inherit", [key, name]) => change(nas, name, |p| drop(p.remove(*key))),
        ("create", [name]) => method::create_dataset(nas, name, has('p'), &pairs(&options)).await,
        ("snapshot" | "snap", names) if !names.is_empty() => {
            let mut done = Ok(());
            for name in names {
                let (dataset, snap) = split(name).unwrap_or((name, ""));
                done = match nas.faults(|f| f.full) {
                    true => Err(Refused::Full),
                    false => zfs.snapshot(dataset, snap, has('r'), &[], now).await,
                };
                if done.is_ok() {
                    for (key, value) in pairs(&options) {
                        done = change(nas, name, |p| drop(p.insert(key.clone(), value.clone())));
                    }
                    method::snapshot_added(nas, name);
                }
                if done.is_err() {
                    break;
                }
            }
            done
        }
        ("rollback", [name]) => {
            let used = method::in_use(nas, split(name).map_or(name, |(d, _)| d)).await;
            zfs.rollback(name, has('r') || has('R'), has('R'), used).await
        }
        ("clone", [snapshot, name]) => {
            let cloned = method::clone_dataset(nas, snapshot, name).await;
            if cloned.is_ok() {
                for (key, value) in pairs(&options) {
                    let _ = change(nas, name, |p| drop(p.insert(key.clone(), value.clone())));
                }
            }
            cloned
        }
        ("destroy", [name]) if name.contains('@') => {
            let how = Destroy { defer: has('d'), clones: has('R') };
            let gone = zfs.destroy_snapshot(name, how).await;
            if gone.is_ok() {
                method::snapshot_removed(nas, name);
            }
            gone
        }
        ("destroy", [name]) => {
            method::destroy_dataset(nas, name, has('r') || has('R'), has('R')).await
        }
        ("promote", [name]) => zfs.promote(name),
        ("rename", [from, to]) if from.contains('@') => zfs.rename_snapshot(from, to, has('r')),
        ("rename", [from, to]) => method::rename_dataset(nas, from, to).await,
        ("hold", [tag, names @ ..]) => each(names, |n| zfs.hold(n, Some(tag), true, has('r'))),
        ("release", [tag, names @ ..]) => {
            let done = each(names, |n| zfs.hold(n, Some(tag), false, has('r')));
            for name in names {
                let _ = zfs.settle(Some((*name).to_owned())).await;
            }
            done
        }
        ("holds", names) => return holds(nas, names, has('H')),
        ("mount" | "unmount" | "umount", _) => Ok(()),
        ("version" | "--version", _) => return said("zfs-2.3.0-1\nzfs-kmod-2.3.0-1\n", "", 0),
        _ => return said("", &format!("unrecognized command '{verb}'\n"), 2),
    };
    match done {
        Ok(()) => said("", "", 0),
        Err(refused) => {
            said("", &complaint(verb, words.last().copied().unwrap_or_default(), &refused), 1)
        }
    }
}

/// What `zfs` prints when it refuses.
fn complaint(verb: &str, name: &str, refused: &Refused) -> String {
    match refused {
        Refused::Missing(what) if verb != "snapshot" => {
            format!("cannot open '{what}': dataset does not exist\n")
        }
        Refused::Newer(what, all) => format!(
            "cannot rollback to '{what}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\n{}\n",
            all.join("\n")
        ),
        Refused::Children(what, all) => format!(
            "cannot destroy '{what}': filesystem has children\nuse '-r' to destroy the following datasets:\n{}\n",
            all.join("\n")
        ),
        Refused::Clones(what, all) => format!(
            "cannot destroy '{what}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n{}\n",
            all.join("\n")
        ),
        Refused::Held(what) => format!("cannot destroy snapshot {what}: dataset is busy\n"),
        other => format!("cannot {verb} '{name}': {other}\n"),
    }
}

fn each(names: &[&str], mut act: impl FnMut(&str) -> Result<(), Refused>) -> Result<(), Refused> {
    names.iter().try_for_each(|n| act(n))
}

fn pairs(options: &[(char, String)]) -> Vec<(String, String)> {
    let own = options.iter().filter(|(l, _)| *l == 'o');
    own.filter_map(|(_, v)| v.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn change(
    nas: &Nas,
    name: &str,
    act: impl FnOnce(&mut std::collections::BTreeMap<String, String>),
) -> Result<(), Refused> {
    let mut tree = nas.zfs.tree();
    match name.contains('@') {
        true => act(&mut tree.find_mut(name)?.properties),
        false => act(&mut tree.get_mut(name)?.properties),
    }
    Ok(())
}

fn set(nas: &Nas, pairs: &[&str], name: &str) -> Result<(), Refused> {
    for pair in pairs {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Refused::BadName((*pair).to_owned()))?;
        change(nas, name, |p| drop(p.insert(key.to_owned(), value.to_owned())))?;
    }
    Ok(())
}

/// Keeps a dataset to its quota, where the storage can.
async fn limit(nas: &Nas, pairs: &[&str], name: &str) {
    let folder = nas.zfs.tree().get(name).map(|dataset| dataset.folder.clone());
    let Ok(folder) = folder else { return };
    for quota in pairs.iter().filter_map(|pair| pair.strip_prefix("refquota=")) {
        let _ = nas.zfs.storage.run(&["btrfs", "qgroup", "limit", quota, &folder]).await;
    }
}

/// The names that a command is about.
fn chosen(nas: &Nas, names: &[&str], flags: &str, kinds: &str) -> Result<Vec<String>, Refused> {
    let tree = nas.zfs.tree();
    let any = |all: &[&str]| kinds.split(',').any(|k| k == "all" || all.contains(&k));
    let (folders, volumes) = (any(&["filesystem", "fs"]), any(&["volume", "vol"]));
    let snaps = any(&["snapshot", "snap"]);
    let mut all = Vec::new();
    let mut add = |name: &str| {
        let volume = tree.get(name).is_ok_and(|d| d.properties.contains_key("volsize"));
        if if volume { volumes } else { folders } {
            all.push(name.to_owned());
        }
        if let (true, Ok(dataset)) = (snaps, tree.get(name)) {
            all.extend(dataset.snapshots.iter().map(|s| format!("{name}@{}", s.name)));
        }
    };
    let mut direct = Vec::new();
    for name in names {
        if name.contains('@') {
            tree.find(name)?;
            direct.push((*name).to_owned());
            continue;
        }
        tree.get(name)?;
        add(name);
        if flags.contains('r') {
            tree.below(name).iter().for_each(|n| add(n));
        }
    }
    if names.is_empty() {
        tree.datasets.keys().for_each(|n| add(n));
    }
    all.extend(direct);
    Ok(all)
}

fn list(
    nas: &Nas,
    names: &[&str],
    flags: &str,
    kinds: Option<&str>,
    columns: Option<&str>,
) -> Value {
    let kinds = kinds.unwrap_or("filesystem,volume");
    let columns = columns.unwrap_or("name,used,avail,refer,mountpoint");
    let all = match chosen(nas, names, flags, kinds) {
        Ok(all) => all,
        Err(refused) => return said("", &complaint("list", "", &refused), 1),
    };
    let columns: Vec<&str> = columns.split(',').collect();
    let row = |n: &String| {
        columns.iter().map(|c| value(nas, n, c, flags.contains('p')).0).collect::<Vec<_>>()
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    said(&table(&columns, &rows, flags.contains('H')), "", 0)
}

fn get(
    nas: &Nas,
    properties: &str,
    names: &[&str],
    flags: &str,
    columns: Option<&str>,
    kinds: Option<&str>,
    sources: Option<&str>,
) -> Value {
    let all = match chosen(nas, names, flags, kinds.unwrap_or("all")) {
        Ok(all) => all,
        Err(refused) => return said("", &complaint("get", "", &refused), 1),
    };
    // Without -r or -t only what was named.
    let all: Vec<_> = match flags.contains('r') || kinds.is_some() || names.is_empty() {
        true => all,
        false => all.into_iter().filter(|n| names.contains(&n.as_str())).collect(),
    };
    let columns: Vec<&str> = columns.unwrap_or("name,property,value,source").split(',').collect();
    let mut rows = Vec::new();
    for name in &all {
        let wanted: Vec<String> = match properties {
            "all" => known(nas, name),
            list => list.split(',').map(str::to_owned).collect(),
        };
        for property in wanted {
            let (text, source) = value(nas, name, &property, flags.contains('p'));
            let kind = source.split(' ').next().unwrap_or_default();
            if sources.is_some_and(|s| !s.split(',').any(|s| s == kind)) {
                continue;
            }
            let row = columns.iter().map(|c| match *c {
                "name" => name.clone(),
                "property" => property.clone(),
                "value" => text.clone(),
                _ => source.clone(),
            });
            rows.push(row.collect());
        }
    }
    said(&table(&columns, &rows, flags.contains('H')), "", 0)
}

fn known(nas: &Nas, name: &str) -> Vec<String> {
    let tree = nas.zfs.tree();
    let own = match name.contains('@') {
        true => tree.find(name).map(|s| s.properties.keys().cloned().collect()),
        false => tree.get(name).map(|d| d.properties.keys().cloned().collect()),
    };
    let mut all: Vec<String> =
        ["type", "creation", "createtxg", "guid", "used", "referenced"].map(Into::into).into();
    all.extend::<Vec<String>>(own.unwrap_or_default());
    all
}

/// A property's value and where it comes from.
fn value(nas: &Nas, name: &str, property: &str, exact: bool) -> (String, String) {
    let (text, source) = known_value(nas, name, property, exact);
    if source != "user" {
        return (text, source.to_owned());
    }
    match nas.zfs.tree().property(name, property) {
        Some((text, None)) => (text, "local".to_owned()),
        Some((text, Some(from))) => (text, format!("inherited from {from}")),
        None => ("-".to_owned(), "-".to_owned()),
    }
}

/// The same; what is set or inherited has the source `user`.
fn known_value(nas: &Nas, name: &str, property: &str, exact: bool) -> (String, &'static str) {
    let tree = nas.zfs.tree();
    let date = |at: i64| if exact { (at / 1000).to_string() } else { crate::time::zfs(at) };
    let size = |n: i64| if exact { n.to_string() } else { human(n) };
    let none = || ("-".to_owned(), "-");
    if let Ok(snapshot) = tree.find(name) {
        return match property {
            "name" => (name.to_owned(), "-"),
            "type" => ("snapshot".into(), "-"),
            "creation" => (date(snapshot.created), "-"),
            "createtxg" => (snapshot.txg.to_string(), "-"),
            "guid" => (snapshot.guid.to_string(), "-"),
            "userrefs" => (snapshot.holds.len().to_string(), "-"),
            "defer_destroy" => (if snapshot.deferred { "on" } else { "off" }.into(), "-"),
            "clones" => (tree.clones(name).join(","), "-"),
            "used" | "refer" | "referenced" | "written" => (size(0), "-"),
            _ => (String::new(), "user"),
        };
    }
    let Ok(dataset) = tree.get(name) else { return none() };
    match property {
        "name" => (name.to_owned(), "-"),
        "type" if dataset.properties.contains_key("volsize") => ("volume".into(), "-"),
        "type" => ("filesystem".into(), "-"),
        "creation" => (date(dataset.created), "-"),
        "createtxg" => (dataset.txg.to_string(), "-"),
        "guid" => (dataset.guid.to_string(), "-"),
        "origin" => (dataset.origin.clone().unwrap_or_else(|| "-".into()), "-"),
        "mounted" => ("yes".into(), "-"),
        "mountpoint" => (method::mountpoint(nas, name, &dataset.folder), "default"),
        "used" | "refer" | "referenced" => (size(method::EMPTY), "-"),
        "usedbysnapshots" => (size(0), "-"),
        "avail" | "available" => (size(method::space(nas).1), "-"),
        _ => (String::new(), "user"),
    }
}

fn holds(nas: &Nas, names: &[&str], bare: bool) -> Value {
    let tree = nas.zfs.tree();
    let mut rows = Vec::new();
    for name in names {
        match tree.find(name) {
            Ok(snapshot) => {
                for tag in &snapshot.holds {
                    let time = crate::time::zfs(snapshot.created);
                    rows.push(vec![(*name).to_owned(), tag.clone(), time]);
                }
            }
            Err(refused) => return said("", &complaint("holds", name, &refused), 1),
        }
    }
    said(&table(&["name", "tag", "timestamp"], &rows, bare), "", 0)
}
