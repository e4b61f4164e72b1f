//! Replays steps from the cache and builds on from the first that is missing.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::sandbox::{Cancel, Command, Error, Kind, Result, Stdin, StopOptions, WriteOptions};

use super::super::output::Origin;
use super::super::{CommandSecrets, Event, Failure, OutputSink, RunContext};
use super::claim::{Claim, Waited, Wanted, sandbox_name};
use super::key::{self, KEY_SCHEMA, StepInput, StepKey};
use super::record::{Hit, Index, snapshot_spec};
use super::root::Root;
use super::step::{self, Step};
use super::working::Working;
use super::{BaseHandle, BaseOptions, CopyOptions, label_of};

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
    steps: Vec<Declared>,
    site: Site,
    hits: usize,
    started: Instant,
}

struct Declared {
    step: Step,
    title: String,
    key: StepKey,
    digest: String,
    /// Where its snapshot is.
    done: Option<Hit>,
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
        let name = name.into();
        let started = Instant::now();
        if let Some(limits) = &options.limits {
            limits.check()?;
        }
        let root = Root::find(ctx, &options).await?;
        ctx.events.send(Event::BaseStarted { base: name.clone(), from: root.shown.clone() });
        let index = Index::load(ctx.backend.as_ref(), &ctx.cancel).await?;
        Ok(BaseBuilder {
            ctx: ctx.clone(),
            name,
            options,
            root,
            index,
            steps: Vec::new(),
            site: Site::Replaying,
            hits: 0,
            started,
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

    /// A step: runs a command, which must succeed. Its timeout and output cap are in no key.
    pub async fn run(&mut self, command: Command) -> Result<(), Failure> {
        self.run_with(command, CommandSecrets::default()).await
    }

    /// A step: runs a command of which `secrets` says what must stay out of keys and records: of
    /// those only the names count, so that another value does not run the step again.
    pub async fn run_with(
        &mut self,
        mut command: Command,
        secrets: CommandSecrets,
    ) -> Result<(), Failure> {
        let mut env = self.root.env.clone();
        env.extend(self.options.env.clone());
        env.append(&mut command.env);
        command.env = env;
        command.user = command.user.or_else(|| self.options.user.clone());
        command.cwd = command.cwd.or_else(|| self.options.cwd.clone());
        (command.tty, command.detached) = (None, false);
        if command.stdin == Stdin::Piped {
            return Err(Error::invalid("stdin", "a step's input must be known before").into());
        }
        command.check()?;
        self.step(Step::Run(Box::new(command), secrets)).await
    }

    /// A step: copies a host file or tree. `source` is relative to the project; `target` is the
    /// file's or the tree's path in the sandbox, or a folder for a file when it ends in `/`.
    pub async fn copy(
        &mut self,
        source: &str,
        target: &str,
        options: CopyOptions,
    ) -> Result<(), Failure> {
        let path = step::host_path(&self.ctx, source)?;
        let target = step::guest_path(&path, target)?;
        self.step(Step::Copy { shown: source.into(), source: path, target, options }).await
    }

    /// A step: writes a file; missing folders are made.
    pub async fn write(
        &mut self,
        target: &str,
        content: impl Into<Bytes>,
        mut options: WriteOptions,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        options.parents = true;
        self.step(Step::Write { target: target.into(), content: content.into(), options }).await
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
        let (hit, key) = match settled {
            Ok(settled) => settled,
            Err(failure) => {
                self.give_up(&failure.to_string()).await;
                return Err(failure);
            }
        };
        self.site = Site::Over;
        let mut env = self.root.env.clone();
        env.extend(self.options.env.clone());
        let handle = BaseHandle {
            name: self.name.clone(),
            sandbox: hit.sandbox,
            label: hit.label,
            key,
            fingerprint: self.root.fingerprint.clone(),
            egress: self.root.egress.clone(),
            limits: self.root.limits.clone(),
            env,
            steps: self.steps.len(),
            hits: self.hits,
            duration: self.started.elapsed(),
        };
        self.ctx.events.send(Event::BaseReady {
            base: handle.name.clone(),
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
        let (base, message) = (self.name.clone(), message.to_string());
        self.ctx.events.send(Event::BaseFailed { base, message });
    }

    fn usable(&self) -> Result<(), Failure> {
        match &self.site {
            Site::Failed(message) => {
                Err(Failure::new(format!("base '{}' can't go on: {message}", self.name)))
            }
            _ => Ok(()),
        }
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
            Site::Replaying => self.index.hit(&digest).cloned(),
            _ => None,
        };
        self.steps.push(Declared { step, title, key, digest, done });
        let last = self.steps.len() - 1;
        if self.steps[last].done.is_some() {
            self.tell_hit(last);
            return Ok(());
        }
        let done = match self.site {
            Site::Building(_) => self.perform(last, "an earlier step was done").await,
            _ => {
                let reason = self.index.reason(&self.name, last + 1, &self.steps[last].key);
                self.begin(last, &reason).await
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
            step: at + 1,
            key: &self.steps[at].key,
            after: at.checked_sub(1).and_then(|before| self.steps[before].done.as_ref()),
        }
    }

    /// Does a step in our own sandbox, and takes its snapshot.
    async fn perform(&mut self, at: usize, reason: &str) -> Result<(), Failure> {
        let Site::Building(sandbox) = &self.site else {
            return Err(Error::internal("a step was to be done without a sandbox").into());
        };
        let _working = Working::on(sandbox);
        let (base, number) = (self.name.clone(), at + 1);
        let declared = &self.steps[at];
        let title = declared.title.clone();
        self.ctx.events.send(Event::StepStarted {
            base: base.clone(),
            step: number,
            total: None,
            title: title.clone(),
            key: declared.digest.clone(),
            reason: reason.into(),
        });
        let started = Instant::now();
        let origin = Origin::Step { base: base.clone(), step: number };
        let output = OutputSink::new(self.ctx.events.clone(), origin);
        let done = async {
            declared.step.perform(&self.ctx, sandbox, &output).await?;
            let spec = snapshot_spec(&base, number, &declared.key);
            Ok(self.ctx.backend.snapshot(sandbox, &spec, &self.ctx.cancel).await?)
        };
        let done: Result<_, Failure> = done.await;
        output.flush().await;
        let duration = started.elapsed();
        let step = number;
        match done {
            Ok(snapshot) => {
                let hit = Hit { sandbox: sandbox.clone(), label: snapshot.label };
                let frozen = snapshot.frozen;
                self.ctx.events.send(Event::StepDone { base, step, title, duration, frozen });
                self.steps[at].done = Some(hit);
                Ok(())
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
                Err(failure)
            }
        }
    }

    fn tell_hit(&mut self, at: usize) {
        self.hits += 1;
        self.ctx.events.send(Event::StepHit {
            base: self.name.clone(),
            step: at + 1,
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
            Step::Run(command, secrets) => {
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
        }
    }

    /// Where the last step's snapshot is, in a sandbox that is stopped and nobody's.
    async fn settle(&mut self) -> Result<(Hit, String), Failure> {
        let (ctx, cancel) = (&self.ctx, &self.ctx.cancel);
        let Some(Declared { done: Some(hit), digest, .. }) = self.steps.last() else {
            return Err(Error::internal("a base ended without a snapshot").into());
        };
        let (mut hit, digest) = (hit.clone(), digest.clone());
        match &self.site {
            Site::Building(sandbox) => {
                ctx.backend
                    .stop(sandbox, StopOptions { force: true, ..StopOptions::default() }, cancel)
                    .await?;
                ctx.backend.keep(sandbox, cancel).await?;
            }
            _ => hit = self.own(hit, &digest).await?,
        }
        Ok((hit, digest))
    }

    /// A hit in a sandbox that another run still builds goes when that run is killed. So it waits
    /// a moment for the other to finish, and else takes a copy of its own.
    async fn own(&self, hit: Hit, digest: &str) -> Result<Hit> {
        let (ctx, cancel) = (&self.ctx, &self.ctx.cancel);
        let last = self.steps.len() - 1;
        let until = Instant::now() + Duration::from_secs(2);
        loop {
            let info = ctx.backend.get(&hit.sandbox, cancel).await?;
            if info.owner.is_none() {
                return Ok(hit);
            }
            if Instant::now() >= until {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                () = cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
        let wanted = Wanted { after: Some(&hit), ..self.wanted(last) };
        let mut attempt = 1;
        let name = loop {
            let name = sandbox_name(&self.name, digest, attempt);
            match wanted.make(&name).await {
                Ok(()) => break name,
                Err(Error::AlreadyExists { .. } | Error::Busy { .. }) => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        let copied = async {
            let spec = snapshot_spec(&self.name, last + 1, &self.steps[last].key);
            ctx.backend.snapshot(&name, &spec, cancel).await?;
            let stop = StopOptions { force: true, ..StopOptions::default() };
            ctx.backend.stop(&name, stop, cancel).await?;
            ctx.backend.keep(&name, cancel).await
        };
        match copied.await {
            Ok(()) => Ok(Hit { sandbox: name, label: label_of(digest) }),
            Err(error) => {
                clean(ctx, &name).await;
                Err(error)
            }
        }
    }
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
