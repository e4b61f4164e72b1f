//! Going back to a snapshot, any of them.

use sandscript::sandbox::{Capability, Command, Error, FileKind, Info, Restore, State};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::Sandbox;

cases!["restore";
    any_without_losing_newer_ones [RestoreAny],
    newer_ones_are_lost_when_that_is_allowed,
    comes_back_running_and_ready,
    of_a_stopped_one_stays_stopped,
    ends_processes,
    deleted_files [RestoreAny],
    directory_becomes_file_and_back [RestoreAny],
    directory_made_anew_is_empty [RestoreAny],
    of_snapshots_taken_while_something_ran [RestoreAny],
    links_modes_and_times,
    keeps_identity_and_settings,
    twice_in_a_row,
    after_a_restart [RestoreAny],
    system_files [SystemWritable],
];

async fn content(sandbox: &Sandbox, path: &str) -> CaseResult<String> {
    Ok(sandbox.read_text(path).await?.trim().to_owned())
}

async fn any_without_losing_newer_ones(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for n in 1..=4 {
        sandbox.run(&format!("echo {n} > /root/f; touch /root/only{n}")).await?;
        sandbox.snapshot(&format!("s{n}")).await?;
    }
    let all = ["s1", "s2", "s3", "s4"];
    for label in ["s1", "s3", "s2", "s4", "s1"] {
        sandbox.restore(label).await?;
        assert_eq!(content(&sandbox, "/root/f").await?, label[1..]);
        assert_eq!(sandbox.labels().await?, all);
        let n: usize = label[1..].parse()?;
        for k in 1..=4 {
            assert_eq!(
                sandbox.stat(&format!("/root/only{k}")).await.is_ok(),
                k <= n,
                "{label} only{k}"
            );
        }
        // What is written after a restore is lost by the next one, and changes no snapshot.
        sandbox.run("echo dirty > /root/f; touch /root/dirt").await?;
    }
    sandbox.restore("s2").await?;
    sandbox.run("echo branch > /root/f").await?;
    sandbox.snapshot("s2b").await?;
    sandbox.restore("s4").await?;
    assert_eq!(content(&sandbox, "/root/f").await?, "4");
    fails!(sandbox.stat("/root/dirt").await, sandscript::sandbox::Error::NotFound { .. });
    sandbox.restore("s2b").await?;
    assert_eq!(content(&sandbox, "/root/f").await?, "branch");
    assert_eq!(sandbox.labels().await?, ["s1", "s2", "s3", "s4", "s2b"]);
    Ok(())
}

/// Where newer ones can't be kept they go when that is allowed, and not before.
async fn newer_ones_are_lost_when_that_is_allowed(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for label in ["a", "b", "c"] {
        sandbox.run(&format!("echo {label} > /root/f")).await?;
        sandbox.snapshot(label).await?;
    }
    match sandbox.restore("a").await {
        Ok(()) => assert_eq!(sandbox.labels().await?, ["a", "b", "c"]),
        Err(error) => {
            assert!(!scope.has(Capability::RestoreAny), "{error}");
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            assert_eq!(content(&sandbox, "/root/f").await?, "c");
            let discard = Restore { discard_newer: true };
            scope.backend().restore(&sandbox.name, "b", discard, &scope.cancel).await?;
            assert_eq!(sandbox.labels().await?, ["a", "b"]);
            assert_eq!(content(&sandbox, "/root/f").await?, "b");
            scope.backend().restore(&sandbox.name, "a", discard, &scope.cancel).await?;
            assert_eq!(sandbox.labels().await?, ["a"]);
        }
    }
    assert_eq!(content(&sandbox, "/root/f").await?, "a");
    Ok(())
}

async fn comes_back_running_and_ready(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.snapshot("s").await?;
    for _ in 0..5 {
        sandbox.restore("s").await?;
        assert_eq!(sandbox.run("echo ready").await?, "ready");
        assert_eq!(sandbox.state().await?, State::Running);
    }
    Ok(())
}

async fn of_a_stopped_one_stays_stopped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    sandbox.stop().await?;
    sandbox.restore("s").await?;
    assert_eq!(sandbox.state().await?, State::Stopped);
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    Ok(())
}

async fn ends_processes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.snapshot("s").await?;
    let mut process = sandbox.spawn(&Command::argv(["sleep", "1000"])).await?;
    sandbox.restore("s").await?;
    let soon = std::time::Duration::from_secs(30);
    let end = tokio::time::timeout(soon, process.control.wait()).await?;
    assert!(!matches!(end, Ok(exit) if exit.ok()), "{end:?}");
    Ok(())
}

