//! `autostart`: whether and in which order machines start with the host.

use std::time::Duration;

use super::error::Result;
use super::reader::Reader;
use super::tree::{Node, Value};

/// That the machine starts with the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Autostart {
    /// Lower ones first; equal ones at once.
    pub order: i64,
    /// What is waited before the next order begins.
    pub delay: Duration,
}

/// Reads `true`, `false`, or a table.
pub(super) fn read(node: &Node) -> Result<Option<Autostart>> {
    if !matches!(node.value, Value::Table(_)) {
        return Ok(super::reader::flag(node)?.then(Autostart::default));
    }
    let reader = Reader::new(node)?;
    let order = reader.count("order")?.unwrap_or_default();
    let delay = reader.duration("delay")?.unwrap_or_default();
    reader.finish()?;
    Ok(Some(Autostart { order: order.try_into().unwrap_or(i64::MAX), delay }))
}
