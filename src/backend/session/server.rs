//! The process that keeps the backend open.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::call::{Answer, Call, Opened, Order, Request};
use super::line::{Line, Pipes};
use super::pump;
use super::whole::Whole;
use crate::sandbox::{
    Backend, Cancel, Command, Error, Info, Process, Result, Signal, Stdin, check_name,
};
use crate::transport::mux::Group;
use crate::transport::{Link, frames};

/// A session whose time is over waits this part of its time for those that still have use for it.
const RETIRED: u32 = 10;
/// How long what a command printed may take to its reader before the command's end is told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a session is for.
pub struct Session {
    /// What the backend was opened with: of a caller who would open it with something else nothing is
    /// done, and the session soon ends.
    pub digest: String,
    /// The backend, or why it can't be opened: that is told the first caller, and the session ends.
    pub backend: Result<Arc<dyn Backend>>,
    /// It ends when nobody has called for so long.
    pub idle: Duration,
}

struct Shared {
    session: Session,
    /// Whether somebody wants another one for the same: then it does not wait as long; see [`RETIRED`].
    retired: AtomicBool,
    /// Cancelled when it is not to be called any more.
    spent: Cancel,
}

/// Serves who connects until the session is over. `leave` takes the way to it away; who is connected
/// by then is still served. Only processes of the same user are heard.
pub async fn serve(listener: UnixListener, session: Session, leave: impl FnOnce()) {
    serve_with(listener, Vec::new(), session, leave).await;
}

/// How often those who wait for a backend that is being opened are told so.
const ALIVE: Duration = Duration::from_secs(15);

/// Opens a backend, and tells those who connect meanwhile that it is being opened. They are for [`serve_with`].
pub async fn opening<T>(
    listener: &UnixListener,
    open: impl Future<Output = T>,
) -> (T, Vec<UnixStream>) {
    let alive = frames::framed(&Answer::Opening).unwrap_or_default();
    let (mut early, mut beat) = (Vec::new(), tokio::time::interval(ALIVE));
    tokio::pin!(open);
    loop {
        tokio::select! {
            opened = &mut open => return (opened, early),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => early.push(stream),
                // No descriptor is left.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = beat.tick() => {
                for stream in &early {
                    // Who is gone may have said something before.
                    let _ = frames::send_some(stream, &alive, &[]);
                }
            }
        }
    }
}

/// The same as [`serve`] with some that are connected already.
pub async fn serve_with(
    listener: UnixListener,
    early: Vec<UnixStream>,
    session: Session,
    leave: impl FnOnce(),
) {
    let shared =
        Arc::new(Shared { session, retired: AtomicBool::new(false), spent: Cancel::new() });
    let mut callers = JoinSet::new();
    for stream in early {
        callers.spawn(hear(Arc::clone(&shared), stream));
    }
    let mut last = Instant::now();
    loop {
        let idle = match shared.retired.load(Ordering::Relaxed) {
            true => shared.session.idle / RETIRED,
            false => shared.session.idle,
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(callers.spawn(hear(Arc::clone(&shared), stream))),
                // No descriptor is left: some come back when a caller is done.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = callers.join_next() => last = Instant::now(),
            () = tokio::time::sleep_until(last + idle), if callers.is_empty() => break,
            () = shared.spent.cancelled() => break,
        }
    }
    leave();
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        callers.spawn(hear(Arc::clone(&shared), stream));
    }
    drop(listener);
    while callers.join_next().await.is_some() {}
    settle().await;
}

/// Waits for what goes on though its caller is gone: it takes back what it has begun, or can't stop halfway. The
/// process may end then.
async fn settle() {
    #[cfg(any(feature = "incus", feature = "nspawn", feature = "truenas"))]
    super::super::guest::settled().await;
}

/// How long callers may take to notice that the connection that they came by is gone.
const LEAVE: Duration = Duration::from_secs(60);

/// Serves who comes by one connection from another machine, until that ends or the backend can't be used
/// any more. What was begun for somebody is ended then.
pub async fn serve_lanes(mut groups: mpsc::UnboundedReceiver<Group>, session: Session) {
    let shared =
        Arc::new(Shared { session, retired: AtomicBool::new(false), spent: Cancel::new() });
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            group = groups.recv() => match group {
                Some(group) => {
                    let (line, pipes) = Line::of(group);
                    callers.spawn(attend(Arc::clone(&shared), line, Some(pipes)));
                }
                None => break,
            },
            Some(_) = callers.join_next() => {}
            () = shared.spent.cancelled() => break,
        }
    }
    let all = async { while callers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LEAVE, all).await;
    drop(callers);
    settle().await;
}

