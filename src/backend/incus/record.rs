//! What sandscript knows of a sandbox, kept with the instance itself: any machine can read it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

pub(super) use crate::backend::guest::{Record, token};
use crate::sandbox::{Error, Info, Result, Snapshot, State};

/// The key that says that an instance is a sandbox of ours, and everything of it.
pub(super) const RECORD: &str = "user.sandscript.record";
/// The run that owns it, for people who look.
const RUN: &str = "user.sandscript.run";
/// The key that says that an instance has, or had, snapshots that go when their time is over.
pub(super) const EXPIRING: &str = "user.sandscript.expiring";
/// Before a snapshot's label: the labels of that snapshot.
const SNAPSHOT: &str = "user.sandscript.snapshot.";

impl Record {
    /// What an instance's configuration says, if it is a sandbox.
    pub fn read(instance: &Value) -> Option<Record> {
        serde_json::from_str(instance["config"][RECORD].as_str()?).ok()
    }

    /// As keys of an instance's configuration. A key without a value takes an older one away.
    pub fn keys(&self) -> Result<Map<String, Value>> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal(format!("the record can't be written: {error}")))?;
        let run = self.owner.as_ref().map_or("", |owner| &owner.run);
        let mut keys = Map::new();
        keys.insert(RECORD.into(), text.into());
        keys.insert(RUN.into(), run.into());
        let limits = &self.limits;
        let text = |value: Option<String>| Value::String(value.unwrap_or_default());
        keys.insert(
            "limits.cpu.allowance".into(),
            text(
                limits.cpu.map(|cpu| format!("{}ms/100ms", ((cpu * 100.0).round() as u64).max(1))),
            ),
        );
        keys.insert("limits.memory".into(), text(limits.memory.map(|bytes| bytes.to_string())));
        keys.insert("limits.memory.swap".into(), text(limits.memory.map(|_| "false".to_owned())));
        keys.insert("limits.processes".into(), text(limits.pids.map(|count| count.to_string())));
        Ok(keys)
    }

    /// The sandbox as the server's answer has it.
    pub fn info(self, instance: &Value) -> Info {
        let created = time(&instance["created_at"]).unwrap_or(SystemTime::UNIX_EPOCH);
        let used = time(&instance["last_used_at"]).unwrap_or(created).max(created);
        let name = instance["name"].as_str().unwrap_or_default().to_owned();
        let mut info = self.into_info(name, state(instance), created);
        info.used = used;
        if matches!(info.state, State::Running | State::Frozen) {
            info.ports = super::ports::of(instance);
        }
        info.addresses = addresses(&instance["state"]);
        info.member = instance["location"].as_str().filter(|at| *at != "none").map(str::to_owned);
        info
    }
}

/// A time as the server writes it.
pub(super) fn time(value: &Value) -> Option<SystemTime> {
    let stamp: jiff::Timestamp = value.as_str()?.parse().ok()?;
    (stamp.as_second() > 0).then(|| stamp.into())
}

/// The state that an instance is in.
pub(super) fn state(instance: &Value) -> State {
    let word = instance["status"].as_str().unwrap_or_default();
    match instance["status_code"].as_u64() {
        Some(102) => State::Stopped,
        Some(103 | 113) => State::Running,
        Some(110) => State::Frozen,
        Some(112) => State::Error("the server says that it is broken".into()),
        _ => State::Transitional(word.to_lowercase()),
    }
}

/// The addresses of a running instance that others can reach.
fn addresses(state: &Value) -> Vec<String> {
    let networks = state["network"].as_object().into_iter().flatten();
    let all = networks
        .filter(|(name, _)| *name != "lo")
        .flat_map(|(_, network)| network["addresses"].as_array().into_iter().flatten());
    all.filter(|address| address["scope"] == "global")
        .filter_map(|address| address["address"].as_str().map(str::to_owned))
        .collect()
}

/// The key of a snapshot's labels.
pub(super) fn snapshot_key(label: &str) -> String {
    format!("{SNAPSHOT}{label}")
}

/// Keys of snapshots' labels in an instance's configuration, each without a value.
pub(super) fn without_snapshots(instance: &Value) -> Map<String, Value> {
    let keys = instance["config"].as_object().into_iter().flatten();
    keys.filter(|(key, _)| key.starts_with(SNAPSHOT))
        .map(|(key, _)| (key.clone(), json!("")))
        .collect()
}

/// A snapshot as the server's answer has it.
pub(super) fn snapshot(value: &Value) -> Snapshot {
    let name = value["name"].as_str().unwrap_or_default();
    let label = name.rsplit('/').next().unwrap_or_default().to_owned();
    let labels = value["config"][snapshot_key(&label)].as_str().unwrap_or_default();
    Snapshot {
        created: time(&value["created_at"]).unwrap_or(SystemTime::UNIX_EPOCH),
        size: value["size"].as_u64().unwrap_or_default(),
        frozen: std::time::Duration::ZERO,
        labels: serde_json::from_str(labels).unwrap_or_default(),
        expires: time(&value["expires_at"]),
        label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Limits, Owner, Spec};

    #[test]
    fn a_record_is_read_back() {
        let mut spec = Spec::new("a");
        spec.env.insert("A".into(), "ä\n".into());
        spec.limits = Limits { cpu: Some(0.5), memory: Some(64 << 20), ..Limits::default() };
        spec.owner = Some(Owner::new("r1", "here"));
        let record = Record::new(&spec, "debian/12".into(), "f".into());
        let keys = record.keys().unwrap();
        assert_eq!(keys["limits.cpu.allowance"], "50ms/100ms");
        assert_eq!(
            (&keys["limits.memory"], &keys["limits.processes"]),
            (&json!("67108864"), &json!(""))
        );
        assert_eq!(keys["user.sandscript.run"], "r1");
        let instance = json!({"name": "a", "config": keys, "status_code": 110,
            "created_at": "2026-11-22T15:44:08.636187718Z", "last_used_at": "1970-01-01T00:00:00Z"});
        assert_eq!(Record::read(&instance), Some(record.clone()));
        let info = record.info(&instance);
        assert_eq!((info.state, info.used), (State::Frozen, info.created));
        assert_eq!(Record::read(&json!({"config": {}})), None);
    }
}
