//! Who builds a step that is missing, when several runs want it.

use std::time::{Duration, Instant};

use crate::sandbox::{Backend, CloneSpec, Error, Kind, Limits, Result, Spec, State};

use super::super::runner::slug;
use super::super::{Event, RunContext, Source, Waiter};
use super::key::StepKey;
use super::record::{self, Hit};
use super::working::Working;
use super::{BaseOptions, label_of};

/// How long to wait between two looks at somebody else's build, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// How often to ask whether the run that builds is dead.
const ALIVE: Duration = Duration::from_secs(1);

/// How long a base of our own run may lie idle before it is not waited for any more.
const IDLE: Duration = Duration::from_millis(500);

/// What came of wanting to build a step.
#[derive(Debug)]
pub(super) enum Claim {
    /// This sandbox was made for it; it is running and ours.
    Mine(String),
    /// Somebody else did it.
    Hit(Hit),
}

/// What came of waiting for somebody else's build.
#[derive(Debug, PartialEq)]
pub(super) enum Waited {
    /// The step is done.
    Hit(Hit),
    /// The sandbox is gone.
    Gone,
    /// The sandbox is there, and the step will not be done in it.
    Never,
}

/// A step that is missing, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub ctx: &'a RunContext,
    pub base: &'a str,
    pub options: &'a BaseOptions,
    /// Its number, from 1.
    pub step: usize,
    pub key: &'a StepKey,
    /// The step before it; none when it is the first.
    pub after: Option<&'a Hit>,
}

