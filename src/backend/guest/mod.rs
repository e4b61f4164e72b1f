//! Guests that are worked on from inside: by two small programs in Perl, which come with each request and
//! leave nothing behind. A backend says how a program's streams are carried.

mod agent;
mod attached;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod egress;
mod exec;
mod fail;
mod files;
mod record;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod rules;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, RwLock};

use crate::sandbox::{Cancel, Error, Result, WindowSize};

#[cfg(feature = "truenas")]
pub(super) use agent::closed;
pub(super) use agent::{AGENT, Agent};
pub(super) use attached::{Attached, Control, UNDER_WAY, frame};
#[cfg(any(feature = "incus", feature = "truenas"))]
pub(super) use egress::{Boot, Enforce, is_ruled, read_log};
pub(super) use exec::Exec;
pub(super) use fail::Fail;
pub(super) use files::Files;
pub(super) use record::{Record, token};
#[cfg(any(feature = "incus", feature = "truenas"))]
pub(super) use rules::Ground;
pub(super) use session::{Ask, Session, Sessions};
#[cfg(feature = "ssh")]
pub(super) use session::{SCRIPT as FILES, Said};

/// What a backend gives, and what it keeps for these.
#[async_trait]
pub(super) trait Guests: Send + Sync + Sized + 'static {
    /// The backend's name.
    fn backend(&self) -> &'static str;

    /// Sessions that are kept.
    fn sessions(&self) -> &Sessions;

    /// Who may start something.
    fn turns(&self) -> &Turns;

    /// Starts a program in Perl as the guest's root. One that is detached outlives the line to it.
    async fn attach(
        &self,
        name: &str,
        script: &'static str,
        tty: Option<WindowSize>,
        detached: bool,
    ) -> std::result::Result<Attached, Fail>;

    /// What a failure at a sandbox means, by the state that it is in now.
    async fn explain(&self, name: &str, fail: Fail, doing: &str) -> Error;

    /// What the guest wrote of a command's end into `/run/.sandscript.ID`, which goes.
    async fn word(&self, name: &str, id: &str) -> Option<Vec<u8>>;
}

/// What holds for a command that says nothing else.
#[derive(Clone, Copy)]
pub(super) struct Defaults<'a> {
    pub env: &'a BTreeMap<String, String>,
    pub user: Option<&'a String>,
    pub cwd: Option<&'a String>,
}

impl Defaults<'static> {
    /// Nothing of a sandbox's own.
    pub fn none() -> Self {
        static NONE: LazyLock<BTreeMap<String, String>> = LazyLock::new(BTreeMap::new);
        Defaults { env: &NONE, user: None, cwd: None }
    }
}

/// Who may start something in a sandbox: all at once, but nobody while it stands still for a copy.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<RwLock<()>>>>);

impl Turns {
    pub fn of(&self, name: &str) -> Arc<RwLock<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are of no use.
        all.retain(|other, turn| other == name || Arc::strong_count(turn) > 1);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

/// Ends with the caller's wish, or with the work.
pub(super) async fn until<T>(cancel: &Cancel, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        done = work => done,
    }
}

/// How many are at work that their callers can't end.
static WORKING: AtomicUsize = AtomicUsize::new(0);
/// Told when one of them is done.
static DONE: Notify = Notify::const_new();

/// One of them.
struct Working;

impl Working {
    fn begin() -> Working {
        WORKING.fetch_add(1, Ordering::SeqCst);
        Working
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKING.fetch_sub(1, Ordering::SeqCst);
        DONE.notify_waiters();
    }
}

/// How long they may take before their process ends: one may copy a whole tree of a machine that is frozen for it.
const SETTLES: Duration = Duration::from_secs(600);

/// Waits until nobody is at work in [`guarded`], but not for ever. Whose caller is gone takes back what it made, or
/// does what can't be stopped halfway; if the process ended meanwhile, machines would stay frozen or half made.
pub(super) async fn settled() {
    let all = async {
        loop {
            let done = DONE.notified();
            if WORKING.load(Ordering::SeqCst) == 0 {
                return;
            }
            done.await;
        }
    };
    let _ = tokio::time::timeout(SETTLES, all).await;
}

/// Runs `work` to its end even when the caller goes away: `work` sees by its token that it did, and
/// takes back what it made.
pub(super) async fn guarded<T, F>(cancel: &Cancel, work: impl FnOnce(Cancel) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let token = cancel.child_token();
    let _gone = token.clone().drop_guard();
    let (working, work) = (Working::begin(), work(token));
    let work = async move {
        let _working = working;
        work.await
    };
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal(format!("the work on the server died: {error}"))),
    }
}
