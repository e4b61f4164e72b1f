//! The host's boot: what is in `/run` is made from the store again, and machines that start with the host do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::authored::Authored;
use super::{BACKEND, Inner, NspawnBackend, install, machine};
use crate::sandbox::{Cancel, Error, Result};

/// What became of a machine at the host's boot.
#[derive(Debug)]
pub struct Booted {
    /// Which.
    pub name: String,
    /// Whether it was to be started, and not only rendered.
    pub started: bool,
    /// Whether that was done.
    pub done: Result<()>,
}

/// How long a machine may take to start, beside what its hooks may: the host's other machines wait for it.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to take one back that did not.
const BACK: Duration = Duration::from_secs(30);

/// What hangs together: those that are started at once, each with how long it may take, and what is waited
/// afterwards.
type Rank = (Vec<(String, Duration)>, Duration);

impl NspawnBackend {
    /// Renders all machines of files, and starts those with `autostart`: the lower orders first, equal ones at
    /// once. One that does not start, or takes too long to, is no reason for the others not to.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn boot(&self, cancel: &Cancel) -> Result<Vec<Booted>> {
        let inner = &self.0;
        let (mut all, mut ranks) = (Vec::new(), BTreeMap::<i64, Rank>::new());
        for name in inner.store.names()? {
            match inner.render_stored(&name).await {
                Ok(None) => {}
                Ok(Some(authored)) => match &authored.file.autostart {
                    Some(autostart) => {
                        let rank = ranks.entry(autostart.order).or_default();
                        rank.0.push((name, PATIENCE + authored.plan.starting));
                        rank.1 = rank.1.max(autostart.delay);
                    }
                    None => all.push(Booted { name, started: false, done: Ok(()) }),
                },
                Err(error) => all.push(Booted { name, started: false, done: Err(error) }),
            }
        }
        let last = ranks.keys().next_back().copied();
        for (order, (names, delay)) in ranks {
            let mut starting = JoinSet::new();
            for (name, longest) in names {
                let (inner, cancel) = (Arc::clone(inner), cancel.clone());
                starting.spawn(async move {
                    let done = inner.start_within(&name, longest, &cancel).await;
                    Booted { name, started: true, done }
                });
            }
            all.extend(starting.join_all().await);
            if Some(order) != last {
                tokio::select! {
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
        Ok(all)
    }

    /// The folder of the store.
    pub fn store(&self) -> &std::path::Path {
        self.0.store.root()
    }
}

impl Inner {
    /// Starts a machine and does what is left of its set-up, unless that takes too long: it is taken back then,
    /// or goes on with its set-up the next time.
    async fn start_within(
        self: &Arc<Self>,
        name: &str,
        longest: Duration,
        cancel: &Cancel,
    ) -> Result<()> {
        let own = cancel.child_token();
        let mut start = std::pin::pin!(self.start(name, &own));
        if let Ok(done) = tokio::time::timeout(longest, start.as_mut()).await {
            return done;
        }
        own.cancel();
        let _ = tokio::time::timeout(BACK, start).await;
        Err(Error::Timeout { what: format!("starting sandbox '{name}'"), after: longest })
    }

    /// Makes what is in `/run` of a machine of a file, if it is one.
    async fn render_stored(self: &Arc<Self>, name: &str) -> Result<Option<Authored>> {
        let machine = self.store.machine(name)?;
        let Some(authored) = self.authored(name, &machine)? else { return Ok(None) };
        if self.host.systemd().is_some() {
            self.render(&authored, &self.root(name, &machine)).await?;
        }
        Ok(Some(authored))
    }

    /// Refuses what nothing would do: to start with a host that does not know of it.
    pub(super) fn starts_with_host(&self, file: &machine::Machine) -> Result<()> {
        if file.autostart.is_none() || install::is_installed(self.store.root()) {
            return Ok(());
        }
        Err(Error::unsupported(
            "autostart",
            BACKEND,
            "nothing on this host starts machines when it boots: 'sandscript host install', once, as root; or leave autostart out",
        ))
    }
}
