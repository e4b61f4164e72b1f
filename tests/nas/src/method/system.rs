//! `system.*`

use serde_json::{Value, json};

use super::unhandled;
use crate::dispatch::Call;
use crate::fail::Fail;

pub fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    match verb {
        "version" => Ok(format!("TrueNAS-{}", nas.release.version()).into()),
        "version_short" => Ok(nas.release.version().into()),
        "boot_id" => Ok(nas.boot_id.clone().into()),
        "ready" => Ok(true.into()),
        "state" => Ok("READY".into()),
        "id" => Ok(nas.boot_id.replace('-', "").into()),
        "info" => Ok(info(call)),
        _ => Err(unhandled(call)),
    }
}

fn info(call: &Call) -> Value {
    let nas = &call.nas;
    let machine = rustix::system::sysinfo();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = machine.uptime as i64;
    json!({
        "version": nas.release.version(), "buildtime": nas.date(1_785_571_200_000),
        "hostname": "truenas", "physmem": machine.totalram as i64 * i64::from(machine.mem_unit),
        "model": "Simulated CPU", "cores": cores, "physical_cores": cores,
        "loadavg": machine.loads.map(|l| l as f64 / 65536.0),
        "uptime": format!("{}:{:02}:{:02}.0", seconds / 3600, seconds / 60 % 60, seconds % 60),
        "uptime_seconds": seconds as f64, "system_serial": null, "system_product": "nas-sim",
        "system_product_version": null, "license": null, "boottime": nas.date(nas.booted),
        "datetime": nas.date(nas.now()), "timezone": "UTC", "system_manufacturer": null,
        "ecc_memory": false,
    })
}
