//! Planning: the real backend is only read from, and nobody is waited for.

use std::sync::Arc;
use std::time::Duration;

use sandscript::backend::fake::Verb;
use sandscript::backend::plan::PlanBackend;
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command, Network, Published, SnapshotSpec, Spec, exec,
};
use sandscript::workflow::{BaseBuilder, BaseOptions, Source};

use crate::support::Run;

/// A run that plans on the same backend.
fn planned(run: &Run) -> Run {
    let mut plan = Run::on(run.fake.clone(), "run-plan");
    plan.ctx.backend = Arc::new(PlanBackend::new(run.fake.clone()));
    plan
}

/// Every call of the real backend reads.
fn only_read(run: &Run) {
    let reads = [Verb::Fingerprint, Verb::List, Verb::Get, Verb::Snapshots, Verb::Read, Verb::Stat];
    for call in run.fake.calls() {
        assert!(reads.contains(&call.verb), "{call:?}");
    }
}

#[tokio::test]
async fn hits_are_those_of_the_real_backend() {
    let run = Run::new();
    run.build("b", &["echo 1", "echo 2", "echo 3"]).await.unwrap();
    run.fake.clear_calls();
    let plan = planned(&run);
    assert_eq!(plan.build("b", &["echo 1", "echo 2", "echo 3"]).await.unwrap().hits, 3);
    let base = plan.build("b", &["echo 1", "exit 7", "echo 3"]).await.unwrap();
    assert_eq!((base.steps, base.hits), (3, 1));
    // What was planned once is there for the rest of the plan, and for no other.
    assert_eq!(plan.build("b", &["echo 1", "exit 7", "echo 3"]).await.unwrap().hits, 3);
    assert_eq!(planned(&run).build("b", &["echo 1", "exit 7"]).await.unwrap().hits, 1);
    only_read(&run);
}

#[tokio::test]
async fn a_base_that_another_run_builds_is_not_waited_for() {
    let run = Run::new();
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
    builder.run(Command::shell("echo 1")).await.unwrap();
    run.fake.clear_calls();
    let plan = planned(&run);
    let steps = ["echo 1", "echo 2"];
    let base = tokio::time::timeout(Duration::from_secs(20), plan.build("b", &steps)).await;
    assert_eq!(base.expect("it waits").unwrap().hits, 1);
    let steps = ["echo other"];
    let base = tokio::time::timeout(Duration::from_secs(20), plan.build("b", &steps)).await;
    assert_eq!(base.expect("it waits").unwrap().hits, 0);
    only_read(&run);
    builder.abandon().await;
}

#[tokio::test]
async fn a_snapshot_that_is_used_in_the_plan_keeps_its_steps_cached() {
    let run = Run::new();
    let cancel = Cancel::new();
    run.fake.create(&Spec::new("web"), &cancel).await.unwrap();
    run.fake.snapshot("web", &SnapshotSpec::new("clean"), &cancel).await.unwrap();
    let options = || BaseOptions {
        source: Source::Snapshot { sandbox: "web".into(), label: Some("clean".into()) },
        ..BaseOptions::default()
    };
    run.build_with("b", options(), &["echo 1"]).await.unwrap();
    run.fake.clear_calls();
    let plan = planned(&run);
    assert_eq!(plan.build_with("b", options(), &["echo 1"]).await.unwrap().hits, 1);
    // A command in it makes a twin of it, with the same snapshots.
    let done = exec(&*plan.ctx.backend, "web", &Command::shell("exit 7"), &cancel).await.unwrap();
    assert!(done.exit.ok() && done.stdout.is_empty());
    assert_eq!(plan.build_with("b", options(), &["echo 1"]).await.unwrap().hits, 1);
    // One that is taken anew is another.
    let backend = &plan.ctx.backend;
    backend.delete_snapshot("web", "clean", &cancel).await.unwrap();
    backend.snapshot("web", &SnapshotSpec::new("clean"), &cancel).await.unwrap();
    assert_eq!(plan.build_with("b", options(), &["echo 1"]).await.unwrap().hits, 0);
    only_read(&run);
}

#[tokio::test]
async fn names_are_taken_as_they_are_for_real() {
    let run = Run::new();
    let cancel = Cancel::new();
    run.fake.create(&Spec::new("web"), &cancel).await.unwrap();
    run.fake.clear_calls();
    let backend = planned(&run).ctx.backend;
    let taken = backend.create(&Spec::new("web"), &cancel).await.unwrap_err();
    assert_eq!(taken.to_string(), "sandbox 'web' exists already");
    backend.delete("web", &cancel).await.unwrap();
    assert!(backend.get("web", &cancel).await.is_err());
    assert!(backend.list(&cancel).await.unwrap().is_empty());
    backend.create(&Spec::new("web"), &cancel).await.unwrap();
    let missing = Spec { image: Some("nope".into()), ..Spec::new("other") };
    assert!(backend.create(&missing, &cancel).await.is_err());
    assert_eq!(backend.list(&cancel).await.unwrap().len(), 1);
    only_read(&run);
    assert_eq!(run.names().await, ["web"]);
}

#[tokio::test]
async fn ports_and_networks_are_planned_and_not_made() {
    let run = Run::new();
    run.fake.create(&Spec::new("real"), &Cancel::new()).await.unwrap();
    run.fake.clear_calls();
    let (plan, cancel) = (planned(&run).ctx.backend, Cancel::new());
    let networks = vec![Network::new("r", "n")];
    let spec = Spec { networks: networks.clone(), ..Spec::new("planned") };
    plan.create(&spec, &cancel).await.unwrap();
    assert_eq!(plan.get("planned", &cancel).await.unwrap().networks, networks);
    for name in ["planned", "real"] {
        let at = plan.publish(name, 8080, None, &cancel).await.unwrap();
        let ports = plan.get(name, &cancel).await.unwrap().ports;
        assert_eq!(ports, [Published { port: 8080, at }]);
    }
    let clone = CloneSpec { networks: networks.clone(), ..CloneSpec::new("clone") };
    let clone = Backend::clone(plan.as_ref(), "planned", &clone, &cancel).await.unwrap();
    assert_eq!((clone.networks, clone.ports), (networks, vec![]));
    only_read(&run);
    assert_eq!(run.fake.get("real", &cancel).await.unwrap().ports, []);
}
