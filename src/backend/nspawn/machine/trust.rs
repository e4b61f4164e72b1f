//! What a file that is extended may not say by itself: whatever would run on the host, or hand a part of
//! the host to the machine. The machine's own file and our templates may, and a variable counts as said
//! where its value stands.

use super::error::{MachineError, Result};
use super::tree::{Node, Value};

/// A key that is the host's business.
struct Guarded {
    /// Where it is; a list on the way is gone through.
    path: &'static [&'static str],
    /// What it may be nevertheless, for it hands nothing over.
    harmless: &'static [&'static str],
    /// What anything else would do.
    would: &'static str,
}

const fn guarded(
    path: &'static [&'static str],
    harmless: &'static [&'static str],
    would: &'static str,
) -> Guarded {
    Guarded { path, harmless, would }
}

/// What gives the machine more rights than one has by itself.
const RIGHTS: &str = "give the machine rights that it has not by itself";
/// What chooses ids of the host.
const IDS: &str = "choose which ids of the host the machine has";

/// What opens no more than whoever chose the preset has looked at.
const PRESETS: &[&str] = &["none", "agent", "ai", "git", "registries"];

/// What to do about it.
const HINT: &str = "look at it, then say trust_hooks = true in the machine's own file";

/// All of them.
const ALL: &[Guarded] = &[
    guarded(&["hooks", "host"], &[""], "run as root of the host"),
    guarded(&["unit"], &[], "hold on the host"),
    guarded(&["nspawn"], &[], "be passed on as it is, and can hand over the host"),
    guarded(&["binds"], &[], "put files of the host into the machine"),
    guarded(&["devices"], &[], "put devices of the host into the machine"),
    guarded(&["gpu"], &[], "put devices of the host into the machine"),
    guarded(&["image", "folder"], &[], "make a folder of the host the machine's root"),
    guarded(&["network"], &["gate", "own", "none"], "put the machine on the host's network"),
    guarded(&["egress"], PRESETS, "open what its own preset does not"),
    guarded(&["nics", "interface"], &[], "take an interface away from the host"),
    guarded(&["users", "namespace"], &["true"], "make root of the machine root of the host"),
    guarded(&["users", "base"], &[], IDS),
    guarded(&["users", "size"], &[], IDS),
    guarded(&["security", "privileged"], &["false"], RIGHTS),
    guarded(&["security", "add"], &[], RIGHTS),
    guarded(&["security", "seccomp"], &["default", "docker", "agent"], RIGHTS),
    guarded(&["security", "allow"], &[], RIGHTS),
];

/// Refuses the first of them that a file says which is neither the machine's own nor one of ours.
///
/// # Errors
/// `Invalid` where it stands.
pub fn check(root: &Node) -> Result<()> {
    for one in ALL {
        if let Some(node) = said(root, one.path, one.harmless) {
            let would = one.would;
            return Err(MachineError::invalid(
                node.origin.place(),
                format!("this file is extended, and what it says here would {would}"),
            )
            .or_hint(HINT));
        }
    }
    match routed(root) {
        None => Ok(()),
        Some(node) => Err(MachineError::invalid(
            node.origin.place(),
            "this file is extended, and what it says here would choose an address, and so a route, of the host",
        )
        .or_hint(HINT)),
    }
}

/// The first address or gateway that such a file says of a pair of cables: the other end is the host's.
fn routed(root: &Node) -> Option<&Node> {
    let Value::Table(top) = &root.value else { return None };
    let Value::List(nics) = &top.get("nics")?.value else { return None };
    nics.iter().find_map(|nic| {
        let Value::Table(table) = &nic.value else { return None };
        let cables = !is_harmless(&table.get("veth")?.value, &["false"]);
        let keys = ["gateway", "address"].into_iter().filter(|_| cables);
        keys.filter_map(|key| table.get(key)).find_map(|node| said(node, &[], &[]))
    })
}

/// The first value below a path that such a file says. Tables are laid over each other key by key, so
/// that only what is in them has one place.
fn said<'a>(node: &'a Node, path: &[&str], harmless: &[&str]) -> Option<&'a Node> {
    match (&node.value, path) {
        (Value::List(all), _) => all.iter().find_map(|one| said(one, path, harmless)),
        (Value::Table(table), [part, rest @ ..]) => {
            table.get(part).and_then(|one| said(one, rest, harmless))
        }
        (Value::Table(table), []) => table.0.iter().find_map(|(_, one)| said(one, path, harmless)),
        (_, [_, ..]) => None,
        (value, []) => {
            (!node.origin.source.trusted && !is_harmless(value, harmless)).then_some(node)
        }
    }
}

