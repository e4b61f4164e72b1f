//! `reporting.realtime`: this machine's processors, memory and network, and the pool.

use serde_json::{Map, Value, json};

use crate::method::{CARD, space};
use crate::nas::Nas;

/// One round. `before` holds the last round's counters.
pub fn fields(nas: &Nas, before: &mut Value) -> Value {
    let now = json!({"at": nas.now(), "cpu": processors(), "net": network(nas)});
    let seconds = (nas.now() - before["at"].as_i64().unwrap_or_default()) as f64 / 1000.0;
    let rate = |key: &str| match before["net"][key].as_f64() {
        Some(last) if seconds > 0.0 => {
            ((now["net"][key].as_f64().unwrap_or(0.0) - last) / seconds).max(0.0)
        }
        _ => 0.0,
    };
    let mut cpu = Map::new();
    for (name, spent) in now["cpu"].as_object().into_iter().flatten() {
        let last = &before["cpu"][name];
        let part = |i: usize| spent[i].as_f64().unwrap_or(0.0) - last[i].as_f64().unwrap_or(0.0);
        let usage = if part(1) > 0.0 { (part(0) / part(1) * 100.0).clamp(0.0, 100.0) } else { 0.0 };
        cpu.insert(name.clone(), json!({"usage": usage, "temp": null}));
    }
    let (received, sent) = (rate("rx"), rate("tx"));
    let (total, free) = space(nas);
    let memory = memory();
    let mut pools = Map::new();
    pools.insert(nas.zfs.pool.clone(), json!({"available": free, "used": total - free}));
    let fields = json!({
        "cpu": cpu, "pools": pools, "memory": memory, "zfs": arc(),
        "disks": {"busy": 0.0, "read_bytes": 0.0, "write_bytes": 0.0, "read_ops": 0.0, "write_ops": 0.0},
        "interfaces": {CARD: {
            "link_state": "LINK_STATE_UP", "speed": 1000, "received_bytes": received * 2.0, "sent_bytes": sent * 2.0,
            "received_bytes_rate": received, "sent_bytes_rate": sent,
        }},
    });
    *before = now;
    fields
}

/// Of all processors together and each by itself: the ticks that they worked, and all ticks.
fn processors() -> Value {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut all = Map::new();
    for line in text.lines().filter(|l| l.starts_with("cpu")) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let ticks: Vec<u64> = words.take(8).filter_map(|w| w.parse().ok()).collect();
        let total: u64 = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        all.insert(name.to_owned(), json!([total - idle, total]));
    }
    all.into()
}

fn network(nas: &Nas) -> Value {
    let card = nas.engine.as_ref().map_or("lo", |e| e.bridge.as_str());
    let count = |file: &str| -> u64 {
        let path = format!("/sys/class/net/{card}/statistics/{file}");
        std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    };
    json!({"rx": count("rx_bytes"), "tx": count("tx_bytes")})
}

fn memory() -> Value {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |key: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let available = bytes("MemAvailable:");
    json!({
        "arc_size": 0, "arc_free_memory": 0, "arc_available_memory": available,
        "physical_memory_total": bytes("MemTotal:"), "physical_memory_available": available,
    })
}

/// A cache that nobody asks.
fn arc() -> Value {
    let names = [
        "demand_accesses_per_second",
        "demand_data_accesses_per_second",
        "demand_metadata_accesses_per_second",
        "demand_data_hits_per_second",
        "demand_data_io_hits_per_second",
        "demand_data_misses_per_second",
        "demand_data_hit_percentage",
        "demand_data_io_hit_percentage",
        "demand_data_miss_percentage",
        "demand_metadata_hits_per_second",
        "demand_metadata_io_hits_per_second",
        "demand_metadata_misses_per_second",
        "demand_metadata_hit_percentage",
        "demand_metadata_io_hit_percentage",
        "demand_metadata_miss_percentage",
        "l2arc_hits_per_second",
        "l2arc_misses_per_second",
        "total_l2arc_accesses_per_second",
        "l2arc_access_hit_percentage",
        "l2arc_miss_percentage",
        "bytes_read_per_second_from_the_l2arc",
        "bytes_written_per_second_to_the_l2arc",
    ];
    names.iter().map(|n| ((*n).to_owned(), Value::from(0))).collect::<Map<_, _>>().into()
}
