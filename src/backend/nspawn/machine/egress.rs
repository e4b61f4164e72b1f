//! `egress`: what a machine behind the gate may reach, as a script says it.

use super::error::Result;
use super::reader::{Reader, domain, text};
use super::tree::{Node, Value};
use crate::egress::Asked;

/// Reads a word, a list of rules, or a table with `preset`, `allow` and `deny`.
pub(super) fn read(node: &Node) -> Result<Asked> {
    let asked = match &node.value {
        Value::List(list) => Asked::list(list.iter().map(text).collect::<Result<Vec<_>>>()?),
        Value::Table(_) => {
            let reader = Reader::new(node)?;
            let preset = reader.text("preset")?;
            let (allow, deny) = (reader.texts("allow")?, reader.texts("deny")?);
            reader.finish()?;
            Asked::merged(preset.as_deref(), allow, deny)
        }
        _ => Asked::word(&text(node)?),
    };
    asked.map_err(|error| domain(node, &error))
}
