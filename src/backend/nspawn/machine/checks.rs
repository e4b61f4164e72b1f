//! What a machine needs of its host, and whether the host has it: looked at before a start, so that one
//! that can't work says why.

use super::bind::Bind;
use super::cdi;
use super::file::Machine;
use super::gpu::{Gpu, Vendor};
use super::hook::{When, Where};
use super::host::Host;
use super::image::Image;
use super::needs::Sysctl;
use super::nic::{Link, Network};
use super::resolv::{Resolv, is_stub};
use crate::sandbox::Check;

/// How many inotify instances a machine with systemd takes (measured: 8, Debian 12).
const INSTANCES: u64 = 8;
/// How many of them a host should have.
const ENOUGH: u64 = 1024;

/// Looks at all that the machine needs, in the order in which a start would meet it.
pub fn checks(machine: &Machine, host: &dyn Host) -> Vec<Check> {
    let mut all = vec![program(host)];
    all.extend(machine.users.namespace.then(|| namespaces(host)));
    all.extend(machine.needs.cgroup2.then(|| cgroups(host)));
    all.push(inotify(host));
    all.extend(root(machine, host));
    all.extend(interfaces(machine, host));
    all.extend(machine.needs.modules.iter().map(|name| module(name, host)));
    all.extend(machine.needs.sysctls.iter().map(|sysctl| setting(sysctl, host)));
    all.extend(names(machine, host));
    all.extend(binds(machine, host));
    all.extend(devices(machine, host));
    all.extend(cards(machine, host));
    all
}

fn program(host: &dyn Host) -> Check {
    let said = host.output(&["systemd-nspawn", "--version"]);
    match said.as_deref().and_then(|text| text.lines().next()) {
        Some(version) => Check::good("systemd-nspawn", version),
        None => Check::bad(
            "systemd-nspawn",
            "the host does not have it",
            "install it: apt install systemd-container, dnf install systemd-container",
        ),
    }
}

fn namespaces(host: &dyn Host) -> Check {
    let most = number(host, "/proc/sys/user/max_user_namespaces");
    match most {
        Some(0) => Check::bad(
            "user ids",
            "the host makes no user namespaces",
            "sysctl -w user.max_user_namespaces=65536",
        ),
        _ => Check::good("user ids", "a range of its own"),
    }
}

fn cgroups(host: &dyn Host) -> Check {
    if host.exists("/sys/fs/cgroup/cgroup.controllers") {
        Check::good("control groups", "unified")
    } else {
        Check::poor(
            "control groups",
            "the host's are not unified, and containers in the machine can't limit anything",
            "boot the host with systemd.unified_cgroup_hierarchy=1",
        )
    }
}

/// Whether there are inotify instances for more than a few machines: without one, programs in them say
/// "too many open files".
pub fn inotify(host: &dyn Host) -> Check {
    let what = "inotify";
    let Some(most) = number(host, "/proc/sys/fs/inotify/max_user_instances") else {
        return Check::poor(what, "how many instances there may be can't be read", "");
    };
    let machines = most / INSTANCES;
    let says = format!("{most} instances: enough for about {machines} machines");
    if most >= ENOUGH {
        return Check::good(what, says);
    }
    Check::poor(
        what,
        says,
        format!(
            "sysctl -w fs.inotify.max_user_instances={ENOUGH}; to keep it: echo fs.inotify.max_user_instances={ENOUGH} > /etc/sysctl.d/60-inotify.conf"
        ),
    )
}

fn root(machine: &Machine, host: &dyn Host) -> Option<Check> {
    let Some(Image::Folder(folder)) = &machine.image else { return None };
    let path = folder.display().to_string();
    Some(if host.exists_inside(folder, "usr") {
        Check::good("root file system", path)
    } else {
        let says = format!("there is none in {path}");
        Check::bad("root file system", says, "say where it is: image = { folder = \"…\" }")
    })
}

