//! Owners, expiry, and what `gc` takes.

use std::time::{Duration, SystemTime};

use sandscript::sandbox::{
    Adoption, Capability, CloneSpec, Error, Info, Kind, Owner, POOL_LABEL, Spec, StopOptions,
};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::Sandbox;

cases!["gc";
    takes_what_has_expired,
    takes_what_a_dead_run_left,
    leaves_what_nobody_owns,
    takes_clones_too,
    keep_takes_the_owner_off,
    twice_finds_nothing_more,
    delete_if_looks_first,
    says_when_it_was_used,
    one_takes_what_was_made_ahead [Pool],
    what_is_not_ready_is_not_taken [Pool],
];

async fn owned(
    scope: &Scope,
    owner: Option<Owner>,
    expires: Option<SystemTime>,
) -> CaseResult<Sandbox> {
    scope
        .sandbox_of(|spec| {
            spec.owner = owner;
            spec.expires = expires;
        })
        .await
}

fn past() -> Option<SystemTime> {
    Some(SystemTime::now() - Duration::from_secs(60))
}

fn future() -> Option<SystemTime> {
    Some(SystemTime::now() + Duration::from_secs(3600))
}

/// What `gc` would take. Cases run at once and share the backend, so that another one's `gc` may be
/// first: what is said here is about names of this case only.
async fn would_take(scope: &Scope, sandbox: &Sandbox) -> CaseResult<bool> {
    let report = scope.backend().gc(true, &scope.cancel).await?;
    Ok(report.sandboxes.contains(&sandbox.name))
}

async fn takes_what_has_expired(scope: Scope) -> CaseResult {
    let fresh = owned(&scope, None, future()).await?;
    let live = owned(&scope, Some(scope.rig.live.clone()), future()).await?;
    // Where making one takes long, another case's `gc` would come between.
    let life = Duration::from_secs(if scope.has(Capability::Init) { 20 } else { 0 });
    let end = past().filter(|_| life.is_zero()).or_else(|| Some(SystemTime::now() + life));
    let expired = owned(&scope, None, end).await?;
    let expired_of_live = owned(&scope, Some(scope.rig.live.clone()), end).await?;
    tokio::time::sleep(life).await;
    scope.backend().gc(false, &scope.cancel).await?;
    for sandbox in [&fresh, &live] {
        assert!(scope.exists(&sandbox.name).await?, "{} was taken before its time", sandbox.name);
        sandbox.run("true").await?;
    }
    for sandbox in [&expired, &expired_of_live] {
        assert!(
            !scope.exists(&sandbox.name).await?,
            "{} is expired, and still there",
            sandbox.name
        );
    }
    Ok(())
}

async fn takes_what_a_dead_run_left(scope: Scope) -> CaseResult {
    let live = owned(&scope, Some(scope.rig.live.clone()), None).await?;
    let run = scope.rig.run("run-that-ends")?;
    let mut spec = Spec::new(scope.name());
    spec.owner = Some(run.owner.clone());
    run.backend.create(&spec, &scope.cancel).await?;
    let dead = scope.at(&spec.name);
    scope.backend().gc(false, &scope.cancel).await?;
    assert!(scope.exists(&dead.name).await?, "gc took what another live run owns");
    run.end();
    assert!(!would_take(&scope, &live).await?);
    scope.backend().gc(false, &scope.cancel).await?;
    assert!(scope.exists(&live.name).await?, "gc took what a live run owns");
    assert!(!scope.exists(&dead.name).await?, "gc left what a dead run owned");
    live.run("true").await?;
    Ok(())
}

async fn leaves_what_nobody_owns(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.stop().await?;
    scope.backend().gc(false, &scope.cancel).await?;
    assert!(scope.exists(&sandbox.name).await?);
    sandbox.restore("s").await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    Ok(())
}

async fn takes_clones_too(scope: Scope) -> CaseResult {
    let source = scope.sandbox().await?;
    let run = scope.rig.run("run-that-clones")?;
    let mut spec = CloneSpec::new(scope.name());
    spec.owner = Some(run.owner.clone());
    run.backend.as_ref().clone(&source.name, &spec, &scope.cancel).await?;
    run.end();
    let kept = scope.clone_of(&source, None).await?;
    scope.backend().gc(false, &scope.cancel).await?;
    assert!(!scope.exists(&spec.name).await?);
    kept.run("true").await?;
    source.run("true").await?;
    Ok(())
}

