//! Folders that outlive the sandboxes they are mounted in.

use sandscript::sandbox::{CacheInfo, CacheMount, Capability, CloneSpec, Error, Kind, Spec};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::{Sandbox, eventually};

cases!["caches";
    what_one_leaves_the_next_one_finds [Caches],
    any_user_may_write [Caches, Users],
    are_in_no_snapshot_and_no_clone [Caches],
    one_at_a_time [Caches],
    shared_ones_are_had_together [Caches],
    of_a_dead_run_are_free [Caches],
    restart_and_restore_keep_them [Caches],
    links_are_not_followed [Caches, Programs],
    are_listed_and_deleted [Caches],
    bad_ones_are_refused,
    unsupported_is_said,
];

/// A cache that no other case knows.
fn cache(scope: &Scope, target: &str) -> CacheMount {
    CacheMount::new(scope.cache_name(), target)
}

async fn with(scope: &Scope, caches: &[CacheMount]) -> CaseResult<Sandbox> {
    scope.sandbox_of(|spec| spec.caches = caches.to_vec()).await
}

async fn find(scope: &Scope, name: &str) -> CaseResult<Option<CacheInfo>> {
    let all = scope.backend().caches(&scope.cancel).await?;
    Ok(all.into_iter().find(|cache| cache.name == name))
}