fn interfaces(machine: &Machine, host: &dyn Host) -> Vec<Check> {
    let Network::Own(nics) = &machine.network else { return Vec::new() };
    let mut all = Vec::new();
    for nic in nics {
        let (kind, name, path, hint) = match &nic.link {
            Link::Bridge(name) => (
                "bridge",
                name,
                format!("/sys/class/net/{name}/bridge"),
                format!("ip link add {name} type bridge && ip link set {name} up; or name another"),
            ),
            Link::Macvlan(name) | Link::Ipvlan(name) | Link::Interface(name) => (
                "interface",
                name,
                format!("/sys/class/net/{name}"),
                format!("there are: {}", host.list("/sys/class/net").join(", ")),
            ),
            Link::Veth | Link::Zone(_) => continue,
        };
        let what = format!("{kind} {name}");
        all.push(if host.exists(&path) {
            Check::good(what, "is there")
        } else if host.exists(&format!("/sys/class/net/{name}")) {
            Check::bad(
                what,
                format!("{name} is there, and is no bridge"),
                "name a bridge, or say macvlan",
            )
        } else {
            Check::bad(what, format!("the host has no {kind} {name}"), hint)
        });
    }
    all
}

/// Whether the kernel has a part: loaded, built in, or to be loaded.
fn module(name: &str, host: &dyn Host) -> Check {
    let what = format!("module {name}");
    let under = name.replace('-', "_");
    let file_system = host.read("/proc/filesystems").unwrap_or_default();
    let is_file_system =
        file_system.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
    if host.exists(&format!("/sys/module/{under}")) || is_file_system {
        return Check::good(what, "is loaded");
    }
    let release = host.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = format!("/lib/modules/{}", release.trim());
    let lists = |file: &str| {
        let list = host.read(&format!("{folder}/{file}"))?;
        let named = |path: &str| {
            let base = path.rsplit('/').next().unwrap_or(path);
            base.split('.').next().is_some_and(|base| base.replace('-', "_") == under)
        };
        Some(list.lines().any(|line| named(line.split(':').next().unwrap_or(line))))
    };
    match (lists("modules.builtin"), lists("modules.dep")) {
        (Some(true), _) => Check::good(what, "is part of the kernel"),
        (_, Some(true)) => Check::poor(
            what,
            "is not loaded",
            format!("modprobe {name}; to keep it: echo {name} > /etc/modules-load.d/{name}.conf"),
        ),
        (Some(false), _) => Check::poor(
            what,
            "the kernel does not have it",
            "boot another kernel, or leave it out of needs.modules",
        ),
        (None, _) => Check::poor(
            what,
            format!("whether the kernel has it can't be told: {folder} is not there"),
            "",
        ),
    }
}

fn setting(sysctl: &Sysctl, host: &dyn Host) -> Check {
    let path = format!("/proc/sys/{}", sysctl.key.replace('.', "/"));
    let command = format!(
        "{}; to keep it: echo {}={} >> /etc/sysctl.d/60-machines.conf",
        sysctl.command(),
        sysctl.key,
        sysctl.value
    );
    let what = sysctl.key.clone();
    let Some(found) = host.read(&path) else {
        let bridge = sysctl.key.starts_with("net.bridge.");
        let first = if bridge { "modprobe br_netfilter, then " } else { "" };
        return Check::poor(what, "the kernel does not have it now", format!("{first}{command}"));
    };
    let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
    let enough = match (sysctl.at_least, found.parse::<u64>(), sysctl.value.parse::<u64>()) {
        (true, Ok(found), Ok(least)) => found >= least,
        _ => found == sysctl.value,
    };
    if enough {
        return Check::good(what, found);
    }
    let sign = if sysctl.at_least { " or more" } else { "" };
    Check::poor(what, format!("is {found}, and is to be {}{sign}", sysctl.value), command)
}

