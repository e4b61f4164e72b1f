//! Caches in memory. A machine that starts gets what is in its caches as a part of its tree; when it
//! stops, what has become of that goes back. Those that share a cache see each other's files only
//! after that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::machine::{Machine, World};
use super::tree::{Data, Errno, Node, Parts, Tree};
use crate::sandbox::{CacheInfo, CacheMount, Error, Kind, Result};

/// A cache.
pub(super) struct Cache {
    /// Its folder.
    node: Arc<Node>,
    /// When a machine last began to use it.
    used: SystemTime,
    /// The machines that have it: serial and name.
    users: BTreeMap<u64, String>,
    /// They share it.
    shared: bool,
}

impl Cache {
    fn info(&self, name: &str) -> CacheInfo {
        CacheInfo {
            name: name.to_owned(),
            size: Tree::of(Arc::clone(&self.node)).usage().bytes,
            used: self.used,
            busy: !self.users.is_empty(),
            by: self.users.values().next().filter(|_| !self.shared).cloned(),
        }
    }
}

impl World {
    /// Gives a machine that is about to run its caches.
    pub fn mount(&mut self, name: &str, now: SystemTime) -> Result<()> {
        let World { machines, caches, .. } = self;
        let machine =
            machines.get_mut(name).ok_or_else(|| Error::not_found(Kind::Sandbox, name))?;
        if machine.mounted {
            return Ok(());
        }
        let wanted = machine.info.caches.clone();
        for wanted in &wanted {
            if let Some(cache) = caches.get(&wanted.name)
                && !cache.users.is_empty()
                && !(cache.shared && wanted.shared)
            {
                let by = cache.users.values().next().filter(|_| !cache.shared).cloned();
                return Err(Error::CacheInUse { name: wanted.name.clone(), by });
            }
        }
        let mut tree = machine.tree.clone();
        for wanted in in_order(&wanted) {
            let node = caches.get(&wanted.name).map(|cache| Arc::clone(&cache.node));
            let node = node.unwrap_or_else(|| Arc::new(Node::dir(0o1777, now)));
            put(&mut tree, &wanted.target, Arc::clone(&node), now)
                .map_err(|why| why.at(&wanted.target))?;
            let cache = caches.entry(wanted.name.clone()).or_insert_with(|| Cache {
                node,
                used: now,
                users: BTreeMap::new(),
                shared: false,
            });
            cache.used = now;
            cache.shared = wanted.shared;
            cache.users.insert(machine.serial, name.to_owned());
        }
        machine.tree = tree;
        machine.mounted = true;
        Ok(())
    }

    /// Takes a machine's caches back.
    pub fn unmount(&mut self, name: &str) {
        let World { machines, caches, .. } = self;
        if let Some(machine) = machines.get_mut(name) {
            unmount(machine, caches);
        }
    }

    /// Takes a machine out, and its caches back.
    pub fn take(&mut self, name: &str) -> Option<Machine> {
        self.unmount(name);
        self.machines.remove(name)
    }

    /// The caches, by name.
    pub fn caches(&self) -> Vec<CacheInfo> {
        self.caches.iter().map(|(name, cache)| cache.info(name)).collect()
    }

    /// Deletes a cache that nobody has.
    pub fn delete_cache(&mut self, name: &str) -> Result<()> {
        let cache = self.caches.get(name).ok_or_else(|| Error::not_found(Kind::Cache, name))?;
        if !cache.users.is_empty() {
            return Err(Error::CacheInUse { name: name.to_owned(), by: cache.info(name).by });
        }
        self.caches.remove(name);
        Ok(())
    }
}

impl Machine {
    /// Its tree as it is without its caches.
    pub fn own_tree(&self) -> Tree {
        let mut tree = self.tree.clone();
        if self.mounted {
            for cache in in_order(&self.info.caches).into_iter().rev() {
                let now = self.info.created;
                let _ = put(&mut tree, &cache.target, Arc::new(Node::dir(0o755, now)), now);
            }
        }
        tree
    }
}

fn unmount(machine: &mut Machine, caches: &mut BTreeMap<String, Cache>) {
    if !machine.mounted {
        return;
    }
    for mount in in_order(&machine.info.caches).into_iter().rev() {
        let Some(cache) = caches.get_mut(&mount.name) else { continue };
        cache.users.remove(&machine.serial);
        // A guest may have put something else in its place.
        let node = parts(&mount.target).ok().and_then(|parts| machine.tree.get(&parts));
        if let Some(node) = node.filter(|node| node.is_dir()) {
            cache.node = match mount.shared {
                true => Arc::new(both(&cache.node, node)),
                false => Arc::clone(node),
            };
        }
    }
    machine.tree = machine.own_tree();
    machine.mounted = false;
}

/// What is in either; `new` counts where both have it.
fn both(old: &Node, new: &Node) -> Node {
    let mut all = new.clone();
    if let (Data::Dir(before), Data::Dir(now)) = (&old.data, &mut all.data) {
        for (name, node) in before {
            let both = match now.get(name) {
                Some(newer) => Arc::new(both(node, newer)),
                None => Arc::clone(node),
            };
            now.insert(name.clone(), both);
        }
    }
    all
}

/// Those that hold others before them.
fn in_order(caches: &[CacheMount]) -> Vec<&CacheMount> {
    let mut all: Vec<&CacheMount> = caches.iter().collect();
    all.sort_by_key(|cache| parts(&cache.target).unwrap_or_default());
    all
}

fn parts(target: &str) -> Result<Parts, Errno> {
    Ok(target.split('/').filter(|p| !matches!(*p, "" | ".")).map(str::to_owned).collect())
}

fn put(tree: &mut Tree, target: &str, node: Arc<Node>, now: SystemTime) -> Result<(), Errno> {
    let parts = parts(target)?;
    let path = super::tree::join(&parts);
    // A link on the way is not followed: the place would be another one than it seems.
    if tree.resolve("/", &path, true).is_ok_and(|found| found != parts) {
        return Err(Errno::Loop);
    }
    tree.mkdirs("/", &path, &Node::dir(0o755, now))?;
    match tree.get_mut(&parts) {
        Some(place) => *place = (*node).clone(),
        None => return Err(Errno::NoEntry),
    }
    Ok(())
}
