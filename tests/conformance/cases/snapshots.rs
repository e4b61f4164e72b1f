//! Taking, listing and deleting snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sandscript::sandbox::{Capability, Command, Error, Kind, SnapshotSpec, State};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::eventually;

cases!["snapshots";
    of_a_running_one,
    of_a_stopped_one,
    of_a_frozen_one [Freeze],
    list_is_oldest_first,
    report_time_labels_and_size,
    label_in_use,
    missing,
    delete,
    delete_keeps_clones,
    go_when_their_time_is_over [SnapshotExpiry],
    expiry_unsupported_is_said,
    belong_to_one_sandbox,
    chain_of_seventy [RestoreAny],
    with_a_background_writer [Programs],
    processes_go_on [Programs],
    open_files_go_on [Programs],
    cancelled_before,
];

async fn of_a_running_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    assert!(sandbox.alive(&pid).await?, "the snapshot killed a process");
    assert_eq!(sandbox.state().await?, State::Running);
    assert_eq!(sandbox.run("cat /root/f; echo 2 > /root/f; cat /root/f").await?, "1\n2");
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    assert!(!clone.alive(&pid).await?, "a clone of a snapshot has no processes");
    Ok(())
}

async fn of_a_stopped_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.stop().await?;
    let snapshot = sandbox.snapshot("s").await?;
    assert_eq!(snapshot.frozen, Duration::ZERO, "nothing ran that had to stand still");
    assert_eq!(sandbox.state().await?, State::Stopped);
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    sandbox.start().await?;
    sandbox.run("echo 2 > /root/f").await?;
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    Ok(())
}

async fn of_a_frozen_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.freeze().await?;
    sandbox.snapshot("s").await?;
    assert_eq!(sandbox.state().await?, State::Frozen);
    sandbox.thaw().await?;
    assert!(sandbox.alive(&pid).await?);
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    Ok(())
}

async fn list_is_oldest_first(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert!(sandbox.labels().await?.is_empty());
    let labels = ["z", "a", "M.1_2-x", "0", "b"];
    for label in labels {
        sandbox.snapshot(label).await?;
    }
    assert_eq!(sandbox.labels().await?, labels);
    sandbox.stop().await?;
    assert_eq!(sandbox.labels().await?, labels);
    sandbox.delete_snapshot("a").await?;
    sandbox.snapshot("a").await?;
    assert_eq!(sandbox.labels().await?, ["z", "M.1_2-x", "0", "b", "a"]);
    Ok(())
}

async fn report_time_labels_and_size(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let before = SystemTime::now() - Duration::from_secs(5);
    sandbox.write("/root/unique", vec![1; 300_000]).await?;
    let spec = SnapshotSpec {
        label: "one".to_owned(),
        labels: BTreeMap::from([("key".to_owned(), "a b\nä".to_owned())]),
        expires: None,
    };
    let taken = scope.backend().snapshot(&sandbox.name, &spec, &scope.cancel).await?;
    sandbox.remove("/root/unique", false).await?;
    sandbox.snapshot("two").await?;
    let all = scope.backend().snapshots(&sandbox.name, &scope.cancel).await?;
    assert_eq!(all.len(), 2);
    for snapshot in [&taken, &all[0]] {
        assert_eq!((snapshot.label.as_str(), &snapshot.labels), ("one", &spec.labels));
        assert!(snapshot.created >= before);
        assert!(snapshot.created <= SystemTime::now() + Duration::from_secs(5));
    }
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    let (told, kept) = (taken.created, all[0].created);
    assert!(
        apart(told, kept).max(apart(kept, told)) < Duration::from_millis(500),
        "{told:?}, {kept:?}"
    );
    assert!(all[0].created <= all[1].created);
    if scope.has(Capability::Init) {
        // A server's storage counts when it likes.
        return Ok(());
    }
    assert!(all[0].size >= 300_000, "only it holds 300 kB, but it reports {}", all[0].size);
    assert!(all[1].size < 200_000, "it holds nothing of its own, but it reports {}", all[1].size);
    Ok(())
}

async fn go_when_their_time_is_over(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let backend = scope.backend();
    let take = async |label: &str, after: u64| {
        let mut spec = SnapshotSpec::new(label);
        spec.expires = SystemTime::now().checked_add(Duration::from_secs(after));
        let taken = backend.snapshot(&sandbox.name, &spec, &scope.cancel).await?;
        Ok::<_, Error>((taken, spec.expires.unwrap()))
    };
    sandbox.run("echo 1 > /root/f").await?;
    let (late, end) = take("late", 3600).await?;
    take("soon", 1).await?;
    sandbox.snapshot("never").await?;
    let clone = scope.clone_of(&sandbox, Some("late")).await?;
    let all = backend.snapshots(&sandbox.name, &scope.cancel).await?;
    for snapshot in all.iter().filter(|one| one.label == "late").chain([&late]) {
        let at = snapshot.expires.unwrap();
        let off = at.duration_since(end).or_else(|_| end.duration_since(at)).unwrap();
        assert!(off < Duration::from_secs(2), "{at:?} is not {end:?}");
    }
    assert!(all.iter().all(|one| (one.label == "never") == one.expires.is_none()), "{all:?}");
    eventually("the one whose time is over is gone", async || {
        backend.gc(false, &scope.cancel).await?;
        Ok(sandbox.labels().await? == ["late", "never"])
    })
    .await?;
    assert_eq!(sandbox.state().await?, State::Running);
    assert_eq!(clone.run("cat /root/f").await?, "1");
    Ok(())
}

