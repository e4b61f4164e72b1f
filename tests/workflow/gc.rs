//! What may go, by age and by run; on the fake backend, where everything is as old as it is.

use std::time::Duration;

use sandscript::sandbox::{Backend, Cancel, Command, Error, Owner, Spec};
use sandscript::workflow::{BaseOptions, Catalog, Sweep, Why, sweep};

use crate::support::Run;

/// So old that everything is.
const NOW: Option<Duration> = Some(Duration::ZERO);

async fn make(run: &Run, name: &str, change: impl FnOnce(&mut Spec)) {
    let mut spec = Spec::new(name);
    change(&mut spec);
    run.fake.create(&spec, &Cancel::new()).await.unwrap();
}

async fn found(run: &Run, wanted: &Sweep) -> Vec<(String, &'static str)> {
    std::thread::sleep(Duration::from_millis(2));
    let swept = sweep(&*run.fake, wanted, &Cancel::new()).await.unwrap();
    swept.sandboxes.into_iter().map(|one| (one.name, one.why.word())).collect()
}

fn future() -> Option<std::time::SystemTime> {
    Some(std::time::SystemTime::now() + Duration::from_secs(3600))
}

#[tokio::test]
async fn by_age_goes_what_expires_anyway_and_kept_ones_only_when_asked() {
    let run = Run::new();
    make(&run, "mine", |_| ()).await;
    make(&run, "of-a-live-run", |spec| spec.owner = Some(Owner::new("alive", "here"))).await;
    make(&run, "failed-cell", |spec| spec.expires = future()).await;
    let look = Sweep { dry_run: true, ..Sweep::default() };
    assert_eq!(found(&run, &look).await, []);
    let old = Sweep { older_than: NOW, ..look.clone() };
    assert_eq!(found(&run, &old).await, [("failed-cell".into(), "unused")]);
    let young = Sweep { older_than: Some(Duration::from_secs(60)), kept: true, ..look.clone() };
    assert_eq!(found(&run, &young).await, []);
    let kept = Sweep { kept: true, dry_run: false, ..old };
    let both = [("failed-cell".into(), "unused"), ("mine".into(), "unused")];
    assert_eq!(found(&run, &kept).await, both);
    assert_eq!(run.names().await, ["of-a-live-run"]);
}

#[tokio::test]
async fn bases_go_when_nobody_used_them_and_nothing_stands_on_them() {
    let run = Run::new();
    let below = run.build("below", &["echo 1"]).await.unwrap();
    let options = BaseOptions {
        source: below.clone().into(),
        expires: Some(Duration::from_secs(3600)),
        ..BaseOptions::default()
    };
    let top = run.build_with("top", options, &["echo 2"]).await.unwrap();
    let soon = BaseOptions { expires: Some(Duration::ZERO), ..BaseOptions::default() };
    let brief = run.build_with("brief", soon, &["echo 3"]).await.unwrap();
    let catalog = Catalog::load(&*run.fake, &Cancel::new()).await.unwrap();
    assert_eq!(catalog.of("top")[0].expires, Some(Duration::from_secs(3600)));
    assert_eq!(catalog.of("below")[0].expires, None);
    // Without a time of the settings only what says so itself expires.
    let look = Sweep { dry_run: true, ..Sweep::default() };
    assert_eq!(found(&run, &look).await, [(brief.sandbox.clone(), "unused_base")]);
    // `below` is older than its time, and `top` stands on it.
    let settings = Sweep { bases: NOW, ..look.clone() };
    assert_eq!(found(&run, &settings).await, [(brief.sandbox.clone(), "unused_base")]);
    let all = Sweep { older_than: NOW, dry_run: false, ..look };
    let mut gone = found(&run, &all).await;
    gone.sort();
    let mut bases = [below, top, brief].map(|base| (base.sandbox, "unused_base"));
    bases.sort();
    assert_eq!(gone, bases);
    assert!(run.names().await.is_empty());
}

#[tokio::test]
async fn a_base_that_is_cloned_or_built_stays() {
    let run = Run::new();
    let base = run.build("b", &["echo 1"]).await.unwrap();
    let before = Catalog::load(&*run.fake, &Cancel::new()).await.unwrap().of("b")[0].used;
    std::thread::sleep(Duration::from_millis(2));
    run.read(&base, "/etc/hostname").await;
    let catalog = Catalog::load(&*run.fake, &Cancel::new()).await.unwrap();
    let entry = catalog.of("b")[0];
    assert!(entry.used > before);
    let limit = |_: &sandscript::workflow::BaseEntry| Some(Duration::from_secs(60));
    assert_eq!(catalog.unused(limit, entry.used + Duration::from_secs(59)).len(), 0);
    assert_eq!(catalog.unused(limit, entry.used + Duration::from_secs(61)).len(), 1);
    let mut builder =
        sandscript::workflow::BaseBuilder::open(&run.ctx, "c", BaseOptions::default())
            .await
            .unwrap();
    builder.run(Command::shell("true")).await.unwrap();
    let all = Sweep { older_than: NOW, kept: true, dry_run: true, ..Sweep::default() };
    assert_eq!(found(&run, &all).await, [(base.sandbox, "unused_base")]);
    builder.abandon().await;
}

#[tokio::test]
async fn of_one_run_only_what_it_left_and_never_while_it_lives() {
    let run = Run::new();
    for (name, owner) in [("a", "one"), ("b", "two")] {
        make(&run, name, |spec| spec.owner = Some(Owner::new(owner, "here"))).await;
    }
    let label = |spec: &mut Spec| {
        spec.labels.insert("sandscript.run".into(), "one".into());
    };
    make(&run, "failed", |spec| {
        label(spec);
        spec.expires = future();
    })
    .await;
    make(&run, "kept", label).await;
    let one = Sweep { run: Some("one".into()), ..Sweep::default() };
    let error = sweep(&*run.fake, &one, &Cancel::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "run: one is alive and has a sandbox");
    assert_eq!(
        error.hint().as_deref(),
        Some("stop it first; what a live run owns is never deleted")
    );
    assert!(matches!(error, Error::InvalidInput { .. }));
    run.fake.end_run("one");
    run.fake.end_run("two");
    let swept = sweep(&*run.fake, &one, &Cancel::new()).await.unwrap();
    let whys: Vec<_> = swept.sandboxes.iter().map(|one| (one.name.as_str(), &one.why)).collect();
    let (dead, cell) = (Why::DeadRun(Some("one".into())), Why::KeptCell("one".into()));
    assert_eq!(whys, [("a", &dead), ("failed", &cell)]);
    assert_eq!(run.names().await, ["b", "kept"]);
    let none = Sweep { run: Some("never-was".into()), ..Sweep::default() };
    assert_eq!(sweep(&*run.fake, &none, &Cancel::new()).await.unwrap(), Default::default());
}
