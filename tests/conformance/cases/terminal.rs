//! Commands with a terminal.

use std::time::Duration;

use sandscript::sandbox::{Command, Exit, Process, Stdin, WindowSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::case::{CaseResult, cases};
use crate::rig::Scope;

cases!["terminal";
    none_by_default,
    is_one [Programs],
    resize [Programs],
    control_c [Programs],
    echoes_and_ends [Programs],
];

const SIZE: WindowSize = WindowSize { rows: 33, cols: 117 };

fn command(script: &str) -> Command {
    let mut command = Command::shell(script);
    command.tty = Some(SIZE);
    command.stdin = Stdin::Piped;
    command
}

async fn until(process: &mut Process, end: &str) -> CaseResult<String> {
    let mut text = Vec::new();
    let stdout = process.stdout.as_mut().unwrap();
    while !String::from_utf8_lossy(&text).contains(end) {
        let mut buffer = [0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(30), stdout.read(&mut buffer)).await?;
        match read {
            Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
            _ => panic!("the terminal closed after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    Ok(String::from_utf8(text)?)
}

async fn none_by_default(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(sandbox.sh("test -t 0 || test -t 1 || test -t 2").await?.exit, Exit::Code(1));
    assert_eq!(sandbox.run("printf %s \"$TERM\"").await?, "");
    Ok(())
}

async fn is_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script =
        "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM && echo err >&2; exit 4";
    let process = sandbox.spawn(&command(script)).await?;
    assert!(process.stderr.is_none(), "stderr is the terminal too");
    let output = process.collect(1 << 20).await?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines[0], "33 117", "{text:?}");
    assert!(!lines[1].is_empty(), "TERM is not set");
    assert_eq!(lines[2], "err");
    assert_eq!(output.exit, Exit::Code(4));
    Ok(())
}

async fn resize(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script =
        "trap 'echo got; stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut process = sandbox.spawn(&command(script)).await?;
    until(&mut process, "ready").await?;
    process.control.resize(WindowSize { rows: 50, cols: 200 }).await?;
    let text = until(&mut process, "200").await?;
    assert!(text.contains("got\r\n50 200"), "{text:?}");
    assert_eq!(process.control.wait().await?, Exit::Code(0));
    Ok(())
}

async fn control_c(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&command("echo ready; exec sleep 1000")).await?;
    until(&mut process, "ready").await?;
    let stdin = process.stdin.as_mut().unwrap();
    stdin.write_all(b"\x03").await?;
    stdin.flush().await?;
    let end = tokio::time::timeout(Duration::from_secs(30), process.control.wait()).await??;
    assert_eq!(end, Exit::Signal(2));
    Ok(())
}

async fn echoes_and_ends(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&command("read line; echo \"got $line\"")).await?;
    let stdin = process.stdin.as_mut().unwrap();
    stdin.write_all(b"hello\n").await?;
    stdin.flush().await?;
    let text = until(&mut process, "got hello").await?;
    assert!(text.starts_with("hello\r\n"), "the terminal does not echo: {text:?}");
    assert_eq!(process.control.wait().await?, Exit::Code(0));
    Ok(())
}