fn is_harmless(value: &Value, harmless: &[&str]) -> bool {
    let word = match value {
        Value::Text(text) => text.trim(),
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        _ => return false,
    };
    harmless.contains(&word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::file::Machine;
    use super::*;

    /// A machine's own file that extends another.
    fn load(ours: &str, theirs: &str) -> Result<Machine> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.toml");
        std::fs::write(&path, format!("extends = \"./t.toml\"\n{ours}")).unwrap();
        std::fs::write(folder.path().join("t.toml"), theirs).unwrap();
        Machine::load(&path, &BTreeMap::new())
    }

    fn refused(ours: &str, theirs: &str) {
        let error = load(ours, theirs).unwrap_err();
        assert!(error.to_string().contains("t.toml:"), "{theirs}: {error}");
        assert!(error.hint().unwrap().contains("trust_hooks"), "{theirs}: {error}");
    }

    #[test]
    fn what_is_the_hosts_business_is_refused_of_an_extended_file() {
        for theirs in [
            "[hooks.host]\npre_start = \"reboot\"\n",
            "[hooks.host]\npost_stop = { run = \"reboot\" }\n",
            "[unit.Service]\nExecStartPre = \"reboot\"\n",
            "[nspawn.Files]\nBind = [\"/etc:/h\"]\n",
            "binds = [\"/etc:/h\"]\n",
            "binds = [{ source = \"/etc\", target = \"/h\", idmap = \"idmap\" }]\n",
            "binds = { source = \"/etc\" }\n",
            "devices = [\"/dev/sda\"]\n",
            "gpu = [\"dri\"]\n",
            "image = { folder = \"/home\" }\n",
            "network = \"host\"\n",
            "nics = [{ interface = \"eno1\" }]\n",
            "nics = [{ veth = true, address = \"8.8.8.7/1\", gateway = \"8.8.8.8\" }]\n",
            "egress = \"unrestricted\"\n",
            "egress = [\"10.0.0.0/8\"]\n",
            "[egress]\npreset = \"agent\"\nallow = [\"10.0.0.0/8\"]\n",
            "[users]\nnamespace = false\n",
            "[users]\nbase = 1048576\n",
            "[security]\nprivileged = true\n",
            "[security]\nadd = [\"sys_module\"]\n",
            "[security]\nseccomp = \"none\"\nunfiltered = true\n",
            "[security]\nallow = [\"@known\"]\n",
        ] {
            refused("", theirs);
            // It can't say so itself.
            refused("", &format!("trust_hooks = true\n{theirs}"));
            let trusted = load("trust_hooks = true\n", theirs);
            assert!(trusted.is_ok(), "{theirs}: {trusted:?}");
        }
        for theirs in [
            "extends = \"incus\"\n",
            "network = \"none\"\n",
            "egress = \"agent\"\n",
            "nics = [{ bridge = \"br0\", address = \"192.0.2.7/24\", gateway = \"192.0.2.1\" }]\n",
            "nics = [{ veth = true }]\n",
            "image = \"debian/12\"\n",
            "[users]\nnamespace = true\nownership = \"chown\"\n",
            "[security]\nprivileged = false\nseccomp = \"docker\"\ndrop = [\"mknod\"]\n",
            "[hooks.guest]\npost_start = \"true\"\n",
        ] {
            let fine = load("", theirs);
            assert!(fine.is_ok(), "{theirs}: {fine:?}");
        }
    }

    #[test]
    fn what_is_laid_over_it_is_said_by_the_one_above() {
        let reboot = "[hooks.host]\npre_start = { run = \"reboot\" }\n";
        // A table of both has what the lower file says in it.
        refused("[hooks.host]\npre_start = { timeout = \"5s\" }\n", reboot);
        refused("binds = { target = \"/h\" }\n", "binds = { source = \"/etc\" }\n");
        for (ours, theirs) in [
            ("[hooks.host]\npre_start = \"true\"\n", reboot),
            ("[security]\nprivileged = false\n", "[security]\nprivileged = true\n"),
            ("devices = [\"/dev/kvm\"]\n", "devices = [\"/dev/kvm\"]\n"),
        ] {
            let fine = load(ours, theirs);
            assert!(fine.is_ok(), "{ours}{theirs}: {fine:?}");
        }
    }

    #[test]
    fn a_variable_is_said_where_its_value_stands() {
        let theirs = "[variables]\nx = \"reboot\"\nabout = { default = \"true\" }\n";
        for ours in [
            "[hooks.host]\npre_start = \"echo {{x}}\"\n",
            "[unit.Service]\nExecStartPre = \"{{x}}\"\n",
            "binds = [\"/{{x}}:/h\"]\n",
            "[security]\nprivileged = \"{{about}}\"\n",
            // Nor is it trusted by its own word.
            "trust_hooks = \"{{about}}\"\n[hooks.host]\npre_start = \"{{x}}\"\n",
        ] {
            refused(ours, theirs);
            let given = load(&format!("{ours}[variables]\nx = \"y\"\nabout = false\n"), theirs);
            assert!(given.is_ok(), "{ours}: {given:?}");
        }
        // What runs in the machine is the machine's.
        load("[hooks.guest]\npost_start = \"{{x}}\"\n", theirs).unwrap();
        load("trust_hooks = true\n[hooks.host]\npre_start = \"{{x}}\"\n", theirs).unwrap();
        // Our template binds a folder of the host, and whoever extends it says which.
        refused("", "extends = \"nixos\"\n[variables]\nconfiguration = \"/etc\"\n");
    }
}