async fn expiry_unsupported_is_said(scope: Scope) -> CaseResult {
    if scope.has(Capability::SnapshotExpiry) {
        return Ok(());
    }
    let sandbox = scope.sandbox().await?;
    let mut spec = SnapshotSpec::new("s");
    spec.expires = SystemTime::now().checked_add(Duration::from_secs(3600));
    let taken = scope.backend().snapshot(&sandbox.name, &spec, &scope.cancel).await;
    fails!(&taken, Error::Unsupported { .. });
    assert!(taken.unwrap_err().hint().is_some());
    assert_eq!(sandbox.labels().await?, [""; 0]);
    Ok(())
}

async fn label_in_use(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    fails!(sandbox.snapshot("s").await, Error::AlreadyExists { kind: Kind::Snapshot, .. });
    sandbox.stop().await?;
    fails!(sandbox.snapshot("s").await, Error::AlreadyExists { kind: Kind::Snapshot, .. });
    assert_eq!(sandbox.labels().await?, ["s"]);
    sandbox.restore("s").await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    Ok(())
}

async fn missing(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    fails!(sandbox.restore("none").await, Error::NotFound { kind: Kind::Snapshot, .. });
    fails!(sandbox.delete_snapshot("none").await, Error::NotFound { kind: Kind::Snapshot, .. });
    let mut spec = sandscript::sandbox::CloneSpec::of("none", scope.name());
    let clone = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await;
    fails!(clone, Error::NotFound { kind: Kind::Snapshot, .. });
    assert!(!scope.exists(&spec.name).await?);
    spec.label = Some("../none".to_owned());
    let clone = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await;
    fails!(clone, Error::InvalidInput { .. });
    sandbox.run("true").await?;
    Ok(())
}

async fn delete(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for label in ["a", "b", "c"] {
        sandbox.run(&format!("echo {label} > /root/f; echo {label} > /root/{label}")).await?;
        sandbox.snapshot(label).await?;
    }
    sandbox.delete_snapshot("b").await?;
    fails!(sandbox.delete_snapshot("b").await, Error::NotFound { kind: Kind::Snapshot, .. });
    assert_eq!(sandbox.labels().await?, ["a", "c"]);
    assert_eq!(sandbox.run("cat /root/f").await?, "c");
    sandbox.restore("c").await?;
    assert_eq!(sandbox.run("cat /root/f /root/a /root/b /root/c").await?, "c\na\nb\nc");
    sandbox.delete_snapshot("c").await?;
    assert_eq!(sandbox.run("cat /root/f /root/b").await?, "c\nb", "its own restored snapshot");
    sandbox.restore("a").await?;
    assert_eq!(sandbox.run("cat /root/f; test -e /root/b || echo none").await?, "a\nnone");
    sandbox.delete_snapshot("a").await?;
    assert!(sandbox.labels().await?.is_empty());
    Ok(())
}

async fn delete_keeps_clones(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    let spec = SnapshotSpec {
        label: "s".to_owned(),
        labels: BTreeMap::from([("key".to_owned(), "first".to_owned())]),
        expires: None,
    };
    scope.backend().snapshot(&sandbox.name, &spec, &scope.cancel).await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    sandbox.delete_snapshot("s").await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    // The label is free again, and nothing is known of the first one.
    sandbox.snapshot("s").await?;
    let all = scope.backend().snapshots(&sandbox.name, &scope.cancel).await?;
    assert_eq!(all.len(), 1);
    assert!(all[0].labels.is_empty(), "{:?}", all[0].labels);
    clone.stop().await?;
    clone.start().await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    assert!(clone.labels().await?.is_empty(), "a clone has no snapshots of its own");
    Ok(())
}

async fn belong_to_one_sandbox(scope: Scope) -> CaseResult {
    let (one, two) = (scope.sandbox().await?, scope.sandbox().await?);
    one.run("echo one > /root/f").await?;
    two.run("echo two > /root/f").await?;
    one.snapshot("same").await?;
    two.snapshot("same").await?;
    one.restore("same").await?;
    assert_eq!(one.run("cat /root/f").await?, "one");
    one.delete_snapshot("same").await?;
    assert_eq!(two.labels().await?, ["same"]);
    two.restore("same").await?;
    assert_eq!(two.run("cat /root/f").await?, "two");
    Ok(())
}

