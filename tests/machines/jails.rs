//! Jails of jailmaker's, of each of its templates: imported with their root file systems, they start, or say what
//! the host lacks.

use std::path::Path;

use crate::place::Place;

/// Configs, and what the host of these tests lacks for one, if anything.
const KINDS: &[(&str, &str, Option<&str>)] = &[
    (
        "docker",
        include_str!("../../src/backend/nspawn/machine/import/fixtures/docker.config"),
        Some("nvidia"),
    ),
    (
        "podman",
        include_str!("../../src/backend/nspawn/machine/import/fixtures/podman.config"),
        None,
    ),
    ("k3s", include_str!("../../src/backend/nspawn/machine/import/fixtures/k3s.config"), None),
    (
        "incus",
        include_str!("../../src/backend/nspawn/machine/import/fixtures/incus.config"),
        Some("/dev/kvm"),
    ),
    (
        "lxd",
        include_str!("../../src/backend/nspawn/machine/import/fixtures/lxd.config"),
        Some("/dev/kvm"),
    ),
    ("nixos", include_str!("../../src/backend/nspawn/machine/import/fixtures/nixos.config"), None),
    (
        "router",
        include_str!("../../src/backend/nspawn/machine/import/fixtures/router.config"),
        None,
    ),
];

/// What they would set in this machine's kernel, or fetch from a network that there is none of.
fn harmless(config: &str) -> String {
    let not = ["sysctl -w", "apt-get", "curl ", "dnf ", "snap ", "/proc/sys/"];
    let line = |line: &str| match not.iter().any(|word| line.contains(word)) {
        true => "    true".to_owned(),
        false => line.to_owned(),
    };
    config.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

pub fn all(place: &Place, store: &Path) {
    place.shell(
        "for name in 1 2; do ip link add br$name type bridge && ip link set br$name up; done
         ln -sf /bin/true /usr/sbin/modprobe
         [ -e /dev/kmsg ] || mknod /dev/kmsg c 1 11
         mkdir -p '/mnt/tank/my data' /mnt/tank/router/dnsmasq.d /mnt/tank/router/tftp",
    );
    let image = std::fs::read_dir(store.join("images")).unwrap().flatten();
    let image = image.map(|entry| entry.path()).find(|path| path.join("tree").is_dir()).unwrap();
    let image = image.file_name().unwrap().to_string_lossy().into_owned();
    for (kind, config, lacks) in KINDS {
        place.write(&format!("jails/{kind}/config"), &harmless(config));
        place.shell(&format!(
            "mkdir -p /mnt/tank/jails && mv jails/{kind} /mnt/tank/jails/
             btrfs subvolume snapshot /mnt/tank/nspawn/images/{image}/tree /mnt/tank/jails/{kind}/rootfs
             echo 0123456789abcdef0123456789abcdef > /mnt/tank/jails/{kind}/rootfs/etc/machine-id
             echo kept > /mnt/tank/jails/{kind}/rootfs/root/kept"
        ));
        place.ok(&["machine", "import", &format!("/mnt/tank/jails/{kind}")]);
        let made = place.call(&["machine", "create", &format!("{kind}.toml")]);
        match lacks {
            Some(what) => {
                assert!(made.code == 11 && made.stderr.contains(what), "{kind}: {made:?}");
                continue;
            }
            None => assert_eq!(made.code, 0, "{kind}: {made:?}"),
        }
        assert_eq!(place.exec(kind, "cat /root/kept"), "kept\n");
        assert_eq!(place.exec(kind, "cat /etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
        place.ok(&["delete", kind, "--yes"]);
        // What was there before is there afterwards.
        assert!(place.holds(&format!("[ -e /mnt/tank/jails/{kind}/rootfs/root/kept ]")), "{kind}");
    }
}
