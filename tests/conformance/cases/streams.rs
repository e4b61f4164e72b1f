//! stdin, stdout and stderr: separate, binary safe, streamed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sandscript::sandbox::{Command, Exit, Stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::case::{CaseResult, cases};
use crate::rig::Scope;

cases!["streams";
    are_separate,
    all_byte_values,
    twenty_megabytes_through_a_pipe,
    both_outputs_at_once [Programs],
    stdin_is_empty_by_default,
    stdin_nobody_reads,
    interactive,
    output_is_capped,
    background_process_does_not_hold_the_result,
    closed_reader_ends_the_writer [Programs],
    output_comes_while_it_runs,
];

async fn are_separate(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let output = sandbox.sh("echo out; echo err >&2; printf x; printf y >&2").await?;
    assert_eq!(output.stdout, b"out\nx");
    assert_eq!(output.stderr, b"err\ny");
    assert!(!output.truncated);
    Ok(())
}

async fn all_byte_values(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(256 * 300).collect();
    assert!(sandbox.filter(&["cat"], bytes.clone()).await? == bytes);
    let mut command = Command::shell("cat >&2");
    command.stdin = Stdin::Bytes(bytes.clone().into());
    let output = sandbox.exec(&command).await?;
    assert!(output.stderr == bytes && output.stdout.is_empty());
    Ok(())
}

/// Random bytes, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn new(seed: [u8; 8]) -> Noise {
        Noise(u64::from_le_bytes(seed) | 1)
    }

    /// The next 64 KiB.
    fn chunk(&mut self) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_le_bytes()
        };
        (0..8192).flat_map(|_| next()).collect()
    }
}

async fn twenty_megabytes_through_a_pipe(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let (mut sent, mut wanted) = (Noise::new(seed), Noise::new(seed));
    let mut command = Command::argv(["cat"]);
    command.stdin = Stdin::Piped;
    let mut process = sandbox.spawn(&command).await?;
    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    const CHUNKS: usize = 320;
    let feed = async {
        for _ in 0..CHUNKS {
            stdin.write_all(&sent.chunk()).await?;
        }
        stdin.shutdown().await?;
        drop(stdin);
        std::io::Result::Ok(())
    };
    let eat = async {
        let mut buffer = vec![0; 64 * 1024];
        for index in 0..CHUNKS {
            stdout.read_exact(&mut buffer).await?;
            assert!(buffer == wanted.chunk(), "chunk {index} came back changed ({seed:?})");
        }
        assert_eq!(stdout.read(&mut buffer).await?, 0, "there is more than was written");
        std::io::Result::Ok(())
    };
    let (fed, eaten) = tokio::join!(feed, eat);
    fed?;
    eaten?;
    assert_eq!(process.control.wait().await?, Exit::Code(0));
    Ok(())
}

async fn both_outputs_at_once(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let output =
        sandbox.sh("head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait").await?;
    assert_eq!((output.stdout.len(), output.stderr.len()), (5_000_000, 5_000_000));
    assert!(output.exit.ok());
    Ok(())
}

async fn stdin_is_empty_by_default(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::argv(["cat"]);
    command.timeout = Some(Duration::from_secs(20));
    let output = sandbox.exec(&command).await?;
    assert_eq!((output.exit, output.stdout.len()), (Exit::Code(0), 0));
    Ok(())
}

async fn stdin_nobody_reads(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::argv(["true"]);
    command.stdin = Stdin::Bytes(Bytes::from(vec![7; 20 << 20]));
    command.timeout = Some(Duration::from_secs(30));
    assert_eq!(sandbox.exec(&command).await?.exit, Exit::Code(0));
    Ok(())
}

async fn interactive(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::argv(["cat"]);
    command.stdin = Stdin::Piped;
    let mut process = sandbox.spawn(&command).await?;
    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await?;
        let mut buffer = vec![0; line.len()];
        tokio::time::timeout(Duration::from_secs(30), stdout.read_exact(&mut buffer)).await??;
        assert_eq!(buffer, line.as_bytes());
    }
    drop(stdin);
    assert_eq!(process.control.wait().await?, Exit::Code(0));
    Ok(())
}

async fn output_is_capped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::shell("cat; exit 3");
    command.stdin = Stdin::Bytes(Bytes::from(vec![b'x'; 1 << 20]));
    command.max_output = 1000;
    let output = sandbox.exec(&command).await?;
    assert_eq!((output.stdout.len(), output.truncated), (1000, true));
    assert_eq!(output.exit, Exit::Code(3));
    Ok(())
}

async fn background_process_does_not_hold_the_result(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let started = Instant::now();
    let output = sandbox.sh("sleep 1000 & echo done").await?;
    assert_eq!(output.stdout, b"done\n");
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    Ok(())
}

async fn closed_reader_ends_the_writer(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::argv(["cat", "/dev/zero"])).await?;
    drop(process.stdout.take());
    let end = tokio::time::timeout(Duration::from_secs(30), process.control.wait()).await??;
    assert!(matches!(end, Exit::Signal(13) | Exit::Code(1)), "{end}");
    Ok(())
}

async fn output_comes_while_it_runs(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut process = sandbox.spawn(&Command::shell("echo early; sleep 1000")).await?;
    let mut buffer = [0; 6];
    let read = process.stdout.as_mut().unwrap().read_exact(&mut buffer);
    tokio::time::timeout(Duration::from_secs(30), read).await??;
    assert_eq!(&buffer, b"early\n");
    process.control.kill().await?;
    assert_eq!(process.control.wait().await?, Exit::Signal(9));
    Ok(())
}
