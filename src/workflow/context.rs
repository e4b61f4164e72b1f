//! What a run is, for everything that is done in it.

use std::fs::DirBuilder;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sandbox::{Backend, Cancel, Error, Owner, Result};

use super::{EventSink, Pin, Pins};

/// What becomes of the sandbox of a cell that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFail {
    /// It is deleted, like all others.
    #[default]
    Clean,
    /// It is kept with a snapshot of the state it failed in, stopped, until it expires.
    Keep,
    /// It is left running with such a snapshot, for whoever deletes it.
    Shell,
}

/// A backend that is open, beside the one that the run began with.
#[derive(Clone)]
pub struct Machine {
    /// What it is called: `local`, `incus@nas`.
    pub name: String,
    /// The backend.
    pub backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Machine").field(&self.name).finish()
    }
}

/// One run of a script: where it runs, who owns what it makes, and how it is told to stop.
///
/// Clones share everything but the fields that were changed on them.
#[derive(Clone)]
pub struct RunContext {
    /// Where sandboxes are made.
    pub backend: Arc<dyn Backend>,
    /// What that backend is called, where it is not the one that the run began with.
    pub place: Option<String>,
    /// Id of the run.
    pub run: String,
    /// Who owns the sandboxes it makes.
    pub owner: Owner,
    /// Ends the run: no new cells, running ones are cancelled, everything is cleaned up.
    pub cancel: Cancel,
    /// Where everything that happens is told.
    pub events: EventSink,
    /// Keep what would be deleted: the sandboxes of cells that did not pass.
    pub keep: bool,
    /// What becomes of the sandboxes of cells that failed.
    pub on_fail: OnFail,
    /// The folder that cells' artifacts are copied to; nowhere without one.
    pub artifacts: Option<PathBuf>,
    /// The folder that scripts may read host files from.
    pub project: PathBuf,
    /// Folders outside of it that they may read, too.
    pub allowed: Vec<PathBuf>,
    /// Where the host keeps what it fetched for steps, and the folders of caches. Without one it is
    /// a folder of this user among the temporary files.
    pub cache: Option<PathBuf>,
    /// Tell of each step of a base what its key is and what changed in it.
    pub explain: bool,
    /// What images have to be.
    pub pins: Option<Arc<Pins>>,
}

impl RunContext {
    /// A context that keeps nothing and allows the project folder only. The run's id is the owner's.
    pub fn new(
        backend: Arc<dyn Backend>,
        owner: Owner,
        events: EventSink,
        project: impl Into<PathBuf>,
    ) -> Self {
        RunContext {
            backend,
            place: None,
            run: owner.run.clone(),
            owner,
            cancel: Cancel::new(),
            events,
            keep: false,
            on_fail: OnFail::Clean,
            artifacts: None,
            project: project.into(),
            allowed: Vec::new(),
            cache: None,
            explain: false,
            pins: None,
        }
    }

    /// The same run on another backend.
    pub fn on(&self, machine: &Machine) -> RunContext {
        RunContext {
            backend: Arc::clone(&machine.backend),
            place: Some(machine.name.clone()),
            ..self.clone()
        }
    }

    /// What something of this name is called in reports: with the backend in front, where that is not
    /// the one that the run began with.
    pub fn shown(&self, name: &str) -> String {
        match &self.place {
            Some(place) => format!("{place}:{name}"),
            None => name.to_owned(),
        }
    }

    /// What an image is now, held against the lock file where there is one. Without a name it is the
    /// backend's default image.
    pub async fn fingerprint(&self, image: Option<&str>, sha256: Option<&str>) -> Result<String> {
        let backend = self.backend.as_ref();
        let image = image.unwrap_or(&backend.capabilities().default_image);
        let fingerprint = backend.fingerprint(image, sha256, &self.cancel).await?;
        if let Some(pins) = &self.pins {
            let pin = Pin {
                backend: backend.capabilities().backend.clone(),
                image: image.to_owned(),
                sha256: sha256.map(str::to_owned),
                fingerprint: fingerprint.clone(),
            };
            pins.check(pin, &self.events)?;
        }
        Ok(fingerprint)
    }

    /// Holds an image that a sandbox is about to be made from against the lock file, once a run.
    pub async fn check_image(&self, image: Option<&str>, sha256: Option<&str>) -> Result<()> {
        let Some(pins) = &self.pins else { return Ok(()) };
        let named = image.unwrap_or(&self.backend.capabilities().default_image);
        if pins.knows(named, sha256) {
            return Ok(());
        }
        self.fingerprint(image, sha256).await.map(drop)
    }

    /// A folder of the host for what this run and others keep, which nobody else may enter.
    pub fn host_folder(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let user = rustix::process::geteuid().as_raw();
        let root = match &self.cache {
            Some(root) => root.clone(),
            None => std::env::temp_dir().join(format!("sandscript-{user}")),
        };
        let failed = |error: std::io::Error| {
            Error::internal(format!("the folder {} can't be used: {error}", root.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed)?;
        let found = std::fs::symlink_metadata(&root).map_err(failed)?;
        if self.cache.is_none() && (!found.is_dir() || found.uid() != user) {
            return Err(Error::Permission { what: format!("{} is not yours", root.display()) });
        }
        let folder = root.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        Ok(folder)
    }
}

impl std::fmt::Debug for RunContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunContext")
            .field("run", &self.run)
            .field("backend", &self.backend.capabilities().backend)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}
