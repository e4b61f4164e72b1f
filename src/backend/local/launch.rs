//! Starting a sandbox from its record.

use std::os::fd::{AsFd, OwnedFd};

use super::Inner;
use super::ahead::Ahead;
use super::caches::Caches;
use super::mode::Mode;
use super::protocol::{Defaults, Done, IdMap, Launch, LaunchFds, Machine, Wake};
use super::record::{Record, store_error};
use super::{cgroup, disk, errors, net, range};
use crate::sandbox::{Error, Result};
use crate::transport::Link;

/// What a start leaves with the caller.
pub struct Started {
    /// As long as it is open, and until the sandbox is told to forget it, the sandbox lives.
    pub lifeline: OwnedFd,
}

impl Inner {
    /// Starts it in its cgroups and waits until it is up.
    pub(super) async fn launch(
        &self,
        record: &Record,
        mut group: cgroup::Group,
        caches: Caches,
    ) -> Result<Started> {
        let name = &record.spec.name;
        let listener = self.listen(name)?;
        let (lifeline, held) =
            std::io::pipe().map_err(|error| Error::io("opening a pipe", error))?;
        let (map, lock) = match &self.mode {
            Mode::Root => {
                let (base, lock) = range::allocate()?;
                (IdMap::Private { base }, Some(lock))
            }
            Mode::Range(_) => (IdMap::Range, None),
            Mode::Single { .. } => (IdMap::Single, None),
        };
        if let IdMap::Private { base } = map {
            group.give(base);
        }
        if record.gated {
            // Without it nothing starts.
            self.gate.revive(&self.store).await?;
        }
        let mut locks: Vec<OwnedFd> = lock.into_iter().collect();
        locks.extend(caches.locks);
        let count = caches.mounts.len();
        let mut mounts = caches.mounts;
        mounts.extend(record.spec.mounts.iter().cloned());
        let (fds, counts) = descriptors(Some((listener, lifeline.into())), &mut group, locks);
        let spec = &record.spec;
        let launch = Launch {
            ahead: false,
            fds: counts,
            map,
            layers_folder: self.store.layers(),
            trees: record.trees.clone(),
            layers: self.effective(&record.layers)?,
            upper: record.upper.clone(),
            disk: disk::wanted(&spec.limits)
                .then(|| self.store.layer(&record.upper).join(disk::IMAGE)),
            inodes: spec.limits.inodes,
            caches: count,
            folders: mounts
                .iter()
                .map(|mount| std::fs::metadata(&mount.source).is_ok_and(|found| found.is_dir()))
                .collect(),
            mounts,
            machine: machine(record),
            defaults: defaults(record),
            gated: record.gated,
        };
        let done = self.keeper().await?.launch(Box::new(launch), fds).await?;
        let started = self.started(name, done, Started { lifeline: held.into() })?;
        if record.gated {
            // On an error the lifeline closes, and the sandbox ends.
            self.gate.attach(&self.store, name, &record.spec.egress).await?;
        }
        Ok(started)
    }

    /// Tells a process 1 that was made ahead who it is, and waits until it is that.
    pub(super) async fn wake(&self, record: &Record, ahead: &Ahead) -> Result<Started> {
        let name = &record.spec.name;
        let failed = |error| Error::io(format!("starting sandbox '{name}'"), error);
        let listener = self.listen(name)?;
        let (lifeline, held) = std::io::pipe().map_err(failed)?;
        let wake = Wake { machine: machine(record), defaults: defaults(record) };
        let socket = ahead.socket.try_clone().map_err(failed)?;
        let mut link = Link::new(socket).map_err(failed)?;
        link.send(&wake, &[listener.as_fd(), lifeline.as_fd()]).await?;
        drop((listener, lifeline));
        let done = link.receive::<Done>().await?.map(|(done, _)| done);
        self.started(name, done, Started { lifeline: held.into() })
    }

    fn started(&self, name: &str, done: Option<Done>, started: Started) -> Result<Started> {
        match done {
            Some(Done::Failed(failure)) => Err(errors::from_failure(&failure, &self.mode)),
            Some(_) => Ok(started),
            None => Err(Error::internal(format!("sandbox '{name}' died while it started"))),
        }
    }

    /// A fresh control socket. The old one, if any, belongs to an init that is gone.
    fn listen(&self, name: &str) -> Result<OwnedFd> {
        let path = self.store.socket(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let folder = self.store.folder(name);
                return Err(store_error("making the control socket of", &folder, error));
            }
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&path).map_err(|error| {
            store_error("making the control socket of", &self.store.folder(name), error)
        })?;
        let failed = |error| Error::io("making the control socket", error);
        listener.set_nonblocking(true).map_err(failed)?;
        rustix::net::listen(&listener, 1024).map_err(|error| failed(error.into()))?;
        Ok(listener.into())
    }
}

/// Puts a launch's descriptors in order. `own` are the control socket and the lifeline's read end.
pub(super) fn descriptors(
    own: Option<(OwnedFd, OwnedFd)>,
    group: &mut cgroup::Group,
    locks: Vec<OwnedFd>,
) -> (Vec<OwnedFd>, LaunchFds) {
    let counts = LaunchFds {
        own: own.is_some(),
        group: group.init.len(),
        payload: group.payload.len(),
        birth: group.birth.is_some(),
        freeze: group.freeze.is_some(),
        locks: locks.len(),
    };
    let mut fds: Vec<OwnedFd> = own.into_iter().flat_map(<[OwnedFd; 2]>::from).collect();
    fds.append(&mut group.init);
    fds.append(&mut group.payload);
    for (first, second) in group.birth.take().into_iter().chain(group.freeze.take()) {
        fds.extend([first, second]);
    }
    fds.extend(locks);
    (fds, counts)
}

fn machine(record: &Record) -> Machine {
    let spec = &record.spec;
    Machine {
        hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
        id: record.machine_id.clone(),
        fresh: record.fresh,
        new: record.new,
        // The gate answers there, once there is one.
        resolv_conf: Some(format!("nameserver {}\n", net::SERVER)),
    }
}

fn defaults(record: &Record) -> Defaults {
    let spec = &record.spec;
    Defaults { env: spec.env.clone(), user: spec.user.clone(), cwd: spec.cwd.clone() }
}
