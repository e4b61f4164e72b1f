//! When the process that keeps a NAS open ends, and whom it does not hear.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::Release;

use crate::program::program_at;
use crate::rig::{each, small};
use crate::session::{Sessions, gone};

const ONE: &[Release] = &[Release::V25_10];
const IDLE: &str = "SANDSCRIPT_SESSION_IDLE";

pub fn trials() -> Vec<Trial> {
    [
        each("session_of_nobody", ONE, |release| Box::pin(of_nobody(release))),
        each("session_of_other_settings", ONE, |release| Box::pin(of_other_settings(release))),
        each("session_of_another_program", ONE, |release| Box::pin(of_another_program(release))),
        each("session_hears_no_stranger", ONE, |release| Box::pin(hears_no_stranger(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// It ends when nobody has called for as long as is said, and leaves no socket.
async fn of_nobody(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[(IDLE, "2s")], &["list"]).await.code, 0);
    let process = own.running();
    gone(process).await;
    assert!(own.sockets().is_empty());
    assert_eq!(own.call(&nas, &[], &["list"]).await.code, 0);
    let other = own.running();
    assert_ne!(other, process);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(own.running(), other);
    let said = own.call(&nas, &[(IDLE, "soon")], &["list"]).await;
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("error: SANDSCRIPT_SESSION_IDLE: "), "{}", said.err);
}

/// Where it waits for a minute, one whose time is over does for six seconds: [`gone`] waits for less than the one and
/// more than the other.
const MINUTE: &[(&str, &str)] = &[(IDLE, "1m")];

async fn of_other_settings(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, MINUTE, &["list"]).await.code, 0);
    let process = own.running();
    let folder = nas.folder.path().join("home/.config/sandscript");
    std::fs::create_dir_all(&folder).unwrap();
    let other = format!("[truenas.\"{}\"]\nimage = \"debian/11\"\n", nas.sim.address);
    std::fs::write(folder.join("config.toml"), other).unwrap();
    let said = own.call(&nas, MINUTE, &["list"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    gone(process).await;
    assert_ne!(own.running(), process);
}

/// The program is replaced, as by an update.
async fn of_another_program(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    let program = nas.folder.path().join("sandscript");
    let update = || {
        let new = program.with_extension("new");
        std::fs::copy(env!("CARGO_BIN_EXE_sandscript"), &new).unwrap();
        std::fs::rename(new, &program).unwrap();
    };
    let list = async || {
        let run = own.0.to_str().unwrap();
        let change = [("SANDSCRIPT_NO_SESSION", ""), ("XDG_RUNTIME_DIR", run), MINUTE[0]];
        let said = program_at(&program, &nas, &change, &["list"]).output().await.unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    };
    update();
    list().await;
    let process = own.running();
    list().await;
    assert_eq!(own.running(), process);
    update();
    list().await;
    gone(process).await;
    assert_ne!(own.running(), process);
}

/// Says what a client of other settings would, and tells how much it is answered.
const ASKS: &str = r#"
use strict; use Socket; $SIG{PIPE} = "IGNORE";
socket my $line, AF_UNIX, SOCK_STREAM, 0 or die "no socket: $!\n";
connect $line, pack_sockaddr_un(shift) or die "no way: $!\n";
my $call = q({"digest": "", "call": "Open"});
syswrite $line, pack("V", length $call) . $call;
print sysread($line, my $answer, 100) || 0, "\n";
"#;

/// Another user is not heard even where the socket is open to all: not the least word is answered, and nothing done.
async fn hears_no_stranger(release: Release) {
    if !rustix::process::geteuid().is_root() {
        println!("skip: only root can be somebody else");
        return;
    }
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    // One whose time is over would wait for two seconds.
    assert_eq!(own.call(&nas, &[(IDLE, "20s")], &["list"]).await.code, 0);
    let process = own.running();
    let socket = own.sockets().remove(0);
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for folder in [nas.folder.path(), &own.0, socket.parent().unwrap()] {
        open(folder, 0o755);
    }
    open(&socket, 0o666);
    let asks = |who: u32| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args([format!("--reuid={who}"), format!("--regid={who}")]).arg("--clear-groups");
        let output = setpriv.args(["perl", "-e", ASKS]).arg(&socket).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse::<usize>().unwrap()
    };
    assert_eq!(asks(65_534), 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(own.running(), process);
    assert_ne!(asks(0), 0);
    gone(process).await;
}
