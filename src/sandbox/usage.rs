//! What a sandbox takes of the machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a sandbox has taken of the machine since it was started; what nobody measures is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The most memory it had at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processor time of all its processes; seconds when written.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "seconds")]
    pub cpu: Option<Duration>,
}

impl Usage {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Usage::default()
    }
}

mod seconds {
    use super::*;

    pub fn serialize<S: serde::Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_f64((value.as_secs_f64() * 1e6).round() / 1e6),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(serde::de::Error::custom)
    }
}