async fn keep_takes_the_owner_off(scope: Scope) -> CaseResult {
    let sandbox = owned(&scope, Some(scope.rig.live.clone()), None).await?;
    assert_eq!(sandbox.info().await?.owner.as_ref(), Some(&scope.rig.live));
    for _ in 0..2 {
        scope.backend().keep(&sandbox.name, &scope.cancel).await?;
        assert_eq!(sandbox.info().await?.owner, None);
    }
    scope.backend().gc(false, &scope.cancel).await?;
    sandbox.run("true").await?;
    Ok(())
}

async fn delete_if_looks_first(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let backend = scope.backend();
    let created = sandbox.info().await?.created;
    let other = |info: &Info| info.created != created || info.owner.is_some();
    assert!(!backend.delete_if(&sandbox.name, &other, &scope.cancel).await?);
    sandbox.run("true").await?;
    let same = |info: &Info| info.created == created;
    assert!(backend.delete_if(&sandbox.name, &same, &scope.cancel).await?);
    assert!(!scope.exists(&sandbox.name).await?);
    assert!(!backend.delete_if(&sandbox.name, &same, &scope.cancel).await?);
    Ok(())
}

async fn says_when_it_was_used(scope: Scope) -> CaseResult {
    let before = SystemTime::now() - Duration::from_secs(60);
    let sandbox = scope.sandbox().await?;
    let info = sandbox.info().await?;
    assert!(info.used >= info.created && info.used > before);
    sandbox.run("true").await?;
    sandbox.snapshot("s").await?;
    scope.clone_of(&sandbox, Some("s")).await?;
    let again = sandbox.info().await?;
    assert!(again.used >= info.used && again.used <= SystemTime::now());
    Ok(())
}

async fn twice_finds_nothing_more(scope: Scope) -> CaseResult {
    let sandbox = owned(&scope, None, past()).await?;
    scope.backend().gc(false, &scope.cancel).await?;
    let again = scope.backend().gc(false, &scope.cancel).await?;
    assert!(!again.sandboxes.contains(&sandbox.name));
    Ok(())
}

async fn ahead(scope: &Scope, pool: &str, expires: Option<SystemTime>) -> CaseResult<Sandbox> {
    let label = (POOL_LABEL.to_owned(), pool.to_owned());
    scope
        .sandbox_of(|spec| {
            spec.labels = [label].into();
            spec.expires = expires;
        })
        .await
}

async fn one_takes_what_was_made_ahead(scope: Scope) -> CaseResult {
    let sandbox = ahead(&scope, "one", future()).await?;
    let take = async |at: usize| {
        let adoption = Adoption {
            pool: "one".into(),
            owner: Some(Owner::new(format!("run-{at}"), "here")),
            labels: [("taken".to_owned(), at.to_string())].into(),
            expires: None,
        };
        scope.backend().adopt(&sandbox.name, &adoption, &scope.cancel).await
    };
    let all = tokio::join!(take(0), take(1), take(2), take(3), take(4), take(5));
    let mut taken = Vec::new();
    for (at, done) in [all.0, all.1, all.2, all.3, all.4, all.5].into_iter().enumerate() {
        if done? {
            taken.push(at);
        }
    }
    assert_eq!(taken.len(), 1, "{taken:?}");
    let info = sandbox.info().await?;
    assert_eq!(info.owner, Some(Owner::new(format!("run-{}", taken[0]), "here")));
    assert_eq!(info.labels, [("taken".to_owned(), taken[0].to_string())].into());
    assert_eq!(info.expires, None);
    assert_eq!(sandbox.run("echo works").await?.trim(), "works");
    Ok(())
}

async fn what_is_not_ready_is_not_taken(scope: Scope) -> CaseResult {
    let mine = Adoption { pool: "mine".into(), ..Adoption::default() };
    let take = async |name: &str| scope.backend().adopt(name, &mine, &scope.cancel).await;
    assert!(!take(&scope.sandbox().await?.name).await?);
    assert!(!take(&ahead(&scope, "other", future()).await?.name).await?);
    assert!(!take(&ahead(&scope, "mine", past()).await?.name).await?);
    let stopped = ahead(&scope, "mine", future()).await?;
    let now = StopOptions { force: true, ..StopOptions::default() };
    scope.backend().stop(&stopped.name, now, &scope.cancel).await?;
    assert!(!take(&stopped.name).await?);
    fails!(take(&scope.name()).await, Error::NotFound { kind: Kind::Sandbox, .. });
    Ok(())
}
