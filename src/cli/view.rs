//! Domain values as people and programs read them.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::sandbox::{
    Denied, EgressLog, Info, Limits, Snapshot, State, format_duration, format_size,
};

/// A sandbox for `--format json`: times are RFC 3339, sizes bytes.
pub fn sandbox_json(info: &Info) -> Value {
    let detail = match &info.state {
        State::Transitional(what) | State::Error(what) => Some(what),
        _ => None,
    };
    json!({
        "name": info.name,
        "state": info.state.word(),
        "state_detail": detail,
        "image": info.image,
        "fingerprint": info.fingerprint,
        "hostname": info.hostname,
        "created": timestamp(info.created),
        "used": timestamp(info.used),
        "source": info.source,
        "limits": info.limits,
        "hardware": info.hardware,
        "mounts": info.mounts,
        "caches": info.caches,
        "devices": info.devices,
        "nesting": info.nesting,
        "egress": info.egress.to_string(),
        "networks": info.networks,
        "env": info.env,
        "user": info.user,
        "cwd": info.cwd,
        "labels": info.labels,
        "owner": info.owner.as_ref().map(|owner| json!({
            "run": owner.run,
            "host": owner.host,
            "until": owner.until.map(timestamp),
        })),
        "expires": info.expires.map(timestamp),
        "addresses": info.addresses,
        "ports": info.ports,
        "member": info.member,
        "dataset": info.dataset,
        "exec": info.exec,
    })
}

/// A snapshot for `--format json`: `frozen` is seconds.
pub fn snapshot_json(snapshot: &Snapshot) -> Value {
    json!({
        "label": snapshot.label,
        "created": timestamp(snapshot.created),
        "size": snapshot.size,
        "frozen": snapshot.frozen.as_secs_f64(),
        "labels": snapshot.labels,
        "expires": snapshot.expires.map(timestamp),
    })
}

/// A log of egress for `--format json`: times are RFC 3339, `sent` and `received` bytes, `rule` what would
/// allow it.
pub fn egress_log_json(name: &str, log: &EgressLog) -> Value {
    let denied = |denied: &Denied| {
        json!({
            "host": denied.host(),
            "name": denied.name,
            "address": denied.address,
            "port": denied.port,
            "protocol": denied.protocol,
            "process": denied.process,
            "reason": denied.reason,
            "count": denied.count,
            "first": timestamp(denied.first),
            "last": timestamp(denied.last),
            "rule": denied.rule(),
        })
    };
    json!({
        "name": name,
        "refused": log.refused(),
        "denied": log.denied.iter().map(denied).collect::<Value>(),
        "carried": log.carried,
    })
}

/// RFC 3339, to the millisecond.
pub fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(stamp) => format!("{stamp:.3}"),
        Err(_) => String::new(),
    }
}

/// `5m 3s ago`.
pub fn age(time: SystemTime) -> String {
    match time.elapsed() {
        Ok(age) if age.as_secs() == 0 => "just now".into(),
        Ok(age) if age.as_secs() >= 172_800 => format!("{} days ago", age.as_secs() / 86_400),
        Ok(age) => {
            format!("{} ago", format_duration(std::time::Duration::from_secs(age.as_secs())))
        }
        Err(_) => timestamp(time),
    }
}

/// The limits that are set, in words; empty when there are none.
pub fn limits(limits: &Limits) -> String {
    let parts = [
        limits.cpu.map(|cpu| format!("cpu {cpu}")),
        limits.memory.map(|bytes| format!("memory {}", format_size(bytes))),
        limits.pids.map(|count| format!("pids {count}")),
        limits.disk.map(|bytes| format!("disk {}", format_size(bytes))),
        limits.inodes.map(|count| format!("inodes {count}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_limits() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_234);
        assert_eq!(timestamp(time), "1970-01-01T00:00:01.234Z");
        assert!(age(time).ends_with(" days ago"));
        let set = Limits { cpu: Some(0.5), memory: Some(64 << 20), ..Limits::default() };
        assert_eq!(limits(&set), "cpu 0.5, memory 64.0 MiB");
    }
}
