//! The next sandbox, started while nobody waits for it.
//!
//! When two sandboxes in a row are made from the same layers, a third one is likely: its namespaces,
//! mounts and cgroups are made ahead, up to the moment where it needs a name. It dies with the
//! backend, and what it leaves on disk is locked by it, so that the next collection takes it then.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::launch::descriptors;
use super::layers::LONG;
use super::mode::Mode;
use super::protocol::{Done, IdMap, Launch, Machine, Task, Tree};
use super::store::Lock;
use super::{Inner, cgroup, range};
use crate::sandbox::{Limits, Policy, Result, Spec};
use crate::transport::Link;

/// What the parts of a sandbox depend on that are made ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    trees: Vec<Tree>,
    layers: Vec<String>,
}

/// A process 1 that waits to be told who it is.
pub struct Ahead {
    /// Its upper layer.
    pub upper: String,
    /// Its cgroups.
    pub folders: Vec<PathBuf>,
    /// Where it waits; it ends with the connection.
    pub socket: OwnedFd,
    shape: Shape,
    worker: OwnedFd,
    #[expect(dead_code, reason = "keeps the collector from the upper layer")]
    lock: Lock,
}

/// One sandbox at most is made ahead.
#[derive(Default)]
pub struct Next {
    last: Option<Shape>,
    wanted: Option<Shape>,
    busy: bool,
    made: Option<Ahead>,
}

impl Shape {
    /// That of a sandbox which needs nothing of its own but layers; none for others.
    pub fn of(spec: &Spec, trees: &[Tree], layers: &[String]) -> Option<Shape> {
        let plain = spec.limits == Limits::default()
            && spec.mounts.is_empty()
            && spec.caches.is_empty()
            && spec.egress == Policy::None
            && spec.networks.is_empty()
            && !spec.bare
            && layers.len() <= LONG;
        plain.then(|| Shape { trees: trees.to_vec(), layers: layers.to_vec() })
    }
}

impl Inner {
    /// Takes the sandbox that was made ahead if it is of this shape, and notes what was asked for.
    pub(super) async fn take_ahead(&self, shape: Option<Shape>) -> Option<Ahead> {
        let shape = shape?;
        let ahead = {
            let mut next = self.next();
            next.wanted = (next.last.as_ref() == Some(&shape)).then(|| shape.clone());
            let fits = next.made.as_ref().is_some_and(|made| made.shape == shape);
            next.last = Some(shape);
            if fits { next.made.take() } else { None }
        }?;
        let socket = ahead.socket.try_clone().ok()?;
        let ready = match Link::new(socket) {
            Ok(mut link) => matches!(link.receive::<Done>().await, Ok(Some((Done::Ok, _)))),
            Err(_) => false,
        };
        if ready {
            return Some(ahead);
        }
        self.drop_ahead(ahead);
        None
    }

    /// Gives the worker that has made it back.
    pub(super) async fn taken(&self, ahead: Ahead) -> Result<()> {
        self.keeper().await?.rest(ahead.worker);
        Ok(())
    }

    /// Makes the next one in the background, when one is likely to be wanted.
    pub(super) fn prepare_next(self: &Arc<Self>) {
        let mut next = self.next();
        let Some(shape) = next.wanted.take() else { return };
        if next.busy || next.made.as_ref().is_some_and(|made| made.shape == shape) {
            return;
        }
        next.busy = true;
        let inner = Arc::downgrade(self);
        tokio::task::spawn_blocking(move || {
            if let Some(inner) = inner.upgrade() {
                inner.prepare(shape);
                inner.next().busy = false;
            }
        });
    }

    /// It is an offer: whatever is in the way of it will be told by the launch that does without.
    fn prepare(&self, shape: Shape) {
        let Some(_referring) = self.store.referring_now() else { return };
        let Ok(group) = self.groups.create(&cgroup::name_of_start("ahead"), &Limits::default())
        else {
            return;
        };
        let folders = group.folders.clone();
        match self.make_ahead(shape, group) {
            Some(made) => {
                let before = self.next().made.replace(made);
                before.into_iter().for_each(|before| self.drop_ahead(before));
            }
            None => drop(cgroup::remove(&folders)),
        }
    }

    fn make_ahead(&self, shape: Shape, mut group: cgroup::Group) -> Option<Ahead> {
        let keeper = self.keeper.get()?;
        // It lives as long as process 1, which gets this descriptor, and tells the collector so.
        if let Some((_, payload)) = &group.birth {
            flock(payload, FlockOperation::NonBlockingLockShared).ok()?;
        }
        let (map, range) = match &self.mode {
            Mode::Root => {
                let (base, lock) = range::allocate().ok()?;
                group.give(base);
                (IdMap::Private { base }, Some(lock))
            }
            Mode::Range(_) => (IdMap::Range, None),
            Mode::Single { .. } => (IdMap::Single, None),
        };
        let upper = self.store.new_layer(shape.trees.iter().map(|tree| &tree.name)).ok()?;
        let sent = self.store.lock_new(&self.store.layer(&upper)).ok().and_then(|lock| {
            let (fds, counts) = descriptors(None, &mut group, range.into_iter().collect());
            let launch = Launch {
                ahead: true,
                fds: counts,
                map,
                layers_folder: self.store.layers(),
                trees: shape.trees.clone(),
                layers: shape.layers.clone(),
                upper: upper.clone(),
                disk: None,
                inodes: None,
                mounts: Vec::new(),
                caches: 0,
                folders: Vec::new(),
                machine: Machine::default(),
                defaults: Default::default(),
                gated: false,
            };
            let (ours, theirs) = UnixStream::pair().ok()?;
            let mut all = vec![theirs.as_fd()];
            all.extend(fds.iter().map(AsFd::as_fd));
            let worker = keeper.hand(&Task::Launch(Box::new(launch)), &all).ok()?;
            Some((lock, worker, ours))
        });
        let Some((lock, worker, ours)) = sent else {
            let _ = self.store.discard(&self.store.layer(&upper));
            return None;
        };
        let folders = std::mem::take(&mut group.folders);
        Some(Ahead { upper, folders, socket: ours.into(), shape, worker, lock })
    }

    /// Ends one that is not wanted, and has what it had made thrown away.
    pub(super) fn drop_ahead(&self, ahead: Ahead) {
        let Ahead { upper, folders, socket, worker, .. } = ahead;
        drop(socket);
        let Some(keeper) = self.keeper.get() else { return };
        keeper.rest(worker);
        let paths = self.store.discard(&self.store.layer(&upper)).ok().flatten();
        let paths = paths.into_iter().collect();
        let _ = keeper.remove(&Task::Remove { paths, groups: folders, spares: None });
    }

    pub(super) fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let made = self.next().made.take();
        made.into_iter().for_each(|made| self.drop_ahead(made));
    }
}
