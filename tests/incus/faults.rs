//! What breaks on the way, and in the daemon.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command, Error, Exit, Kind, Policy, Restore, SnapshotSpec, Spec,
    State, StopOptions, WriteOptions, exec,
};

use crate::proxy::Proxy;
use crate::rig::Daemon;
use crate::{Home, SOON, open, open_at, open_elsewhere, sh, wait};

pub fn a_daemon_that_dies_mid_copy(daemon: &mut Daemon) {
    wait(async {
        let (backend, cancel) = (Arc::new(open(daemon, "small").await), Cancel::new());
        backend.create(&Spec::new("origin"), &cancel).await.unwrap();
        sh(backend.as_ref(), "origin", "echo kept > /root/f; sync").await;
        backend.snapshot("origin", &SnapshotSpec::new("s"), &cancel).await.unwrap();
        let copy = || {
            let backend = Arc::clone(&backend);
            let spec = CloneSpec::of("s", "copy");
            tokio::spawn(async move {
                Backend::clone(backend.as_ref(), "origin", &spec, &Cancel::new()).await
            })
        };
        let mut copying = copy();
        // As soon as the server works on it: it may be done before it is asked.
        let until = std::time::Instant::now() + SOON;
        loop {
            assert!(std::time::Instant::now() < until, "the copy was always done before");
            let all = daemon.incus(&["query", "/1.0/operations?recursion=1"]).unwrap_or_default();
            if !copying.is_finished() && all.contains("instances/copy") {
                break;
            }
            if copying.is_finished() {
                copying.await.unwrap().unwrap();
                backend.delete("copy", &cancel).await.unwrap();
                copying = copy();
            }
        }
        daemon.kill().unwrap();
        daemon.again().unwrap();
        let copied = tokio::time::timeout(SOON, copying).await.unwrap().unwrap();
        // The source is as it was, and goes on.
        assert_eq!(sh(backend.as_ref(), "origin", "cat /root/f").await, "kept");
        match backend.get("copy", &cancel).await {
            Ok(_) => {
                if copied.is_ok() {
                    assert_eq!(
                        sh(backend.as_ref(), "copy", "cat /root/f; hostname").await,
                        "kept\ncopy"
                    );
                }
                backend.delete("copy", &cancel).await.unwrap();
            }
            Err(error) => {
                assert!(copied.is_err(), "it was made, and is gone");
                assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
            }
        }
        Backend::clone(backend.as_ref(), "origin", &CloneSpec::of("s", "copy"), &cancel)
            .await
            .unwrap();
        assert_eq!(sh(backend.as_ref(), "copy", "cat /root/f").await, "kept");
        for name in ["origin", "copy"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
}

/// It takes whatever it is asked, and says nothing.
pub fn a_daemon_that_stands_still(daemon: &mut Daemon) {
    let config = IncusConfig {
        socket: Some(daemon.socket()),
        image: Some("small".into()),
        patience: Some(Duration::from_secs(2)),
        ..IncusConfig::default()
    };
    wait(async {
        let cancel = Cancel::new();
        let backend = IncusBackend::open(config.clone()).await.unwrap();
        backend.create(&Spec::new("still"), &cancel).await.unwrap();
        let long = Command::argv(["sleep", "1000"]);
        let mut process = backend.spawn("still", &long, &cancel).await.unwrap();
        daemon.stand_still().unwrap();
        let silent = |what: &str, error: Error| {
            assert!(matches!(error, Error::Transport { .. }), "{what}: {error:?}");
            let text = error.to_string();
            assert!(
                text.contains("unix.socket takes requests and does not answer"),
                "{what}: {text}"
            );
        };
        let soon =
            async |what: &str, asked: Pin<Box<dyn Future<Output = Result<(), Error>> + '_>>| {
                let done = tokio::time::timeout(Duration::from_secs(30), asked).await;
                silent(what, done.unwrap_or_else(|_| panic!("{what} hangs")).unwrap_err());
            };
        soon("list", Box::pin(async { backend.list(&cancel).await.map(drop) })).await;
        soon("delete", Box::pin(backend.delete("still", &cancel))).await;
        soon(
            "create",
            Box::pin(async { backend.create(&Spec::new("never"), &cancel).await.map(drop) }),
        )
        .await;
        soon("open", Box::pin(async { IncusBackend::open(config.clone()).await.map(drop) })).await;
        // Nor is a command waited for that nobody could tell the end of.
        let end = tokio::time::timeout(Duration::from_secs(30), process.control.wait()).await;
        let end = end.unwrap_or_else(|_| panic!("wait hangs"));
        assert!(matches!(end, Err(Error::Transport { .. })), "{end:?}");
        daemon.go_on().unwrap();
        // What it was asked meanwhile it may do now: the sandbox may be stopped, and gone.
        match backend.delete("still", &cancel).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        backend.create(&Spec::new("still"), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "still", "echo $((1 + 1))").await, "2");
        backend.delete("still", &cancel).await.unwrap();
        if backend.get("never", &cancel).await.is_ok() {
            // It was asked for, and nobody heard that it was to go.
            backend.delete("never", &cancel).await.unwrap();
        }
    });
}

/// Between the server's restore and the sandbox's own settings.
pub fn a_restore_that_is_killed(daemon: &mut Daemon) {
    let (folder, home) = (tempfile::tempdir().unwrap(), Home::new());
    wait(async {
        let (backend, cancel) = (open_elsewhere(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("torn");
        spec.egress = Policy::Unrestricted;
        spec.env.insert("WHEN".into(), "before".into());
        backend.create(&spec, &cancel).await.unwrap();
        sh(&backend, "torn", "echo old > /root/f").await;
        backend.snapshot("torn", &SnapshotSpec::new("open"), &cancel).await.unwrap();
        backend.set_policy("torn", &Policy::None, &cancel).await.unwrap();
        sh(&backend, "torn", "echo new > /root/f").await;
        // A clone of the snapshot has no interface either: the policy of now holds.
        let spec = CloneSpec::of("open", "twin");
        let clone = Backend::clone(&backend, "torn", &spec, &cancel).await.unwrap();
        assert_eq!(clone.egress, Policy::None);
        assert_eq!(sh(&backend, "twin", "ls /sys/class/net").await, "lo");
        backend.delete("twin", &cancel).await.unwrap();

        let proxy = Proxy::new(folder.path(), daemon.socket());
        proxy.hold("PUT /1.0/instances/torn ", 1);
        let args = ["--no-session", "snapshot", "restore", "torn", "open"];
        let socket = [("INCUS_SOCKET", proxy.socket.as_path())];
        let mut child = home.command(folder.path(), &socket, &args).spawn().unwrap();
        let until = std::time::Instant::now() + SOON;
        while !proxy.is_holding() && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(proxy.is_holding(), "{:?}", proxy.seen.lock().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let raw = || daemon.incus(&["query", "/1.0/instances/torn"]).unwrap();
        assert!(raw().contains("eth0"), "nothing was torn: {}", raw());
        // Whoever comes next puts what holds in force again, before anything else.
        let other = open_elsewhere(daemon, "small").await;
        assert_eq!(other.list(&cancel).await.unwrap()[0].egress, Policy::None);
        assert!(!raw().contains("eth0"), "{}", raw());
        other.start("torn", &cancel).await.unwrap();
        assert_eq!(sh(&other, "torn", "cat /root/f; ls /sys/class/net").await, "old\nlo");
        let left = daemon.incus(&["profile", "list", "-f", "csv"]).unwrap();
        assert_eq!(left.lines().count(), 1, "{left}");
        // A restore that nobody interrupts leaves nothing of it.
        other.restore("torn", "open", Default::default(), &cancel).await.unwrap();
        assert_eq!(other.get("torn", &cancel).await.unwrap().egress, Policy::None);
        other.delete("torn", &cancel).await.unwrap();
    });
}

pub fn an_answer_that_is_cut_off(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let proxy = Proxy::new(folder.path(), daemon.socket());
        let (backend, cancel) = (open_at(&proxy.socket, "small").await, Cancel::new());
        // What only reads is asked for again.
        backend.create(&Spec::new("cut"), &cancel).await.unwrap();
        proxy.cut("GET /1.0/instances/cut", 100);
        proxy.cut("GET /1.0/instances/cut", 0);
        assert_eq!(backend.get("cut", &cancel).await.unwrap().name, "cut");
        assert!(proxy.is_done());
        // A create is not, and leaves nothing.
        proxy.cut("POST /1.0/instances ", 150);
        let error = backend.create(&Spec::new("lost"), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        let made = |line: &&String| line.starts_with("POST /1.0/instances ");
        let count = || proxy.seen.lock().unwrap().iter().filter(made).count();
        assert_eq!(count(), 2, "it was asked for again");
        let error = backend.get("lost", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { kind: Kind::Sandbox, .. }), "{error:?}");
        backend.create(&Spec::new("lost"), &cancel).await.unwrap();
        // Nor is a snapshot, which is there or not.
        proxy.cut("POST /1.0/instances/cut/snapshots ", 150);
        let error = backend.snapshot("cut", &SnapshotSpec::new("s"), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        assert!(error.to_string().ends_with("it may have been taken"), "{error}");
        // A command's start that is lost is no exit code.
        proxy.cut("POST /1.0/instances/cut/exec", 150);
        let line = Command::shell("true");
        // The first one of a connection asks the server.
        let other = open_at(&proxy.socket, "small").await;
        let error = exec(&other, "cut", &line, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        for name in ["cut", "lost"] {
            backend.delete(name, &cancel).await.unwrap();
        }
        assert!(proxy.is_done());
    });
}

pub fn events_that_break_off(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let proxy = Proxy::new(folder.path(), daemon.socket());
        let (backend, cancel) = (open_at(&proxy.socket, "small").await, Cancel::new());
        let breaking = {
            let proxy = proxy.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    proxy.drop_events();
                }
            })
        };
        for round in 0..2 {
            backend.create(&Spec::new("on"), &cancel).await.unwrap();
            for _ in 0..5 {
                assert_eq!(sh(&backend, "on", "echo here").await, "here");
            }
            backend.snapshot("on", &SnapshotSpec::new("s"), &cancel).await.unwrap();
            let line = Command::shell("sleep 0.3; exit 7");
            let output = exec(&backend, "on", &line, &cancel).await.unwrap();
            assert_eq!(output.exit, Exit::Code(7), "round {round}: {output:?}");
            backend.delete("on", &cancel).await.unwrap();
        }
        breaking.abort();
        let opened = proxy.opened.load(std::sync::atomic::Ordering::Relaxed);
        assert!(opened > 2, "the stream was opened {opened} times: nothing was tested");
    });
}

