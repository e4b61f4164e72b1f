//! What a sandbox takes of the machine.

use std::time::Duration;

use sandscript::sandbox::{Error, Usage};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;

cases!["usage";
    grows_with_what_runs [Usage, Programs],
    nothing_is_made_up,
];

async fn grows_with_what_runs(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let usage = || scope.backend().usage(&sandbox.name, &scope.cancel);
    let before = usage().await?.cpu.unwrap();
    sandbox.run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").await?;
    sandbox.run("x=$(head -c 20000000 /dev/zero | tr '\\0' x); test ${#x} = 20000000").await?;
    let after = usage().await?;
    assert!(after.cpu.unwrap() >= before + Duration::from_millis(20), "{before:?} {after:?}");
    assert!(after.memory.is_none_or(|bytes| bytes > 20_000_000), "{after:?}");
    Ok(())
}

async fn nothing_is_made_up(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let usage = scope.backend().usage(&sandbox.name, &scope.cancel).await?;
    if !scope.has(sandscript::sandbox::Capability::Usage) {
        assert_eq!(usage, Usage::default());
        return Ok(());
    }
    let missing = scope.backend().usage(&scope.name(), &scope.cancel).await;
    fails!(&missing, Error::NotFound { .. });
    sandbox.stop().await?;
    let stopped = scope.backend().usage(&sandbox.name, &scope.cancel).await;
    fails!(&stopped, Error::NotRunning { .. });
    Ok(())
}
