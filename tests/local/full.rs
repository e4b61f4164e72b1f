//! A disk that is full or can't be written to: said as such, nothing lost, and usable afterwards.

use std::fs;

use crate::Test;
use crate::rig::{Outcome, Rig, program, scratch, text};

pub const TESTS: &[Test] = &[
    ("full_disk", full_disk),
    ("full_disk_from_the_start", full_from_the_start),
    ("full_read_only_store", read_only),
    ("full_store_on_a_file_system_that_overlays_refuse", refused),
];

/// Runs a script in a mount namespace of its own, as root or as root of a user namespace. `$T` is
/// an empty folder, `$S` the program; `fails TEXT COMMAND` is a command that must fail saying so.
pub fn apart(body: &str) -> Outcome {
    let folder = scratch();
    let mut unshare = std::process::Command::new("unshare");
    unshare.arg(if crate::rig::is_root() { "-m" } else { "-Urm" });
    if !unshare.arg("true").output().is_ok_and(|output| output.status.success()) {
        return Outcome::Skipped("unshare makes no namespaces here".into());
    }
    let script = folder.path().join("script");
    let frame = format!(
        r#"set -eu
S=$1 T=$2
export HOME=$T SANDSCRIPT_STORE=$T/disk/store TERM=dumb
fail() {{ echo "FAILED: $*"; $S list || true; df $T/disk || true; exit 1; }}
fails() {{
  want=$1; shift
  if "$@" >$T/out 2>&1; then fail "$* succeeded"; fi
  grep -qi -- "$want" $T/out || fail "$*: $(cat $T/out)"
}}
clean() {{
  mount -o remount,rw none $T/disk 2>/dev/null || true; rm -f $T/disk/fill
  for s in $($S list --format json 2>/dev/null | tr ',' '\n' | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p'); do
    $S delete "$s" --yes >/dev/null 2>&1 || true
  done
}}
trap clean EXIT
mkdir $T/disk
{body}
echo passed
"#
    );
    fs::write(&script, frame).unwrap();
    let mut unshare = std::process::Command::new("unshare");
    unshare.arg(if crate::rig::is_root() { "-m" } else { "-Urm" });
    let output = unshare
        .args(["timeout", "90", "sh"])
        .args([script.as_os_str(), program().as_os_str(), folder.path().as_os_str()])
        .output()
        .unwrap();
    let printed = text(&output);
    if let Some(line) = printed.lines().find(|line| line.starts_with("SKIP: ")) {
        return Outcome::Skipped(line[6..].into());
    }
    assert!(output.status.success() && printed.contains("passed"), "{printed}");
    Outcome::Done
}

fn full_disk(_: &Rig) -> Outcome {
    apart(
        r#"
mount -t tmpfs -o size=64m none $T/disk || { echo "SKIP: a tmpfs can't be mounted here"; exit; }
$S create a
$S exec a -- sh -c 'head -c 3000000 /dev/urandom >/data; sha256sum /data >/sum'
$S snapshot create a s0
fill() { dd if=/dev/zero of=$T/disk/fill bs=64k 2>/dev/null || true; dd if=/dev/zero of=$T/disk/fill bs=1 count=65536 oflag=append conv=notrunc 2>/dev/null || true; }
check() { $S exec a -- sha256sum -c /sum; }

# the guest's own writes
fails "no space" $S exec a -- dd if=/dev/zero of=/big bs=1M
$S exec a -- rm /big
check

# sealing
$S exec a -- sh -c 'echo 1 >/one'
fill
fails "no space" $S snapshot create a sealed
fails "no space" $S create b
fails "no space" $S clone a c --label s0
fails "no space" $S snapshot restore a s0
$S list >/dev/null
rm $T/disk/fill
check
$S exec a -- cat /one
$S snapshot create a sealed

# copying what is in use
$S exec a -- sh -c 'head -c 20000000 /dev/urandom >/busy; sha256sum /busy >>/sum; sleep 600 >/dev/null 2>&1 &'
head -c 25000000 /dev/zero >$T/disk/fill
fails "no space" $S snapshot create a live
rm $T/disk/fill
check
$S snapshot create a live
$S clone a d --label live
$S exec d -- sha256sum -c /sum

# deleting needs no space
fill
$S delete d --yes
rm $T/disk/fill
$S snapshot restore a sealed
$S exec a -- cat /one
$S gc --yes
"#,
    )
}

fn full_from_the_start(_: &Rig) -> Outcome {
    apart(
        r#"
mount -t tmpfs -o size=256k,nr_inodes=100000 none $T/disk || { echo "SKIP: a tmpfs can't be mounted here"; exit; }
fails "no space" $S create a
grep -qi -- "--store" $T/out || fail "no hint: $(cat $T/out)"
mount -o remount,size=64m none $T/disk
$S create a
[ "$($S exec a -- echo alive)" = alive ]
$S gc --yes
while [ -n "$(ls $T/disk/store/trash)" ]; do sleep 0.05; done
# no inodes left
mount -o remount,nr_inodes=$(( $(df --output=iused $T/disk | tail -1) + 3 )) none $T/disk
fails "no space" $S create b
mount -o remount,nr_inodes=100000 none $T/disk
$S create b
"#,
    )
}

fn read_only(_: &Rig) -> Outcome {
    apart(
        r#"
mount -t tmpfs -o size=64m none $T/disk || { echo "SKIP: a tmpfs can't be mounted here"; exit; }
fails_writing() { fails "read-only" "$@"; grep -q "$T/disk" $T/out || fail "which folder? $(cat $T/out)"; }
mount -o remount,ro none $T/disk
fails_writing $S create a
mount -o remount,rw none $T/disk
$S create a
$S stop a
mount -o remount,ro none $T/disk
$S list >/dev/null
fails_writing $S create b
fails_writing $S start a
fails_writing $S snapshot create a s
mount -o remount,rw none $T/disk
$S start a
"#,
    )
}

fn refused(_: &Rig) -> Outcome {
    apart(
        r#"
mkdir $T/lower $T/upper
mount -t tmpfs none $T/upper && mkdir $T/upper/u $T/upper/w
mount -t overlay -o lowerdir=$T/lower,upperdir=$T/upper/u,workdir=$T/upper/w none $T/disk ||
  { echo "SKIP: no overlay can be mounted here"; exit; }
if $S create a >$T/out 2>&1; then
  [ "$($S exec a -- echo alive)" = alive ]
else
  grep -q -- "--store" $T/out || fail "no hint: $(cat $T/out)"
  [ -z "$(ls $T/disk/store/boxes)" ] || fail "left behind"
fi
"#,
    )
}
