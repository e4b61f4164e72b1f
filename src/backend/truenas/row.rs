//! Sandboxes as the NAS lists them, and what is kept of them there.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::super::guest::Record;
use crate::sandbox::{Error, Info, Kind, Result, State};

/// Before the number of each piece of a record in an environment.
const PIECE: &str = "SANDSCRIPT_RECORD_";
/// How many characters a piece may have: the NAS takes 1,024.
const LENGTH: usize = 1000;

/// A machine of the NAS that is a sandbox.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The NAS's number of it, where it has one.
    pub id: i64,
    pub name: String,
    /// Where its files are.
    pub dataset: String,
    pub state: State,
    pub addresses: Vec<String>,
    pub record: Record,
}

/// Whether a machine has this name, and is one of ours.
pub(super) enum Found {
    Ours(Box<Row>),
    Foreign,
    Nothing,
}

impl Found {
    /// The sandbox, which has to be one.
    pub fn sandbox(self, name: &str) -> Result<Row> {
        match self {
            Found::Ours(row) => Ok(*row),
            Found::Nothing => Err(Error::not_found(Kind::Sandbox, name)),
            Found::Foreign => Err(Error::not_found_hint(
                Kind::Sandbox,
                name,
                "the NAS has a machine of this name that sandscript did not make",
            )),
        }
    }
}

impl Row {
    pub fn info(self) -> Info {
        let created = self.record.created.unwrap_or(SystemTime::UNIX_EPOCH);
        let mut info = self.record.into_info(self.name, self.state, created);
        info.addresses = self.addresses;
        info.dataset = Some(self.dataset).filter(|dataset| !dataset.is_empty());
        info
    }
}

/// A record as variables of an environment, for that is what a NAS keeps of a machine and shows in
/// its list.
pub(super) fn pieces(record: &Record) -> Result<Map<String, Value>> {
    let text = serde_json::to_string(record)
        .map_err(|error| Error::internal(format!("the record can't be written: {error}")))?;
    let characters: Vec<char> = text.chars().collect();
    let piece = |(at, piece): (usize, &[char])| {
        (format!("{PIECE}{at}"), Value::from(piece.iter().collect::<String>()))
    };
    Ok(characters.chunks(LENGTH).enumerate().map(piece).collect())
}

/// The record that an environment holds, if it is a sandbox's.
pub(super) fn read(environment: &Value) -> Option<Record> {
    let pieces: BTreeMap<usize, &str> = environment
        .as_object()?
        .iter()
        .filter_map(|(name, value)| {
            Some((name.strip_prefix(PIECE)?.parse().ok()?, value.as_str()?))
        })
        .collect();
    let text: String = pieces.into_values().collect();
    serde_json::from_str(&text).ok()
}

/// A machine of 25.x.
pub(super) fn of_virt(value: &Value) -> Option<Row> {
    let aliases = value["aliases"].as_array().into_iter().flatten();
    Some(Row {
        id: 0,
        dataset: value["storage_pool"]
            .as_str()
            .map(|pool| {
                format!("{pool}/.ix-virt/containers/{}", value["name"].as_str().unwrap_or(""))
            })
            .unwrap_or_default(),
        name: value["name"].as_str()?.to_owned(),
        state: state(value["status"].as_str().unwrap_or_default()),
        addresses: aliases
            .filter_map(|alias| alias["address"].as_str().map(str::to_owned))
            .collect(),
        record: read(&value["environment"])?,
    })
}

/// A machine of 26.
pub(super) fn of_container(value: &Value) -> Option<Row> {
    Some(Row {
        id: value["id"].as_i64()?,
        dataset: value["dataset"].as_str()?.to_owned(),
        name: value["name"].as_str()?.to_owned(),
        state: state(value["status"]["state"].as_str().unwrap_or_default()),
        addresses: Vec::new(),
        record: read(&value["initenv"])?,
    })
}

fn state(word: &str) -> State {
    match word {
        "RUNNING" | "THAWED" => State::Running,
        "STOPPED" => State::Stopped,
        "FROZEN" | "SUSPENDED" => State::Frozen,
        "ERROR" => State::Error("the NAS says that it is broken".into()),
        other => State::Transitional(other.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::Spec;

    #[test]
    fn a_record_is_read_back_from_its_pieces() {
        let mut spec = Spec::new("a");
        spec.env.insert("A".into(), "ä\n".repeat(6000));
        let record = Record::new(&spec, "debian/12".into(), "f".into());
        let pieces = pieces(&record).unwrap();
        assert!(pieces.len() > 10);
        for (name, value) in &pieces {
            let text = value.as_str().unwrap();
            assert!(text.chars().count() <= 1024 && !text.contains('\n'));
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        }
        let mut environment = Value::Object(pieces);
        environment["TZ"] = "UTC".into();
        assert_eq!(read(&environment), Some(record.clone()));
        let row = json!({"name": "a", "status": "RUNNING", "environment": environment,
            "aliases": [{"type": "INET", "address": "10.0.0.2", "netmask": 24}]});
        let row = of_virt(&row).unwrap();
        assert_eq!((row.state.clone(), row.addresses[0].as_str()), (State::Running, "10.0.0.2"));
        assert!(of_virt(&json!({"name": "a", "environment": {"TZ": "UTC"}})).is_none());
        assert!(
            of_virt(&json!({"name": "a", "environment": {"SANDSCRIPT_RECORD_0": "{"}})).is_none()
        );
    }
}
