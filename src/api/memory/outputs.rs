//! What runs make on the host: no input of theirs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::transfer::{Digests, Manifest, PackOptions, Paths};

/// What was pulled out of sandboxes, as it was pulled.
#[derive(Debug, Default)]
pub(super) struct Outputs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    made: Paths,
    busy: Vec<PathBuf>,
}

impl Outputs {
    /// Notes that something is being made at `target` now. Returns the place to look at afterwards:
    /// the target, or the first folder above it that is made for it.
    pub fn begin(&self, target: &Path) -> PathBuf {
        let mut place = target;
        while let Some(parent) = place.parent().filter(|parent| !parent.exists()) {
            place = parent;
        }
        self.state().busy.push(place.to_owned());
        place.to_owned()
    }

    /// Notes that it is never an input, whatever becomes of it.
    pub fn leave_out(&self, path: &Path) {
        let mut state = self.state();
        if !state.busy.iter().any(|busy| busy == path) {
            state.busy.push(path.to_owned());
        }
    }

    /// Notes that it is made.
    pub fn end(&self, place: &Path, digests: &Digests) {
        let manifest = Manifest::of(place, &everything(), digests);
        let mut state = self.state();
        state.made.extend(manifest.paths());
        if let Some(at) = state.busy.iter().position(|busy| busy == place) {
            state.busy.remove(at);
        }
    }

    /// The tree without what runs made in it, as long as it is as they made it.
    pub fn clean(&self, manifest: Manifest) -> Manifest {
        let state = self.state();
        manifest.without(&state.made, &state.busy)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No ignore file hides what was pulled.
pub(super) fn everything() -> PackOptions {
    PackOptions { ignore_files: false, ..PackOptions::default() }
}
