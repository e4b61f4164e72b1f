//! A sandbox as the fake keeps it: data, and the processes that run in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::cache::Cache;
use super::clock::Clock;
use super::cluster::Cluster;
use super::fault::Faults;
use super::image::Image;
use super::tree::{Errno, Node, Tree, Usage};
use crate::sandbox::{
    Cancel, Capabilities, EgressLog, Error, Info, Kind, Result, Snapshot, State, check_name,
};

/// A snapshot with the tree it keeps.
#[derive(Clone)]
pub(super) struct Shot {
    pub snapshot: Snapshot,
    pub tree: Tree,
}

/// The ends by which a process is reached.
pub(super) struct Proc {
    pub signals: mpsc::UnboundedSender<i32>,
    pub stopped: watch::Sender<bool>,
}

pub(super) struct Machine {
    /// Tells it from an earlier one of the same name.
    pub serial: u64,
    pub info: Info,
    pub tree: Tree,
    /// What its image holds: limits count what is added.
    pub base: Usage,
    pub shots: Vec<Shot>,
    /// Cancelled when everything in it is killed.
    pub boot: Cancel,
    pub frozen: watch::Sender<bool>,
    pub processes: BTreeMap<u32, Proc>,
    pub next_pid: u32,
    /// What was said to have been refused and carried.
    pub log: EgressLog,
    /// Its caches are in its tree.
    pub mounted: bool,
}

impl Machine {
    /// Does `change` to the tree, unless it goes over a limit.
    pub fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Tree) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut tree = self.tree.clone();
        let done = change(&mut tree)?;
        let limits = &self.info.limits;
        if limits.disk.is_some() || limits.inodes.is_some() {
            let (was, now) = (self.tree.usage(), tree.usage());
            let over = |was: u64, now: u64, base: u64, limit: Option<u64>| {
                now > was && limit.is_some_and(|limit| now.saturating_sub(base) > limit)
            };
            if over(was.bytes, now.bytes, self.base.bytes, limits.disk)
                || over(was.inodes, now.inodes, self.base.inodes, limits.inodes)
            {
                return Err(Errno::NoSpace);
            }
        }
        self.tree = tree;
        Ok(done)
    }

    /// Kills every process and makes it ready for the next boot.
    pub fn halt(&mut self) {
        self.boot.cancel();
        self.info.ports.clear();
        self.boot = Cancel::new();
        self.processes.clear();
        self.frozen.send_replace(false);
    }

    /// Writes what tells this machine from every other one.
    pub fn identify(&mut self, now: std::time::SystemTime) {
        let id = blake3::hash(format!("{} {}", self.info.name, self.serial).as_bytes());
        let id = &id.to_hex()[..32];
        for (name, content) in
            [("hostname", format!("{}\n", self.info.hostname)), ("machine-id", format!("{id}\n"))]
        {
            let parts = ["etc".to_owned(), name.to_owned()];
            // An image without /etc has nothing to identify.
            let _ = self.tree.put(&parts, Node::file(content, 0o644, now));
        }
    }
}

pub(super) struct World {
    pub machines: BTreeMap<String, Machine>,
    pub caches: BTreeMap<String, Cache>,
    pub images: BTreeMap<String, Image>,
    pub faults: Faults,
    /// Runs that have ended; `gc` takes what they own.
    pub ended: BTreeSet<String>,
    pub cluster: Cluster,
    pub serial: u64,
}

impl World {
    pub fn get(&mut self, name: &str) -> Result<&mut Machine> {
        check_name(name)?;
        self.machines.get_mut(name).ok_or_else(|| Error::not_found(Kind::Sandbox, name))
    }

    /// One that is not between two states.
    pub fn settled(&mut self, name: &str) -> Result<&mut Machine> {
        let machine = self.get(name)?;
        match &machine.info.state {
            State::Transitional(what) => {
                Err(Error::Busy { name: name.to_owned(), what: what.clone() })
            }
            _ => Ok(machine),
        }
    }

    pub fn running(&mut self, name: &str) -> Result<&mut Machine> {
        let machine = self.settled(name)?;
        match machine.info.state {
            State::Running => Ok(machine),
            _ => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// What the backend, its processes and its streams share.
pub(super) struct Shared {
    pub world: Mutex<World>,
    pub clock: Clock,
    pub capabilities: Capabilities,
}

impl Shared {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the machine a process belongs to; nothing when that is gone.
    pub fn machine<T>(
        &self,
        name: &str,
        serial: u64,
        work: impl FnOnce(&mut Machine) -> T,
    ) -> Option<T> {
        let mut world = self.world();
        let machine = world.machines.get_mut(name).filter(|m| m.serial == serial)?;
        Some(work(machine))
    }
}

/// Takes back a sandbox that did not get finished.
pub(super) struct HalfMade {
    pub shared: Arc<Shared>,
    pub name: String,
    pub serial: u64,
    pub done: bool,
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if !self.done {
            let mut world = self.shared.world();
            if world.machines.get(&self.name).is_some_and(|m| m.serial == self.serial)
                && let Some(mut machine) = world.take(&self.name)
            {
                machine.halt();
            }
        }
    }
}
