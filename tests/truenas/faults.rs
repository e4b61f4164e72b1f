//! What breaks, comes late or is put in the way.

use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::sandbox::{
    Backend, Cancel, Command, Error, Policy, SnapshotSpec, Spec, WriteOptions, exec,
};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::rig::{Small, big, each, names, say, small, until, works};

const TWO: &[Release] = &[Release::V25_10, Release::V26Rc];
const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        big("policies", &[Release::V25_10], |nas, _| Box::pin(policies(nas))),
        big("shell_cut", TWO, |nas, _| Box::pin(shell_cut(nas))),
        big("address_comes_late", ONE, |nas, _| Box::pin(late_address(nas))),
        big("odd_snapshots", TWO, |nas, release| Box::pin(odd_snapshots(nas, release))),
        big("links_inside", ONE, |nas, _| Box::pin(links_inside(nas))),
        each("expired_meanwhile", ONE, |release| Box::pin(expired(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A line that is cut in the middle of a command: nobody knows its end, and that is what is said. What it
/// started is gone, a file is whole or not there, and the next command has a line of its own.
async fn shell_cut(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    backend.create(&Spec::new("cut"), &cancel).await.unwrap();
    let command = Command::shell("echo begun; n=8888; sleep $n; echo never");
    let mut process = backend.spawn("cut", &command, &cancel).await.unwrap();
    let mut begun = [0; 6];
    process.stdout.as_mut().unwrap().read_exact(&mut begun).await.unwrap();
    nas.sim.control("drop-shells").await.unwrap();
    let end = process.control.wait().await;
    assert!(matches!(end, Err(Error::Transport { .. })), "{end:?}");
    let left = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '888[8]' | wc -l";
    crate::rig::until(|| async { say(&backend, "cut", left).await == "0\n" }).await;
    // The guest has half of the file when the line goes.
    let (mut to, from) = tokio::io::duplex(64);
    let writing = tokio::spawn({
        let backend = backend.clone();
        async move {
            let options = WriteOptions::default();
            backend.write("cut", "/half", Box::new(from), &options, &Cancel::new()).await
        }
    });
    tokio::io::AsyncWriteExt::write_all(&mut to, &[b'x'; 100_000]).await.unwrap();
    nas.sim.control("drop-shells").await.unwrap();
    let feeding = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut to, &[b'x'; 100_000]).await.is_ok() {}
    });
    let done = writing.await.unwrap();
    assert!(matches!(done, Err(Error::Transport { .. })), "{done:?}");
    feeding.abort();
    crate::rig::until(|| async {
        say(&backend, "cut", "ls -A / | grep -c half || true").await == "0\n"
    })
    .await;
    let parts = "ls -A / | grep -c '^.sandscript' || true";
    crate::rig::until(|| async { say(&backend, "cut", parts).await == "0\n" }).await;
    backend.delete("cut", &cancel).await.unwrap();
}

/// An address that comes after half a minute.
async fn late_address(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    nas.sim.control("dhcp-delay 30000").await.unwrap();
    let spec = Spec { egress: Policy::Unrestricted, ..Spec::new("late") };
    let info = backend.create(&spec, &cancel).await.unwrap();
    assert!(!info.addresses.is_empty());
    works(&backend, "late").await;
    backend.delete("late", &cancel).await.unwrap();
}

/// Snapshots that others made, by names that nobody here would give, and a clock that is wrong.
async fn odd_snapshots(nas: &Small, release: Release) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let info = backend.create(&Spec::new("odd"), &cancel).await.unwrap();
    let dataset = info.dataset.unwrap();
    for label in
        ["", ".", "..", "-r", "a b", "a/b", "a@b", "$(reboot)", "a;b", "ü", "a\nb", "%", "a,b"]
    {
        let error = backend.snapshot("odd", &SnapshotSpec::new(label), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{label}: {error}");
        let error = backend.restore("odd", label, Default::default(), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{label}: {error}");
    }
    nas.sim.control("skew -86400000").await.unwrap();
    backend.snapshot("odd", &SnapshotSpec::new("ours-1_2.3"), &cancel).await.unwrap();
    nas.sim.control("skew 0").await.unwrap();
    // The whole pool is snapshot by a task of the NAS's, as is usual.
    if release.is_26() {
        let pool = dataset.split('/').next().unwrap();
        for label in ["auto-2026-11-23_00-00", "weekly 4:5"] {
            let of = json!({"dataset": pool, "name": label, "recursive": true});
            backend.call("pool.snapshot.create", vec![of], true, &cancel).await.unwrap();
        }
    }
    let listed = backend.snapshots("odd", &cancel).await.unwrap();
    let labels: Vec<&str> = listed.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels, ["ours-1_2.3"]);
    if release.is_26() {
        // They would be lost.
        let error = backend.restore("odd", "ours-1_2.3", Default::default(), &cancel).await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains("auto-2026-11-23_00-00, weekly 4:5"), "{error}");
        assert_eq!(say(&backend, "odd", "echo there").await, "there\n");
    }
    backend.delete("odd", &cancel).await.unwrap();
    assert!(names(&backend).await.is_empty());
}