/// Nothing is asked for again and again: whatever ends is told by one stream.
pub fn one_stream_tells_of_all(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let proxy = Proxy::new(folder.path(), daemon.socket());
        let (backend, cancel) = (open_at(&proxy.socket, "small").await, Cancel::new());
        backend.create(&Spec::new("told"), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "told", "sleep 1; echo here").await, "here");
        backend.snapshot("told", &SnapshotSpec::new("s"), &cancel).await.unwrap();
        let spec = CloneSpec::of("s", "told-too");
        Backend::clone(&backend, "told", &spec, &cancel).await.unwrap();
        backend.restore("told", "s", Restore::default(), &cancel).await.unwrap();
        backend
            .stop("told", StopOptions { force: true, ..Default::default() }, &cancel)
            .await
            .unwrap();
        backend.delete("told", &cancel).await.unwrap();
        backend.delete("told-too", &cancel).await.unwrap();
        let seen = proxy.seen.lock().unwrap().clone();
        let of =
            |start: &str| seen.iter().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
        assert_eq!(of("GET /1.0/events").len(), 1, "{seen:#?}");
        assert!(of("POST /1.0/instances").len() >= 4, "{seen:#?}");
        let asked =
            of("GET /1.0/operations").into_iter().filter(|line| !line.contains("/websocket"));
        assert_eq!(asked.collect::<Vec<_>>(), [""; 0]);
    });
}

