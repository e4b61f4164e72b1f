//! `capabilities.toml`: what each rig must be able to do, and what it may lack.

use std::collections::BTreeMap;

use sandscript::sandbox::{Capabilities, Capability};
use serde::Deserialize;

const TABLE: &str = include_str!("capabilities.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Must be there.
    has: Vec<Capability>,
    /// Can't be there, and why.
    #[serde(default)]
    lacks: BTreeMap<Capability, String>,
    /// May be there, and what decides.
    #[serde(default)]
    depends: BTreeMap<Capability, String>,
}

/// Compares what a backend declares with its row.
pub fn check(rig: &str, declared: &Capabilities) -> Result<(), String> {
    let mut table: BTreeMap<String, Row> =
        toml::from_str(TABLE).map_err(|error| format!("capabilities.toml: {error}"))?;
    // What a session keeps open can do the same.
    let rig = rig.strip_prefix("session/").unwrap_or(rig);
    // Whoever keeps the machines, they can do the same.
    let rig = if rig.starts_with("nspawn/") { "nspawn" } else { rig };
    // Which way commands go makes no difference here.
    let rig = if rig == "truenas/ssh" { "truenas/25.10" } else { rig };
    let row = table.remove(rig).ok_or_else(|| format!("capabilities.toml has no [\"{rig}\"]"))?;
    let mut wrong = Vec::new();
    for capability in Capability::ALL {
        let rows = [
            row.has.contains(capability),
            row.lacks.contains_key(capability),
            row.depends.contains_key(capability),
        ];
        let there = declared.has(*capability);
        if rows.iter().filter(|row| **row).count() != 1 {
            wrong.push(format!("{capability} must stand in exactly one of has, lacks and depends"));
        } else if rows[0] && !there {
            let hint = declared.missing.get(capability).cloned().unwrap_or_default();
            wrong.push(format!("{capability} must be there, but: {hint}"));
        } else if rows[1] && there {
            wrong.push(format!("{capability} is there, but the table says it can't be"));
        }
        match declared.missing.get(capability) {
            Some(_) if there => wrong.push(format!("{capability} is declared and missing at once")),
            None if !there => wrong.push(format!("{capability} is missing without a reason")),
            Some(hint) if hint.is_empty() => {
                wrong.push(format!("{capability} is missing for an empty reason"));
            }
            _ => {}
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
