//! Sandboxes that wait for cells of this run or of a later one: clones that are started already.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::sandbox::{
    Adoption, Backend, Cancel, Capability, CloneSpec, POOL_LABEL, Result, wall_clock,
};

/// For how long one waits.
const WAITS: Duration = Duration::from_secs(3600);
/// One that would wait no longer than this is not begun with.
const ABOUT_TO_GO: Duration = Duration::from_secs(60);

/// The sandboxes that wait on one backend.
pub(super) struct Pool {
    /// How many are to wait for each kind of cell.
    size: usize,
    state: Mutex<State>,
    /// Somebody took one, or wanted to.
    taken: Notify,
    /// Nobody takes one any more.
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Those that wait, by what they are for; the oldest first.
    ready: HashMap<String, VecDeque<String>>,
    /// What was asked for: what to make more of.
    kinds: BTreeMap<String, (String, CloneSpec)>,
    /// What clones have from their sources, by sandbox and label.
    inherited: HashMap<(String, String), Option<String>>,
}

impl Pool {
    /// Looks which there are. None where nobody wants any or where they are of no use.
    pub async fn of(backend: &dyn Backend, size: usize, cancel: &Cancel) -> Option<Pool> {
        if size == 0 || !backend.capabilities().has(Capability::Pool) {
            return None;
        }
        let mut state = State::default();
        let soon = wall_clock() + ABOUT_TO_GO;
        // Without them the cells are made as ever.
        for info in backend.list(cancel).await.unwrap_or_default() {
            let Some(pool) = info.labels.get(POOL_LABEL) else { continue };
            let adoption = Adoption { pool: pool.clone(), ..Adoption::default() };
            if adoption.fits(&info) && info.expires.is_none_or(|end| end > soon) {
                state.ready.entry(pool.clone()).or_default().push_back(info.name);
            }
        }
        let (taken, closed) = (Notify::new(), AtomicBool::new(false));
        Some(Pool { size, state: Mutex::new(state), taken, closed })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one that was made as `clone` says, if there is one. Only what is the same for all can be
    /// made ahead: a clone of a snapshot, without caches, networks and devices.
    pub async fn take(
        &self,
        backend: &dyn Backend,
        source: &str,
        clone: &CloneSpec,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let Some(label) = &clone.label else { return Ok(None) };
        if !(clone.caches.is_empty() && clone.networks.is_empty() && clone.devices.is_empty()) {
            return Ok(None);
        }
        let Some(inherited) = self.inherited(backend, source, label, cancel).await? else {
            return Ok(None);
        };
        let ahead = CloneSpec {
            owner: None,
            expires: None,
            labels: BTreeMap::new(),
            name: String::new(),
            ..clone.clone()
        };
        let key = key(source, &inherited, &ahead);
        self.state().kinds.entry(key.clone()).or_insert_with(|| (source.to_owned(), ahead));
        let adoption = Adoption {
            pool: key.clone(),
            owner: clone.owner.clone(),
            labels: clone.labels.clone(),
            expires: clone.expires,
        };
        let taken = self.take_of(backend, &key, &adoption, cancel).await;
        self.taken.notify_one();
        Ok(taken)
    }

    async fn take_of(
        &self,
        backend: &dyn Backend,
        key: &str,
        adoption: &Adoption,
        cancel: &Cancel,
    ) -> Option<String> {
        loop {
            let name = self.state().ready.get_mut(key).and_then(VecDeque::pop_front)?;
            // Somebody else may be faster, or it is gone.
            let ours = match backend.adopt(&name, adoption, cancel).await {
                Ok(ours) => ours,
                // What was done nobody knows.
                Err(_) => {
                    let now = backend.get(&name, &Cancel::new()).await;
                    now.is_ok_and(|now| {
                        now.labels == adoption.labels && now.owner == adoption.owner
                    })
                }
            };
            if ours {
                return Some(name);
            }
        }
    }

    /// What a clone has from its source, and of which moment; nothing where none can be made ahead.
    async fn inherited(
        &self,
        backend: &dyn Backend,
        source: &str,
        label: &str,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let what = (source.to_owned(), label.to_owned());
        if let Some(known) = self.state().inherited.get(&what) {
            return Ok(known.clone());
        }
        let info = backend.get(source, cancel).await?;
        let snapshots = backend.snapshots(source, cancel).await?;
        let snapshot = snapshots.into_iter().find(|one| one.label == label);
        let snapshot = snapshot.filter(|_| info.devices.is_empty());
        let inherited = snapshot.map(|snapshot| {
            let taken = (snapshot.created, info.created, &info.limits, &info.egress, &info.mounts);
            // What is in it are texts, numbers and lists of them.
            serde_json::to_string(&(taken, &info.env, &info.user, &info.cwd)).unwrap_or_default()
        });
        self.state().inherited.insert(what, inherited.clone());
        Ok(inherited)
    }

    /// Makes more as they are taken, until nobody takes one any more and all are there.
    pub async fn keep_full(&self, backend: &dyn Backend, cancel: &Cancel) -> Result<()> {
        let mut done = Ok(());
        loop {
            self.taken.notified().await;
            let over = self.closed.load(Ordering::SeqCst);
            // One that fails is no reason for those after it not to be made.
            done = done.and(self.fill(backend, cancel).await);
            if over {
                return done;
            }
        }
    }

    /// Nobody takes one any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.taken.notify_one();
    }