/// Deletes it: a store that an ordinary user throws away must hold nothing of other ids.
async fn gone(scope: &Scope, name: &str) -> CaseResult {
    eventually("the cache is free", async || {
        match scope.backend().delete_cache(name, &scope.cancel).await {
            Ok(()) => Ok(true),
            Err(Error::CacheInUse { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    assert!(find(scope, name).await?.is_none());
    Ok(())
}

async fn what_one_leaves_the_next_one_finds(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/var/cache/deep/er");
    let first = with(&scope, std::slice::from_ref(&cache)).await?;
    assert_eq!(first.ls("/var/cache/deep/er").await?, [""; 0]);
    first.run("cd /var/cache/deep/er && echo one > f && mkdir d && echo two > d/g").await?;
    first.run("chmod 600 /var/cache/deep/er/f && chmod 700 /var/cache/deep/er/d").await?;
    assert_eq!(first.info().await?.caches, std::slice::from_ref(&cache));
    first.delete().await?;
    let elsewhere = CacheMount { target: "/srv/c".into(), ..cache.clone() };
    let second = with(&scope, &[elsewhere]).await?;
    assert_eq!(second.run("cat /srv/c/f /srv/c/d/g").await?, "one\ntwo");
    assert_eq!(second.stat("/srv/c/f").await?.uid, 0, "they belong to the guest's root again");
    second.run("echo more >> /srv/c/f; rm -r /srv/c/d").await?;
    second.delete().await?;
    let third = with(&scope, std::slice::from_ref(&cache)).await?;
    assert_eq!(third.run("cat /var/cache/deep/er/f").await?, "one\nmore");
    assert_eq!(third.ls("/var/cache/deep/er").await?, ["f"]);
    third.delete().await?;
    gone(&scope, &cache.name).await
}

async fn any_user_may_write(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/srv/c");
    let first = with(&scope, std::slice::from_ref(&cache)).await?;
    let mut command = sandscript::sandbox::Command::shell("echo mine > /srv/c/f");
    command.user = Some("nobody".into());
    assert!(first.exec(&command).await?.exit.ok());
    let uid = first.stat("/srv/c/f").await?.uid;
    assert_ne!(uid, 0);
    first.delete().await?;
    let second = with(&scope, std::slice::from_ref(&cache)).await?;
    assert_eq!(second.stat("/srv/c/f").await?.uid, uid);
    command = sandscript::sandbox::Command::shell("echo again >> /srv/c/f; cat /srv/c/f");
    command.user = Some("nobody".into());
    assert_eq!(second.exec(&command).await?.stdout, b"mine\nagain\n");
    second.delete().await?;
    gone(&scope, &cache.name).await
}

async fn are_in_no_snapshot_and_no_clone(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/srv/c");
    let sandbox = with(&scope, std::slice::from_ref(&cache)).await?;
    sandbox.write("/srv/c/big", vec![b'x'; 3 << 20]).await?;
    sandbox.run("echo own > /srv/own").await?;
    let taken = sandbox.snapshot("s").await?;
    assert!(taken.size < 1 << 20);
    let all = scope.backend().snapshots(&sandbox.name, &scope.cancel).await?;
    assert!(all[0].size < 1 << 20, "the cache is in the snapshot");
    for label in [Some("s"), None] {
        let clone = scope.clone_of(&sandbox, label).await?;
        assert_eq!(clone.read_text("/srv/own").await?, "own\n");
        assert_eq!(clone.ls("/srv/c").await?, [""; 0], "the cache is in the clone");
        assert_eq!(clone.info().await?.caches, []);
        clone.delete().await?;
    }
    sandbox.delete().await?;
    gone(&scope, &cache.name).await
}

async fn one_at_a_time(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/srv/c");
    let first = with(&scope, std::slice::from_ref(&cache)).await?;
    first.snapshot("s").await?;
    let mut spec = Spec::new(scope.name());
    spec.caches = vec![cache.clone()];
    let busy = scope.backend().create(&spec, &scope.cancel).await;
    let Err(Error::CacheInUse { name, by }) = busy else { panic!("{busy:?}") };
    assert_eq!((name, by), (cache.name.clone(), Some(first.name.clone())));
    assert!(!scope.exists(&spec.name).await?, "something was left");
    let mut clone = CloneSpec::of("s", scope.name());
    clone.caches = vec![CacheMount { shared: true, ..cache.clone() }];
    let busy = scope.backend().clone(&first.name, &clone, &scope.cancel).await;
    fails!(busy, Error::CacheInUse { .. });
    assert!(!scope.exists(&clone.name).await?, "something was left");
    // A stopped one has none, and gets it back only when it is free.
    first.stop().await?;
    let clone = {
        scope.backend().clone(&first.name, &clone, &scope.cancel).await?;
        scope.at(&clone.name)
    };
    fails!(first.start().await, Error::CacheInUse { by: None, .. });
    clone.delete().await?;
    eventually("the first one starts", async || match first.start().await {
        Ok(()) => Ok(true),
        Err(Error::CacheInUse { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    })
    .await?;
    first.delete().await?;
    gone(&scope, &cache.name).await
}

async fn shared_ones_are_had_together(scope: Scope) -> CaseResult {
    let cache = CacheMount { shared: true, ..cache(&scope, "/srv/c") };
    let first = with(&scope, std::slice::from_ref(&cache)).await?;
    let second = with(&scope, std::slice::from_ref(&cache)).await?;
    first.write("/srv/c/first", "1").await?;
    second.write("/srv/c/second", "2").await?;
    if scope.has(Capability::Programs) {
        assert_eq!(first.ls("/srv/c").await?, ["first", "second"]);
        second.run("rm /srv/c/first && echo both > /srv/c/first").await?;
        assert_eq!(first.read_text("/srv/c/first").await?, "both\n");
    }
    let mut spec = Spec::new(scope.name());
    spec.caches = vec![CacheMount { shared: false, ..cache.clone() }];
    let busy = scope.backend().create(&spec, &scope.cancel).await;
    fails!(busy, Error::CacheInUse { by: None, .. });
    let listed = find(&scope, &cache.name).await?.unwrap();
    assert!(listed.busy && listed.by.is_none(), "{listed:?}");
    first.delete().await?;
    second.delete().await?;
    let third = with(&scope, std::slice::from_ref(&cache)).await?;
    assert_eq!(third.ls("/srv/c").await?, ["first", "second"]);
    third.delete().await?;
    gone(&scope, &cache.name).await
}

async fn of_a_dead_run_are_free(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/srv/c");
    let run = scope.rig.run("caches-dead")?;
    let mut spec = Spec::new(scope.name());
    spec.caches = vec![cache.clone()];
    spec.owner = Some(run.owner.clone());
    run.backend.create(&spec, &scope.cancel).await?;
    run.end();
    let mut next = Spec::new(scope.name());
    next.caches = vec![cache.clone()];
    eventually("the cache of a dead run is free", async || {
        match scope.backend().create(&next, &scope.cancel).await {
            Ok(_) => Ok(true),
            Err(Error::CacheInUse { .. }) => {
                scope.backend().gc(false, &scope.cancel).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    scope.at(&next.name).delete().await?;
    gone(&scope, &cache.name).await
}

async fn restart_and_restore_keep_them(scope: Scope) -> CaseResult {
    let cache = cache(&scope, "/srv/c");
    let sandbox = with(&scope, std::slice::from_ref(&cache)).await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo after > /srv/c/f; echo after > /srv/own").await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /srv/c/f").await?, "after");
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run("cat /srv/c/f").await?, "after", "a restore changed the cache");
    assert!(!sandbox.sh("cat /srv/own").await?.exit.ok());
    sandbox.run("echo new > /srv/c/g").await?;
    sandbox.snapshot("t").await?;
    assert_eq!(sandbox.run("cat /srv/c/g").await?, "new", "the snapshot lost the cache");
    sandbox.delete().await?;
    gone(&scope, &cache.name).await
}

async fn links_are_not_followed(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::write(host.join("treasure"), vec![b'x'; 5 << 20])?;
    let shown = host.display();
    let cache = cache(&scope, "/srv/c");
    let sandbox = with(&scope, std::slice::from_ref(&cache)).await?;
    sandbox.run(&format!("ln -s {shown} /srv/c/out; ln -s / /srv/c/root")).await?;
    sandbox.run("ln -s ../../../../../../../../.. /srv/c/up; ln -s /srv/c /srv/link").await?;
    // What is mounted can't be taken away and replaced by a link.
    let _ = sandbox.sh(&format!("rm -rf /srv/c; mv /srv/c /srv/d; ln -s {shown} /srv/c")).await?;
    assert!(!sandbox.sh(&format!("cat {shown}/treasure")).await?.exit.ok());
    sandbox.sh(&format!("ln -s {shown} /srv/c/again")).await?;
    sandbox.snapshot("s").await?;
    // A target below a link of the guest's making would be another place than it seems.
    let mut clone = CloneSpec::of("s", scope.name());
    clone.caches = vec![CacheMount::new(scope.cache_name(), "/srv/link/c")];
    let refused = scope.backend().clone(&sandbox.name, &clone, &scope.cancel).await;
    fails!(refused, Error::InvalidInput { .. });
    assert!(!scope.exists(&clone.name).await?);
    sandbox.delete().await?;
    let next = with(&scope, std::slice::from_ref(&cache)).await?;
    assert!(!next.sh("cat /srv/c/again/treasure").await?.exit.ok());
    next.delete().await?;
    let size = find(&scope, &cache.name).await?.unwrap().size;
    assert!(size < 1 << 20, "{size}: the size counts what a link points to");
    gone(&scope, &cache.name).await?;
    for made in scope.backend().caches(&scope.cancel).await? {
        if clone.caches.iter().any(|cache| cache.name == made.name) {
            gone(&scope, &made.name).await?;
        }
    }
    assert_eq!(
        std::fs::metadata(host.join("treasure"))?.len(),
        5 << 20,
        "a delete followed a link"
    );
    Ok(())
}

async fn are_listed_and_deleted(scope: Scope) -> CaseResult {
    let (a, b) = (cache(&scope, "/srv/a"), cache(&scope, "/srv/a/b"));
    assert!(find(&scope, &a.name).await?.is_none());
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    let sandbox = with(&scope, &[b.clone(), a.clone()]).await?;
    sandbox.write("/srv/a/f", vec![b'x'; 100_000]).await?;
    sandbox.write("/srv/a/b/g", "in the other").await?;
    // Some storage counts what is on the disk.
    let _ = sandbox.sh("sync").await;
    let listed = find(&scope, &a.name).await?.unwrap();
    assert!(listed.busy && listed.by.as_deref() == Some(&*sandbox.name), "{listed:?}");
    assert!(listed.used >= before, "{listed:?}");
    fails!(scope.backend().delete_cache(&a.name, &scope.cancel).await, Error::CacheInUse { .. });
    assert_eq!(sandbox.stat("/srv/a/f").await?.size, 100_000, "a refused delete deleted");
    sandbox.delete().await?;
    eventually("both are free", async || {
        let all = [find(&scope, &a.name).await?, find(&scope, &b.name).await?];
        Ok(all.iter().flatten().all(|cache| !cache.busy))
    })
    .await?;
    // What storage counts lags behind.
    eventually("its size is known", async || {
        Ok(find(&scope, &a.name).await?.is_some_and(|cache| cache.size >= 100_000))
    })
    .await?;
    assert!(find(&scope, &b.name).await?.unwrap().size < 50_000);
    gone(&scope, &a.name).await?;
    let again = with(&scope, &[a.clone(), b.clone()]).await?;
    assert_eq!(again.ls("/srv/a").await?, ["b"], "it is not empty");
    assert_eq!(again.read_text("/srv/a/b/g").await?, "in the other");
    again.delete().await?;
    gone(&scope, &a.name).await?;
    gone(&scope, &b.name).await?;
    let missing = scope.backend().delete_cache(&a.name, &scope.cancel).await;
    fails!(missing, Error::NotFound { kind: Kind::Cache, .. });
    for bad in ["", "..", "a/b", "/etc"] {
        let missing = scope.backend().delete_cache(bad, &scope.cancel).await;
        fails!(missing, Error::NotFound { .. } | Error::Unsupported { .. });
    }
    Ok(())
}

async fn bad_ones_are_refused(scope: Scope) -> CaseResult {
    let one = |name: &str, target: &str| vec![CacheMount::new(name, target)];
    let two = |a: (&str, &str), b: (&str, &str)| [one(a.0, a.1), one(b.0, b.1)].concat();
    for caches in [
        one("", "/c"),
        one("..", "/c"),
        one("a/b", "/c"),
        one("/a", "/c"),
        one("a", ""),
        one("a", "c"),
        one("a", "/"),
        one("a", "/a/../b"),
        one("a", "/proc/c"),
        one("a", "/dev"),
        two(("a", "/c"), ("a", "/d")),
        two(("a", "/c"), ("b", "//c/.")),
    ] {
        let mut spec = Spec::new(scope.name());
        spec.caches = caches.clone();
        let made = scope.backend().create(&spec, &scope.cancel).await;
        assert!(matches!(made, Err(Error::InvalidInput { .. })), "{caches:?}: {made:?}");
        assert!(!scope.exists(&spec.name).await?);
    }
    Ok(())
}

async fn unsupported_is_said(scope: Scope) -> CaseResult {
    if scope.has(Capability::Caches) {
        return Ok(());
    }
    let mut spec = Spec::new(scope.name());
    spec.caches = vec![cache(&scope, "/srv/c")];
    let made = scope.backend().create(&spec, &scope.cancel).await;
    fails!(&made, Error::Unsupported { .. });
    assert!(made.unwrap_err().hint().is_some());
    fails!(scope.backend().caches(&scope.cancel).await, Error::Unsupported { .. });
    let deleted = scope.backend().delete_cache("pip", &scope.cancel).await;
    fails!(deleted, Error::Unsupported { .. });
    Ok(())
}
