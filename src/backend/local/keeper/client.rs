//! The backend's side of the keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::serve::{ARGV0, Hello, Welcome};
use crate::backend::local::mode::{Mode, map_ranges};
use crate::backend::local::protocol::{Done, Failure, Task};
use crate::backend::local::{link::Link, sys};
use crate::sandbox::{Error, Result};

/// A running keeper. One that was killed is started anew; its sandboxes live on.
pub struct Keeper {
    helper: Option<PathBuf>,
    mode: Mode,
    running: Mutex<Running>,
}

struct Running {
    child: Child,
    socket: OwnedFd,
}

impl Keeper {
    /// Starts one from `helper`, else from this very program, which must have called
    /// [`crate::backend::local::init`].
    pub fn start(helper: Option<&Path>, mode: &Mode) -> Result<Keeper> {
        let running = Mutex::new(Running::start(helper, mode)?);
        Ok(Keeper { helper: helper.map(Path::to_owned), mode: mode.clone(), running })
    }

    /// Asks for a task; the answer comes on the returned link.
    pub fn ask(&self, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<Link> {
        let gone = |error: io::Error| Error::internal(format!("the keeper is gone: {error}"));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(gone)?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(fds);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if sys::send(running.socket.as_fd(), task, &all).is_err() {
            *running = Running::start(self.helper.as_deref(), &self.mode)?;
            sys::send(running.socket.as_fd(), task, &all).map_err(gone)?;
        }
        Link::new(ours.into()).map_err(gone)
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
        let lost = |what: &str, error: io::Error| Error::internal(format!("{what}: {error}"));
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

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Running {
    fn drop(&mut self) {
        // It reads the end of its socket and leaves; what it has forked goes on.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}