    /// Makes what is missing.
    async fn fill(&self, backend: &dyn Backend, cancel: &Cancel) -> Result<()> {
        let kinds = self.state().kinds.clone();
        if kinds.is_empty() {
            return Ok(());
        }
        let mut waiting: HashMap<String, usize> = HashMap::new();
        for info in backend.list(cancel).await? {
            let Some(pool) = info.labels.get(POOL_LABEL) else { continue };
            if (Adoption { pool: pool.clone(), ..Adoption::default() }).fits(&info) {
                *waiting.entry(pool.clone()).or_default() += 1;
            }
        }
        let missing = kinds.iter().flat_map(|(key, (source, clone))| {
            let there = waiting.get(key).copied().unwrap_or_default();
            (there..self.size).map(move |_| (key, source, clone))
        });
        let missing = Mutex::new(missing);
        let maker = async || {
            let mut done = Ok(());
            loop {
                let next = missing.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((key, source, clone)) = next else { return done };
                done = done.and(self.make(backend, key, source, clone, cancel).await);
            }
        };
        // No more at once: the cells make their own beside.
        let (one, other) = tokio::join!(maker(), maker());
        one.and(other)
    }

    /// Makes one, which may be taken at once.
    async fn make(
        &self,
        backend: &dyn Backend,
        key: &str,
        source: &str,
        clone: &CloneSpec,
        cancel: &Cancel,
    ) -> Result<()> {
        let name = format!("pool-{}-{}", &key[..6], random());
        let spec = CloneSpec {
            name: name.clone(),
            labels: [
                ("sandscript.kind".to_owned(), "pool".to_owned()),
                (POOL_LABEL.to_owned(), key.to_owned()),
            ]
            .into(),
            expires: wall_clock().checked_add(WAITS),
            ..clone.clone()
        };
        Backend::clone(backend, source, &spec, cancel).await?;
        self.state().ready.entry(key.to_owned()).or_default().push_back(name);
        Ok(())
    }
}

/// What tells one kind from another: all that a clone is made from, and when the snapshot was taken, as
/// another one may have its label later.
fn key(source: &str, inherited: &str, clone: &CloneSpec) -> String {
    let text = serde_json::to_string(&(env!("CARGO_PKG_VERSION"), source, inherited, clone));
    blake3::hash(text.unwrap_or_default().as_bytes()).to_hex()[..16].to_owned()
}

fn random() -> String {
    let mut bytes = [0u8; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
