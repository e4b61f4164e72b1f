//! A value on an axis.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value on an axis. The body gets it as it was given; ids, `exclude`, `include` and filters go
/// by how it is written, so that `2` and `"2"` are the same there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AxisValue {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
}

impl AxisValue {
    /// Whether both are written alike.
    pub fn same(&self, other: &AxisValue) -> bool {
        match (self, other) {
            (AxisValue::Text(a), AxisValue::Text(b)) => a == b,
            (AxisValue::Int(a), AxisValue::Int(b)) => a == b,
            _ => self.to_string() == other.to_string(),
        }
    }
}

impl fmt::Display for AxisValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AxisValue::Bool(value) => write!(f, "{value}"),
            AxisValue::Int(value) => write!(f, "{value}"),
            // `3.0`, not `3`: as it is written in a script.
            AxisValue::Float(value) => write!(f, "{value:?}"),
            AxisValue::Text(value) => f.write_str(value),
        }
    }
}

impl From<&str> for AxisValue {
    fn from(value: &str) -> Self {
        AxisValue::Text(value.into())
    }
}

impl From<String> for AxisValue {
    fn from(value: String) -> Self {
        AxisValue::Text(value)
    }
}

impl From<i64> for AxisValue {
    fn from(value: i64) -> Self {
        AxisValue::Int(value)
    }
}

impl From<f64> for AxisValue {
    fn from(value: f64) -> Self {
        AxisValue::Float(value)
    }
}

impl From<bool> for AxisValue {
    fn from(value: bool) -> Self {
        AxisValue::Bool(value)
    }
}
