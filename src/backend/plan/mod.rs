//! A backend that makes nothing: it reads from a real one, and keeps in memory what would be made.
//!
//! What is there is seen as it is: capabilities, images, sandboxes, snapshots, and so which steps
//! are cached. Everything else happens to twins in memory. Commands are not run: each succeeds at
//! once and prints nothing, so what a script learns from one is made up. The files of a twin are
//! those that the script wrote; one that a command would have made reads as empty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sandbox::{
    Backend, CacheMount, Cancel, Capability, Error, Info, Kind, Result, Snapshot, SnapshotSpec,
    Spec, State, StopOptions,
};

use super::fake::FakeBackend;

mod backend;
mod process;

/// Plans over another backend.
pub struct PlanBackend {
    real: Arc<dyn Backend>,
    /// States, files and new snapshots of the twins.
    memory: FakeBackend,
    twins: Mutex<BTreeMap<String, Place>>,
}

/// What has become of a name.
enum Place {
    Twin(Box<Twin>),
    Deleted,
}

/// What the memory does not know about a twin.
struct Twin {
    info: Info,
    /// Of its snapshots those that are real.
    real: Vec<Snapshot>,
}

impl PlanBackend {
    /// A plan over `real`, of which it only reads.
    pub fn new(real: Arc<dyn Backend>) -> Self {
        PlanBackend { real, memory: FakeBackend::new(), twins: Mutex::default() }
    }

    fn twins(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, info: Info, real: Vec<Snapshot>) {
        self.twins().insert(info.name.clone(), Place::Twin(Box::new(Twin { info, real })));
    }

    /// The twin as it would be described; none when the name is not one's.
    fn described(&self, name: &str) -> Result<Option<Info>> {
        match self.twins().get(name) {
            Some(Place::Twin(twin)) => Ok(Some(twin.info.clone())),
            Some(Place::Deleted) => Err(Error::not_found(Kind::Sandbox, name)),
            None => Ok(None),
        }
    }

    /// A twin as the memory has it now.
    async fn now(&self, info: Info, cancel: &Cancel) -> Result<Info> {
        let Info { state, ports, .. } = self.memory.get(&info.name, cancel).await?;
        Ok(Info { state, ports, ..info })
    }

    /// A real sandbox, as one that nobody builds in: the script would wait for who does.
    async fn seen(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        let mut info = self.real.get(name, cancel).await?;
        info.owner = None;
        if matches!(info.state, State::Transitional(_)) {
            info.state = State::Stopped;
        }
        Ok(info)
    }

    /// Fails where the real backend has no caches. None is waited for: nothing is put into one.
    fn can_cache(&self, caches: &[CacheMount]) -> Result<()> {
        match caches {
            [] => Ok(()),
            _ => self.real.capabilities().require(Capability::Caches),
        }
    }

    /// Fails when a real sandbox has the name.
    async fn free(&self, name: &str, cancel: &Cancel) -> Result<()> {
        if self.twins().contains_key(name) {
            return Ok(());
        }
        match self.real.get(name, cancel).await {
            Ok(_) => Err(Error::exists(Kind::Sandbox, name)),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a twin of a real sandbox before something is done to it.
    async fn twin(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        if let Some(info) = self.described(name)? {
            return Ok(info);
        }
        let info = self.seen(name, cancel).await?;
        let real = self.real.snapshots(name, cancel).await?;
        match self.memory.create(&Spec::new(name), cancel).await {
            Ok(_) => {}
            // Somebody else makes it at the same time.
            Err(Error::AlreadyExists { .. } | Error::Busy { .. }) => return Ok(info),
            Err(error) => return Err(error),
        }
        for snapshot in &real {
            self.memory.snapshot(name, &SnapshotSpec::new(&snapshot.label), cancel).await?;
        }
        match info.state {
            State::Running => {}
            State::Frozen => self.memory.freeze(name, cancel).await?,
            _ => self.memory.stop(name, StopOptions::default(), cancel).await?,
        }
        self.remember(info.clone(), real);
        Ok(info)
    }
}

/// What is said about a file that is not there: a command may have made it.
fn unknown(error: &Error) -> bool {
    matches!(error, Error::NotFound { kind: Kind::File, .. })
}
