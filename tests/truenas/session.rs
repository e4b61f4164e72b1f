//! The process that keeps a NAS open between commands.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nas_sim::Release;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;

use crate::program::{Said, call, program};
use crate::rig::{Small, big, each, small};

const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        each("session_logs_in_once", ONE, |release| Box::pin(once(release))),
        each("session_killed", ONE, |release| Box::pin(killed(release))),
        each("session_of_another_key", ONE, |release| Box::pin(another_key(release))),
        each("session_of_a_revoked_key", ONE, |release| Box::pin(revoked(release))),
        each("session_that_stands_still", ONE, |release| Box::pin(stands_still(release))),
        each("session_not_wanted", ONE, |release| Box::pin(not_wanted(release))),
        each("session_in_a_bad_place", ONE, |release| Box::pin(bad_place(release))),
        big("session_carries_commands", ONE, |nas, _| Box::pin(commands(nas))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The sessions of one user, which end with it.
pub struct Sessions(pub PathBuf);

impl Sessions {
    pub fn of(nas: &Small, name: &str) -> Sessions {
        let folder = nas.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Sessions(folder)
    }

    pub async fn call(&self, nas: &Small, change: &[(&str, &str)], args: &[&str]) -> Said {
        let mut all = vec![
            ("SANDSCRIPT_NO_SESSION", ""),
            ("SANDSCRIPT_GC_EVERY", "never"),
            ("XDG_RUNTIME_DIR", self.0.to_str().unwrap()),
        ];
        all.extend(change);
        call(nas, &all, args).await
    }

    /// What there is in the folder of the sockets: these, and a lock.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.0.join("sandscript")).into_iter().flatten();
        let paths = all.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_none()).collect()
    }

    /// The processes there are.
    pub fn processes(&self) -> Vec<Pid> {
        let found = self.sockets().into_iter().filter_map(|socket| {
            let stream = UnixStream::connect(socket).ok()?;
            Some(rustix::net::sockopt::socket_peercred(&stream).unwrap().pid)
        });
        found.collect()
    }

    /// The process, where there is one.
    fn process(&self) -> Option<Pid> {
        let all = self.processes();
        assert!(all.len() < 2, "there are {}", all.len());
        all.first().copied()
    }

    pub fn running(&self) -> Pid {
        self.process().expect("there is a session")
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for process in self.processes() {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

pub async fn gone(process: Pid) {
    let begin = Instant::now();
    while rustix::process::test_kill_process(process).is_ok() {
        // One that was killed is there until its parent has looked.
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()));
        if status.is_ok_and(|status| status.contains("State:\tZ")) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A NAS lets one in twenty times a minute.
async fn once(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    let (one, two) = tokio::join!(own.call(&nas, &[], &["list"]), own.call(&nas, &[], &["list"]));
    assert_eq!((one.code, two.code), (0, 0), "{}{}", one.err, two.err);
    let process = own.running();
    for _ in 0..25 {
        let said = own.call(&nas, &[], &["list", "--format", "json"]).await;
        assert_eq!((said.out.as_str(), said.code), ("[]\n", 0), "{}", said.err);
    }
    assert_eq!(own.running(), process);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let sockets = own.sockets();
    assert_eq!((sockets.len(), mode(&sockets[0])), (1, 0o600));
    assert_eq!(mode(&own.0.join("sandscript")), 0o700);
    // An error is the same one as without it.
    let by = own.call(&nas, &[], &["show", "nobody"]).await;
    let without = call(&nas, &[], &["show", "nobody"]).await;
    assert_eq!((by.err, by.code), (without.err, without.code));
}

async fn killed(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[], &["list"]).await.code, 0);
    let process = own.running();
    kill_process(process, Signal::KILL).unwrap();
    gone(process).await;
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_ne!(own.running(), process);
}

