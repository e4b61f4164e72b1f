//! What a key needs for which verb, and how that is done.

use std::collections::BTreeMap;

use super::api::Api;
use super::way::Ways;
use crate::sandbox::Means;

/// The role that has all rights.
pub(super) const ALL: &str = "FULL_ADMIN";
/// What lets somebody open a shell: no role, but a tick in a privilege.
pub(super) const SHELL: &str = "Web Shell Access";
/// What lets a shell's user be root.
const SUDO: &str = "root, or sudo without a password";

/// The roles for what is done by the API, on 25.x and on 26.
const ROLES: &[(&str, &[&str], &[&str])] = &[
    ("list, show", &["VIRT_INSTANCE_READ"], &["CONTAINER_READ"]),
    (
        "create, start, stop",
        &["VIRT_INSTANCE_WRITE"],
        &["CONTAINER_WRITE", "CONTAINER_IMAGE_WRITE"],
    ),
    ("delete", &["VIRT_INSTANCE_DELETE"], &["CONTAINER_DELETE", "SNAPSHOT_READ"]),
    (
        "networks",
        &["NETWORK_INTERFACE_READ", "NETWORK_GENERAL_READ", "VIRT_GLOBAL_READ"],
        &["NETWORK_INTERFACE_READ", "NETWORK_GENERAL_READ", "LXC_CONFIG_READ", DEVICES],
    ),
    ("mounts", &["FILESYSTEM_ATTRS_READ"], &["FILESYSTEM_ATTRS_READ", DEVICES]),
];
/// What lets somebody give a container of 26 a card or a mount.
const DEVICES: &str = "CONTAINER_DEVICE_WRITE";

/// The verbs that roles are for, and these.
pub(super) fn roles(api: Api) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    ROLES.iter().map(move |(verbs, old, new)| match api {
        Api::Virt => (*verbs, *old),
        Api::Container => (*verbs, *new),
    })
}

/// All verbs that need something.
pub(super) fn means(api: Api, ways: Ways, ssh: bool) -> BTreeMap<String, Means> {
    let mut all = BTreeMap::new();
    let mut add = |verbs: &str, by: &str, rights: &[&str]| {
        let rights = rights.iter().map(|right| (*right).to_owned()).collect();
        all.insert(verbs.to_owned(), Means { by: by.to_owned(), rights });
    };
    for (verbs, rights) in roles(api) {
        add(verbs, "the NAS's API", rights);
    }
    let by = match (ways, ssh) {
        (Ways::Shell, _) | (_, false) => "the NAS's shell",
        (Ways::Ssh, true) => "SSH",
        (Ways::Any, true) => "SSH where that works, else the NAS's shell",
    };
    add("exec, console, files", by, &[SHELL]);
    add("closed from the first boot", "the NAS's shell, as its root", &[SHELL, SUDO]);
    let program = if api == Api::Virt { "incus" } else { "zfs" };
    let by = format!("{program} in the NAS's shell, as its root");
    match api {
        Api::Virt => add("snapshot, restore, clone", &by, &[SHELL, SUDO]),
        Api::Container => {
            add("snapshot, restore", &by, &[SHELL, SUDO]);
            add("clone", &by, &[SHELL, SUDO, ALL]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_right() {
        let manual = include_str!("../../../docs/truenas.md");
        for api in [Api::Virt, Api::Container] {
            for (verbs, means) in means(api, Ways::Any, true) {
                for right in means.rights {
                    let known = right == SUDO || right == ALL || manual.contains(&right);
                    assert!(known, "{verbs}: {right}");
                }
            }
        }
    }
}
