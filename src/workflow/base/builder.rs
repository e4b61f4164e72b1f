//! Replays steps from the cache and builds on from the first that is missing.

mod declare;
mod settle;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sandbox::{Cancel, Error, Kind, Result, SnapshotSpec, StopOptions};

use super::super::output::Origin;
use super::super::{Event, Failure, OutputSink, RunContext, Source};
use super::claim::{Claim, Waited, Wanted, sandbox_name};
use super::key::{self, KEY_SCHEMA, StepInput, StepKey};
use super::record::{Hit, Index, Reason, abridged, snapshot_spec};
use super::root::Root;
use super::step::{Step, StepCommand};
use super::working::Working;
use super::{BaseHandle, BaseOptions, BasePoint};

/// Builds a base, step by step.
///
/// Ended by [`BaseBuilder::finish`] or [`BaseBuilder::abandon`]; dropped without, it is abandoned
/// in the background.
pub struct BaseBuilder {
    ctx: RunContext,
    name: String,
    options: BaseOptions,
    root: Root,
    index: Index,
    /// Those that are cached.
    steps: Vec<Declared>,
    /// How many there are, volatile ones too.
    declared: usize,
    /// Volatile steps that are still to be run.
    pending: Vec<Volatile>,
    points: BTreeMap<String, Mark>,
    site: Site,
    hits: usize,
    started: Instant,
    /// The end of what the step that failed printed.
    tail: Arc<Mutex<String>>,
}

struct Declared {
    step: Step,
    /// From 1, volatile ones counted.
    number: usize,
    title: String,
    key: StepKey,
    digest: String,
    /// Where its snapshot is.
    done: Option<Hit>,
}

struct Volatile {
    step: Step,
    number: usize,
    title: String,
}

/// A snapshot point: after which of the cached steps, and the environment there.
struct Mark {
    step: usize,
    env: BTreeMap<String, String>,
}

enum Site {
    /// Every step so far was in the cache.
    Replaying,
    /// In this sandbox, which is ours.
    Building(String),
    /// A step failed.
    Failed(String),
    /// Finished or abandoned.
    Over,
}

impl BaseBuilder {
    /// Begins a base: asks what it starts from and which steps there are already. Makes nothing.
    pub async fn open(
        ctx: &RunContext,
        name: impl Into<String>,
        options: BaseOptions,
    ) -> Result<BaseBuilder> {
        let (name, mut options) = (name.into(), options);
        let started = Instant::now();
        // What was built anew may have become something else, with the same key.
        options.rebuild |= matches!(&options.source, Source::Base(base) if base.rebuilt);
        if let Some(limits) = &options.limits {
            limits.check()?;
        }
        let root = Root::find(ctx, &options).await?;
        ctx.events.send(Event::BaseStarted { base: ctx.shown(&name), from: root.shown.clone() });
        let index = Index::load(ctx.backend.as_ref(), &ctx.cancel).await?;
        Ok(BaseBuilder {
            ctx: ctx.clone(),
            name,
            options,
            root,
            index,
            steps: Vec::new(),
            declared: 0,
            pending: Vec::new(),
            points: BTreeMap::new(),
            site: Site::Replaying,
            hits: 0,
            started,
            tail: Arc::default(),
        })
    }

    /// From here on, commands have this in their environment; so has what is cloned from the base.
    pub fn env(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.options.env.insert(name.into(), value.into());
        self
    }

    /// From here on, commands run as this user.
    pub fn user(&mut self, user: impl Into<String>) -> &mut Self {
        self.options.user = Some(user.into());
        self
    }

    /// From here on, commands run in this directory.
    pub fn workdir(&mut self, path: impl Into<String>) -> &mut Self {
        self.options.cwd = Some(path.into());
        self
    }

