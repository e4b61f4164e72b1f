//! The drop-in of `systemd-nspawn@NAME.service`.

use super::{Context, Prepare, Result, command, hooks, network, quote};
use crate::backend::nspawn::machine::device::Device;
use crate::backend::nspawn::machine::error::MachineError;
use crate::backend::nspawn::machine::file::Machine;
use crate::backend::nspawn::machine::nic::Network;
use crate::backend::nspawn::systemd;

/// How long systemd waits for a machine to be ready, in seconds, beside what hooks take.
const READY: u64 = 90;

/// The lines of one section.
struct Section(Vec<(String, String)>);

impl Section {
    fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }
}

/// The text of the file, without its stamp.
pub fn text(
    machine: &Machine,
    context: &Context,
    net: &network::Made,
    hooks: &hooks::Made,
    prepare: &[Prepare],
) -> Result<String> {
    let unsayable = |what: &str| MachineError::Host {
        what: format!("{what} can't be said in a unit file"),
        hint: "it may have no line breaks, no spaces at its ends, and no backslash at its end"
            .into(),
    };
    let (mut unit, mut service) = (Section(Vec::new()), Section(Vec::new()));
    if let Some(about) = &machine.description {
        let line = about.lines().next().unwrap_or_default().trim();
        unit.push("Description", quote::value(line).ok_or_else(|| unsayable("the description"))?);
    }
    let root = context.root.display().to_string();
    let needed =
        machine.binds.iter().filter(|bind| !bind.optional).map(|bind| bind.source.as_str());
    for path in [root.as_str()].into_iter().chain(needed.filter(|path| !path.starts_with("/dev"))) {
        unit.push("RequiresMountsFor", quote::plain_word(path).ok_or_else(|| unsayable(path))?);
    }
    let line = |words: &[String]| -> Result<String> {
        let words: Option<Vec<String>> = words.iter().map(|word| quote::word(word)).collect();
        Ok(words.ok_or_else(|| unsayable("a command"))?.join(" "))
    };
    // Where the machine is not where systemd looks for it, the command says so; all else is in the
    // .nspawn file.
    if context.root != machine.usual_folder() {
        let mut run = ["systemd-nspawn", "--quiet", "--keep-unit", "--boot", "--settings=override"]
            .map(str::to_owned)
            .to_vec();
        run.push(format!("--machine={}", machine.name));
        run.push(format!("--directory={root}"));
        service.push("ExecStart", "");
        service.push("ExecStart", line(&run)?);
    }
    for (name, value) in command::environment(machine) {
        let both = quote::assignment(&name, &value).ok_or_else(|| unsayable(&name))?;
        service.push("Environment", both);
    }
    if let Some(log) = &context.log {
        let log = log.display().to_string();
        let log = quote::value(&log).ok_or_else(|| unsayable(&log))?;
        service.push("StandardOutput", format!("append:{log}"));
        service.push("StandardError", format!("append:{log}"));
    }
    if machine.network == Network::Gate {
        // Sockets that reach past it, and what others could be made by.
        for property in systemd::CONFINED {
            if let Some((key, value)) = property.split_once('=') {
                service.push(key, value);
            }
        }
    }
    limits(machine, &mut service);
    let devices = machine.devices.iter().chain(&context.edits.devices);
    for device in devices {
        let node = quote::value(&device.allow).ok_or_else(|| unsayable(&device.path))?;
        service.push("DeviceAllow", format!("{node} {}", device.access));
    }
    for one in prepare {
        let optional = if one.optional { "-" } else { "" };
        service.push("ExecStartPre", format!("{optional}{}", line(&one.argv)?));
    }
    let (before, after): (Vec<_>, Vec<_>) =
        hooks.commands.iter().partition(|(key, _)| *key == "ExecStartPre");
    for (key, words) in before {
        service.push(key, line(words)?);
    }
    for words in &net.attach {
        service.push("ExecStartPost", line(words)?);
    }
    for (key, words) in after {
        service.push(key, line(words)?);
    }
    if hooks.starting > 0 {
        service.push("TimeoutStartSec", format!("{}s", READY + hooks.starting));
    }
    for setting in &machine.unit {
        let section = if setting.section == "Unit" { &mut unit } else { &mut service };
        for value in &setting.values {
            section.push(&setting.key, value);
        }
    }
    let mut text = String::new();
    for (name, section) in [("Unit", unit), ("Service", service)] {
        if section.0.is_empty() {
            continue;
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}[{name}]\n"));
        for (key, value) in section.0 {
            text.push_str(&format!("{key}={value}\n"));
        }
    }
    Ok(text)
}

/// What is done on the host before a start: root of the range has no right on a node that belongs to a group
/// of the host.
pub fn prepare(machine: &Machine, context: &Context) -> Vec<Prepare> {
    let Some(base) = context.base else { return Vec::new() };
    let devices = machine.devices.iter().chain(&context.edits.devices);
    let grant = |device: &Device| {
        let rule = format!("u:{base}:rw");
        let argv = ["/usr/bin/setfacl", "-R", "-m", &rule, &device.path].map(str::to_owned);
        // Without the program a machine starts, too, and `check` says what it can't open then.
        Prepare { optional: true, argv: argv.to_vec() }
    };
    devices.map(grant).collect()
}

fn limits(machine: &Machine, service: &mut Section) {
    let limits = &machine.limits;
    if let Some(cpu) = limits.cpu {
        service.push("CPUQuota", format!("{}%", (cpu * 100.0).round().max(1.0)));
    }
    if let Some(memory) = limits.memory {
        service.push("MemoryMax", memory.to_string());
        service.push("MemorySwapMax", "0");
    }
    if let Some(pids) = limits.pids {
        // systemd-nspawn itself is one.
        service.push("TasksMax", pids.saturating_add(1).to_string());
    }
}