async fn hear(shared: Arc<Shared>, stream: UnixStream) {
    let own = rustix::process::geteuid().as_raw();
    if stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
        attend(shared, Line::Socket(Link::over(stream)), None).await;
    }
}

/// Does one call.
async fn attend(shared: Arc<Shared>, mut line: Line, pipes: Option<Pipes>) {
    let Ok(Some((request, fds))) = line.receive::<Request<String, Call>>().await else { return };
    let pipes = pipes.unwrap_or_else(|| Pipes::Fds(fds.into_iter()));
    let Shared { session, retired, spent } = &*shared;
    if request.digest != session.digest {
        retired.store(true, Ordering::Relaxed);
        let _ = line.send(&Answer::Changed).await;
        return;
    }
    let backend = match &session.backend {
        Ok(backend) => Arc::clone(backend),
        Err(error) => {
            spent.cancel();
            let _ = line.send(&Answer::Done(Err(error.clone()))).await;
            return;
        }
    };
    let caller = Caller { line, backend, cancel: Cancel::new(), spent: spent.clone() };
    // Where the answer does not arrive, nobody is left to be told.
    let _ = match request.call {
        Call::Spawn(name, command) => caller.spawn(&name, *command, pipes).await,
        call @ (Call::Pack { .. } | Call::Read { .. }) => caller.stream(call, pipes).await,
        call @ (Call::Unpack { .. } | Call::Write { .. }) => caller.take(call, pipes).await,
        call => caller.simple(call).await,
    };
}

fn json(value: impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::internal(error.to_string()))
}

fn no_pipe() -> Error {
    Error::internal("a pipe is missing")
}

struct Caller {
    line: Line,
    backend: Arc<dyn Backend>,
    cancel: Cancel,
    spent: Cancel,
}

