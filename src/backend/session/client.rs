//! The backend that hands every call on to a session.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::call::{Answer, Call, Opened, Order, Request};
use super::line::{Connection, Ends, Line};
use super::pump;
use super::whole::Whole;
use crate::sandbox::{
    Adoption, Backend, CacheInfo, Cancel, Capabilities, CloneSpec, Command, Condition, EgressLog,
    Error, Exit, FileEntry, GcReport, Info, Kind, Member, Placement, Policy, Process,
    ProcessControl, Published, ReadOptions, Reader, Restore, Result, Rule, Signal, Snapshot,
    SnapshotSpec, Spec, Stdin, Stock, StopOptions, Usage, WindowSize, WriteOptions,
};
use crate::transport::frames;

/// How one comes to the session.
#[async_trait]
pub trait Connect: Send + Sync {
    /// A connection to it; where there is no session, one is started.
    async fn connect(&self) -> Result<Connection>;
}

/// Tells whoever listens there that another session was started for the same machine: it ends when nobody
/// has had use for it for a tenth of the time that it else waits.
pub fn retire(socket: &Path) {
    if let Ok(stream) = std::os::unix::net::UnixStream::connect(socket) {
        let nobody = Request { digest: "", call: Call::Open };
        let _ = frames::send(&stream, &nobody, &[]);
        // It would not hear what is read from nobody any more.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

/// A backend that another process keeps open.
pub struct SessionBackend {
    way: Way,
    opened: Opened,
}

/// The way to it.
struct Way {
    to: Arc<dyn Connect>,
    digest: String,
    /// The session's process, as far as that is known.
    process: AtomicI32,
    /// How long it may say nothing while it is opened.
    patience: Duration,
}

/// How long a call that was cancelled may take to take back what it had begun.
const TAKES_BACK: Duration = Duration::from_secs(60);

/// How often a call is tried whose session went away before it had heard of it.
const TRIES: usize = 3;

impl Way {
    /// Sends a call.
    async fn send(&self, call: &Call, streams: (u8, u8), cancel: &Cancel) -> Result<(Line, Ends)> {
        let connection = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            connection = self.to.connect() => connection?,
        };
        if let Connection::Socket(stream) = &connection
            && let Some(process) = stream.peer_cred().ok().and_then(|peer| peer.pid())
        {
            self.process.store(process, Ordering::Relaxed);
        }
        Line::begin(connection, &Request { digest: self.digest.as_str(), call }, streams).await
    }

    /// Sends a call with so many streams to read and to write, and waits for its answer; the connection may have
    /// more to say.
    async fn begin(
        &self,
        call: Call,
        streams: (u8, u8),
        cancel: &Cancel,
    ) -> Result<(Line, Ends, Value)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = self.send(&call, streams, cancel).await;
            let (mut line, ends) = match sent {
                Err(Error::Transport { .. }) if tries < TRIES => continue,
                sent => sent?,
            };
            let heard = match call {
                Call::Open => self.opened(&mut line).await?,
                _ => hear(&mut line, cancel).await,
            };
            match heard {
                // Whether it has heard of it nobody knows: that may only be asked again.
                Ok(None) | Err(Error::Transport { .. })
                    if tries < TRIES && matches!(call, Call::Open) => {}
                heard => {
                    let value = answer(&line, heard)?;
                    return Ok((line, ends, value));
                }
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call, cancel: &Cancel) -> Result<T> {
        let makes = matches!(call, Call::Clone(..) | Call::Create(_));
        let (mut line, _, value) = self.begin(call, (0, 0), cancel).await?;
        if makes {
            line.send(&Order::Complete).await?;
            // Over lanes it may still be here, and this process may end now: nobody would have heard of it there.
            if matches!(line, Line::Lanes(_)) {
                match hear(&mut line, cancel).await? {
                    Some((Answer::Ordered(done), _)) => done?,
                    Some(_) => return Err(nonsense()),
                    None => return Err(line.over()),
                }
            }
        }
        serde_json::from_value(value).map_err(|_| nonsense())
    }

    /// What it says once it is open. It is an error when it says nothing for too long; on the way to it nothing is
    /// timed: whoever goes it knows what stands still there.
    async fn opened(&self, line: &mut Line) -> Result<Heard> {
        loop {
            match tokio::time::timeout(self.patience, line.receive()).await {
                Ok(Ok(Some((Answer::Opening, _)))) => {}
                Ok(heard) => return Ok(heard),
                Err(_) => return Err(self.silent()),
            }
        }
    }

    fn silent(&self) -> Error {
        let seconds = self.patience.as_secs_f32();
        let message = match self.process.load(Ordering::Relaxed) {
            0 => format!("the other end has said nothing for {seconds} s"),
            process => format!(
                "its session, process {process}, has said nothing for {seconds} s; end that, or do without: --no-session"
            ),
        };
        Error::Transport { message }
    }
}

impl SessionBackend {
    /// Asks the session what its backend can do. It is an error when it says nothing for so long, once there is a way
    /// to it.
    pub async fn open(
        to: Arc<dyn Connect>,
        digest: String,
        patience: Duration,
    ) -> Result<SessionBackend> {
        let way = Way { to, digest, process: AtomicI32::new(0), patience };
        let opened = way.ask(Call::Open, &Cancel::new()).await?;
        Ok(SessionBackend { way, opened })
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call, cancel: &Cancel) -> Result<T> {
        self.way.ask(call, cancel).await
    }

    /// A call whose result is a stream.
    async fn stream(&self, call: Call, cancel: &Cancel) -> Result<Reader> {
        let (mut line, mut ends, _) = self.way.begin(call, (1, 0), cancel).await?;
        let from = ends.readers.pop().ok_or_else(nonsense)?;
        let (mut say, word) = oneshot::channel();
        tokio::spawn(async move {
            let heard = tokio::select! {
                heard = line.receive::<Answer>() => heard,
                // Nobody reads on: the connection ends, and with it the stream.
                () = say.closed() => return,
            };
            if let Ok(Some((Answer::Ended(ended), _))) = heard {
                let _ = say.send(ended);
            }
        });
        Ok(Box::new(Whole::new(from, word)))
    }

    /// A call that takes a stream.
    async fn give(&self, call: Call, content: Reader, cancel: &Cancel) -> Result<()> {
        let (mut line, mut ends) = self.way.send(&call, (0, 1), cancel).await?;
        let to = ends.writers.pop().ok_or_else(nonsense)?;
        let mut copied = std::pin::pin!(pump::copy(content, to));
        let copied = tokio::select! {
            heard = next(&mut line) => return answer(&line, heard).map(drop),
            copied = &mut copied => copied,
            () = cancel.cancelled() => {
                let _ = line.send(&Order::Cancel).await;
                let heard = next(&mut line).await;
                return answer(&line, heard).map(drop);
            }
        };
        let Err(message) = copied else {
            // Where it does not hear this, it has said why.
            let _ = line.send(&Order::Complete).await;
            let heard = hear(&mut line, cancel).await;
            return answer(&line, heard).map(drop);
        };
        let _ = line.send(&Order::Cancel).await;
        let heard = next(&mut line).await;
        match answer(&line, heard) {
            Ok(_) | Err(Error::Cancelled) => {
                Err(Error::internal(format!("reading what is to be written: {message}")))
            }
            Err(error) => Err(error),
        }
    }
}

type Heard = Result<Option<(Answer, Vec<OwnedFd>)>>;

/// What it says next, but that it is still being opened. Cancel safe.
async fn next(line: &mut Line) -> Heard {
    loop {
        match line.receive().await {
            Ok(Some((Answer::Opening, _))) => {}
            heard => return heard,
        }
    }
}

/// Waits for the answer. A cancel is passed on: when it has taken back what it had begun, it says so.
async fn hear(line: &mut Line, cancel: &Cancel) -> Heard {
    tokio::select! {
        heard = next(line) => return heard,
        () = cancel.cancelled() => {}
    }
    let _ = line.send(&Order::Cancel).await;
    // A session that went away, or stands still, has nothing to say; it takes back what nobody waits for.
    tokio::time::timeout(TAKES_BACK, next(line)).await.unwrap_or(Err(Error::Cancelled))
}

fn answer(line: &Line, heard: Heard) -> Result<Value> {
    match heard? {
        Some((Answer::Done(done), _)) => done,
        Some((Answer::Changed, _)) => {
            Err(Error::Transport { message: "the session is open for something else".into() })
        }
        Some(_) => Err(nonsense()),
        None => Err(line.over()),
    }
}

fn nonsense() -> Error {
    Error::internal("the session answers nonsense")
}

/// A command that the session runs.
struct Control {
    line: Line,
    exit: Option<Result<Exit>>,
}

impl Control {
    async fn order(&mut self, order: Order) -> Result<()> {
        self.line.send(&order).await?;
        loop {
            match self.line.receive().await? {
                Some((Answer::Ordered(done), _)) => return done,
                Some((Answer::Exit(exit), _)) => self.exit = Some(exit),
                Some(_) => return Err(nonsense()),
                None => return Err(self.line.over()),
            }
        }
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&mut self) -> Result<Exit> {
        loop {
            if let Some(exit) = &self.exit {
                return exit.clone();
            }
            match self.line.receive().await? {
                Some((Answer::Exit(exit), _)) => self.exit = Some(exit),
                // The answer to an order whose caller did not wait for it.
                Some((Answer::Ordered(_), _)) => {}
                Some(_) => return Err(nonsense()),
                None => return Err(self.line.over()),
            }
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<()> {
        self.order(Order::Signal(signal.0)).await
    }

    async fn kill(&mut self) -> Result<()> {
        self.order(Order::Kill).await
    }

    async fn resize(&mut self, size: WindowSize) -> Result<()> {
        self.order(Order::Resize(size)).await
    }
}

impl SessionBackend {
    async fn start_command(
        &self,
        name: &str,
        command: &Command,
        cancel: &Cancel,
    ) -> Result<Process> {
        command.check()?;
        let reads = 1 + u8::from(command.tty.is_none());
        let writes = u8::from(command.stdin != Stdin::Null);
        let call = Call::Spawn(name.to_owned(), Box::new(command.clone()));
        let (line, ends, pid) = self.way.begin(call, (reads, writes), cancel).await?;
        let mut readers = ends.readers.into_iter();
        let stdin = ends.writers.into_iter().next();
        let stdin = match (stdin, &command.stdin) {
            (Some(mut to), Stdin::Bytes(bytes)) => {
                let bytes = bytes.clone();
                tokio::spawn(async move { to.write_all(&bytes).await });
                None
            }
            (to, _) => to,
        };
        Ok(Process {
            stdin,
            stdout: readers.next(),
            stderr: readers.next(),
            pid: serde_json::from_value(pid).map_err(|_| nonsense())?,
            control: Box::new(Control { line, exit: None }),
        })
    }
}

#[async_trait]
impl Backend for SessionBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.opened.capabilities
    }

    fn mounts_its_own(&self) -> bool {
        self.opened.mounts_its_own
    }

    async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        let sha256 = sha256.map(str::to_owned);
        self.ask(Call::Fingerprint { image: image.to_owned(), sha256 }, cancel).await
    }

    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.ask(Call::Create(Box::new(spec.clone())), cancel).await
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        self.ask(Call::List, cancel).await
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        self.ask(Call::Get(name.to_owned()), cancel).await
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Start(name.to_owned()), cancel).await
    }

    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Stop(name.to_owned(), options), cancel).await
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Delete(name.to_owned()), cancel).await
    }

    async fn delete_if(&self, name: &str, wanted: &Condition<'_>, cancel: &Cancel) -> Result<bool> {
        match self.get(name, cancel).await {
            Ok(info) if wanted(&info) => self.ask(Call::DeleteIf(Box::new(info)), cancel).await,
            Ok(_) | Err(Error::NotFound { kind: Kind::Sandbox, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Ready { name: name.to_owned(), timeout }, cancel).await
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Freeze(name.to_owned()), cancel).await
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Thaw(name.to_owned()), cancel).await
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        self.start_command(name, command, cancel).await
    }

    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader> {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.stream(Call::Read { name, path, options }, cancel).await
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        let (name, path, options) = (name.to_owned(), path.to_owned(), options.clone());
        self.give(Call::Write { name, path, options }, content, cancel).await
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        self.ask(Call::ReadDir { name: name.to_owned(), path: path.to_owned() }, cancel).await
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        self.ask(Call::Stat { name: name.to_owned(), path: path.to_owned() }, cancel).await
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.ask(Call::Remove { name, path, recursive }, cancel).await
    }

    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        let (name, path, options) = (name.to_owned(), path.to_owned(), options.clone());
        self.ask(Call::Mkdir { name, path, options }, cancel).await
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        let (name, path, options) = (name.to_owned(), path.to_owned(), options.clone());
        self.give(Call::Unpack { name, path, options }, tar, cancel).await
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        self.stream(Call::Pack { name: name.to_owned(), path: path.to_owned() }, cancel).await
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        self.ask(Call::Snapshot(name.to_owned(), spec.clone()), cancel).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        self.ask(Call::Snapshots(name.to_owned()), cancel).await
    }

    async fn find_snapshots(
        &self,
        prefix: &str,
        cancel: &Cancel,
    ) -> Result<Vec<(String, Snapshot)>> {
        self.ask(Call::FindSnapshots { prefix: prefix.to_owned() }, cancel).await
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        let (name, label) = (name.to_owned(), label.to_owned());
        self.ask(Call::DeleteSnapshot { name, label }, cancel).await
    }

    async fn restore(
        &self,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        let (name, label) = (name.to_owned(), label.to_owned());
        self.ask(Call::Restore { name, label, options }, cancel).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.ask(Call::Clone(name.to_owned(), Box::new(spec.clone())), cancel).await
    }

    async fn caches(&self, cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        self.ask(Call::Caches, cancel).await
    }

    async fn delete_cache(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::DeleteCache(name.to_owned()), cancel).await
    }

    async fn usage(&self, name: &str, cancel: &Cancel) -> Result<Usage> {
        self.ask(Call::Usage(name.to_owned()), cancel).await
    }

    async fn policy(&self, name: &str, cancel: &Cancel) -> Result<Policy> {
        self.ask(Call::Policy(name.to_owned()), cancel).await
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        self.ask(Call::SetPolicy(name.to_owned(), policy.clone()), cancel).await
    }

    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Allow(name.to_owned(), rule.clone()), cancel).await
    }

    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Deny(name.to_owned(), rule.clone()), cancel).await
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<SocketAddr> {
        self.ask(Call::Publish { name: name.to_owned(), port, at }, cancel).await
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        self.ask(Call::Unpublish { name: name.to_owned(), port, at }, cancel).await
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        self.ask(Call::EgressLog(name.to_owned()), cancel).await
    }

    async fn members(&self, cancel: &Cancel) -> Result<Vec<Member>> {
        self.ask(Call::Members, cancel).await
    }

    async fn away(&self, name: &str, cancel: &Cancel) -> Result<Option<String>> {
        self.ask(Call::Away(name.to_owned()), cancel).await
    }

    async fn call(
        &self,
        method: &str,
        params: Vec<Value>,
        change: bool,
        cancel: &Cancel,
    ) -> Result<Value> {
        self.ask(Call::Method { method: method.to_owned(), params, change }, cancel).await
    }

    async fn prepare(
        &self,
        stock: &Stock,
        target: Option<&Placement>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (stock, target) = (stock.clone(), target.cloned());
        self.ask(Call::Prepare { stock, target }, cancel).await
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.ask(Call::Keep(name.to_owned()), cancel).await
    }

    async fn adopt(&self, name: &str, adoption: &Adoption, cancel: &Cancel) -> Result<bool> {
        self.ask(Call::Adopt(name.to_owned(), adoption.clone()), cancel).await
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        self.ask(Call::Gc { dry_run }, cancel).await
    }
}
