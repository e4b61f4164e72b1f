//! A machine as settings of systemd-nspawn.

use super::network::Made;
use super::{Context, Result};
use crate::backend::nspawn::machine::bind::Bind;
use crate::backend::nspawn::machine::file::Machine;
use crate::backend::nspawn::machine::native::Settings;
use crate::backend::nspawn::machine::nic::Network;
use crate::backend::nspawn::machine::resolv::Resolv;
use crate::backend::nspawn::machine::security::Seccomp;
use crate::backend::nspawn::machine::users::Ownership;

/// What the machine says, then what it passes through.
pub fn make(machine: &Machine, context: &Context, net: &Made) -> Result<Settings> {
    let mut all = Settings::default();
    all.set("Exec", "Boot", true);
    for (name, value) in machine.env.iter().chain(&context.edits.env) {
        all.add("Exec", "Environment", format!("{name}={value}"));
    }
    security(machine, &mut all);
    users(machine, context, &mut all);
    all.set("Exec", "NotifyReady", true);
    if let Some(hostname) = &machine.hostname {
        all.add("Exec", "Hostname", hostname);
    }
    let resolv = match machine.network == Network::Gate && machine.resolv == Resolv::default() {
        // Whom it asks is said from inside.
        true => "off",
        false => machine.resolv.native(),
    };
    all.add("Exec", "ResolvConf", resolv);
    all.add("Exec", "LinkJournal", "try-guest");
    let namespace = machine.users.namespace;
    let mut bind = |bind: &Bind| {
        let key = if bind.readonly { "BindReadOnly" } else { "Bind" };
        all.add("Files", key, bind.native(namespace));
    };
    machine.binds.iter().for_each(&mut bind);
    for device in machine.devices.iter().chain(&context.edits.devices) {
        bind(&Bind { optional: device.optional, ..Bind::new(&device.path, &device.path) });
    }
    context.edits.binds.iter().for_each(&mut bind);
    for (source, target) in &net.binds {
        let source = source.display().to_string();
        bind(&Bind { readonly: true, ..Bind::new(source, target) });
    }
    network(machine, net, &mut all);
    for setting in machine.nspawn.iter() {
        for value in &setting.values {
            all.add(&setting.section, &setting.key, value);
        }
    }
    Ok(all)
}

fn security(machine: &Machine, all: &mut Settings) {
    let security = &machine.security;
    if security.privileged {
        all.add("Exec", "Capability", "all");
    }
    for name in &security.add {
        all.add("Exec", "Capability", name);
    }
    for name in &security.drop {
        all.add("Exec", "DropCapability", name);
    }
    if security.no_new_privileges {
        all.set("Exec", "NoNewPrivileges", true);
    }
    if security.seccomp != Seccomp::None {
        let allow = security.seccomp.calls().iter().copied();
        let allow: Vec<&str> = allow.chain(security.allow.iter().map(String::as_str)).collect();
        if !allow.is_empty() {
            all.add("Exec", "SystemCallFilter", allow.join(" "));
        }
        if !security.deny.is_empty() {
            all.add("Exec", "SystemCallFilter", format!("~{}", security.deny.join(" ")));
        }
    }
}

fn users(machine: &Machine, context: &Context, all: &mut Settings) {
    let users = &machine.users;
    let base = context.base.or(users.base).filter(|_| users.namespace);
    let Some(base) = base else {
        all.set("Exec", "PrivateUsers", false);
        return;
    };
    all.add("Exec", "PrivateUsers", format!("{base}:{}", users.size));
    // Said in full: without it some releases of systemd give every file to the range.
    let word = match users.ownership {
        Ownership::Auto => Ownership::Map.word(),
        other => other.word(),
    };
    all.add("Files", "PrivateUsersOwnership", word);
}

fn network(machine: &Machine, net: &Made, all: &mut Settings) {
    if machine.network == Network::Host {
        // In full, too: the unit that comes with systemd makes a pair of cables by itself.
        all.set("Network", "Private", false);
        all.set("Network", "VirtualEthernet", false);
        return;
    }
    all.set("Network", "Private", true);
    all.set("Network", "VirtualEthernet", net.veth);
    for (key, value) in &net.settings {
        all.add("Network", key, value);
    }
}
