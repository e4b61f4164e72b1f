//! The handle of a running command.

use std::time::Duration;

use sandscript::sandbox::{Command, Error, Exit, Process, Signal};
use tokio::io::AsyncReadExt;

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::eventually;

cases!["process";
    wait_answers_again,
    signal_reaches_the_command,
    signal_can_be_handled [Programs],
    kill_takes_the_tree,
    drop_kills,
    drop_after_the_end_kills_nothing,
    detached_lives_on,
    background_lives_between_execs,
    orphans_are_reaped [Programs],
    ends_when_the_sandbox_stops,
    ends_when_the_sandbox_is_deleted,
];

const SOON: Duration = Duration::from_secs(30);

/// The first line the process prints: its id in the guest.
async fn pid(process: &mut Process) -> CaseResult<String> {
    let mut text = String::new();
    let stdout = process.stdout.as_mut().unwrap();
    while !text.ends_with('\n') {
        let mut byte = [0];
        tokio::time::timeout(SOON, stdout.read_exact(&mut byte)).await??;
        text.push(char::from(byte[0]));
    }
    Ok(text.trim().to_owned())
}

async fn wait_answers_again(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::shell("exit 3")).await?;
    for _ in 0..3 {
        assert_eq!(process.control.wait().await?, Exit::Code(3));
    }
    process.control.signal(Signal(15)).await?;
    process.control.kill().await?;
    assert_eq!(process.control.wait().await?, Exit::Code(3));
    Ok(())
}

async fn signal_reaches_the_command(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for number in [15, 2, 9, 1] {
        let mut process = sandbox.spawn(&Command::argv(["sleep", "1000"])).await?;
        process.control.signal(Signal(number)).await?;
        let end = tokio::time::timeout(SOON, process.control.wait()).await??;
        assert_eq!(end, Exit::Signal(number));
    }
    let mut process = sandbox.spawn(&Command::argv(["sleep", "1000"])).await?;
    process.control.signal(Signal(19)).await?;
    process.control.signal(Signal(18)).await?;
    let waited = tokio::time::timeout(Duration::from_millis(300), process.control.wait()).await;
    assert!(waited.is_err(), "stopping and continuing ended it: {waited:?}");
    Ok(())
}

async fn signal_can_be_handled(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script = "trap 'exit 7' USR1; echo $$; while :; do sleep 0.05; done";
    let mut process = sandbox.spawn(&Command::shell(script)).await?;
    pid(&mut process).await?;
    process.control.signal(Signal(10)).await?;
    let end = tokio::time::timeout(SOON, process.control.wait()).await??;
    assert_eq!(end, Exit::Code(7));
    Ok(())
}

async fn kill_takes_the_tree(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::shell("sleep 1000 & echo $!; sleep 1000")).await?;
    let child = pid(&mut process).await?;
    assert!(sandbox.alive(&child).await?);
    process.control.kill().await?;
    let end = tokio::time::timeout(SOON, process.control.wait()).await??;
    assert_eq!(end, Exit::Signal(9));
    eventually("the child is killed too", async || Ok(!sandbox.alive(&child).await?)).await
}

async fn drop_kills(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::shell("sleep 1000 & echo $!; sleep 1000")).await?;
    let child = pid(&mut process).await?;
    drop(process);
    eventually("the child is killed", async || Ok(!sandbox.alive(&child).await?)).await?;
    let mut process = sandbox.spawn(&Command::shell("echo $$; sleep 1000")).await?;
    let own = pid(&mut process).await?;
    assert!(sandbox.alive(&own).await?);
    drop(process);
    eventually("the command is killed", async || Ok(!sandbox.alive(&own).await?)).await
}

async fn drop_after_the_end_kills_nothing(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script = "sleep 1000 > /dev/null 2> /dev/null & echo $!";
    let mut process = sandbox.spawn(&Command::shell(script)).await?;
    let child = pid(&mut process).await?;
    process.control.wait().await?;
    drop(process);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(sandbox.alive(&child).await?, "the background process died with the handle");
    Ok(())
}

async fn detached_lives_on(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::shell("echo $$; sleep 1000");
    command.detached = true;
    let mut process = sandbox.spawn(&command).await?;
    let own = pid(&mut process).await?;
    if let Some(known) = process.pid {
        assert_eq!(known.to_string(), own, "the process id in the guest");
    }
    drop(process);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(sandbox.alive(&own).await?, "it died with its handle");
    sandbox.run(&format!("kill -9 {own}")).await?;
    eventually("it is killed", async || Ok(!sandbox.alive(&own).await?)).await
}

async fn background_lives_between_execs(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let child = sandbox.run("sleep 1000 > /dev/null 2> /dev/null & echo $!").await?;
    for _ in 0..5 {
        sandbox.run("true").await?;
        assert!(sandbox.alive(&child).await?);
    }
    sandbox.run(&format!("kill {child}")).await?;
    eventually("it is gone", async || Ok(!sandbox.alive(&child).await?)).await
}

async fn orphans_are_reaped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.1 &) ; done").await?;
    eventually("no zombie is left", async || {
        let stats = sandbox.run("cat /proc/[0-9]*/stat 2>/dev/null; true").await?;
        Ok(!stats.lines().any(|line| line.contains(") Z ")))
    })
    .await
}

async fn ends_when_the_sandbox_stops(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::argv(["sleep", "1000"])).await?;
    sandbox.stop().await?;
    match tokio::time::timeout(SOON, process.control.wait()).await? {
        Ok(Exit::Signal(_)) | Err(Error::Transport { .. } | Error::NotRunning { .. }) => Ok(()),
        other => panic!("the command of a stopped sandbox ended as {other:?}"),
    }
}

async fn ends_when_the_sandbox_is_deleted(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let command = Command::argv(["sleep", "1000"]);
    let delete = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sandbox.delete().await
    };
    let (done, deleted) =
        tokio::time::timeout(SOON, async { tokio::join!(sandbox.exec(&command), delete) }).await?;
    deleted?;
    match done.map(|output| output.exit) {
        Ok(Exit::Signal(_))
        | Err(Error::Transport { .. } | Error::NotRunning { .. } | Error::NotFound { .. }) => {}
        other => panic!("the command of a deleted sandbox ended as {other:?}"),
    }
    fails!(sandbox.sh("true").await, Error::NotFound { .. });
    Ok(())
}
