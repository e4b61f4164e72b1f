//! Sandboxes that are made ahead, for whoever comes first.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Info, Owner, State};

/// The label of a sandbox that was made ahead: what it was made for. It is ready to be taken while
/// nobody owns it.
pub const POOL_LABEL: &str = "sandscript.pool";

/// What becomes of a sandbox that was made ahead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Adoption {
    /// What it must have been made for.
    pub pool: String,
    /// Whose it is from now on.
    pub owner: Option<Owner>,
    /// Its labels, all of them.
    pub labels: BTreeMap<String, String>,
    /// When `gc` may take it.
    pub expires: Option<SystemTime>,
}

impl Adoption {
    /// Whether a sandbox can be taken: it runs, is nobody's, and was made for this.
    pub fn fits(&self, info: &Info) -> bool {
        self.fits_state(&info.state)
            && self.fits_labels(&info.labels, info.owner.as_ref(), info.expires)
    }

    /// Whether one can be taken that is in this state.
    pub(crate) fn fits_state(&self, state: &State) -> bool {
        *state == State::Running
    }

    /// Whether one can be taken with this owner and labels.
    pub(crate) fn fits_labels(
        &self,
        labels: &BTreeMap<String, String>,
        owner: Option<&Owner>,
        expires: Option<SystemTime>,
    ) -> bool {
        let now = super::wall_clock();
        labels.get(POOL_LABEL) == Some(&self.pool)
            && owner.is_none()
            && expires.is_none_or(|end| end > now)
    }
}