impl Caller {
    /// Does `work` while it listens, and drops it when the caller goes away; then it is an error.
    /// `complete` is told when all of its content was sent.
    async fn attend<T>(
        &mut self,
        work: impl Future<Output = T>,
        mut complete: Option<oneshot::Sender<Result<(), String>>>,
    ) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                heard = self.line.receive::<Order>() => match heard {
                    Ok(Some((Order::Cancel, _))) => self.cancel.cancel(),
                    Ok(Some((Order::Complete, _))) => {
                        if let Some(complete) = complete.take() {
                            let _ = complete.send(Ok(()));
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Err(Error::Cancelled),
                },
            }
        }
    }

    async fn done(&self, done: Result<Value>) -> Result<()> {
        // The next caller opens it anew, and is told what is wrong then.
        if matches!(done, Err(Error::Auth { .. })) {
            self.spent.cancel();
        }
        self.line.send(&Answer::Done(done)).await
    }

    async fn simple(mut self, call: Call) -> Result<()> {
        let (backend, cancel) = (Arc::clone(&self.backend), self.cancel.clone());
        let made = match &call {
            Call::Clone(_, spec) => Some(spec.name.clone()),
            Call::Create(spec) => Some(spec.name.clone()),
            _ => None,
        };
        let done = self.attend(perform(&*backend, call, &cancel), None).await?;
        let made = made.filter(|_| done.is_ok());
        let sent = self.done(done).await;
        if let Some(made) = made {
            // Whoever does not say that he has heard of it went away before: it is nobody's.
            let mut heard = sent.map(|()| Some(Order::Cancel));
            // A cancel that came too late.
            while let Ok(Some(Order::Cancel)) = heard {
                heard = self.line.receive().await.map(|heard| heard.map(|(order, _)| order));
            }
            return match heard {
                // Only now the caller may go.
                Ok(Some(Order::Complete)) => self.line.send(&Answer::Ordered(Ok(()))).await,
                _ => backend.delete(&made, &Cancel::new()).await,
            };
        }
        sent
    }

    /// A call whose result is a stream.
    async fn stream(mut self, call: Call, mut pipes: Pipes) -> Result<()> {
        let to = match pipes.writer()? {
            Some(to) => to,
            None => return self.done(Err(no_pipe())).await,
        };
        let (backend, cancel) = (Arc::clone(&self.backend), self.cancel.clone());
        let open = async {
            match call {
                Call::Pack { name, path } => backend.pack(&name, &path, &cancel).await,
                Call::Read { name, path, options } => {
                    backend.read(&name, &path, options, &cancel).await
                }
                _ => Err(no_pipe()),
            }
        };
        let reader = match self.attend(open, None).await? {
            Ok(reader) => reader,
            Err(error) => return self.done(Err(error)).await,
        };
        self.done(Ok(Value::Null)).await?;
        let copied = async {
            tokio::select! {
                copied = pump::copy(reader, to) => copied,
                () = cancel.cancelled() => Err("cancelled".to_owned()),
            }
        };
        let ended = self.attend(copied, None).await?;
        self.line.send(&Answer::Ended(ended)).await
    }

    /// A call that takes a stream.
    async fn take(mut self, call: Call, mut pipes: Pipes) -> Result<()> {
        let from = match pipes.reader()? {
            Some(from) => from,
            None => return self.done(Err(no_pipe())).await,
        };
        let (complete, word) = oneshot::channel();
        let content = Box::new(Whole::new(from, word));
        let (backend, cancel) = (Arc::clone(&self.backend), self.cancel.clone());
        let work = async {
            match call {
                Call::Unpack { name, path, options } => {
                    backend.unpack(&name, &path, content, &options, &cancel).await
                }
                Call::Write { name, path, options } => {
                    backend.write(&name, &path, content, &options, &cancel).await
                }
                _ => Err(no_pipe()),
            }
        };
        let done = self.attend(work, Some(complete)).await?;
        self.done(done.map(|()| Value::Null)).await
    }

    /// A command, until it has ended and its caller goes.
    async fn spawn(mut self, name: &str, mut command: Command, mut pipes: Pipes) -> Result<()> {
        let stdout = pipes.writer()?;
        let stderr = match command.tty {
            None => pipes.writer()?,
            Some(_) => None,
        };
        let stdin = pipes.reader()?;
        if stdout.is_none() || stderr.is_some() == command.tty.is_some() {
            return self.done(Err(no_pipe())).await;
        }
        if stdin.is_some() {
            command.stdin = Stdin::Piped;
        }
        let (backend, cancel) = (Arc::clone(&self.backend), self.cancel.clone());
        let spawned = self.attend(backend.spawn(name, &command, &cancel), None).await?;
        let mut process = match spawned {
            Ok(process) => process,
            Err(error) => return self.done(Err(error)).await,
        };
        self.done(json(process.pid)).await?;

        let ended = Cancel::new();
        let mut streams = JoinSet::new();
        let mut drained = Vec::new();
        for (from, to) in [(process.stdout.take(), stdout), (process.stderr.take(), stderr)] {
            if let (Some(from), Some(to)) = (from, to) {
                let (sender, through) = oneshot::channel();
                drained.push(through);
                streams.spawn(pump::print(from, to, ended.clone(), sender));
            }
        }
        if let (Some(from), Some(to)) = (stdin, process.stdin.take()) {
            streams.spawn(async move { drop(pump::copy(from, to).await) });
        }
        self.attend_to(process, ended, drained).await
    }

    async fn attend_to(
        mut self,
        mut process: Process,
        ended: Cancel,
        mut drained: Vec<oneshot::Receiver<()>>,
    ) -> Result<()> {
        let mut over = false;
        loop {
            tokio::select! {
                biased;
                heard = self.line.receive::<Order>() => {
                    let done = match heard {
                        Ok(Some((Order::Signal(number), _))) => {
                            process.control.signal(Signal(number)).await
                        }
                        Ok(Some((Order::Kill, _))) => process.control.kill().await,
                        Ok(Some((Order::Resize(size), _))) => process.control.resize(size).await,
                        Ok(Some(_)) => continue,
                        Ok(None) | Err(_) => return Ok(()),
                    };
                    self.line.send(&Answer::Ordered(done)).await?;
                }
                exit = process.control.wait(), if !over => {
                    over = true;
                    ended.cancel();
                    let all = async {
                        for through in drained.drain(..) {
                            let _ = through.await;
                        }
                    };
                    let _ = tokio::time::timeout(LAST_WORDS, all).await;
                    self.line.send(&Answer::Exit(exit)).await?;
                }
            }
        }
    }
}

