//! Whole workflows on the daemon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::compiler::{self, FILES};
use crate::rig::Daemon;
use crate::{Home, SOON};

/// An image with a C compiler, `cc`: this machine's own packages, in the image `small`.
fn with_compiler(daemon: &Daemon) -> Option<()> {
    if !compiler::fits() {
        return None;
    }
    daemon.incus(&["launch", "small", "cc"]).unwrap();
    let line = format!(
        "set -eo pipefail; {FILES} | \
        incus exec cc -- tar -x -P -C / --keep-directory-symlink; incus stop -f cc; incus publish cc --alias cc --compression none >/dev/null; incus delete cc"
    );
    let made = Command::new("bash")
        .args(["-c", &line])
        .env("INCUS_SOCKET", daemon.socket())
        .env("INCUS_CONF", daemon.client())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(())
}

pub fn the_scripts(daemon: &mut Daemon) {
    let Some(()) = with_compiler(daemon) else { return };
    // What is meant when nobody says which: the scripts run as they are.
    for (from, to) in [("debian/12", "plain"), ("cc", "debian/12")] {
        daemon.incus(&["image", "alias", "rename", from, to]).unwrap();
    }
    let home = Home::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |args: &[&str]| home.run_in(root, &[("INCUS_SOCKET", &daemon.socket())], args);
    let (code, out, err) = run(&["run", "scripts/build_base.rhai"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("hello from a program that was compiled in a clone"), "{out}");
    // The same steps from the other language, and from the server's cache: for somebody else, too, who has
    // nothing but the way to the server.
    let (code, out, err) = run(&["run", "scripts/build_base.lua"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("3 of 3 steps were cached"), "{out}");
    daemon.https().unwrap();
    let (far, token) = (Home::new(), crate::remotes::token(daemon, "other"));
    let (code, out, err) = far.run(&[], &["remote", "add", "nas", "--token", &token]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) =
        far.run_in(root, &[], &["run", "scripts/build_base.rhai", "--host", "nas"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("3 of 3 steps were cached"), "{out}");
    for script in ["scripts/test_matrix.rhai", "scripts/test_matrix.lua"] {
        let (code, out, err) = run(&["run", script, "--backend", "incus"]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(format!("{out}{err}").contains("12 passed"), "{out}{err}");
    }
    let broken = [
        "run",
        "scripts/test_matrix.lua",
        "--set",
        "broken=true",
        "--filter",
        "sanitizer=none",
        "--on-fail",
        "clean",
    ];
    let (code, out, err) = run(&broken);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(format!("{out}{err}").contains("3 passed"), "{out}{err}");
    let (code, out, err) = run(&["list"]);
    assert_eq!(code, Some(0), "{err}");
    let cells = out.lines().skip(1).filter(|line| !line.starts_with("base-"));
    assert_eq!(cells.collect::<Vec<_>>(), [""; 0], "cells are left");
    let (code, out, err) = run(&["base", "prune", "--keep", "0", "--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
    daemon.incus(&["image", "delete", "debian/12"]).unwrap();
    daemon.incus(&["image", "alias", "rename", "plain", "debian/12"]).unwrap();
}

pub fn a_daemon_that_dies_mid_matrix(daemon: &mut Daemon) {
    let home = Home::new();
    let script = "matrix(\"m\", #{ from: \"small\", axes: #{ n: [0, 1, 2, 3, 4, 5] }, parallel: 2, retries: 3 }, |cell| {
        cell.sandbox.run(\"echo began; sleep 1\");
    });\n";
    std::fs::write(home.0.path().join("m.rhai"), script).unwrap();
    let socket = daemon.socket();
    let folder = home.0.path().to_owned();
    let mut running = home.command(
        &folder,
        &[("INCUS_SOCKET", &socket)],
        &["run", "m.rhai", "--report", "jsonl=m.jsonl"],
    );
    let mut running = running.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let said = || std::fs::read_to_string(folder.join("m.jsonl")).unwrap_or_default();
    // In the middle: one cell is done, others are at it.
    let until = Instant::now() + SOON;
    while !said().contains("passed") && Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    daemon.kill().unwrap();
    daemon.again().unwrap();
    let until = Instant::now() + SOON + SOON;
    let code = loop {
        if let Some(status) = running.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > until {
            let _ = running.kill();
            panic!("it goes on and on: {}", said());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(code, Some(0), "{}", said());
    // What could not be deleted meanwhile goes with the next look, from wherever.
    let env = [("INCUS_SOCKET", socket.as_path())];
    let other = Home::new();
    let (code, out, err) = other.run(&env, &["gc", "--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (_, out, _) = home.run(&env, &["list"]);
    assert!(!out.contains("m-"), "cells are left: {out}");
}
