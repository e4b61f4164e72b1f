//! start, stop and delete in every state.

use std::time::{Duration, Instant};

use sandscript::sandbox::{Error, Kind, State, StopOptions};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::Sandbox;

cases!["states";
    start,
    start_frozen [Freeze],
    stop,
    stop_frozen [Freeze],
    delete,
    delete_frozen [Freeze],
    missing,
    a_restart_keeps_files_and_identity,
    a_restart_ends_processes,
    stop_lets_processes_end [Programs],
    stop_kills_after_the_grace [Programs],
    stop_by_force [Programs],
    stop_can_be_cancelled [Programs],
    ready,
    freeze_and_thaw [Freeze],
    frozen_processes_stand_still [Freeze, Programs],
    exec_when_frozen [Freeze],
    freeze_needs_a_running_one [Freeze],
    a_name_is_free_after_delete,
];

async fn start(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.start().await?;
    assert!(sandbox.alive(&pid).await?, "starting a running sandbox restarted it");
    sandbox.stop().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("echo ready").await?, "ready");
    sandbox.start().await?;
    assert_eq!(sandbox.state().await?, State::Running);
    Ok(())
}

async fn start_frozen(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.freeze().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.state().await?, State::Running);
    assert!(sandbox.alive(&pid).await?, "starting a frozen sandbox restarted it");
    Ok(())
}

async fn stop(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for force in [false, true] {
        let options = StopOptions { force, grace: Duration::from_secs(5) };
        for _ in 0..2 {
            sandbox.backend.stop(&sandbox.name, options, &scope.cancel).await?;
            assert_eq!(sandbox.state().await?, State::Stopped);
        }
        sandbox.start().await?;
    }
    Ok(())
}

async fn stop_frozen(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for force in [false, true] {
        sandbox.background().await?;
        sandbox.freeze().await?;
        let options = StopOptions { force, grace: Duration::from_secs(5) };
        sandbox.backend.stop(&sandbox.name, options, &scope.cancel).await?;
        assert_eq!(sandbox.state().await?, State::Stopped);
        sandbox.start().await?;
        sandbox.run("true").await?;
    }
    Ok(())
}

async fn gone(scope: &Scope, sandbox: &Sandbox) -> CaseResult {
    sandbox.delete().await?;
    assert!(!scope.exists(&sandbox.name).await?);
    fails!(sandbox.delete().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(sandbox.start().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(sandbox.sh("true").await, Error::NotFound { kind: Kind::Sandbox, .. });
    Ok(())
}

async fn delete(scope: Scope) -> CaseResult {
    let running = scope.sandbox().await?;
    running.background().await?;
    running.snapshot("s").await?;
    gone(&scope, &running).await?;
    let stopped = scope.sandbox().await?;
    stopped.snapshot("s").await?;
    stopped.stop().await?;
    gone(&scope, &stopped).await?;
    let bare = scope.sandbox_of(|spec| spec.bare = true).await?;
    gone(&scope, &bare).await
}

async fn delete_frozen(scope: Scope) -> CaseResult {
    let frozen = scope.sandbox().await?;
    frozen.background().await?;
    frozen.freeze().await?;
    gone(&scope, &frozen).await
}

async fn missing(scope: Scope) -> CaseResult {
    let none = scope.at("no-such-sandbox");
    fails!(none.start().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.stop().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.delete().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.info().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.snapshot("s").await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.labels().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.restore("s").await, Error::NotFound { .. });
    fails!(none.delete_snapshot("s").await, Error::NotFound { .. });
    fails!(
        scope.backend().keep("no-such-sandbox", &scope.cancel).await,
        Error::NotFound { kind: Kind::Sandbox, .. }
    );
    Ok(())
}

async fn a_restart_keeps_files_and_identity(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo kept > /root/f; mkdir -p /var/lib/d; echo kept > /var/lib/d/f; ln -s f /root/l; chmod 600 /root/f").await?;
    let identity = "cat /etc/machine-id; hostname";
    let before = sandbox.run(identity).await?;
    let created = sandbox.info().await?.created;
    for _ in 0..3 {
        sandbox.stop().await?;
        sandbox.start().await?;
        assert_eq!(sandbox.run("cat /root/f /var/lib/d/f /root/l").await?, "kept\nkept\nkept");
        assert_eq!(sandbox.stat("/root/f").await?.mode, 0o600);
        assert_eq!(sandbox.run(identity).await?, before);
    }
    assert_eq!(sandbox.info().await?.created, created);
    Ok(())
}

async fn a_restart_ends_processes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    assert!(!sandbox.alive(&pid).await?, "a process lived through a restart");
    Ok(())
}

async fn stop_lets_processes_end(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script = "(trap 'echo bye > /root/bye; exit 0' TERM; echo ready > /root/ready; while :; do sleep 0.02; done) > /dev/null 2>&1 &";
    sandbox.run(script).await?;
    crate::sandbox::eventually("it waits", async || Ok(sandbox.stat("/root/ready").await.is_ok()))
        .await?;
    let options = StopOptions { force: false, grace: Duration::from_secs(60) };
    let started = Instant::now();
    sandbox.backend.stop(&sandbox.name, options, &scope.cancel).await?;
    assert!(started.elapsed() < Duration::from_secs(30), "it waited for the whole grace");
    sandbox.start().await?;
    assert_eq!(sandbox.read_text("/root/bye").await?, "bye\n");
    Ok(())
}

const STUBBORN: &str =
    "(trap '' TERM; echo ready > /root/ready; while :; do sleep 0.02; done) > /dev/null 2>&1 &";

async fn stubborn(scope: &Scope) -> CaseResult<Sandbox> {
    let sandbox = scope.sandbox().await?;
    sandbox.run(STUBBORN).await?;
    crate::sandbox::eventually("it waits", async || Ok(sandbox.stat("/root/ready").await.is_ok()))
        .await?;
    Ok(sandbox)
}

async fn stop_kills_after_the_grace(scope: Scope) -> CaseResult {
    let sandbox = stubborn(&scope).await?;
    let options = StopOptions { force: false, grace: Duration::from_millis(700) };
    let started = Instant::now();
    sandbox.backend.stop(&sandbox.name, options, &scope.cancel).await?;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(600), "killed after {took:?}, the grace is 700 ms");
    assert!(took < Duration::from_secs(8), "took {took:?}");
    assert_eq!(sandbox.state().await?, State::Stopped);
    Ok(())
}