async fn chain_of_seventy(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let labels: Vec<String> = (0..70).map(|n| format!("s{n}")).collect();
    for (index, label) in labels.iter().enumerate() {
        let gone = index.saturating_sub(3);
        sandbox
            .run(&format!(
                "echo {index} > /root/f{index}; echo {index} > /root/last; rm -rf /root/f{gone}"
            ))
            .await?;
        sandbox.snapshot(label).await?;
    }
    assert_eq!(sandbox.labels().await?, labels);
    let files = "cat /root/last; ls /root";
    for index in [69, 10, 40] {
        sandbox.restore(&labels[index]).await?;
        let n = index;
        let mut names: Vec<_> = (n - 2..=n).map(|n| format!("f{n}")).collect();
        names.push("last".to_owned());
        names.sort();
        assert_eq!(sandbox.run(files).await?, format!("{index}\n{}", names.join("\n")));
        assert_eq!(sandbox.labels().await?, labels);
    }
    let clone = scope.clone_of(&sandbox, Some("s69")).await?;
    assert_eq!(clone.run("cat /root/last").await?, "69");
    for label in labels.iter().step_by(2) {
        sandbox.delete_snapshot(label).await?;
    }
    sandbox.restore("s1").await?;
    assert_eq!(sandbox.run("cat /root/last").await?, "1");
    Ok(())
}

async fn with_a_background_writer(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    // The second file is never ahead of the first.
    let script = "mkdir /root/log; i=0; while :; do i=$((i+1)); echo $i > /root/log/first.tmp; \
        mv /root/log/first.tmp /root/log/first; echo $i > /root/log/second.tmp; \
        mv /root/log/second.tmp /root/log/second; echo line >> /root/log/lines; done";
    let _writer = sandbox.spawn(&Command::shell(script)).await?;
    crate::sandbox::eventually("the writer writes", async || {
        Ok(sandbox.stat("/root/log/lines").await.is_ok())
    })
    .await?;
    // A machine with an init system takes seconds for each.
    let rounds = if scope.has(Capability::Init) { 4 } else { 10 };
    for round in 0..rounds {
        let label = format!("s{round}");
        let snapshot = sandbox.snapshot(&label).await?;
        assert!(snapshot.frozen > Duration::ZERO, "a writer ran, but nothing stood still");
        assert!(snapshot.frozen < Duration::from_secs(20), "stood still for {:?}", snapshot.frozen);
        let clone = scope.clone_of(&sandbox, Some(&label)).await?;
        let count = "cat /root/log/first /root/log/second; wc -l < /root/log/lines";
        let then = clone.run(count).await?;
        let numbers: Vec<u64> = then.lines().map(|n| n.parse().unwrap_or(u64::MAX)).collect();
        assert_eq!(numbers.len(), 3, "{then:?}");
        let (first, second, lines) = (numbers[0], numbers[1], numbers[2]);
        assert!(first == second || first == second + 1, "not one moment: {then:?}");
        assert!(lines == second || lines + 1 == second, "not one moment: {then:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(clone.run(count).await?, then, "the source writes into its clone");
        clone.delete().await?;
    }
    Ok(())
}

async fn processes_go_on(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script = "i=0; while :; do i=$((i+1)); echo $i > /root/n.tmp; mv /root/n.tmp /root/n; sleep 0.01; done";
    let _writer = sandbox.spawn(&Command::shell(script)).await?;
    let number = async || {
        CaseResult::Ok(sandbox.run("cat /root/n 2>/dev/null || echo 0").await?.parse::<u64>()?)
    };
    for label in ["a", "b", "c"] {
        sandbox.snapshot(label).await?;
        let before = number().await?;
        crate::sandbox::eventually("the writer goes on", async || Ok(number().await? > before + 2))
            .await?;
    }
    Ok(())
}

async fn open_files_go_on(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script =
        "exec 3> /root/log; echo ready > /root/ready; while :; do echo line >&3; sleep 0.02; done";
    let _writer = sandbox.spawn(&Command::shell(script)).await?;
    crate::sandbox::eventually("it writes", async || Ok(sandbox.stat("/root/ready").await.is_ok()))
        .await?;
    sandbox.snapshot("s").await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    let size = clone.stat("/root/log").await?.size;
    let before = sandbox.stat("/root/log").await?.size;
    crate::sandbox::eventually("the file it holds open still grows", async || {
        Ok(sandbox.stat("/root/log").await?.size > before)
    })
    .await?;
    assert_eq!(clone.stat("/root/log").await?.size, size, "an open file writes into the snapshot");
    Ok(())
}

async fn cancelled_before(scope: Scope) -> CaseResult {
    let mut sandbox = scope.sandbox().await?;
    sandbox.cancel = sandscript::sandbox::Cancel::new();
    sandbox.cancel.cancel();
    fails!(sandbox.snapshot("s").await, Error::Cancelled);
    let sandbox = scope.at(&sandbox.name);
    assert!(sandbox.labels().await?.is_empty());
    sandbox.snapshot("s").await?;
    Ok(())
}