    /// Ends the base: it is stopped, and nobody's.
    pub async fn finish(mut self) -> Result<BaseHandle, Failure> {
        if self.steps.is_empty() {
            self.step(Step::Start).await?;
        }
        let settled = match self.usable() {
            Ok(()) => self.settle().await,
            Err(failure) => Err(failure),
        };
        let (hit, key, volatile) = match settled {
            Ok(settled) => settled,
            Err(failure) => {
                self.give_up(&failure.to_string()).await;
                return Err(failure);
            }
        };
        self.site = Site::Over;
        let handle = BaseHandle {
            name: self.name.clone(),
            sandbox: hit.sandbox,
            label: hit.label,
            key,
            fingerprint: self.root.fingerprint.clone(),
            egress: self.root.egress.clone(),
            limits: self.root.limits.clone(),
            env: self.environment(),
            points: self.marked(),
            volatile,
            rebuilt: self.options.rebuild,
            steps: self.declared,
            hits: self.hits,
            duration: self.started.elapsed(),
        };
        self.ctx.events.send(Event::BaseReady {
            base: self.ctx.shown(&handle.name),
            sandbox: handle.sandbox.clone(),
            label: handle.label.clone(),
            steps: handle.steps,
            hits: handle.hits,
            duration: handle.duration,
        });
        Ok(handle)
    }

    /// Ends it without a base. Steps that were done stay in the cache; nothing else is left.
    pub async fn abandon(mut self) {
        let message = match &self.site {
            Site::Failed(message) => message.clone(),
            _ => "it was given up".into(),
        };
        self.give_up(&message).await;
    }

    async fn give_up(&mut self, message: &str) {
        let site = std::mem::replace(&mut self.site, Site::Over);
        if let Site::Building(sandbox) = site {
            clean(&self.ctx, &sandbox).await;
        }
        let (base, message) = (self.ctx.shown(&self.name), message.to_string());
        self.ctx.events.send(Event::BaseFailed { base, message });
    }

    /// The end of what the step that failed printed, once one has; also when it is over.
    pub fn tail(&self) -> Arc<Mutex<String>> {
        Arc::clone(&self.tail)
    }