/// Ctrl-C ends who waits for it.
async fn stands_still(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[], &["list"]).await.code, 0);
    let process = own.running();
    kill_process(process, Signal::STOP).unwrap();
    let run = own.0.to_str().unwrap();
    let change = [("SANDSCRIPT_NO_SESSION", ""), ("XDG_RUNTIME_DIR", run)];
    let mut list = program(&nas, &change, &["list"]);
    let mut list = list.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(2), list.wait()).await;
    assert!(waits.is_err(), "nobody answers: {waits:?}");
    let pid = Pid::from_raw(list.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), list.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(130));
    kill_process(process, Signal::CONT).unwrap();
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!((said.out.as_str(), said.code), ("", 0), "{}", said.err);
    assert_eq!(own.running(), process);
}

async fn another_key(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[], &["list"]).await.code, 0);
    let process = own.running();
    let said = own.call(&nas, &[("TRUENAS_API_KEY", "1-wrong")], &["list"]).await;
    assert_eq!(said.code, 10, "{}", said.err);
    assert!(said.err.contains("not authorised"), "{}", said.err);
    // Whoever has the right one still has its session; the other one is over.
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let begin = Instant::now();
    while own.processes().len() > 1 {
        assert!(begin.elapsed() < Duration::from_secs(30), "the wrong one does not go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(own.running(), process);
}

/// Who holds a connection still has what it had; the next one is told.
async fn revoked(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[], &["list"]).await.code, 0);
    let process = own.running();
    nas.sim.control("revoke 1").await.unwrap();
    nas.sim.control("drop").await.unwrap();
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!(said.code, 10, "{}{}", said.out, said.err);
    gone(process).await;
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!(said.code, 10, "{}{}", said.out, said.err);
}

async fn not_wanted(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    assert_eq!(own.call(&nas, &[], &["list", "--no-session"]).await.code, 0);
    assert_eq!(own.call(&nas, &[("SANDSCRIPT_NO_SESSION", "1")], &["list"]).await.code, 0);
    assert_eq!(own.process(), None);
    let said = own.call(&nas, &[], &["serve"]).await;
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.err, @"error: this is started by other commands, with a socket");
}

/// Without a folder of its own it goes without.
async fn bad_place(release: Release) {
    let nas = small(release, |_| ()).await;
    let own = Sessions::of(&nas, "run");
    let elsewhere = nas.folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, own.0.join("sandscript")).unwrap();
    let said = own.call(&nas, &[], &["list"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
    assert!(said.err.starts_with("warning: nothing is kept open between commands"), "{}", said.err);
    assert!(said.err.contains("that is no folder of this user's own"), "{}", said.err);
    let long = own.0.join("x".repeat(100));
    let said = own.call(&nas, &[("XDG_RUNTIME_DIR", long.to_str().unwrap())], &["list"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
}

/// What goes in comes out, and a command whose caller goes, goes.
async fn commands(nas: &Small) {
    let own = Sessions::of(nas, "run");
    let said = own.call(nas, &[], &["create", "kept"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let said =
        own.call(nas, &[], &["exec", "kept", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let said = said.await;
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("out\n", "err\n", 7));

    let mut bytes = vec![0; 3 << 20];
    let mut state = 7_u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let run = own.0.to_str().unwrap();
    let change = [("SANDSCRIPT_NO_SESSION", ""), ("XDG_RUNTIME_DIR", run)];
    let mut cat = program(nas, &change, &["exec", "-i", "kept", "--", "cat"]);
    cat.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    let sent = bytes.clone();
    tokio::spawn(async move { stdin.write_all(&sent).await });
    let output = cat.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert!(output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());

    let mut sleep = program(nas, &change, &["exec", "kept", "--", "sleep", "987"]);
    let mut sleep = sleep.kill_on_drop(true).spawn().unwrap();
    let find = ["exec", "kept", "--", "sh", "-c", "grep -lz '^987$' /proc/[0-9]*/cmdline | wc -l"];
    let begin = Instant::now();
    let until = async |count: &str| {
        loop {
            let said = own.call(nas, &[], &find).await;
            if said.out.trim() == count {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{} for {count}", said.out);
        }
    };
    until("1").await;
    sleep.kill().await.unwrap();
    until("0").await;

    let said = own.call(nas, &[], &["delete", "kept", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
}
