//! Bases: what is done, what is in the cache, and who waits for whom.

use std::time::Duration;

use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
use sandscript::sandbox::{
    Backend, Cancel, Command, Error, Exit, Limits, Owner, Policy, Spec, WriteOptions, exec,
};
use sandscript::workflow::{
    BaseBuilder, BaseOptions, Catalog, CopyOptions, Event, Failure, KeepPolicy, Source, label_of,
};

use crate::support::{Run, until};

const STEPS: &[&str] = &["echo 1 >> /tmp/f", "echo 2 >> /tmp/f", "echo 3 >> /tmp/f"];

/// The number of each step that was done, and why; hits are without a reason.
fn steps(events: &[Event]) -> Vec<(usize, Option<String>)> {
    let step = |event: &Event| match event {
        Event::StepHit { step, .. } => Some((*step, None)),
        Event::StepStarted { step, reason, .. } => Some((*step, Some(reason.clone()))),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

#[tokio::test]
async fn an_unchanged_base_does_nothing() {
    let mut run = Run::new();
    let first = run.build("b", STEPS).await.unwrap();
    assert_eq!((first.steps, first.hits), (3, 0));
    assert_eq!(run.read(&first, "/tmp/f").await, "1\n2\n3\n");
    run.only_finished_bases().await;
    let told = steps(&run.told());
    assert_eq!(told[0], (1, Some("it was never built".into())));
    assert!(told[1..].iter().all(|(_, why)| why.as_deref() == Some("an earlier step was done")));

    run.fake.clear_calls();
    let second = run.build("b", STEPS).await.unwrap();
    assert_eq!(run.work(), 0, "{:?}", run.fake.calls());
    assert_eq!(second.hits, 3);
    assert_eq!((second.sandbox, second.label), (first.sandbox, first.label));
    assert_eq!(steps(&run.told()), [(1, None), (2, None), (3, None)]);
}

#[tokio::test]
async fn a_changed_step_and_all_after_it_are_done_again() {
    let mut run = Run::new();
    run.build("b", STEPS).await.unwrap();
    run.told();
    run.fake.clear_calls();
    let changed =
        ["echo 1 >> /tmp/f", "echo 2 >> /tmp/f", "echo three >> /tmp/f", "echo 4 >> /tmp/f"];
    let base = run.build("b", &changed).await.unwrap();
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\nthree\n4\n");
    assert_eq!((base.steps, base.hits), (4, 2));
    let why = "command changed: `echo 3 >> /tmp/f` → `echo three >> /tmp/f`";
    let told = steps(&run.told());
    assert_eq!(told[..3], [(1, None), (2, None), (3, Some(why.into()))]);
    assert_eq!(told[3].0, 4);
    assert_eq!((run.fake.count(Verb::Create), run.fake.count(Verb::Clone)), (0, 2));
    run.only_finished_bases().await;

    // Both are in the cache now.
    run.fake.clear_calls();
    assert_eq!(run.build("b", STEPS).await.unwrap().hits, 3);
    assert_eq!(run.build("b", &changed).await.unwrap().hits, 4);
    assert_eq!(run.work(), 0);
}

#[tokio::test]
async fn another_base_with_the_same_steps_hits_and_limits_do_not_count() {
    let run = Run::new();
    run.build("one", STEPS).await.unwrap();
    run.fake.clear_calls();
    let limits = Some(Limits { memory: Some(1 << 30), ..Limits::default() });
    let options = BaseOptions { limits: limits.clone(), ..BaseOptions::default() };
    let two = run.build_with("two", options, STEPS).await.unwrap();
    assert_eq!((run.work(), two.hits), (0, 3));
    assert_eq!(Some(two.limits), limits);
}

#[tokio::test]
async fn image_egress_env_user_and_directory_count() {
    let mut run = Run::new();
    run.build("b", &["true"]).await.unwrap();
    let with = |change: &dyn Fn(&mut BaseOptions)| {
        let mut options = BaseOptions::default();
        change(&mut options);
        options
    };
    for (options, why) in [
        (with(&|o| drop(o.env.insert("A".into(), "1".into()))), "env A is new: `1`"),
        (with(&|o| o.user = Some("nobody".into())), "user changed: the default → `nobody`"),
        (with(&|o| o.cwd = Some("/tmp".into())), "directory changed: the default → `/tmp`"),
    ] {
        run.told();
        assert_eq!(run.build_with("b", options.clone(), &["true"]).await.unwrap().hits, 0);
        let told = steps(&run.told());
        assert!(told[0].1.as_ref().unwrap().contains(why), "{told:?}");
        assert_eq!(run.build_with("b", options, &["true"]).await.unwrap().hits, 1);
    }
    run.fake.set_image(FakeBackend::DEFAULT_IMAGE, "another");
    run.told();
    assert_eq!(run.build("b", &["true"]).await.unwrap().hits, 0);
    assert!(steps(&run.told())[0].1.as_ref().unwrap().starts_with("image changed: "));
}

#[tokio::test]
async fn copied_and_written_files_count_by_content() {
    let run = Run::new();
    let file = run.project.path().join("tree/a.txt");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "one").unwrap();
    let build = async |content: &'static str| {
        let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
        builder.copy("tree", "/srv/tree", CopyOptions::default()).await.unwrap();
        builder.copy("tree/a.txt", "/srv/", CopyOptions::default()).await.unwrap();
        let options = WriteOptions { mode: Some(0o600), ..WriteOptions::default() };
        builder.write("/srv/new/w", content, options).await.unwrap();
        builder.finish().await.unwrap()
    };
    let base = build("w").await;
    assert_eq!(run.read(&base, "/srv/tree/a.txt").await, "one");
    assert_eq!(run.read(&base, "/srv/a.txt").await, "one");
    assert_eq!(run.read(&base, "/srv/new/w").await, "w");
    assert_eq!(build("w").await.hits, 3);
    assert_eq!(build("other").await.hits, 2);
    // Only the time changed.
    std::fs::write(&file, "one").unwrap();
    assert_eq!(build("w").await.hits, 3);
    std::fs::write(&file, "two").unwrap();
    let base = build("w").await;
    assert_eq!(base.hits, 0);
    assert_eq!(run.read(&base, "/srv/tree/a.txt").await, "two");
}