async fn deleted_files(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d/e; echo x > /root/d/e/f; echo x > /root/g").await?;
    sandbox.snapshot("with").await?;
    sandbox.run("rm -rf /root/d /root/g").await?;
    sandbox.snapshot("without").await?;
    for path in ["/root/d", "/root/g"] {
        assert!(sandbox.stat(path).await.is_err(), "{path} came back by a snapshot");
    }
    let clone = scope.clone_of(&sandbox, Some("without")).await?;
    for path in ["/root/d", "/root/g"] {
        assert!(clone.stat(path).await.is_err(), "{path} came back in a clone");
    }
    sandbox.restore("with").await?;
    assert_eq!(content(&sandbox, "/root/d/e/f").await?, "x");
    sandbox.restore("without").await?;
    for path in ["/root/d", "/root/g"] {
        assert!(sandbox.stat(path).await.is_err(), "{path} came back by a restore");
    }
    assert_eq!(sandbox.run("ls /root").await?, "");
    Ok(())
}

async fn directory_becomes_file_and_back(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/x/y; echo 1 > /root/x/y/z; echo f > /root/w").await?;
    sandbox.snapshot("dir").await?;
    sandbox
        .run("rm -rf /root/x /root/w; echo 2 > /root/x; mkdir -p /root/w/v; ln -s x /root/l")
        .await?;
    sandbox.snapshot("file").await?;
    sandbox.run("rm -rf /root/x /root/l; ln -s w /root/x; mkdir -p /root/l").await?;
    sandbox.snapshot("link").await?;
    let kind = async |path: &'static str| CaseResult::Ok(sandbox.stat(path).await?.kind);
    for label in ["dir", "link", "file", "dir"] {
        sandbox.restore(label).await?;
        match label {
            "dir" => {
                assert_eq!(content(&sandbox, "/root/x/y/z").await?, "1");
                assert_eq!(kind("/root/w").await?, FileKind::File);
            }
            "file" => {
                assert_eq!(content(&sandbox, "/root/x").await?, "2");
                assert_eq!(kind("/root/w/v").await?, FileKind::Dir);
                assert_eq!(content(&sandbox, "/root/l").await?, "2");
            }
            _ => {
                assert_eq!(kind("/root/x").await?, FileKind::Symlink);
                assert_eq!(kind("/root/x/v").await?, FileKind::Dir);
                assert_eq!(kind("/root/l").await?, FileKind::Dir);
            }
        }
    }
    Ok(())
}

async fn directory_made_anew_is_empty(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d/sub; echo 1 > /root/d/old; echo 1 > /root/d/sub/old").await?;
    sandbox.snapshot("one").await?;
    sandbox.run("rm -rf /root/d; mkdir -p /root/d/sub; echo 2 > /root/d/new").await?;
    assert_eq!(sandbox.ls("/root/d").await?, ["new", "sub"]);
    sandbox.snapshot("two").await?;
    for check in ["live", "restart", "restore"] {
        match check {
            "restart" => {
                sandbox.stop().await?;
                sandbox.start().await?;
            }
            "restore" => sandbox.restore("two").await?,
            _ => {}
        }
        assert_eq!(
            sandbox.ls("/root/d").await?,
            ["new", "sub"],
            "{check}: old entries shine through"
        );
        assert!(sandbox.ls("/root/d/sub").await?.is_empty(), "{check}");
    }
    let clone = scope.clone_of(&sandbox, Some("two")).await?;
    assert_eq!(clone.ls("/root/d").await?, ["new", "sub"]);
    clone.snapshot("three").await?;
    let second = scope.clone_of(&clone, Some("three")).await?;
    assert_eq!(second.ls("/root/d").await?, ["new", "sub"]);
    sandbox.restore("one").await?;
    assert_eq!(sandbox.ls("/root/d").await?, ["old", "sub"]);
    Ok(())
}

