//! The gate's own main loop.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, Stat, fstat, openat, renameat};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::dial::Door;
use super::peers::{Members, Seat};
use super::publish::{Published, Reopened, reopen};
use super::thread::Thread;
use super::{Answer, Ask, Config, Kept, LOG};
use crate::backend::local::control;
use crate::backend::local::net::{Inside, receive_datagram};
use crate::backend::local::protocol::{Reply, Request};
use crate::backend::local::record;
use crate::backend::local::sys;
use crate::egress::{Around, Datagrams, Gate, Peers, Resolver, Sockets};
use crate::sandbox::{EgressLog, Policy};
use crate::transport::Link;

/// The name that a gate is executed under, by which it knows itself.
pub const ARGV0: &str = "sandscript:gate";

/// How often logs are written, and how often it looks whether it is needed.
const TURN: Duration = Duration::from_millis(250);

/// So many turns without a sandbox are enough.
const IDLE: u32 = 6;

/// Becomes the gate.
pub fn serve() -> io::Result<()> {
    let listener: OwnedFd = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let config = std::env::args().nth(1).unwrap_or_default();
    let config: Config = serde_json::from_str(&config)?;
    // Who started it waits for this process only.
    sys::fork(|| {
        let _ = rustix::process::setsid();
        let _ = rustix::thread::set_name(c"sandscript-gate");
        sys::close_all_except(&mut [listener.as_raw_fd()]);
        let reopened = reopen();
        // It reads what guests send, and needs no power for anything it does.
        let bounded = sys::set_dumpable(false)
            .and_then(|()| Ok(rustix::thread::set_no_new_privs(true)?))
            .and_then(|()| sys::drop_capabilities());
        if bounded.is_err() {
            return 70;
        }
        sys::set_no_file_limit();
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = built.and_then(|runtime| runtime.block_on(run(listener, config, reopened)));
        i32::from(ended.is_err())
    })?;
    Ok(())
}

struct Served {
    gate: Gate,
    #[expect(dead_code, reason = "held for its end, which comes behind the gate's")]
    thread: Thread,
    /// The sandbox's folder, and where it is until it is deleted: then it is used again.
    folder: OwnedFd,
    path: String,
    id: u64,
    #[expect(dead_code, reason = "held for its end")]
    seat: Option<Seat>,
}

struct State {
    boxes: Mutex<HashMap<String, Served>>,
    published: Mutex<Vec<Published>>,
    servers: Vec<SocketAddr>,
    members: Arc<Members>,
    serial: AtomicU64,
    clients: AtomicUsize,
}

impl State {
    fn published(&self) -> MutexGuard<'_, Vec<Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boxes(&self) -> MutexGuard<'_, HashMap<String, Served>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(listener: OwnedFd, config: Config, reopened: Vec<Reopened>) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&listener, true)?;
    let listener = UnixListener::from_std(listener.into())?;
    let state = Arc::new(State {
        boxes: Mutex::default(),
        published: Mutex::default(),
        servers: config.servers,
        members: Arc::default(),
        serial: AtomicU64::new(0),
        clients: AtomicUsize::new(1),
    });
    // Before anybody asks for one of them to be closed.
    for Reopened { name, open, listener } in reopened {
        // Of a stopped one nobody is there.
        let served = Published::serve(&name, &control_of(&name), open, listener).await;
        state.published().extend(served.ok());
    }
    let reviving = state.clone();
    tokio::spawn(async move {
        revive(&reviving).await;
        reviving.clients.fetch_sub(1, Ordering::Relaxed);
    });
    let mut turns = tokio::time::interval(TURN);
    let mut idle = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, most likely.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let state = state.clone();
                state.clients.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    talk(&state, Link::over(stream)).await;
                    state.clients.fetch_sub(1, Ordering::Relaxed);
                });
            }
            _ = turns.tick() => {
                let boxes = state.boxes();
                for served in boxes.values() {
                    write_news(served);
                }
                let mut published = state.published();
                published.retain(|one| !one.ended());
                let busy = !boxes.is_empty() || !published.is_empty() || state.clients.load(Ordering::Relaxed) > 0;
                idle = if busy { 0 } else { idle + 1 };
                if idle > IDLE {
                    return Ok(());
                }
            }
        }
    }
}

/// Where a sandbox's process 1 is found.
fn control_of(name: &str) -> String {
    format!("boxes/{name}/control")
}

/// Serves again what one before it served, all at once: one whose process 1 does not answer keeps none of
/// the others waiting.
async fn revive(state: &Arc<State>) {
    let mut all = JoinSet::new();
    for entry in std::fs::read_dir("boxes").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Ok(Some(record)) = record::load::<Kept>(&entry.path().join("record.json")) {
            // A stopped one has nobody to ask for sockets.
            if record.gated {
                let state = state.clone();
                all.spawn(async move { attach(&state, name, record.spec.egress, false).await });
            }
        }
    }
    all.join_all().await;
}