impl Wanted<'_> {
    /// Makes a base sandbox to build in, or waits for whoever has it already.
    pub async fn claim(self) -> Result<Claim> {
        let digest = self.key.digest();
        let mut attempt = 1;
        let mut pause = PAUSE.0;
        loop {
            let name = sandbox_name(self.base, &digest, attempt);
            let working = Working::on(&name);
            let made = self.make(&name).await;
            drop(working);
            match made {
                Ok(()) => return Ok(Claim::Mine(name)),
                Err(Error::AlreadyExists { kind: Kind::Sandbox, .. }) => {}
                Err(Error::Busy { name: busy, .. }) if busy == name => {}
                // What it is cloned from is being worked on.
                Err(Error::Busy { .. }) => {
                    self.sleep(&mut pause).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match self.wait(&name, true).await? {
                Waited::Hit(hit) => return Ok(Claim::Hit(hit)),
                Waited::Gone => {}
                Waited::Never => attempt += 1,
            }
        }
    }

    /// Waits until the step is done in `sandbox`, or will not be. With `collect`, one whose run is
    /// dead is deleted, so that its name is free.
    pub async fn wait(self, sandbox: &str, collect: bool) -> Result<Waited> {
        let label = label_of(&self.key.digest());
        let (backend, cancel) = (self.ctx.backend.as_ref(), &self.ctx.cancel);
        let mut pause = PAUSE.0;
        let mut asked = Instant::now();
        let mut told = false;
        let mut worked = Instant::now();
        loop {
            // In this order: who owns nothing has taken its last snapshot before.
            let info = backend.get(sandbox, cancel).await;
            let snapshots = backend.snapshots(sandbox, cancel).await;
            let (info, snapshots) = match (info, snapshots) {
                (Ok(info), Ok(snapshots)) => (info, snapshots),
                (Err(Error::NotFound { .. }), _) | (_, Err(Error::NotFound { .. })) => {
                    return Ok(Waited::Gone);
                }
                (Err(Error::Busy { .. }), _) | (_, Err(Error::Busy { .. })) => {
                    self.sleep(&mut pause).await?;
                    continue;
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            if snapshots.iter().any(|snapshot| snapshot.label == label) {
                return Ok(Waited::Hit(Hit { sandbox: sandbox.into(), label }));
            }
            let built = info.owner.is_some() || matches!(info.state, State::Transitional(_));
            let steps = snapshots.iter().filter(|snapshot| record::is_step(snapshot));
            let elsewhere = steps
                .filter(|snapshot| {
                    self.key.parent.is_some() && record::parent_of(snapshot) == self.key.parent
                })
                .count()
                > 0;
            if !built || elsewhere {
                return Ok(Waited::Never);
            }
            if !told {
                told = true;
                self.ctx.events.send(Event::BaseWaiting {
                    base: self.ctx.shown(self.base),
                    step: self.step,
                    sandbox: sandbox.into(),
                    run: info.owner.as_ref().map(|owner| owner.run.clone()),
                });
            }
            let ours = info.owner.as_ref() == Some(&self.ctx.owner);
            if !ours || Working::is_on(sandbox) {
                worked = Instant::now();
            } else if worked.elapsed() >= IDLE {
                return Ok(Waited::Never);
            }
            if asked.elapsed() >= ALIVE {
                asked = Instant::now();
                let dead = backend.gc(true, cancel).await?;
                if dead.sandboxes.iter().any(|name| name == sandbox) {
                    if !collect {
                        return Ok(Waited::Never);
                    }
                    // Not a delete by name: between the look and the delete somebody else may have
                    // taken the name. It is gc that looks and deletes in one.
                    backend.gc(false, cancel).await?;
                    continue;
                }
            }
            self.sleep(&mut pause).await?;
        }
    }

    /// Makes the sandbox to build in, from the step before or from what the base starts from.
    pub async fn make(self, name: &str) -> Result<()> {
        self.make_as(name, "base").await
    }

    /// The same for another kind of sandbox than a base's.
    pub async fn make_as(self, name: &str, kind: &str) -> Result<()> {
        let (backend, cancel) = (self.ctx.backend.as_ref(), &self.ctx.cancel);
        let options = self.options;
        let owner = Some(self.ctx.owner.clone());
        let labels = record::sandbox_labels(kind, self.base, options.expires);
        let shown = self.ctx.shown(self.base);
        let waiter = Waiter {
            sandbox: name,
            cell: None,
            base: Some(&shown),
            events: &self.ctx.events,
            cancel,
        };
        let clone = |label: Option<&String>, limits: Option<&Limits>| CloneSpec {
            label: label.cloned(),
            limits: options.limits.as_ref().or(limits).cloned(),
            egress: options.egress.clone(),
            caches: options.caches.clone(),
            devices: options.devices.clone(),
            nesting: options.nesting,
            env: options.env.clone(),
            labels: labels.clone(),
            owner: owner.clone(),
            ..CloneSpec::new(name)
        };
        if let Some(hit) = self.after {
            let clone = clone(Some(&hit.label), None);
            return waiter
                .when_free(|| Backend::clone(backend, &hit.sandbox, &clone, cancel))
                .await
                .map(drop);
        }
        match &options.source {
            Source::Base(base) => {
                let clone = clone(Some(&base.label), Some(&base.limits));
                waiter.when_free(|| Backend::clone(backend, &base.sandbox, &clone, cancel)).await?;
            }
            Source::Snapshot { sandbox, label } => {
                let clone = clone(label.as_ref(), None);
                waiter.when_free(|| Backend::clone(backend, sandbox, &clone, cancel)).await?;
            }
            Source::Image { image, sha256 } => {
                let spec = Spec {
                    image: image.clone(),
                    sha256: sha256.clone(),
                    limits: options.limits.clone().unwrap_or_default(),
                    egress: options.egress.clone().unwrap_or_default(),
                    caches: options.caches.clone(),
                    devices: options.devices.clone(),
                    nesting: options.nesting,
                    env: options.env.clone(),
                    labels,
                    owner,
                    ..Spec::new(name)
                };
                waiter.when_free(|| backend.create(&spec, cancel)).await?;
            }
        }
        Ok(())
    }

    async fn sleep(&self, pause: &mut Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(*pause) => {}
            () = self.ctx.cancel.cancelled() => return Err(Error::Cancelled),
        }
        *pause = (*pause * 3 / 2).min(PAUSE.1);
        Ok(())
    }
}

/// The same for everybody who misses the same step of the same base.
pub(super) fn sandbox_name(base: &str, digest: &str, attempt: usize) -> String {
    let slug = slug(base, 24);
    let dash = if slug.is_empty() { "" } else { "-" };
    let name = format!("base-{slug}{dash}{}", &digest[..digest.len().min(12)]);
    if attempt == 1 { name } else { format!("{name}-{attempt}") }
}
