//! What a sandbox may reach.

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// An egress policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Policy {
    /// Nothing but itself.
    #[default]
    None,
    /// Everything the host reaches.
    Unrestricted,
}

impl Policy {
    /// From the word a user writes.
    pub fn parse(text: &str) -> Result<Policy> {
        match text {
            "none" => Ok(Policy::None),
            "unrestricted" => Ok(Policy::Unrestricted),
            _ => Err(Error::invalid_hint(
                "egress",
                format!("'{text}' is not a policy"),
                "use \"none\" or \"unrestricted\"",
            )),
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Policy::None => "none",
            Policy::Unrestricted => "unrestricted",
        })
    }
}
