//! Where a base is when all its steps are done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::{Error, Result, SnapshotSpec, StopOptions};

use super::super::super::Failure;
use super::super::claim::{Wanted, sandbox_name};
use super::super::record::{Hit, VOLATILE, snapshot_spec};
use super::super::{BaseOptions, key, label_of};
use super::{BaseBuilder, Declared, Site, clean};

impl BaseBuilder {
    /// Where the last step's snapshot is, in a sandbox that is stopped and nobody's; with volatile
    /// steps after it, in one that goes with the run, which is told.
    pub(super) async fn settle(&mut self) -> Result<(Hit, String, bool), Failure> {
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

/// A name that nobody else has: what is in it is for one run.
fn volatile_name(base: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.unwrap_or_default().as_micros() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = [micros, std::process::id().into(), count].map(u64::to_le_bytes).concat();
    sandbox_name(base, &key::content(&seed), 1).replacen("base-", "volatile-", 1)
}