/// Does a call that has no streams.
async fn perform(backend: &dyn Backend, call: Call, cancel: &Cancel) -> Result<Value> {
    match call {
        Call::Open => json(Opened {
            capabilities: backend.capabilities().clone(),
            mounts_its_own: backend.mounts_its_own(),
        }),
        Call::Adopt(name, adoption) => json(backend.adopt(&name, &adoption, cancel).await?),
        Call::Allow(name, rule) => json(backend.allow(&name, &rule, cancel).await?),
        Call::Away(name) => json(backend.away(&name, cancel).await?),
        Call::Caches => json(backend.caches(cancel).await?),
        Call::Method { method, params, change } => {
            backend.call(&method, params, change, cancel).await
        }
        Call::Clone(name, spec) => json(backend.clone(&name, &spec, cancel).await?),
        Call::Create(spec) => json(backend.create(&spec, cancel).await?),
        Call::Delete(name) => json(backend.delete(&name, cancel).await?),
        Call::DeleteCache(name) => json(backend.delete_cache(&name, cancel).await?),
        Call::DeleteIf(seen) => {
            check_name(&seen.name)?;
            let same = |now: &Info| {
                (now.created, &now.owner, &now.labels, now.expires)
                    == (seen.created, &seen.owner, &seen.labels, seen.expires)
                    && now.used <= seen.used
            };
            json(backend.delete_if(&seen.name, &same, cancel).await?)
        }
        Call::DeleteSnapshot { name, label } => {
            json(backend.delete_snapshot(&name, &label, cancel).await?)
        }
        Call::Deny(name, rule) => json(backend.deny(&name, &rule, cancel).await?),
        Call::EgressLog(name) => json(backend.egress_log(&name, cancel).await?),
        Call::FindSnapshots { prefix } => json(backend.find_snapshots(&prefix, cancel).await?),
        Call::Fingerprint { image, sha256 } => {
            json(backend.fingerprint(&image, sha256.as_deref(), cancel).await?)
        }
        Call::Freeze(name) => json(backend.freeze(&name, cancel).await?),
        Call::Gc { dry_run } => json(backend.gc(dry_run, cancel).await?),
        Call::Get(name) => json(backend.get(&name, cancel).await?),
        Call::Keep(name) => json(backend.keep(&name, cancel).await?),
        Call::List => json(backend.list(cancel).await?),
        Call::Members => json(backend.members(cancel).await?),
        Call::Mkdir { name, path, options } => {
            json(backend.mkdir(&name, &path, &options, cancel).await?)
        }
        Call::Policy(name) => json(backend.policy(&name, cancel).await?),
        Call::Prepare { stock, target } => {
            json(backend.prepare(&stock, target.as_ref(), cancel).await?)
        }
        Call::Publish { name, port, at } => json(backend.publish(&name, port, at, cancel).await?),
        Call::ReadDir { name, path } => json(backend.read_dir(&name, &path, cancel).await?),
        Call::Ready { name, timeout } => json(backend.ready(&name, timeout, cancel).await?),
        Call::Remove { name, path, recursive } => {
            json(backend.remove(&name, &path, recursive, cancel).await?)
        }
        Call::Restore { name, label, options } => {
            json(backend.restore(&name, &label, options, cancel).await?)
        }
        Call::SetPolicy(name, policy) => json(backend.set_policy(&name, &policy, cancel).await?),
        Call::Snapshot(name, spec) => json(backend.snapshot(&name, &spec, cancel).await?),
        Call::Snapshots(name) => json(backend.snapshots(&name, cancel).await?),
        Call::Start(name) => json(backend.start(&name, cancel).await?),
        Call::Stat { name, path } => json(backend.stat(&name, &path, cancel).await?),
        Call::Stop(name, options) => json(backend.stop(&name, options, cancel).await?),
        Call::Thaw(name) => json(backend.thaw(&name, cancel).await?),
        Call::Unpublish { name, port, at } => {
            json(backend.unpublish(&name, port, at, cancel).await?)
        }
        Call::Usage(name) => json(backend.usage(&name, cancel).await?),
        // These have streams.
        Call::Pack { .. } | Call::Read { .. } | Call::Spawn(..) => Err(no_pipe()),
        Call::Unpack { .. } | Call::Write { .. } => Err(no_pipe()),
    }
}
