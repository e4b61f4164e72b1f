//! What was found out about a machine before it is worked with.

use serde::{Deserialize, Serialize};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Something can't be done because of it; the rest works.
    Poor,
    /// Nothing works because of it.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: one or two words.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// What to do, unless it is good.
    pub hint: Option<String>,
}

impl Check {
    /// All is well with it.
    pub fn good(what: impl Into<String>, says: impl Into<String>) -> Check {
        Check { what: what.into(), verdict: Verdict::Good, says: says.into(), hint: None }
    }

    /// Something is not, and what to do.
    pub fn poor(
        what: impl Into<String>,
        says: impl Into<String>,
        hint: impl Into<String>,
    ) -> Check {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        Check { what: what.into(), verdict: Verdict::Poor, says: says.into(), hint }
    }

    /// Nothing works because of it.
    pub fn bad(what: impl Into<String>, says: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { verdict: Verdict::Bad, ..Check::poor(what, says, hint) }
    }
}
