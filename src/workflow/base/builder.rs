//! Replays steps from the cache and builds on from the first that is missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::sandbox::{
    CacheMount, Cancel, Capability, Command, Error, Kind, Program, Result, SnapshotSpec, Spec,
    Stdin, StopOptions, WriteOptions,
};

use super::super::output::Origin;
use super::super::{CommandSecrets, Event, Failure, OutputSink, RunContext, Source};
use super::claim::{Claim, Waited, Wanted, sandbox_name};
use super::fetch::Fetch;
use super::git::Git;
use super::key::{self, KEY_SCHEMA, StepInput, StepKey};
use super::record::{Hit, Index, Reason, VOLATILE, abridged, snapshot_spec};
use super::root::Root;
use super::step::{self, RunOptions, Step, StepCommand};
use super::working::Working;
use super::{BaseHandle, BaseOptions, BasePoint, CopyOptions, label_of};

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
        ctx.events.send(Event::BaseStarted { base: name.clone(), from: root.shown.clone() });
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

    /// From here on, commands have this cache. It is in no key and in no snapshot: a step must come
    /// out the same when it is empty.
    pub async fn cache(&mut self, cache: CacheMount) -> Result<(), Failure> {
        self.usable()?;
        let mut caches = self.options.caches.clone();
        caches.push(cache);
        Spec { caches: caches.clone(), ..Spec::new("probe") }.check()?;
        self.ctx.backend.capabilities().require(Capability::Caches)?;
        self.options.caches = caches;
        // The sandbox that is built in has not got it: what follows is done in a clone of its last step.
        if let Site::Building(sandbox) = &self.site {
            let sandbox = sandbox.clone();
            self.site = Site::Replaying;
            clean(&self.ctx, &sandbox).await;
        }
        Ok(())
    }

    /// A step: runs a command, which must succeed. Its timeout and output cap are in no key.
    pub async fn run(&mut self, command: Command) -> Result<(), Failure> {
        self.run_with(command, RunOptions::default()).await
    }

    /// A step: runs a command that has secrets or is volatile.
    pub async fn run_with(&mut self, command: Command, options: RunOptions) -> Result<(), Failure> {
        let RunOptions { secrets, volatile } = options;
        let command = self.command(command, secrets)?;
        command.command.check()?;
        self.step_or_later(Step::Run(command), volatile).await
    }

    /// A step: runs a script of the host inside, with these arguments. `like` says how: its
    /// environment, user and so on; its program does not count.
    pub async fn script(
        &mut self,
        source: &str,
        args: Vec<String>,
        like: Command,
        options: RunOptions,
    ) -> Result<(), Failure> {
        let path = step::host_path(&self.ctx, source)?;
        let content = tokio::fs::read(&path).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let hint = format!("host paths are relative to {}", self.ctx.project.display());
                Error::not_found_hint(Kind::File, path.display().to_string(), hint)
            }
            _ => Error::invalid("path", format!("{}: {error}", path.display())),
        })?;
        let RunOptions { secrets, volatile } = options;
        let words = Program::Argv([vec!["script".into()], args.clone()].concat());
        Command { program: words, ..like.clone() }.check()?;
        let command = self.command(Command { program: Program::Argv(args), ..like }, secrets)?;
        let shown = source.to_owned();
        self.step_or_later(Step::Script { shown, content: content.into(), command }, volatile).await
    }

    /// A step: a file from a URL, fetched by the host and known by its digest, so that it needs no
    /// network inside. `target` is its path in the sandbox.
    pub async fn fetch(
        &mut self,
        url: &str,
        sha256: &str,
        target: &str,
        mut options: WriteOptions,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        let fetch = Fetch::new(&self.ctx, url, sha256)?;
        let target = match target.strip_suffix('/') {
            Some(folder) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                let name = path.rsplit('/').next().unwrap_or_default();
                if name.is_empty() {
                    return Err(Error::invalid_hint(
                        "path",
                        format!("{url} ends in no name that the file could have"),
                        "give the whole path of the file",
                    )
                    .into());
                }
                format!("{folder}/{name}")
            }
            None => target.to_owned(),
        };
        options.parents = true;
        self.step(Step::Fetch { fetch, target, options }).await
    }

    /// A step: the tree of a commit of a git repository, without its history, fetched by the host
    /// and known by the commit, so that it needs no network inside. `wanted` is a branch, a tag, or
    /// a commit by all its digits.
    pub async fn git(
        &mut self,
        url: &str,
        wanted: &str,
        target: &str,
        owner: Option<String>,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        let git = Git::resolve(&self.ctx, url, wanted).await?;
        self.step(Step::Git { git, target: target.to_owned(), owner }).await
    }

    /// A snapshot point: what was done so far gets a name by which the finished base gives it.
    pub async fn snapshot(&mut self, name: &str) -> Result<(), Failure> {
        self.usable()?;
        if name.is_empty() || self.points.contains_key(name) {
            let message = match name {
                "" => "a snapshot point needs a name".to_owned(),
                name => format!("there is a snapshot point '{name}' already"),
            };
            return Err(Error::invalid("name", message).into());
        }
        if self.steps.is_empty() {
            self.step(Step::Start).await?;
        }
        let mark = Mark { step: self.steps.len() - 1, env: self.environment() };
        self.points.insert(name.to_owned(), mark);
        Ok(())
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

    /// A step's command, with what holds for all that follow.
    fn command(
        &self,
        mut command: Command,
        secrets: CommandSecrets,
    ) -> Result<Box<StepCommand>, Failure> {
        let mut env = self.environment();
        env.append(&mut command.env);
        command.env = env;
        command.user = command.user.or_else(|| self.options.user.clone());
        command.cwd = command.cwd.or_else(|| self.options.cwd.clone());
        (command.tty, command.detached) = (None, false);
        if command.stdin == Stdin::Piped {
            return Err(Error::invalid("stdin", "a step's input must be known before").into());
        }
        Ok(Box::new(StepCommand { command, secrets }))
    }

    async fn step_or_later(&mut self, step: Step, volatile: bool) -> Result<(), Failure> {
        if !volatile {
            return self.step(step).await;
        }
        self.usable()?;
        self.declared += 1;
        let title = step.title(&self.root.shown);
        self.pending.push(Volatile { step, number: self.declared, title });
        Ok(())
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
            base: self.name.clone(),
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
        let (base, step, title) = (self.name.clone(), task.number, task.title.to_owned());
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
                Err(failure)
            }
        }
    }

    fn tell_hit(&mut self, at: usize) {
        self.hits += 1;
        self.ctx.events.send(Event::StepHit {
            base: self.name.clone(),
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
        }
    }

    /// Where the last step's snapshot is, in a sandbox that is stopped and nobody's; with volatile
    /// steps after it, in one that goes with the run, which is told.
    async fn settle(&mut self) -> Result<(Hit, String, bool), Failure> {
        let (hit, digest) = self.settle_cached().await?;
        if self.pending.is_empty() {
            return Ok((hit, digest, false));
        }
        let last = self.steps.len() - 1;
        let wanted = Wanted { after: Some(&hit), ..self.wanted(last) };
        let name = loop {
            let name = volatile_name(&self.name);
            match wanted.make_as(&name, VOLATILE).await {
                Ok(()) => break name,
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let done = async {
            self.volatile(&name, usize::MAX).await?;
            let spec = SnapshotSpec::new(VOLATILE);
            self.ctx.backend.snapshot(&name, &spec, &self.ctx.cancel).await?;
            let stop = StopOptions { force: true, ..StopOptions::default() };
            Ok(self.ctx.backend.stop(&name, stop, &self.ctx.cancel).await?)
        };
        let done: Result<(), Failure> = done.await;
        if let Err(failure) = done {
            clean(&self.ctx, &name).await;
            return Err(failure);
        }
        Ok((Hit { sandbox: name, label: VOLATILE.into() }, digest, true))
    }

    async fn settle_cached(&mut self) -> Result<(Hit, String), Failure> {
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
        // Nothing is run in it.
        let options = BaseOptions { caches: Vec::new(), ..self.options.clone() };
        let wanted = Wanted { after: Some(&hit), options: &options, ..self.wanted(last) };
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
            let Declared { number, key, .. } = &self.steps[last];
            let spec = snapshot_spec(&self.name, *number, key);
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

/// A step that is about to be done.
struct Task<'a> {
    step: &'a Step,
    number: usize,
    title: &'a str,
    key: &'a str,
    reason: &'a str,
}

/// A name that nobody else has: what is in it is for one run.
fn volatile_name(base: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.unwrap_or_default().as_micros() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = [micros, std::process::id().into(), count].map(u64::to_le_bytes).concat();
    sandbox_name(base, &key::content(&seed), 1).replacen("base-", "volatile-", 1)
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