/// Whether the machine can ask whom the host asks for names.
fn names(machine: &Machine, host: &dyn Host) -> Option<Check> {
    let usual = machine.resolv == Resolv::default()
        && !matches!(machine.network, Network::Host | Network::Gate);
    let lost = usual
        && is_stub(host)
        && machine.resolv.settled(&machine.network, host) == Resolv::default();
    lost.then(|| {
        Check::poor(
            "names",
            "the host asks itself for names (127.0.0.x in /etc/resolv.conf), which a machine can't",
            "say whom it asks: resolv_conf = { dns = [\"192.0.2.1\"] }",
        )
    })
}

/// Whether something that is not there may be when the machine's own hook has run.
fn is_made(machine: &Machine, path: &str) -> bool {
    let plain = |text: &str| text.replace('-', "_");
    let name = plain(path.rsplit('/').next().unwrap_or(path));
    machine.hooks.iter().any(|hook| {
        (hook.when, hook.place) == (When::PreStart, Where::Host)
            && plain(&hook.script).contains(&name)
    })
}

fn binds(machine: &Machine, host: &dyn Host) -> Vec<Check> {
    let missing = |bind: &&Bind| !bind.optional && !host.exists(&bind.source);
    let wanted = machine.binds.iter().filter(missing);
    let check = |bind: &Bind| {
        let says = format!("the host has no {}", bind.source);
        match is_made(machine, &bind.source) {
            true => Check::poor("bind", says, "its pre_start hook names it, and may make it"),
            false => Check::bad("bind", says, "make it, or say optional = true"),
        }
    };
    wanted.map(check).collect()
}

fn devices(machine: &Machine, host: &dyn Host) -> Vec<Check> {
    let mut all = Vec::new();
    for device in &machine.devices {
        if host.exists(&device.path) {
            continue;
        }
        let says = format!("the host has no {}", device.path);
        let hint = match device.path.as_str() {
            "/dev/fuse" => "modprobe fuse",
            "/dev/net/tun" => "modprobe tun",
            "/dev/kvm" => "modprobe kvm_intel or kvm_amd; the firmware may have to allow it",
            "/dev/vsock" => "modprobe vsock",
            "/dev/vhost-vsock" => "modprobe vhost_vsock",
            "/dev/vhost-net" => "modprobe vhost_net",
            _ => "load its driver, or say optional = true",
        };
        all.push(match device.optional || is_made(machine, &device.path) {
            true => Check::poor("device", says, hint),
            false => Check::bad("device", says, hint),
        });
    }
    let guarded =
        machine.users.namespace && machine.devices.iter().any(|device| host.exists(&device.path));
    if guarded && !host.exists("/usr/bin/setfacl") {
        all.push(Check::poor(
            "setfacl",
            "the host does not have it, and root of the machine can't open devices that belong to a group",
            "install it: apt install acl",
        ));
    }
    all
}

fn cards(machine: &Machine, host: &dyn Host) -> Vec<Check> {
    let mut all = Vec::new();
    for gpu in &machine.gpus {
        let what = match gpu.vendor {
            Vendor::Dri => format!("card dri {}", gpu.device),
            Vendor::Nvidia => format!("card nvidia {}", gpu.device),
            Vendor::Cdi => format!("card {}", gpu.device),
        };
        let sure = Gpu { optional: false, ..gpu.clone() };
        all.push(match cdi::look_up(std::slice::from_ref(&sure), host) {
            Ok(edits) => {
                let nodes = edits.devices.len();
                let files = edits.binds.len();
                let says = format!("{nodes} devices and {files} files");
                match edits.undone.as_slice() {
                    [] => Check::good(what, says),
                    undone => Check::poor(what, format!("{says}; {}", undone.join("; ")), ""),
                }
            }
            Err(error) => {
                let (says, hint) = (error.to_string(), error.hint().unwrap_or_default());
                if gpu.optional {
                    Check::poor(what, says, hint)
                } else {
                    Check::bad(what, says, hint)
                }
            }
        });
    }
    all
}

fn number(host: &dyn Host, path: &str) -> Option<u64> {
    host.read(path)?.trim().parse().ok()
}