/// Links at the paths that are written from inside: they lead nowhere but into the guest.
async fn links_inside(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let outside = nas.sim.root().join("root/planted-inside");
    std::fs::create_dir_all(&outside).unwrap();
    backend
        .create(&Spec { egress: Policy::Unrestricted, ..Spec::new("in") }, &cancel)
        .await
        .unwrap();
    let plant = "mkdir -p /root/planted-inside; for p in /etc/hostname /etc/hosts /etc/resolv.conf /root/.ssh \
         /etc/.sandscript-offline /etc/systemd/system/sandscript-offline.service /etc/ssh/.machine; do \
         rm -rf $p; ln -s /root/planted-inside/$(basename $p) $p; done; rm -rf /run/systemd/sandscript; sync";
    say(&backend, "in", plant).await;
    for policy in [Policy::None, Policy::Unrestricted] {
        let _ = backend.set_policy("in", &policy, &cancel).await;
        works(&backend, "in").await;
    }
    backend.stop("in", Default::default(), &cancel).await.unwrap();
    let _ = backend.start("in", &cancel).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    backend.delete("in", &cancel).await.unwrap();
}

/// A key whose time is over in the middle of a session.
async fn expired(release: Release) {
    let nas = small(release, |_| {}).await;
    let backend = nas.backend().await;
    backend.list(&Cancel::new()).await.unwrap();
    for command in ["expire 1", "drop"] {
        nas.sim.control(command).await.unwrap();
    }
    let gone = tokio::time::timeout(Duration::from_secs(60), backend.list(&Cancel::new())).await;
    let error = gone.unwrap().unwrap_err();
    assert!(error.to_string().contains("the key has expired or was revoked"), "{error}");
    let error = exec(&*backend, "any", &Command::shell("true"), &Cancel::new()).await.unwrap_err();
    assert!(
        matches!(error, Error::Auth { .. } | Error::NotFound { .. } | Error::Transport { .. }),
        "{error}"
    );
}

/// A policy changes in whole or not at all, two changes at once both count, and what is open is cut.
async fn policies(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let spec = Spec { egress: Policy::Unrestricted, ..Spec::new("ruled") };
    backend.create(&spec, &cancel).await.unwrap();
    let hold = "gw=$(ip route | awk '/^default/ {print $3; exit}'); \
                setsid perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"$ARGV[0]:53\") or die; sleep 1000' $gw >/dev/null 2>&1 &";
    say(&backend, "ruled", hold).await;
    let held = "ss -Htn state established '( dport = :53 )' | wc -l";
    until(|| async { say(&backend, "ruled", held).await == "1\n" }).await;
    let policy = Policy::allowlist(["a.test"]).unwrap();
    backend.set_policy("ruled", &policy, &cancel).await.unwrap();
    assert_eq!(say(&backend, "ruled", held).await, "0\n");
    let (one, two) = ("b.test".parse().unwrap(), "c.test".parse().unwrap());
    let (one, two) =
        tokio::join!(backend.allow("ruled", &one, &cancel), backend.allow("ruled", &two, &cancel));
    one.and(two).unwrap();
    let rules = async || {
        let mut rules: Vec<String> = backend
            .policy("ruled", &cancel)
            .await
            .unwrap()
            .rules()
            .map(|r| r.to_string())
            .collect();
        rules.sort();
        rules.join(" ")
    };
    assert_eq!(rules().await, "a.test b.test c.test");
    nas.sim.control("fail virt.instance.update=EFAULT").await.unwrap();
    backend.allow("ruled", &"d.test".parse().unwrap(), &cancel).await.unwrap_err();
    nas.sim.control("clear").await.unwrap();
    assert_eq!(rules().await, "a.test b.test c.test");
    let there = "grep -c ' d.test ' /etc/sandscript/policy || true";
    assert_eq!(say(&backend, "ruled", there).await, "0\n");
    // Where the NAS's own addresses are not told, no rule may open them.
    let other = nas.backend().await;
    let wide = "10.0.0.0/8".parse().unwrap();
    nas.sim.control("fail interface.query=EACCES").await.unwrap();
    let error = other.allow("ruled", &wide, &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("NETWORK_INTERFACE_READ"), "{error}");
    other.allow("ruled", &"10.1.2.3".parse().unwrap(), &cancel).await.unwrap();
    nas.sim.control("clear").await.unwrap();
    nas.sim.control("fail interface.query=EFAULT").await.unwrap();
    other.allow("ruled", &wide, &cancel).await.unwrap_err();
    nas.sim.control("clear").await.unwrap();
    other.allow("ruled", &wide, &cancel).await.unwrap();
    backend.delete("ruled", &cancel).await.unwrap();
}