pub fn an_operation_that_fails_later(daemon: &mut Daemon) {
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("later");
        spec.bare = true;
        backend.create(&spec, &cancel).await.unwrap();
        // The server takes the order to start, and then can't.
        daemon
            .incus(&["config", "set", "later", "raw.lxc=lxc.hook.pre-start = /bin/false"])
            .unwrap();
        let error = backend.start("later", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Internal { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("starting sandbox 'later': the server says: "), "{text}");
        assert_eq!(backend.get("later", &cancel).await.unwrap().state, State::Stopped);
        daemon.incus(&["config", "unset", "later", "raw.lxc"]).unwrap();
        backend.start("later", &cancel).await.unwrap();
        assert_eq!(sh(&backend, "later", "hostname").await, "later");
        backend.delete("later", &cancel).await.unwrap();
    });
}

pub fn a_pool_that_is_full(daemon: &mut Daemon) {
    daemon.incus(&["storage", "create", "tiny", "btrfs", "size=560MiB"]).unwrap();
    daemon.incus(&["profile", "device", "set", "default", "root", "pool=tiny"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        backend.create(&Spec::new("fat"), &cancel).await.unwrap();
        // To the last block, and what is written in the end is on the disk.
        let fill = "for size in 1M 64k 4k; do dd if=/dev/zero of=/root/fill.$size bs=$size 2>/dev/null; sync; done; true";
        sh(&backend, "fat", fill).await;
        let more: sandscript::sandbox::Reader = Box::new(std::io::Cursor::new(vec![1; 8 << 20]));
        let options = WriteOptions::default();
        let error = backend.write("fat", "/root/more", more, &options, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Exhausted { .. }), "{error:?}");
        // There is no room for another image, and nothing of the try is left.
        let mut spec = Spec::new("second");
        spec.image = Some("debian/12".into());
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Exhausted { .. }), "{error:?}");
        insta::assert_snapshot!(error, @"making sandbox 'second': the storage pool 'tiny' is full");
        assert!(error.hint().unwrap().contains("sandscript gc"));
        let error = backend.get("second", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        // What is there goes on, and can go.
        assert_eq!(sh(&backend, "fat", "rm /root/fill.*; sync; echo $((1 + 1))").await, "2");
        backend.delete("fat", &cancel).await.unwrap();
    });
    daemon.incus(&["profile", "device", "set", "default", "root", "pool=default"]).unwrap();
    let images =
        daemon.incus(&["storage", "volume", "list", "tiny", "-f", "csv", "-c", "tn"]).unwrap();
    for line in images.lines() {
        if let Some(("image", name)) = line.split_once(',') {
            let _ = daemon.incus(&[
                "query",
                "-X",
                "DELETE",
                &format!("/1.0/storage-pools/tiny/volumes/image/{name}"),
            ]);
        }
    }
    daemon.incus(&["storage", "delete", "tiny"]).unwrap();
}
