//! A limit holds, and what can't be limited is refused.

use std::time::{Duration, Instant};

use sandscript::sandbox::{Capability, Command, Error, Exit, Limits, Spec, State};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;

cases!["limit";
    is_reported_or_refused,
    pids_stop_a_fork_bomb [LimitPids, Programs],
    memory_kills_the_hog_only [LimitMemory, Programs],
    disk [LimitDisk],
    disk_through_the_files [LimitDisk],
    inodes [LimitInodes],
    cpu [LimitCpu, Programs],
    hold_after_a_restart [LimitPids, Programs],
];

async fn is_reported_or_refused(scope: Scope) -> CaseResult {
    for (capability, limits) in [
        (Capability::LimitCpu, Limits { cpu: Some(0.5), ..Limits::default() }),
        (Capability::LimitMemory, Limits { memory: Some(128 << 20), ..Limits::default() }),
        (Capability::LimitPids, Limits { pids: Some(64), ..Limits::default() }),
        (Capability::LimitDisk, Limits { disk: Some(64 << 20), ..Limits::default() }),
        (Capability::LimitInodes, Limits { inodes: Some(5000), ..Limits::default() }),
    ] {
        let mut spec = Spec::new(scope.name());
        spec.limits = limits.clone();
        let made = scope.backend().create(&spec, &scope.cancel).await;
        if scope.has(capability) {
            made?;
            assert_eq!(scope.at(&spec.name).info().await?.limits, limits);
            scope.at(&spec.name).run("true").await?;
        } else {
            fails!(&made, Error::Unsupported { .. });
            assert!(made.unwrap_err().hint().is_some(), "{capability} is refused without a hint");
            assert!(!scope.exists(&spec.name).await?);
        }
    }
    Ok(())
}

async fn pids_stop_a_fork_bomb(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.pids = Some(40)).await?;
    let mut bomb = Command::shell(
        "f() { f & f; }; f; for i in 1 2 3 4 5 6 7 8 9 0; do sleep 100 & done; for i in $(seq 200); do sleep 100 & done; wait",
    );
    bomb.timeout = Some(Duration::from_secs(2));
    let _ = sandbox.exec(&bomb).await;
    assert_eq!(sandbox.state().await?, State::Running, "the bomb took the sandbox");
    crate::sandbox::eventually("the bomb is over", async || {
        let left = sandbox.sh("ls -d /proc/[0-9]* | wc -l").await;
        let left = left.map(|output| String::from_utf8_lossy(&output.stdout).trim().parse());
        Ok(matches!(left, Ok(Ok(0..20))))
    })
    .await?;
    let script = "for i in $(seq 100); do sleep 5 & done 2>/dev/null; ls -d /proc/[0-9]* | wc -l";
    let output = sandbox.sh(script).await?;
    if let Ok(count) = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>() {
        assert!(count <= 45, "{count} processes");
    } else {
        assert!(!output.exit.ok(), "{output:?}");
    }
    Ok(())
}

async fn memory_kills_the_hog_only(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.memory = Some(48 << 20)).await?;
    let pid = sandbox.run("sleep 1000 > /dev/null 2>&1 & echo $!").await?;
    // A single line as long as it gets has to be held in memory.
    let mut hog = Command::shell("head -c 400000000 /dev/zero | tail -n 1 | wc -c; exit 0");
    hog.timeout = Some(Duration::from_secs(60));
    let output = sandbox.exec(&hog).await;
    if let Ok(output) = &output {
        assert_ne!(output.stdout, b"400000000\n", "nothing stopped it");
    }
    assert_eq!(sandbox.state().await?, State::Running, "the hog took the sandbox");
    sandbox.run("true").await?;
    let _ = sandbox.alive(&pid).await?;
    let small = sandbox.filter(&["wc", "-c"], vec![b'x'; 1 << 20]).await?;
    assert_eq!(small, b"1048576\n");
    Ok(())
}

async fn disk(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.disk = Some(16 << 20)).await?;
    sandbox.write("/root/fits", vec![1; 4 << 20]).await?;
    let mut command = Command::shell("cat > /root/full");
    command.stdin = sandscript::sandbox::Stdin::Bytes(vec![2; 30 << 20].into());
    let output = sandbox.exec(&command).await?;
    assert!(!output.exit.ok(), "30 MiB went into 16 MiB");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(["No space left", "quota exceeded"].iter().any(|why| said.contains(why)), "{output:?}");
    assert_eq!(sandbox.run("rm -f /root/full; echo x > /root/g; cat /root/g").await?, "x");
    let other = scope.sandbox().await?;
    other.write("/root/big", vec![3; 30 << 20]).await?;
    Ok(())
}

async fn disk_through_the_files(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.disk = Some(16 << 20)).await?;
    sandbox.write("/root/f", "old").await?;
    fails!(sandbox.write("/root/f", vec![2; 30 << 20]).await, Error::Exhausted { .. });
    assert_eq!(sandbox.read_text("/root/f").await?, "old");
    sandbox.write("/root/g", vec![2; 4 << 20]).await?;
    Ok(())
}

async fn inodes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.inodes = Some(500)).await?;
    let names: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let script = format!("mkdir -p /root/many; cd /root/many; touch {}", names.join(" "));
    let mut command = Command::argv(["sh"]);
    command.stdin = sandscript::sandbox::Stdin::Bytes(script.into());
    let output = sandbox.exec(&command).await?;
    assert!(!output.exit.ok(), "2000 files went into 500");
    let made = sandbox.ls("/root/many").await?.len();
    assert!((300..=520).contains(&made), "{made} files of 500");
    sandbox.run("rm -rf /root/many; touch /root/f").await?;
    Ok(())
}

async fn cpu(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.cpu = Some(0.2)).await?;
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let used = "cat /proc/self/stat | cut -d' ' -f14-17";
    let started = Instant::now();
    let times = sandbox.run(&format!("{work}; times")).await?;
    let wall = started.elapsed().as_secs_f64();
    let own = times.lines().next().unwrap_or_default();
    let seconds: f64 = own
        .split_whitespace()
        .filter_map(|part| part.trim_end_matches('s').split_once('m'))
        .map(|(m, s)| m.parse::<f64>().unwrap_or(0.0) * 60.0 + s.parse::<f64>().unwrap_or(0.0))
        .sum();
    assert!(seconds > 0.05, "too little work to measure: {times:?} {used}");
    assert!(seconds / wall < 0.35, "used {seconds} s of CPU in {wall} s at a limit of 0.2");
    Ok(())
}

async fn hold_after_a_restart(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.limits.pids = Some(30)).await?;
    sandbox.snapshot("s").await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    clone.restore("s").await.err();
    for sandbox in [&sandbox, &clone] {
        let output = sandbox.sh("for i in $(seq 100); do sleep 5 & done; wait").await?;
        let refused = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert_ne!(output.exit, Exit::Code(0), "a hundred processes ran at a limit of thirty");
        assert!(refused.contains("fork"), "{refused}");
    }
    Ok(())
}
