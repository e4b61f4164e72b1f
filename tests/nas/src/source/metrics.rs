//! `virt.instance.metrics` and `container.metrics`: what the daemon measures of each that runs.

use serde_json::{Map, Value, json};

use crate::method::engine_name;
use crate::nas::Nas;

const MIB: f64 = 1_048_576.0;

/// One round; `None` when there is nothing to tell. `before` holds the last round's counters.
pub async fn fields(nas: &Nas, before: &mut Value) -> Option<Value> {
    let rows = nas.rows.all("container");
    if nas.release.is_26() && rows.is_empty() {
        return None;
    }
    let now = nas.now();
    let mut all = Map::new();
    let mut counters = Map::new();
    for instance in running(nas).await {
        let name = instance["name"].as_str().unwrap_or_default();
        // 25.x goes by names, 26 by numbers, as text.
        let key = match nas.release.is_26() {
            false => name.to_owned(),
            true => match rows.iter().find(|r| engine_name(r) == name) {
                Some(row) => row["id"].to_string(),
                None => continue,
            },
        };
        let state = &instance["state"];
        let used = state["cpu"]["usage"].as_f64().unwrap_or(0.0);
        let last = &before[&key];
        let span = (now - last["at"].as_i64().unwrap_or(now)) as f64 * 1e6;
        let share = match last["cpu"].as_f64() {
            Some(cpu) if span > 0.0 => ((used - cpu) / span * 100.0).max(0.0),
            _ => 0.0,
        };
        counters.insert(key.clone(), json!({"at": now, "cpu": used}));
        all.insert(key, measured(state, share));
    }
    *before = counters.into();
    Some(all.into())
}

async fn running(nas: &Nas) -> Vec<Value> {
    let Some(engine) = &nas.engine else { return Vec::new() };
    let all = engine.instances().await.unwrap_or_default();
    all.into_iter().filter(|i| i["status"] == "Running").collect()
}

/// The charts of one container, with the names that the reporting gives them.
fn measured(state: &Value, share: f64) -> Value {
    let memory = |key: &str| state["memory"][key].as_f64().unwrap_or(0.0) / MIB;
    let (ram, swap) = (memory("usage"), memory("swap_usage"));
    let total = memory("total").max(ram);
    let pressure = |name: &str| {
        json!({
            format!("{name}_some_10_percentage"): 0.0, format!("{name}_some_60_percentage"): 0.0,
            format!("{name}_some_300_percentage"): 0.0,
        })
    };
    json!({
        "cpu": {"cpu_user_percentage": share, "cpu_system_percentage": 0.0},
        "mem": {
            "mem_anon_mib": ram, "mem_kernel_stack_mib": 0.0, "mem_slab_mib": 0.0, "mem_sock_mib": 0.0,
            "mem_anon_thp_mib": 0.0, "mem_file_mib": 0.0,
        },
        "mem_usage": {"mem_usage_ram_mib": ram, "mem_usage_swap_mib": swap},
        "mem_usage_limit": {"mem_usage_limit_available_mib": total - ram, "mem_usage_limit_used_mib": ram},
        "mem_utilization": {"mem_utilization_utilization_percentage": if total > 0.0 { ram / total * 100.0 } else { 0.0 }},
        "io": {"io_read_kib_s": 0.0, "io_write_kib_s": 0.0},
        "pids_current": {"pids_current_pids_pids": state["processes"].as_f64().unwrap_or(0.0)},
        "cpu_some_pressure": pressure("cpu_some_pressure"),
        "mem_some_pressure": pressure("mem_some_pressure"),
        "io_some_pressure": pressure("io_some_pressure"),
        "cpu_limit": {"cpu_limit_used_percentage": share},
    })
}