async fn talk(state: &Arc<State>, mut link: Link) {
    while let Ok(Some((ask, mut fds))) = link.receive::<Ask>().await {
        let answer = match ask {
            Ask::Attach { name, policy } => match attach(state, name, policy, true).await {
                Ok(()) => Answer::Ok,
                Err(why) => Answer::Failed(why),
            },
            Ask::Set { name, policy } => match state.boxes().get(&name) {
                Some(served) => {
                    served.gate.set_policy(policy);
                    Answer::Ok
                }
                None => Answer::Unknown,
            },
            Ask::Publish { name, open } => {
                let served = match fds.pop() {
                    Some(socket) => {
                        Published::serve(&name, &control_of(&name), open, socket.into()).await
                    }
                    None => Err(io::ErrorKind::InvalidInput.into()),
                };
                match served {
                    Ok(published) => {
                        state.published().push(published);
                        Answer::Ok
                    }
                    Err(error) => Answer::Failed(error.to_string()),
                }
            }
            Ask::Close { name, open } => {
                let closing: Vec<Published> =
                    state.published().extract_if(.., |one| one.is(&name, open)).collect();
                for one in closing {
                    one.close().await;
                }
                Answer::Ok
            }
            Ask::Log { name } => match state.boxes().get(&name) {
                Some(served) => Answer::Log(served.gate.log()),
                None => Answer::Unknown,
            },
        };
        if link.send(&answer, &[]).await.is_err() {
            return;
        }
    }
}

/// Gets the sockets of a sandbox and serves them until its process 1 ends.
async fn attach(
    state: &Arc<State>,
    name: String,
    policy: Policy,
    replace: bool,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let path = format!("boxes/{name}");
    let folder: OwnedFd = File::open(&path).map_err(text)?.into();
    let door = Door::open(&name, &control_of(&name)).await.map_err(text)?;
    let stream = UnixStream::connect(control_of(&name)).await.map_err(text)?;
    let mut link = Link::over(stream);
    let asked = control::ask(&mut link, &name, &Request::Gate, &[]).await;
    let Inside { tcp, udp, datagrams, raw } =
        Inside::of(asked.map_err(|error| error.to_string())?.1);
    let pairs = datagrams.into_iter().zip(raw);
    let datagrams = pairs.map(|(receive, reply)| Datagrams { receive, reply }).collect();
    let sockets = Sockets { tcp, udp, datagrams, original: receive_datagram };
    let log = std::fs::read(format!("{path}/{LOG}")).unwrap_or_default();
    let log: EgressLog = serde_json::from_slice(&log).unwrap_or_default();
    // Read after the door is open: of two sandboxes of one name, one after the other, the door leads to the
    // one that this is about, or nowhere any more.
    let record: Option<Kept> = record::load(&Path::new(&path).join("record.json")).ok().flatten();
    let spec = record.map(|record| record.spec);
    let processors = spec.as_ref().and_then(|spec| spec.limits.cpu);
    let spec = spec.filter(|spec| !spec.networks.is_empty());
    let id = state.serial.fetch_add(1, Ordering::Relaxed);
    {
        let mut boxes = state.boxes();
        if boxes.contains_key(&name) && !replace {
            return Ok(());
        }
        // What one sandbox has asked for is nothing that another one can find out by asking.
        let resolver = Arc::new(Resolver::new(state.servers.clone()));
        let thread = Thread::start(&name, processors);
        let _in_it = thread.handle().enter();
        // An old one of the name ends first: both would take connections.
        if let Some(old) = boxes.remove(&name) {
            write_news(&old);
        }
        let member = spec.map(|spec| state.members.join(&spec, door.clone(), id));
        let (seat, peers) = member.map(|(seat, peers)| (seat, peers as Arc<dyn Peers>)).unzip();
        let around = Around { peers, programs: Some(Arc::new(door)) };
        let gate = Gate::open(sockets, policy, resolver, around, log.clone()).map_err(text)?;
        write(&folder, &log).map_err(text)?;
        boxes.insert(name.clone(), Served { gate, thread, folder, path, id, seat });
    }
    let state = state.clone();
    tokio::spawn(async move {
        while let Ok(Some(_)) = link.receive::<Reply>().await {}
        let mut boxes = state.boxes();
        if boxes.get(&name).is_some_and(|served| served.id == id)
            && let Some(served) = boxes.remove(&name)
        {
            write_news(&served);
        }
    });
    Ok(())
}

fn write_news(served: &Served) {
    let same = |found: Stat| fstat(&served.folder).is_ok_and(|own| own.st_ino == found.st_ino);
    if !rustix::fs::stat(served.path.as_str()).is_ok_and(same) {
        return;
    }
    if let Some(log) = served.gate.news() {
        // The disk may be full; the next one has it, too.
        let _ = write(&served.folder, &log);
    }
}

fn write(folder: &OwnedFd, log: &EgressLog) -> io::Result<()> {
    let new = format!("{LOG}.new");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(folder, new.as_str(), flags, Mode::from_raw_mode(0o600))?;
    File::from(file).write_all(&serde_json::to_vec(log)?)?;
    Ok(renameat(folder, new.as_str(), folder, LOG)?)
}