#[tokio::test]
async fn a_host_path_outside_of_the_project_is_refused() {
    let mut run = Run::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), "x").unwrap();
    let path = outside.path().join("f").to_string_lossy().into_owned();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    let failure = builder.copy(&path, "/f", CopyOptions::default()).await.unwrap_err();
    assert!(failure.hint().unwrap().contains("--allow-path"), "{failure}");
    builder.abandon().await;
    run.ctx.allowed.push(outside.path().into());
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.copy(&path, "/f", CopyOptions::default()).await.unwrap();
    builder.finish().await.unwrap();
}

#[tokio::test]
async fn a_base_of_a_base_and_of_a_snapshot() {
    let run = Run::new();
    let one = run.build("one", &["echo 1 > /tmp/f"]).await.unwrap();
    let from = |source| BaseOptions { source, ..BaseOptions::default() };
    let two = from(one.clone().into());
    let two = run.build_with("two", two, &["echo 2 >> /tmp/f"]).await.unwrap();
    assert_eq!(run.read(&two, "/tmp/f").await, "1\n2\n");
    assert_eq!(
        run.build_with("two", from(one.into()), &["echo 2 >> /tmp/f"]).await.unwrap().hits,
        1
    );
    // The parent is part of the key.
    let other = run.build("one", &["echo x > /tmp/f"]).await.unwrap();
    let base = run.build_with("two", from(other.into()), &["echo 2 >> /tmp/f"]).await.unwrap();
    assert_eq!(base.hits, 0);

    let snapshot = |label: Option<&str>| Source::Snapshot {
        sandbox: two.sandbox.clone(),
        label: label.map(String::from),
    };
    let three = from(snapshot(Some(&two.label)));
    let three = run.build_with("three", three, &["echo 3 >> /tmp/f"]).await.unwrap();
    assert_eq!(run.read(&three, "/tmp/f").await, "1\n2\n3\n");
    let error = run.build_with("four", from(snapshot(None)), &["true"]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("snapshot"));
    let error = run.build_with("four", from(snapshot(Some("nope"))), &["true"]).await.unwrap_err();
    assert!(matches!(error, Failure::Error(Error::NotFound { .. })), "{error}");
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_base_without_steps_is_what_it_starts_from() {
    let run = Run::new();
    let base = run.build("b", &[]).await.unwrap();
    assert_eq!((base.steps, base.hits), (1, 0));
    assert_eq!(run.build("b", &[]).await.unwrap().hits, 1);
    assert!(!run.read(&base, "/etc/image").await.is_empty());
}

#[tokio::test]
async fn the_environment_goes_into_steps() {
    let run = Run::new();
    let options =
        BaseOptions { env: [("A".to_string(), "a".to_string())].into(), ..BaseOptions::default() };
    let mut builder = BaseBuilder::open(&run.ctx, "b", options).await.unwrap();
    builder.env("B", "b").workdir("/tmp");
    builder.run(Command::shell("echo $A$B > f")).await.unwrap();
    let base = builder.finish().await.unwrap();
    assert_eq!(run.read(&base, "/tmp/f").await, "ab\n");
    assert_eq!(base.env.len(), 2);
}

#[tokio::test]
async fn a_failed_step_leaves_the_ones_before_it() {
    let mut run = Run::new();
    let bad = ["echo 1 > /tmp/f", "echo loud; exit 7"];
    let failure = run.build("b", &bad).await.unwrap_err();
    assert!(matches!(failure, Failure::Exit { exit: Exit::Code(7), .. }), "{failure}");
    let told = run.told();
    let tail = told.iter().find_map(|event| match event {
        Event::StepFailed { step: 2, tail, .. } => Some(tail.clone()),
        _ => None,
    });
    assert_eq!(tail.as_deref(), Some("loud\n"));
    assert!(matches!(told.last(), Some(Event::BaseFailed { .. })));
    run.only_finished_bases().await;

    run.fake.clear_calls();
    let base = run.build("b", &["echo 1 > /tmp/f", "echo 2 >> /tmp/f"]).await.unwrap();
    assert_eq!((base.hits, run.fake.count(Verb::Create)), (1, 0));
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\n");
    assert!(matches!(run.build("b", &bad).await, Err(Failure::Exit { .. })));
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_first_step_that_fails_leaves_nothing() {
    let run = Run::new();
    assert!(run.build("b", &["exit 1"]).await.is_err());
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_failed_builder_stays_failed() {
    let run = Run::new();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell("exit 1")).await.unwrap_err();
    let again = builder.run(Command::shell("true")).await.unwrap_err();
    assert!(again.to_string().contains("can't go on"), "{again}");
    assert!(builder.finish().await.is_err());
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_snapshot_that_fails_is_no_hit() {
    let run = Run::new();
    let full = Error::Exhausted { what: "the disk is full".into(), hint: "make room".into() };
    run.fake.inject(Fault::new(Verb::Snapshot, Effect::Error(full)).nth(2));
    let failure = run.build("b", STEPS).await.unwrap_err();
    assert_eq!(failure.hint().as_deref(), Some("make room"));
    run.only_finished_bases().await;
    let base = run.build("b", STEPS).await.unwrap();
    assert_eq!(base.hits, 1);
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\n3\n");
}

#[tokio::test]
async fn a_cancelled_build_leaves_the_steps_that_were_done() {
    let run = Run::new();
    run.fake.inject(Fault::new(Verb::Snapshot, Effect::Hang).nth(2));
    let build = async {
        let failure = run.build("b", STEPS).await.unwrap_err();
        assert!(failure.is_cancel(), "{failure}");
    };
    let cancel = async {
        until("the second snapshot", async || run.fake.count(Verb::Snapshot) == 2).await;
        run.ctx.cancel.cancel();
    };
    tokio::join!(build, cancel);
    run.only_finished_bases().await;
    let again = Run::on(run.fake.clone(), "run-b");
    assert_eq!(again.build("b", STEPS).await.unwrap().hits, 1);
}

#[tokio::test]
async fn a_create_that_hangs_is_cancelled() {
    let run = Run::new();
    run.fake.inject(Fault::new(Verb::Create, Effect::Hang));
    let build = async {
        let failure = run.build("b", STEPS).await.unwrap_err();
        assert!(failure.is_cancel(), "{failure}");
    };
    let cancel = async {
        until("the create", async || run.fake.count(Verb::Create) == 1).await;
        run.ctx.cancel.cancel();
    };
    tokio::join!(build, cancel);
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn a_dropped_builder_cleans_up() {
    let run = Run::new();
    {
        let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
        let slow = builder.run(Command::shell("sleep 100"));
        assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
        assert_eq!(run.names().await.len(), 1);
    }
    until("the cleanup", async || run.names().await.is_empty()).await;
}

#[tokio::test]
async fn two_runs_build_each_step_once() {
    let run = Run::new();
    let mut other = Run::on(run.fake.clone(), "run-b");
    run.fake.inject(Fault::new(Verb::Snapshot, Effect::Delay(Duration::from_millis(60))));
    let (first, second) = tokio::join!(run.build("b", STEPS), async {
        until("the first build", async || run.fake.count(Verb::Spawn) == 1).await;
        other.build("b", STEPS).await
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.hits, second.hits), (0, 3));
    assert_eq!(first.label, second.label);
    assert_eq!(run.fake.count(Verb::Spawn), 3, "{:?}", run.fake.calls());
    assert_eq!(run.fake.count(Verb::Create), 1);
    run.only_finished_bases().await;
    assert_eq!(run.names().await.len(), 1);
    let waited = other.told().into_iter().any(|event| {
        matches!(event, Event::BaseWaiting { run: Some(run), step: 1, .. } if run == "run-a")
    });
    assert!(waited);
}

#[tokio::test]
async fn many_builders_in_one_run_build_each_step_once() {
    let run = Run::new();
    let builds = (0..8).map(|_| {
        let (ctx, fake) = (run.ctx.clone(), run.fake.clone());
        tokio::spawn(async move {
            let other = Run { ctx, ..Run::on(fake, "x") };
            other.build("b", STEPS).await.unwrap()
        })
    });
    let builds: Vec<_> = builds.collect();
    let mut labels = Vec::new();
    for build in builds {
        labels.push(build.await.unwrap().label);
    }
    labels.dedup();
    assert_eq!((labels.len(), run.fake.count(Verb::Spawn)), (1, 3));
    run.only_finished_bases().await;
}

#[tokio::test]
async fn who_needs_less_does_not_wait_for_the_rest() {
    let run = Run::new();
    let other = Run::on(run.fake.clone(), "run-b");
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell(STEPS[0])).await.unwrap();
    // The first run goes on for long. What the second one gets must outlive it.
    let base = other.build("b", &STEPS[..1]).await.unwrap();
    assert_eq!(base.hits, 1);
    run.fake.end_run("run-a");
    run.fake.gc(false, &Cancel::new()).await.unwrap();
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n");
    run.only_finished_bases().await;
}

#[tokio::test]
async fn who_goes_another_way_does_not_wait() {
    let run = Run::new();
    let other = Run::on(run.fake.clone(), "run-b");
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell(STEPS[0])).await.unwrap();
    builder.run(Command::shell(STEPS[1])).await.unwrap();
    let way = [STEPS[0], "echo other >> /tmp/f"];
    let build = other.build("b", &way);
    let base = tokio::time::timeout(Duration::from_secs(10), build).await.unwrap().unwrap();
    assert_eq!(base.hits, 1);
    assert_eq!(run.read(&base, "/tmp/f").await, "1\nother\n");
    builder.finish().await.unwrap();
}

#[tokio::test]
async fn a_build_whose_run_is_dead_is_taken_over() {
    let mut run = Run::new();
    let dead = Run::on(run.fake.clone(), "dead");
    // As kill -9 leaves it: made, owned, nothing in it.
    let mut builder = BaseBuilder::open(&dead.ctx, "b", BaseOptions::default()).await.unwrap();
    dead.fake.inject(Fault::new(Verb::Snapshot, Effect::Hang).nth(1));
    let step = builder.run(Command::shell(STEPS[0]));
    assert!(tokio::time::timeout(Duration::from_millis(100), step).await.is_err());
    std::mem::forget(builder);
    dead.fake.clear_faults();

    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        dead.fake.end_run("dead");
    };
    let (base, ()) = tokio::join!(run.build("b", STEPS), kill);
    let base = base.unwrap();
    assert_eq!(base.hits, 0);
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\n3\n");
    assert!(run.told().iter().any(|event| matches!(event, Event::BaseWaiting { .. })));
    run.only_finished_bases().await;
}

#[tokio::test]
async fn what_a_dead_run_got_done_is_used() {
    let run = Run::new();
    let dead = Run::on(run.fake.clone(), "dead");
    let mut builder = BaseBuilder::open(&dead.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell(STEPS[0])).await.unwrap();
    builder.run(Command::shell(STEPS[1])).await.unwrap();
    std::mem::forget(builder);
    run.fake.end_run("dead");
    let base = run.build("b", STEPS).await.unwrap();
    assert_eq!(base.hits, 2);
    run.fake.gc(false, &Cancel::new()).await.unwrap();
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\n3\n");
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_wait_can_be_cancelled() {
    let run = Run::new();
    let other = Run::on(run.fake.clone(), "run-b");
    run.fake.inject(Fault::new(Verb::Spawn, Effect::Hang).nth(1));
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    let step = builder.run(Command::shell(STEPS[0]));
    assert!(tokio::time::timeout(Duration::from_millis(50), step).await.is_err());
    let cancel = other.ctx.cancel.clone();
    let (waited, ()) = tokio::join!(other.build("b", STEPS), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    assert!(waited.unwrap_err().is_cancel());
    builder.abandon().await;
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn steps_whose_snapshots_went_away_are_done_again() {
    let mut run = Run::new();
    let base = run.build("b", STEPS).await.unwrap();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell(STEPS[0])).await.unwrap();
    builder.run(Command::shell(STEPS[1])).await.unwrap();
    run.fake.delete(&base.sandbox, &Cancel::new()).await.unwrap();
    run.told();
    builder.run(Command::shell("echo 4 >> /tmp/f")).await.unwrap();
    let base = builder.finish().await.unwrap();
    assert_eq!(run.read(&base, "/tmp/f").await, "1\n2\n4\n");
    let told = steps(&run.told());
    assert_eq!(told.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3]);
    run.only_finished_bases().await;
}

#[tokio::test]
async fn somebody_elses_sandbox_of_that_name_is_in_nobodys_way() {
    let run = Run::new();
    let base = run.build("b", &["true"]).await.unwrap();
    let cancel = Cancel::new();
    run.fake.delete(&base.sandbox, &cancel).await.unwrap();
    run.fake.create(&Spec::new(&base.sandbox), &cancel).await.unwrap();
    let again = run.build("b", &["true"]).await.unwrap();
    assert_eq!(again.sandbox, format!("{}-2", base.sandbox));
    let ls = exec(&*run.fake, &base.sandbox, &Command::argv(["true"]), &cancel).await.unwrap();
    assert!(ls.exit.ok(), "it was left as it is");
}

#[tokio::test]
async fn what_is_on_the_backend_can_be_read() {
    let run = Run::new();
    let options = BaseOptions { egress: Some(Policy::None), ..BaseOptions::default() };
    let long = format!("true {}", "x".repeat(5000));
    let base = run.build_with("My Base!", options, &[&long]).await.unwrap();
    assert!(base.sandbox.starts_with("base-my-base-"), "{}", base.sandbox);
    assert_eq!(base.label, label_of(&base.key));
    let snapshots = run.fake.snapshots(&base.sandbox, &Cancel::new()).await.unwrap();
    let labels = &snapshots[0].labels;
    assert_eq!(labels["sandscript.kind"], "step");
    assert_eq!(labels["sandscript.base"], "My Base!");
    assert_eq!(labels["sandscript.step"], "1");
    assert_eq!(labels["sandscript.key"], base.key);
    let record = &labels["sandscript.record"];
    assert!(record.len() < 2000 && record.contains("(5005 bytes"), "{record}");
    assert!(record.starts_with(r#"{"schema":1,"backend":"fake","#), "{record}");
    assert_eq!(run.build("My Base!", &[&long]).await.unwrap().hits, 1);
}

#[tokio::test]
async fn a_step_times_out_and_a_piped_input_is_refused() {
    let run = Run::new();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    let mut piped = Command::argv(["cat"]);
    piped.stdin = sandscript::sandbox::Stdin::Piped;
    assert!(builder.run(piped).await.is_err());
    let mut slow = Command::shell("sleep 100");
    slow.timeout = Some(Duration::from_millis(50));
    let failure = builder.run(slow).await.unwrap_err();
    assert!(matches!(failure, Failure::Error(Error::Timeout { .. })), "{failure}");
    builder.abandon().await;
    assert_eq!(run.names().await, [""; 0]);
}

#[tokio::test]
async fn while_it_is_built_its_run_owns_it() {
    let run = Run::new();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell("true")).await.unwrap();
    let info = run.fake.list(&Cancel::new()).await.unwrap().remove(0);
    assert_eq!(info.owner, Some(Owner::new("run-a", "here")));
    builder.finish().await.unwrap();
}

#[tokio::test]
async fn a_base_inside_of_a_base_does_not_wait_for_it() {
    let run = Run::new();
    let mut outer = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    outer.run(Command::shell(STEPS[0])).await.unwrap();
    // The second step of the inner one might be what the outer one is about to do.
    let inner = tokio::time::timeout(Duration::from_secs(5), run.build("b", &STEPS[..2]));
    let inner = inner.await.unwrap().unwrap();
    assert_eq!(run.read(&inner, "/tmp/f").await, "1\n2\n");
    outer.run(Command::shell(STEPS[1])).await.unwrap();
    let outer = outer.finish().await.unwrap();
    assert_eq!(outer.label, inner.label);
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_rebuild_does_all_steps_and_so_does_what_starts_from_it() {
    let mut run = Run::new();
    let first = run.build("one", STEPS).await.unwrap();
    let from = |base: &sandscript::workflow::BaseHandle| BaseOptions {
        source: base.clone().into(),
        ..BaseOptions::default()
    };
    run.build_with("two", from(&first), &["true"]).await.unwrap();
    let anew = BaseOptions { rebuild: true, ..BaseOptions::default() };
    let second = run.build_with("one", anew, STEPS).await.unwrap();
    assert_eq!(
        (second.hits, second.key == first.key, second.sandbox == first.sandbox),
        (0, true, false)
    );
    run.told();
    assert_eq!(run.build_with("two", from(&second), &["true"]).await.unwrap().hits, 0);
    assert_eq!(steps(&run.told()), [(1, Some("it is built anew".into()))]);
    // The newest is what is found from now on.
    let third = run.build("one", STEPS).await.unwrap();
    assert_eq!((third.hits, third.sandbox), (3, second.sandbox));
    run.only_finished_bases().await;
}

#[tokio::test]
async fn the_catalog_keeps_what_newer_entries_stand_on() {
    let run = Run::new();
    let now = std::time::SystemTime::now;
    let one = run.build("one", &["echo 1", "echo 2"]).await.unwrap();
    let grown = run.build("one", &["echo 1", "echo 2", "echo 3"]).await.unwrap();
    let other = run.build("one", &["echo other"]).await.unwrap();
    let options = BaseOptions { source: one.clone().into(), ..BaseOptions::default() };
    let top = run.build_with("top", options, &["echo top"]).await.unwrap();
    let catalog = Catalog::load(&*run.fake, &Cancel::new()).await.unwrap();
    assert_eq!(catalog.names(), ["one", "top"]);
    let unwanted = |newest, max_age, now| {
        let policy = KeepPolicy { newest, max_age };
        let gone = catalog.unwanted(policy, now);
        gone.into_iter().map(|entry| entry.sandbox.clone()).collect::<Vec<_>>()
    };
    assert_eq!(unwanted(3, None, now()), [""; 0]);
    // The newest is `other`; `top` stands on the oldest, and the one between on nothing that counts.
    assert_eq!(unwanted(1, None, now()), std::slice::from_ref(&grown.sandbox));
    let day = Duration::from_secs(86_400);
    assert_eq!(unwanted(9, Some(day), now()), [""; 0]);
    let all = unwanted(9, Some(day), now() + 2 * day);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!([one, grown, other, top].iter().all(|base| all.contains(&base.sandbox)));

    // What is being built stays.
    let mut builder = BaseBuilder::open(&run.ctx, "new", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell("true")).await.unwrap();
    let catalog = Catalog::load(&*run.fake, &Cancel::new()).await.unwrap();
    let policy = KeepPolicy { newest: 0, max_age: None };
    let gone = catalog.unwanted(policy, now());
    assert_eq!((gone.len(), catalog.of("new")[0].building.as_deref()), (4, Some("run-a")));
    builder.abandon().await;
}
