//! What a machine may forbid: namespaces, capabilities, cgroups. The message says which setting.

use crate::Test;
use crate::full::apart;
use crate::rig::{Outcome, Rig, is_root, scratch, text};

pub const TESTS: &[Test] = &[
    ("denied_user_namespaces_by_sysctl", by_sysctl),
    ("denied_user_namespaces_by_seccomp", by_seccomp),
    ("denied_capabilities", capabilities),
    ("denied_cgroups", cgroups),
];

fn by_sysctl(_: &Rig) -> Outcome {
    let folder = scratch();
    let store = folder.path().join("store");
    let script = format!(
        "echo 0 >/proc/sys/user/max_user_namespaces || exit 99; exec {} --store {} create a",
        crate::rig::program().display(),
        store.display()
    );
    let output =
        std::process::Command::new("unshare").args(["-Ur", "sh", "-c", &script]).output().unwrap();
    let printed = text(&output);
    if output.status.code() == Some(99) || printed.contains("unshare:") {
        return Outcome::Skipped(format!(
            "user namespaces can't be limited here: {}",
            printed.trim()
        ));
    }
    assert_eq!(output.status.code(), Some(11), "{printed}");
    assert!(printed.contains("sysctl -w user.max_user_namespaces="), "{printed}");
    // The doctor tries, and says the same.
    let script = script.replace(" create a", " doctor");
    let output =
        std::process::Command::new("unshare").args(["-Ur", "sh", "-c", &script]).output().unwrap();
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(11), "{printed}");
    assert!(printed.contains("sysctl -w user.max_user_namespaces="), "{printed}");
    Outcome::Done
}

fn by_seccomp(rig: &Rig) -> Outcome {
    let Some(helper) = rig.compiled("forbid", include_str!("forbid.c")) else {
        return Outcome::Skipped("no C compiler (cc)".into());
    };
    let folder = scratch();
    let path = folder.path().join("forbid");
    std::fs::write(&path, helper).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let store = folder.path().join("store");
    let output = std::process::Command::new(&path)
        .arg(crate::rig::program())
        .args(["--store", store.to_str().unwrap(), "create", "a"])
        .output()
        .unwrap();
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(11), "{printed}");
    assert!(printed.contains("system call filter"), "{printed}");
    Outcome::Done
}

/// Root of a container without CAP_SYS_ADMIN.
fn capabilities(rig: &Rig) -> Outcome {
    if !is_root() || !crate::rig::installed("setpriv") {
        return Outcome::Skipped("needs root, to drop what it may do by setpriv".into());
    }
    let folder = scratch();
    let store = folder.path().join("store");
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"])
        .arg(crate::rig::program())
        .args(["--store", store.to_str().unwrap(), "create", "a"])
        .output()
        .unwrap();
    let printed = text(&output);
    crate::rig::empty(rig, &store);
    assert_eq!(output.status.code(), Some(11), "{printed}");
    assert!(printed.to_lowercase().contains("cap_s"), "names no capability: {printed}");
    Outcome::Done
}

fn cgroups(_: &Rig) -> Outcome {
    apart(
        r#"
mount -t tmpfs -o size=64m none $T/disk || { echo "SKIP: a tmpfs can't be mounted here"; exit; }
mount -t tmpfs -o ro none /sys/fs/cgroup || { echo "SKIP: cgroups can't be hidden here"; exit; }
for limit in "--memory 64MiB" "--pids 20" "--cpu 1"; do
  fails "cgroup" $S create a $limit
  fails "not supported" $S create a $limit
done
[ -z "$(ls $T/disk/store/boxes)" ] || fail "left behind"
$S create a
[ "$($S exec a -- echo alive)" = alive ]
"#,
    )
}