    fn usable(&self) -> Result<(), Failure> {
        match &self.site {
            Site::Failed(message) => {
                Err(Failure::new(format!("base '{}' can't go on: {message}", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// The environment that commands have from here on.
    fn environment(&self) -> BTreeMap<String, String> {
        let mut env = self.root.env.clone();
        env.extend(self.options.env.clone());
        env
    }

    /// The snapshot points, by name.
    fn marked(&self) -> BTreeMap<String, BasePoint> {
        let point = |(name, mark): (&String, &Mark)| {
            let declared = self.steps.get(mark.step)?;
            let hit = declared.done.clone()?;
            let point = BasePoint {
                sandbox: hit.sandbox,
                label: hit.label,
                key: declared.digest.clone(),
                env: mark.env.clone(),
                steps: declared.number,
            };
            Some((name.clone(), point))
        };
        self.points.iter().filter_map(point).collect()
    }

    async fn step(&mut self, step: Step) -> Result<(), Failure> {
        self.usable()?;
        if self.ctx.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let key = self.key(step.input().await?, &step);
        let digest = key.digest();
        let title = step.title(&self.root.shown);
        let done = match self.site {
            Site::Replaying if !self.options.rebuild => self.index.hit(&digest).cloned(),
            _ => None,
        };
        self.declared += 1;
        let number = self.declared;
        self.steps.push(Declared { step, number, title, key, digest, done });
        let last = self.steps.len() - 1;
        if self.steps[last].done.is_some() {
            self.explain(last, None);
            self.tell_hit(last);
            return Ok(());
        }
        let Declared { number, key, .. } = &self.steps[last];
        let mut reason = self.index.reason(&self.name, *number, key);
        let done = match self.site {
            Site::Building(_) => {
                reason.said = match self.options.rebuild {
                    true => "it is built anew".into(),
                    false => "an earlier step was done".into(),
                };
                self.explain(last, Some(&reason));
                self.perform(last, &reason.said).await
            }
            _ => {
                if self.options.rebuild {
                    reason.said = "it is built anew".into();
                }
                self.explain(last, Some(&reason));
                self.begin(last, &reason.said).await
            }
        };
        if let Err(failure) = &done {
            let site = std::mem::replace(&mut self.site, Site::Failed(failure.to_string()));
            if let Site::Building(sandbox) = site {
                clean(&self.ctx, &sandbox).await;
            }
        }
        done
    }

    /// Does the first step that is missing, and before it those whose snapshots went away meanwhile.
    async fn begin(&mut self, last: usize, reason: &str) -> Result<(), Failure> {
        let mut first = last;
        if self.options.rebuild {
            let sandbox = self.anew(last).await?;
            self.site = Site::Building(sandbox);
            return self.perform(last, reason).await;
        }
        if let Some(hit) = self.follow(last).await? {
            self.steps[last].done = Some(hit);
            self.tell_hit(last);
            return Ok(());
        }
        loop {
            match self.wanted(first).claim().await {
                Ok(Claim::Hit(hit)) => {
                    self.steps[first].done = Some(hit);
                    if first == last {
                        self.tell_hit(last);
                        return Ok(());
                    }
                    first += 1;
                }
                Ok(Claim::Mine(sandbox)) => {
                    self.site = Site::Building(sandbox);
                    for step in first..last {
                        self.perform(step, "its snapshot was deleted").await?;
                    }
                    return self.perform(last, reason).await;
                }
                Err(Error::NotFound { kind: Kind::Sandbox | Kind::Snapshot, .. }) if first > 0 => {
                    first -= 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes a sandbox to build in that nobody else waits for.
    async fn anew(&self, at: usize) -> Result<String> {
        for attempt in 1.. {
            let name = sandbox_name(&self.name, &self.steps[at].digest, attempt);
            match self.wanted(at).make(&name).await {
                Ok(()) => return Ok(name),
                Err(Error::AlreadyExists { .. }) => {}
                Err(Error::Busy { name: busy, .. }) if busy == name => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("no name is left for a base"))
    }

    /// Tells what a step's key is and what is different, when somebody wants to know.
    fn explain(&self, at: usize, reason: Option<&Reason>) {
        if !self.ctx.explain {
            return;
        }
        let declared = &self.steps[at];
        self.ctx.events.send(Event::StepExplained {
            base: self.ctx.shown(&self.name),
            step: declared.number,
            title: declared.title.clone(),
            digest: declared.digest.clone(),
            key: Box::new(abridged(&declared.key)),
            reason: reason.map(|reason| reason.said.clone()),
            against: reason.and_then(|reason| reason.against.clone()),
            changes: reason.map(|reason| reason.changes.clone()).unwrap_or_default(),
        });
    }

    /// When the step before was found in a base that is still being built, the one who builds it
    /// may be about to do this one, too.
    async fn follow(&self, last: usize) -> Result<Option<Hit>> {
        let Some(before) = last.checked_sub(1).and_then(|at| self.steps[at].done.as_ref()) else {
            return Ok(None);
        };
        match self.wanted(last).wait(&before.sandbox, false).await? {
            Waited::Hit(hit) => Ok(Some(hit)),
            Waited::Gone | Waited::Never => Ok(None),
        }
    }

    fn wanted(&self, at: usize) -> Wanted<'_> {
        Wanted {
            ctx: &self.ctx,
            base: &self.name,
            options: &self.options,
            step: self.steps[at].number,
            key: &self.steps[at].key,
            after: at.checked_sub(1).and_then(|before| self.steps[before].done.as_ref()),
        }
    }

    /// Does a step in our own sandbox, and takes its snapshot. Volatile steps that were declared
    /// before it are run first.
    async fn perform(&mut self, at: usize, reason: &str) -> Result<(), Failure> {
        let Site::Building(sandbox) = &self.site else {
            return Err(Error::internal("a step was to be done without a sandbox").into());
        };
        let sandbox = sandbox.clone();
        let _working = Working::on(&sandbox);
        self.volatile(&sandbox, self.steps[at].number).await?;
        let declared = &self.steps[at];
        let task = Task {
            step: &declared.step,
            number: declared.number,
            title: &declared.title,
            key: &declared.digest,
            reason,
        };
        let spec = snapshot_spec(&self.name, declared.number, &declared.key);
        let label = self.perform_in(&sandbox, task, Some(&spec)).await?;
        self.steps[at].done = Some(Hit { sandbox, label });
        Ok(())
    }

    /// Runs the volatile steps that are left and were declared before number `before`.
    async fn volatile(&mut self, sandbox: &str, before: usize) -> Result<(), Failure> {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|volatile| volatile.number < before);
        self.pending = later;
        for Volatile { step, number, title } in &now {
            let reason = "it is volatile: it is run every time";
            let task = Task { step, number: *number, title, key: "", reason };
            self.perform_in(sandbox, task, None).await?;
        }
        Ok(())
    }

    /// Does a step in a sandbox and tells about it; takes a snapshot where one is wanted, and
    /// gives its label.
    async fn perform_in(
        &self,
        sandbox: &str,
        task: Task<'_>,
        snapshot: Option<&SnapshotSpec>,
    ) -> Result<String, Failure> {
        let (base, step, title) = (self.ctx.shown(&self.name), task.number, task.title.to_owned());
        self.ctx.events.send(Event::StepStarted {
            base: base.clone(),
            step,
            total: None,
            title: title.clone(),
            key: task.key.into(),
            reason: task.reason.into(),
        });
        let started = Instant::now();
        let origin = Origin::Step { base: base.clone(), step };
        let output = OutputSink::new(self.ctx.events.clone(), origin);
        let done = async {
            task.step.perform(&self.ctx, sandbox, &output).await?;
            let Some(spec) = snapshot else { return Ok((String::new(), Duration::ZERO)) };
            let taken = self.ctx.backend.snapshot(sandbox, spec, &self.ctx.cancel).await?;
            Ok((taken.label, taken.frozen))
        };
        let done: Result<_, Failure> = done.await;
        output.flush().await;
        let duration = started.elapsed();
        match done {
            Ok((label, frozen)) => {
                self.ctx.events.send(Event::StepDone { base, step, title, duration, frozen });
                Ok(label)
            }
            Err(failure) => {
                self.ctx.events.send(Event::StepFailed {
                    base,
                    step,
                    title,
                    duration,
                    message: failure.to_string(),
                    hint: failure.hint(),
                    tail: output.tail(),
                });
                *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = output.tail();
                Err(failure)
            }
        }
    }

    fn tell_hit(&mut self, at: usize) {
        self.hits += 1;
        self.ctx.events.send(Event::StepHit {
            base: self.ctx.shown(&self.name),
            step: self.steps[at].number,
            total: None,
            title: self.steps[at].title.clone(),
            key: self.steps[at].digest.clone(),
        });
    }

    fn key(&self, input: StepInput, step: &Step) -> StepKey {
        let capabilities = self.ctx.backend.capabilities();
        let parent = self.steps.last().map(|before| before.digest.clone());
        // Environment, user and directory are only felt by commands.
        let (env, user, cwd) = match step {
            Step::Run(run) | Step::Script { command: run, .. } => {
                let StepCommand { command, secrets } = run.as_ref();
                let mut env = command.env.clone();
                env.retain(|name, _| !secrets.env.contains_key(name));
                (env, command.user.clone(), command.cwd.clone())
            }
            _ => Default::default(),
        };
        StepKey {
            schema: KEY_SCHEMA,
            backend: capabilities.backend.clone(),
            class: key::class(capabilities),
            image: self.root.fingerprint.clone(),
            parent: parent.or_else(|| self.root.parent.clone()),
            step: input,
            env,
            user,
            cwd,
            egress: self.root.egress.clone(),
            devices: self
                .options
                .devices
                .iter()
                .filter(|one| one.can_be_had_twice())
                .cloned()
                .collect(),
            nesting: self.options.nesting,
        }
    }
}

/// A step that is about to be done.
struct Task<'a> {
    step: &'a Step,
    number: usize,
    title: &'a str,
    key: &'a str,
    reason: &'a str,
}

impl Drop for BaseBuilder {
    fn drop(&mut self) {
        let site = std::mem::replace(&mut self.site, Site::Over);
        if let Site::Building(sandbox) = site
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let ctx = self.ctx.clone();
            runtime.spawn(async move { clean(&ctx, &sandbox).await });
        }
    }
}

/// Takes down a base sandbox whose build did not end well: deleted when no step was done in it,
/// else stopped, and kept for these. Works when the run was cancelled, too.
async fn clean(ctx: &RunContext, sandbox: &str) {
    let cancel = Cancel::new();
    let cleaned = async {
        let snapshots = ctx.backend.snapshots(sandbox, &cancel).await?;
        if snapshots.is_empty() {
            return ctx.backend.delete(sandbox, &cancel).await;
        }
        let stop = StopOptions { force: true, ..StopOptions::default() };
        ctx.backend.stop(sandbox, stop, &cancel).await?;
        ctx.backend.keep(sandbox, &cancel).await
    };
    match cleaned.await {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => ctx.events.send(Event::Warning {
            message: format!("base sandbox '{sandbox}' could not be cleaned up: {error}"),
            hint: Some("it goes with the next: sandscript gc".into()),
        }),
    }
}
