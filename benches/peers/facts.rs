//! The machine it was measured on.

use std::fs::read_to_string;

/// Date, kernel, processor, memory, cgroups, user.
pub fn facts() -> String {
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let total: u64 = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok()
        })
        .unwrap_or_default();
    let cgroups = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if std::path::Path::new("/sys/fs/cgroup/unified").exists() {
        "hybrid"
    } else {
        "v1"
    };
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let user = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let busy = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or_default();
    let busy = match busy > 1.5 * cores as f64 {
        true => "The machine was busy with other work: times are inflated, ratios less so.\n",
        false => "",
    };
    format!(
        "{}, sandscript {}, as {user}; Linux {}, {}, {cores} cores, {} GiB, cgroups {cgroups}, load {}.\n{busy}",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        env!("CARGO_PKG_VERSION"),
        rustix::system::uname().release().to_string_lossy().split('-').next().unwrap_or_default(),
        model.map_or("unknown processor", |(_, name)| name),
        total >> 20,
        load.split(' ').next().unwrap_or_default(),
    )
}
