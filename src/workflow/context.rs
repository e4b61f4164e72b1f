//! What a run is, for everything that is done in it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::sandbox::{Backend, Cancel, Owner};

use super::EventSink;

/// One run of a script: where it runs, who owns what it makes, and how it is told to stop.
///
/// Clones share everything but the fields that were changed on them.
#[derive(Clone)]
pub struct RunContext {
    /// Where sandboxes are made.
    pub backend: Arc<dyn Backend>,
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
    /// The folder that scripts may read host files from.
    pub project: PathBuf,
    /// Folders outside of it that they may read, too.
    pub allowed: Vec<PathBuf>,
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
            run: owner.run.clone(),
            owner,
            cancel: Cancel::new(),
            events,
            keep: false,
            project: project.into(),
            allowed: Vec::new(),
        }
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
