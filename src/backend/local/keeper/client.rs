//! The backend's side of the keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::serve::{ARGV0, Hello, Welcome};
use crate::backend::local::mode::{Mode, map_ranges};
use crate::backend::local::protocol::{Done, Failure, Launch, Task};
use crate::backend::local::sys;
use crate::sandbox::{Error, Result};
use crate::transport::Link;

/// A running keeper. One that was killed is started anew; its sandboxes live on.
pub struct Keeper {
    helper: Option<PathBuf>,
    mode: Mode,
    running: Mutex<Running>,
    /// Workers that wait for a launch.
    idle: Mutex<Vec<OwnedFd>>,
    /// The worker that deletes.
    remover: Mutex<Option<OwnedFd>>,
}

/// As many launches as this find a worker waiting; more than that come one after the other anyway.
const IDLE: usize = 4;
/// A message up to this size fits into a socket's buffer whole, or not at all.
const SMALL: usize = 16 << 10;

struct Running {
    child: Child,
    socket: OwnedFd,
}

impl Keeper {
    /// Starts one from `helper`, else from this very program, which must have called
    /// [`crate::backend::local::init`].
    pub fn start(helper: Option<&Path>, mode: &Mode) -> Result<Keeper> {
        let running = Mutex::new(Running::start(helper, mode)?);
        Ok(Keeper {
            helper: helper.map(Path::to_owned),
            mode: mode.clone(),
            running,
            idle: Mutex::default(),
            remover: Mutex::default(),
        })
    }

    /// Has a worker start a sandbox and waits for its report; `None` when it died over it.
    pub async fn launch(&self, launch: Box<Launch>, fds: Vec<OwnedFd>) -> Result<Option<Done>> {
        let task = Task::Launch(launch);
        let gone = |error: io::Error| Error::io("the keeper is gone", error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(gone)?;
        let mut all = vec![theirs.as_fd()];
        all.extend(fds.iter().map(AsFd::as_fd));
        let worker = self.hand(&task, &all)?;
        // Its end must be seen when the sandbox is gone: only init may hold the listening socket.
        drop(all);
        drop((theirs, fds));
        let mut link = Link::new(ours.into()).map_err(gone)?;
        let Some((done, _)) = link.receive::<Done>().await? else { return Ok(None) };
        self.rest(worker);
        Ok(Some(done))
    }

    /// Hands a task with a socket for its reply to a worker, and returns that.
    pub fn hand(&self, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
        let waiting = lock(&self.idle).pop();
        if let Some(worker) = waiting
            && sys::send(&worker, task, fds).is_ok()
        {
            return Ok(worker);
        }
        let worker = self.worker()?;
        sys::send(&worker, task, fds).map_err(|error| Error::io("the keeper is gone", error))?;
        Ok(worker)
    }

    /// Keeps a worker that has done its task for the next one.
    pub fn rest(&self, worker: OwnedFd) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(worker);
        }
    }

    /// Has a [`Task::Remove`] done; nobody waits for it.
    pub fn remove(&self, task: &Task) -> Result<()> {
        let mut remover = lock(&self.remover);
        if remover.is_none() {
            *remover = Some(self.worker()?);
        }
        if let Some(worker) = remover.as_ref()
            && sys::try_send(worker, task, SMALL).is_ok()
        {
            return Ok(());
        }
        // Too much at once, or the worker is gone: one of its own does it.
        *remover = None;
        self.ask(task, &[]).map(drop)
    }

    fn worker(&self) -> Result<OwnedFd> {
        let gone = |error: io::Error| Error::io("the keeper is gone", error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(gone)?;
        self.tell(&Task::Serve, &[theirs.as_fd()])?;
        Ok(ours.into())
    }

    /// Asks for a task; the answer comes on the returned link.
    pub fn ask(&self, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<Link> {
        let gone = |error: io::Error| Error::io("the keeper is gone", error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(gone)?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(fds);
        self.tell(task, &all)?;
        Link::new(ours.into()).map_err(gone)
    }

    fn tell(&self, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut running = lock(&self.running);
        if sys::send(running.socket.as_fd(), task, fds).is_err() {
            *running = Running::start(self.helper.as_deref(), &self.mode)?;
            sys::send(running.socket.as_fd(), task, fds)
                .map_err(|error| Error::io("the keeper is gone", error))?;
        }
        Ok(())
    }

    /// Does a task to its end.
    pub async fn perform(&self, task: &Task, mode: &Mode) -> Result<u64> {
        let mut link = self.ask(task, &[])?;
        match link.receive::<Done>().await? {
            Some((Done::Ok, _)) => Ok(0),
            Some((Done::Bytes(bytes), _)) => Ok(bytes),
            Some((Done::Failed(failure), _)) => {
                Err(crate::backend::local::errors::from_failure(&failure, mode))
            }
            Some((Done::Refused { what, message, hint }, _)) => {
                Err(Error::InvalidInput { what, message, hint })
            }
            None => Err(Failure::new("the keeper's worker died").into()),
        }
    }
}

impl Running {
    fn start(helper: Option<&Path>, mode: &Mode) -> Result<Running> {
        let program = helper.map_or_else(|| PathBuf::from("/proc/self/exe"), Path::to_owned);
        let lost = |what: &str, error: io::Error| Error::io(what, error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(|error| lost("opening a socket for the keeper", error))?;
        let mut child = Command::new(&program)
            .arg0(ARGV0)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| lost(&format!("starting the keeper {}", program.display()), error))?;
        let greeting = (|| {
            sys::send(&ours, &Hello { mode: mode.clone() }, &[])?;
            if let Mode::Range(ranges) = mode {
                match sys::receive::<Welcome>(&ours)? {
                    Some((Welcome::MapMe, _)) => {}
                    Some((Welcome::Failed(failure), _)) => return Ok(Some(failure)),
                    _ => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                if let Err(failure) = map_ranges(child.id(), ranges) {
                    return Ok(Some(failure));
                }
                sys::send(&ours, &(), &[])?;
            }
            match sys::receive::<Welcome>(&ours)? {
                Some((Welcome::Ready, _)) => Ok(None),
                Some((Welcome::Failed(failure), _)) => Ok(Some(failure)),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })();
        match greeting {
            Ok(None) => Ok(Running { child, socket: ours.into() }),
            Ok(Some(failure)) => {
                end(&mut child);
                Err(crate::backend::local::errors::from_failure(&failure, mode))
            }
            Err(error) => {
                end(&mut child);
                Err(lost("greeting the keeper", error))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What is being deleted is out of the way before the store's folder may be, too.
        let Some(remover) = lock(&self.remover).take() else { return };
        let _ = rustix::net::shutdown(&remover, rustix::net::Shutdown::Write);
        let mut ended = [PollFd::new(&remover, PollFlags::IN)];
        let _ = poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 }));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It reads the end of its socket and leaves; what it has forked goes on.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}