/// A backend may take a snapshot of a busy sandbox in another way than of an idle one; each must know
/// deleted files, folders made anew and links, and they must mix.
async fn of_snapshots_taken_while_something_ran(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d/sub /root/gone; echo 1 > /root/d/old; echo 1 > /root/gone/f; echo 1 > /root/f; ln -s f /root/l").await?;
    for (busy, label) in [(true, "busy"), (false, "idle"), (true, "again")] {
        sandbox.stop().await?;
        sandbox.start().await?;
        if busy {
            sandbox.background().await?;
        }
        sandbox.run("mkdir -p /root/d /root/gone; touch /root/d/old /root/gone/f").await?;
        sandbox.snapshot(&format!("{label}-before")).await?;
        sandbox
            .run(&format!("rm -rf /root/d /root/gone /root/l; mkdir -p /root/d/sub; echo {label} > /root/d/new; chmod 640 /root/f; ln -s d/new /root/l"))
            .await?;
        sandbox.snapshot(label).await?;
        sandbox
            .run(&format!(
                "echo later > /root/d/later; rm -rf /root/d/new; echo {label} >> /root/f"
            ))
            .await?;
        sandbox.snapshot(&format!("{label}-after")).await?;
    }
    for label in ["busy", "again", "idle", "busy", "idle", "again"] {
        sandbox.restore(label).await?;
        assert_eq!(
            sandbox.ls("/root/d").await?,
            ["new", "sub"],
            "{label}: a deleted file came back"
        );
        let mut own = sandbox.ls("/root").await?;
        // What an image may have there.
        own.retain(|name| !name.starts_with('.'));
        assert_eq!(own, ["d", "f", "l"], "{label}");
        assert_eq!(sandbox.run("cat /root/l").await?, label);
        assert_eq!(sandbox.stat("/root/f").await?.mode, 0o640);
        let clone = scope.clone_of(&sandbox, Some(&format!("{label}-after"))).await?;
        assert_eq!(clone.ls("/root/d").await?, ["later", "sub"], "{label}: in a clone");
        clone.delete().await?;
        sandbox.restore(&format!("{label}-before")).await?;
        assert_eq!(
            sandbox.read_text("/root/gone/f").await?.len(),
            if label == "busy" { 2 } else { 0 }
        );
    }
    Ok(())
}

async fn links_modes_and_times(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo x > /root/f; chmod 751 /root/f; ln -s f /root/l; mkdir -p /root/d; chmod 1700 /root/d").await?;
    let before = [
        sandbox.stat("/root/f").await?,
        sandbox.stat("/root/l").await?,
        sandbox.stat("/root/d").await?,
    ];
    sandbox.snapshot("s").await?;
    sandbox.run("chmod 600 /root/f; rm -rf /root/l /root/d; echo y > /root/f").await?;
    sandbox.restore("s").await?;
    let after = [
        sandbox.stat("/root/f").await?,
        sandbox.stat("/root/l").await?,
        sandbox.stat("/root/d").await?,
    ];
    assert_eq!(after, before);
    Ok(())
}

async fn keeps_identity_and_settings(scope: Scope) -> CaseResult {
    let sandbox = scope
        .sandbox_of(|spec| {
            spec.env.insert("A".to_owned(), "1".to_owned());
            spec.cwd = Some("/tmp".to_owned());
        })
        .await?;
    let identity = "hostname; cat /etc/machine-id; pwd; echo $A";
    let before = sandbox.run(identity).await?;
    let info = sandbox.info().await?;
    sandbox.snapshot("s").await?;
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run(identity).await?, before);
    let after = sandbox.info().await?;
    assert!(after.used >= info.used);
    assert_eq!(Info { used: info.used, ..after }, info);
    Ok(())
}

async fn twice_in_a_row(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    for _ in 0..3 {
        sandbox.run("echo 2 > /root/f; echo x > /root/extra").await?;
        sandbox.restore("s").await?;
        sandbox.restore("s").await?;
        assert_eq!(sandbox.run("cat /root/f; ls /root").await?, "1\nf");
    }
    Ok(())
}

async fn after_a_restart(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    sandbox.snapshot("t").await?;
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    sandbox.stop().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1", "a restart undid the restore");
    sandbox.restore("t").await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "2");
    Ok(())
}

async fn system_files(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /usr/lib/ours; echo 1 > /usr/lib/ours/f; echo 1 > /etc/ours").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("rm -rf /usr/lib/ours /etc/ours; mv /usr/bin/wc /usr/bin/moved").await?;
    assert!(sandbox.stat("/usr/bin/wc").await.is_err());
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run("cat /usr/lib/ours/f /etc/ours").await?, "1\n1");
    sandbox.stat("/usr/bin/wc").await?;
    Ok(())
}
