//! A run on the fake backend, and what it told.

use std::sync::Arc;
use std::time::Duration;

use sandscript::backend::fake::{FakeBackend, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, Owner, State};
use sandscript::workflow::{
    BaseBuilder, BaseHandle, BaseOptions, Event, EventSink, Failure, Receiver, RunContext,
};

/// A run, and the other end of its events.
pub struct Run {
    pub fake: Arc<FakeBackend>,
    pub ctx: RunContext,
    pub events: Receiver,
    pub project: tempfile::TempDir,
}

impl Run {
    pub fn new() -> Run {
        Run::on(Arc::new(FakeBackend::new()), "run-a")
    }

    /// Another run on the same backend.
    pub fn on(fake: Arc<FakeBackend>, id: &str) -> Run {
        let (sink, events) = EventSink::channel(id);
        let owner = Owner::new(id, "here");
        let project = tempfile::tempdir().unwrap();
        let backend: Arc<dyn Backend> = fake.clone();
        Run { ctx: RunContext::new(backend, owner, sink, project.path()), fake, events, project }
    }

    pub fn told(&mut self) -> Vec<Event> {
        self.events.drain().into_iter().map(|record| record.event).collect()
    }

    /// Builds a base of shell steps.
    pub async fn build(&self, name: &str, steps: &[&str]) -> Result<BaseHandle, Failure> {
        self.build_with(name, BaseOptions::default(), steps).await
    }

    pub async fn build_with(
        &self,
        name: &str,
        options: BaseOptions,
        steps: &[&str],
    ) -> Result<BaseHandle, Failure> {
        let mut builder = BaseBuilder::open(&self.ctx, name, options).await?;
        for step in steps {
            if let Err(failure) = builder.run(Command::shell(*step)).await {
                builder.abandon().await;
                return Err(failure);
            }
        }
        builder.finish().await
    }

    /// The names of all sandboxes.
    pub async fn names(&self) -> Vec<String> {
        let all = self.fake.list(&Cancel::new()).await.unwrap();
        all.into_iter().map(|info| info.name).collect()
    }

    /// All sandboxes are stopped bases without an owner.
    pub async fn only_finished_bases(&self) {
        for info in self.fake.list(&Cancel::new()).await.unwrap() {
            assert_eq!(info.labels.get("sandscript.kind").map(String::as_str), Some("base"));
            assert_eq!((info.state, info.owner), (State::Stopped, None), "{}", info.name);
        }
    }

    /// What a file holds in a fresh clone of the base.
    pub async fn read(&self, base: &BaseHandle, path: &str) -> String {
        let cancel = Cancel::new();
        let spec = sandscript::sandbox::CloneSpec::of(&base.label, "reader");
        Backend::clone(&*self.fake, &base.sandbox, &spec, &cancel).await.unwrap();
        let cat = Command::argv(["cat", path]);
        let output = sandscript::sandbox::exec(&*self.fake, "reader", &cat, &cancel).await.unwrap();
        self.fake.delete("reader", &cancel).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// How often what makes or changes something was called.
    pub fn work(&self) -> usize {
        [Verb::Create, Verb::Clone, Verb::Spawn, Verb::Start, Verb::Snapshot, Verb::Write]
            .into_iter()
            .map(|verb| self.fake.count(verb))
            .sum()
    }
}

/// Waits until `condition` holds, a few seconds at most.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}
