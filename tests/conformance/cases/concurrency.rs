//! Many things at once.

use std::sync::Arc;

use sandscript::sandbox::{
    Cancel, Capability, Command, Error, Exit, Kind, SnapshotSpec, Spec, exec,
};

use crate::case::{CaseResult, cases};
use crate::rig::Scope;

cases!["concurrency";
    sixteen_creates,
    twenty_execs_in_one,
    two_snapshots,
    snapshot_and_exec,
    delete_during_exec,
    eight_deletes,
    clone_and_delete_of_the_source,
    restore_during_exec,
];

async fn sixteen_creates(scope: Scope) -> CaseResult {
    let tasks: Vec<_> = (0..16)
        .map(|index| {
            let (rig, name) = (scope.rig.clone(), scope.name());
            tokio::spawn(async move {
                let cancel = Cancel::new();
                rig.backend.create(&Spec::new(&name), &cancel).await?;
                let line = Command::shell(format!("echo {index} > /root/f; cat /root/f; hostname"));
                let output = exec(rig.backend.as_ref(), &name, &line, &cancel).await?;
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{index}\n{name}\n"));
                rig.backend.delete(&name, &cancel).await
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn twenty_execs_in_one(scope: Scope) -> CaseResult {
    let sandbox = Arc::new(scope.sandbox().await?);
    let tasks: Vec<_> = (0..20)
        .map(|index| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                let line =
                    format!("echo out {index}; sleep 0.1; echo err {index} >&2; exit {index}");
                sandbox.sh(&line).await
            })
        })
        .collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let output = task.await??;
        assert_eq!(String::from_utf8(output.stdout)?, format!("out {index}\n"));
        assert_eq!(String::from_utf8(output.stderr)?, format!("err {index}\n"));
        assert_eq!(output.exit, Exit::Code(index as i32));
    }
    Ok(())
}

async fn two_snapshots(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    let tasks: Vec<_> = ["a", "b", "c", "a", "b", "c"]
        .into_iter()
        .map(|label| {
            let (rig, name) = (scope.rig.clone(), sandbox.name.clone());
            tokio::spawn(async move {
                rig.backend.snapshot(&name, &SnapshotSpec::new(label), &Cancel::new()).await
            })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        match task.await? {
            Ok(snapshot) => taken.push(snapshot.label),
            Err(Error::AlreadyExists { kind: Kind::Snapshot, .. } | Error::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let mut labels = sandbox.labels().await?;
    let newest = labels.last().cloned();
    taken.sort();
    labels.sort();
    assert!(!labels.is_empty());
    assert_eq!(labels, taken);
    if !scope.has(Capability::RestoreAny) {
        labels.retain(|label| Some(label) == newest.as_ref());
    }
    for label in labels {
        sandbox.restore(&label).await?;
        assert_eq!(sandbox.run("cat /root/f").await?, "1");
    }
    Ok(())
}

async fn snapshot_and_exec(scope: Scope) -> CaseResult {
    let sandbox = Arc::new(scope.sandbox().await?);
    let worker = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                let output = sandbox.sh(&format!("echo {n} >> /root/log; echo {n}")).await?;
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{n}\n"));
            }
            Ok::<(), Error>(())
        })
    };
    for n in 0..10 {
        sandbox.snapshot(&format!("s{n}")).await?;
    }
    worker.await??;
    let expected: String = (0..60).map(|n| format!("{n}\n")).collect();
    assert_eq!(sandbox.read_text("/root/log").await?, expected, "a write was lost");
    for n in 0..10 {
        let clone = scope.clone_of(&sandbox, Some(&format!("s{n}"))).await?;
        if let Ok(log) = clone.read_text("/root/log").await {
            assert!(expected.starts_with(&log), "{log:?}");
        }
        clone.delete().await?;
    }
    Ok(())
}

async fn delete_during_exec(scope: Scope) -> CaseResult {
    let sandbox = Arc::new(scope.sandbox().await?);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move { sandbox.sh("sleep 1000").await.map(|output| output.exit) })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    sandbox.delete().await?;
    for task in tasks {
        match tokio::time::timeout(std::time::Duration::from_secs(30), task).await?? {
            Ok(Exit::Signal(_))
            | Err(
                Error::NotFound { .. }
                | Error::NotRunning { .. }
                | Error::Transport { .. }
                | Error::Busy { .. },
            ) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(!scope.exists(&sandbox.name).await?);
    Ok(())
}

async fn eight_deletes(scope: Scope) -> CaseResult {
    let sandbox = Arc::new(scope.sandbox().await?);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move { sandbox.delete().await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await? {
            Ok(()) => won += 1,
            Err(Error::NotFound { kind: Kind::Sandbox, .. } | Error::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(won >= 1);
    assert!(!scope.exists(&sandbox.name).await?);
    Ok(())
}

async fn clone_and_delete_of_the_source(scope: Scope) -> CaseResult {
    for round in 0..10 {
        let sandbox = scope.sandbox().await?;
        sandbox.run("echo 1 > /root/f").await?;
        sandbox.snapshot("s").await?;
        let (made, deleted) = tokio::join!(scope.clone_of(&sandbox, Some("s")), async {
            tokio::time::sleep(std::time::Duration::from_micros(round * 200)).await;
            sandbox.delete().await
        });
        match deleted {
            Ok(()) | Err(Error::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        if let Ok(clone) = made {
            assert_eq!(clone.run("cat /root/f").await?, "1");
            clone.delete().await?;
        }
    }
    Ok(())
}

async fn restore_during_exec(scope: Scope) -> CaseResult {
    let sandbox = Arc::new(scope.sandbox().await?);
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(
            async move { sandbox.sh("echo 2 > /root/f; sleep 1000").await.map(|o| o.exit) },
        )
    };
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    sandbox.restore("s").await?;
    let end = tokio::time::timeout(std::time::Duration::from_secs(30), running).await??;
    assert!(!matches!(end, Ok(exit) if exit.ok()), "{end:?}");
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    Ok(())
}