async fn stop_by_force(scope: Scope) -> CaseResult {
    let sandbox = stubborn(&scope).await?;
    let options = StopOptions { force: true, grace: Duration::from_secs(60) };
    let started = Instant::now();
    sandbox.backend.stop(&sandbox.name, options, &scope.cancel).await?;
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
    Ok(())
}

async fn stop_can_be_cancelled(scope: Scope) -> CaseResult {
    let sandbox = stubborn(&scope).await?;
    let cancel = sandscript::sandbox::Cancel::new();
    let options = StopOptions { force: false, grace: Duration::from_secs(60) };
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let stop = sandbox.backend.stop(&sandbox.name, options, &cancel);
    let (done, ()) =
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(stop, later) }).await?;
    fails!(done, Error::Cancelled);
    // Whatever state it is in now, it can be stopped and started.
    sandbox.stop().await?;
    sandbox.start().await?;
    sandbox.run("true").await?;
    Ok(())
}

async fn ready(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let second = Duration::from_secs(1);
    scope.backend().ready(&sandbox.name, second, &scope.cancel).await?;
    sandbox.stop().await?;
    fails!(
        scope.backend().ready(&sandbox.name, second, &scope.cancel).await,
        Error::NotRunning { .. } | Error::Timeout { .. }
    );
    fails!(
        scope.backend().ready("no-such-sandbox", second, &scope.cancel).await,
        Error::NotFound { kind: Kind::Sandbox, .. }
    );
    Ok(())
}

async fn freeze_and_thaw(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    for _ in 0..3 {
        sandbox.freeze().await?;
        assert_eq!(sandbox.state().await?, State::Frozen);
        sandbox.freeze().await?;
        sandbox.thaw().await?;
        assert_eq!(sandbox.state().await?, State::Running);
        sandbox.thaw().await?;
        assert!(sandbox.alive(&pid).await?);
    }
    Ok(())
}

async fn frozen_processes_stand_still(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox
        .spawn(&sandscript::sandbox::Command::shell("while :; do echo x; sleep 0.01; done"))
        .await?;
    let mut stdout = process.stdout.take().unwrap();
    let mut buffer = [0; 64 << 10];
    let _ = tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer).await?;
    sandbox.freeze().await?;
    let moment = Duration::from_millis(400);
    // What was written before the freeze is still in the pipe.
    while tokio::time::timeout(moment, tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer))
        .await
        .is_ok()
    {}
    let more =
        tokio::time::timeout(moment, tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer)).await;
    assert!(more.is_err(), "a frozen process wrote");
    sandbox.thaw().await?;
    let soon = Duration::from_secs(30);
    let count = tokio::time::timeout(soon, tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer))
        .await??;
    assert!(count > 0);
    Ok(())
}

async fn exec_when_frozen(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.freeze().await?;
    let done = tokio::time::timeout(Duration::from_secs(30), sandbox.sh("true")).await?;
    fails!(done, Error::NotRunning { .. } | Error::Busy { .. });
    sandbox.thaw().await?;
    sandbox.run("true").await?;
    Ok(())
}

async fn freeze_needs_a_running_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.stop().await?;
    fails!(sandbox.freeze().await, Error::NotRunning { .. });
    fails!(sandbox.thaw().await, Error::NotRunning { .. });
    let none = scope.at("no-such-sandbox");
    fails!(none.freeze().await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.thaw().await, Error::NotFound { kind: Kind::Sandbox, .. });
    Ok(())
}

async fn a_name_is_free_after_delete(scope: Scope) -> CaseResult {
    let name = scope.name();
    for round in 0..5 {
        let sandbox = scope.sandbox_of(|spec| spec.name = name.clone()).await?;
        fails!(sandbox.stat("/root/f").await, Error::NotFound { .. });
        assert!(sandbox.labels().await?.is_empty(), "round {round} found the last one's snapshots");
        sandbox.write("/root/f", "x").await?;
        sandbox.snapshot("s").await?;
        sandbox.delete().await?;
    }
    Ok(())
}
