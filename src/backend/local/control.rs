//! Talking to a sandbox's init.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::errors::from_refusal;
use super::protocol::{Reply, Request};
use super::{Inner, sys};
use crate::sandbox::{Error, Result, State, Usage};
use crate::transport::Link;

/// How long a healthy init may take for anything but waiting for the guest.
const PATIENCE: Duration = Duration::from_secs(20);

impl Inner {
    /// Connects; `None` when nothing runs there.
    pub(super) async fn connect(&self, name: &str) -> Result<Option<Link>> {
        match UnixStream::connect(self.store.socket(name)).await {
            Ok(stream) => Ok(Some(Link::over(stream))),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ENOENT | libc::ENOTDIR) => {
                    Ok(None)
                }
                _ => Err(Error::io(format!("connecting to sandbox '{name}'"), error)),
            },
        }
    }

    /// Connects, or says why that can't be.
    pub(super) async fn connect_running(&self, name: &str) -> Result<Link> {
        match self.connect(name).await? {
            Some(link) => Ok(link),
            None if self.store.folder(name).is_dir() => {
                Err(Error::NotRunning { name: name.into() })
            }
            None => Err(Error::not_found(crate::sandbox::Kind::Sandbox, name)),
        }
    }

    /// The state it is in, as far as that can be seen without a record.
    pub(super) async fn state(&self, name: &str) -> Result<State> {
        let Some(mut link) = self.connect(name).await? else {
            return Ok(match self.store.being_changed(name) {
                true => State::Transitional("another command is working on it".into()),
                false => State::Stopped,
            });
        };
        let asked = ask(&mut link, name, &Request::Status, &[]);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok((Reply::Status { frozen: true, .. }, _))) => Ok(State::Frozen),
            Ok(Ok((Reply::Status { .. }, _))) => Ok(State::Running),
            Ok(Ok(_)) => Ok(State::Error("its init answers nonsense".into())),
            // It ended between the connection and the answer.
            Ok(Err(Error::Transport { .. })) => Ok(State::Stopped),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(State::Error("its init does not answer".into())),
        }
    }

    /// Asks a running sandbox for something simple.
    pub(super) async fn request(&self, name: &str, request: &Request) -> Result<Reply> {
        let mut link = self.connect_running(name).await?;
        let asked = ask(&mut link, name, request, &[]);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map(|(reply, _)| reply),
            Err(_) => Err(Error::Timeout { what: format!("sandbox '{name}'"), after: PATIENCE }),
        }
    }

    /// What it has taken of the machine. Of memory its cgroup knows best; without one it is that of
    /// the largest process. A sandbox of this process is not asked again: the end of the last command
    /// has told.
    pub(super) async fn usage(&self, name: &str) -> Result<Usage> {
        let known =
            self.held().own.get(name).and_then(|own| Some((own.taken?, own.measured.clone())));
        let (taken, groups) = match known {
            Some(known) => known,
            None => {
                let Reply::Usage(taken) = self.request(name, &Request::Usage).await? else {
                    return Err(Error::internal("its init answers nonsense"));
                };
                let record = self.store.record(name);
                (taken, record.map(|record| record.groups).unwrap_or_default())
            }
        };
        let number = |file: std::path::PathBuf| {
            std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok().filter(|n| *n > 0)
        };
        let peak = groups.iter().find_map(|group| {
            ["memory.peak", "memory.max_usage_in_bytes"]
                .into_iter()
                .find_map(|file| number(group.join(file)))
        });
        let memory = peak.or((taken.memory > 0).then_some(taken.memory));
        Ok(Usage { memory, cpu: Some(Duration::from_micros(taken.cpu)) })
    }

    /// Ends a running sandbox at once and waits until its processes are gone. The kernel takes its
    /// mounts down after that: what it wrote to may be thrown away, but not used again yet.
    pub(super) async fn end_for_good(&self, name: &str) -> Result<()> {
        let Some(mut link) = self.connect(name).await? else { return Ok(()) };
        let Some(pidfd) = ask_to_end(&mut link, name, Duration::ZERO).await? else { return Ok(()) };
        // Its last act is to reap them all; the end of its connections comes right after.
        let hears_out = async { while let Ok(Some(_)) = link.receive::<Reply>().await {} };
        match tokio::time::timeout(PATIENCE, hears_out).await {
            Ok(()) => Ok(()),
            Err(_) => gone(name, pidfd, Duration::ZERO).await,
        }
    }

    /// Ends a running sandbox and waits until it is gone. False when nothing ran.
    pub(super) async fn end(&self, name: &str, grace: Duration) -> Result<bool> {
        let Some(mut link) = self.connect(name).await? else { return Ok(false) };
        if let Some(pidfd) = ask_to_end(&mut link, name, grace).await? {
            gone(name, pidfd, grace + PATIENCE).await?;
        }
        Ok(true)
    }
}

/// Tells init to end, and gets a descriptor to wait with; none when it has ended meanwhile.
async fn ask_to_end(link: &mut Link, name: &str, grace: Duration) -> Result<Option<OwnedFd>> {
    let request = Request::Stop { grace_ms: grace.as_millis().try_into().unwrap_or(u64::MAX) };
    match ask(link, name, &request, &[]).await {
        Ok((_, mut fds)) => Ok(fds.pop()),
        Err(Error::Transport { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for a process to be gone; after `patience` it is killed.
async fn gone(name: &str, pidfd: OwnedFd, patience: Duration) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("waiting for init", error);
    let pidfd = sys::register(pidfd, Interest::READABLE).map_err(failed)?;
    if let Ok(ready) = tokio::time::timeout(patience, pidfd.readable()).await {
        return ready.map(drop).map_err(failed);
    }
    let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), rustix::process::Signal::KILL);
    match tokio::time::timeout(PATIENCE, pidfd.readable()).await {
        Ok(ready) => ready.map(drop).map_err(failed),
        Err(_) => Err(Error::Busy { name: name.into(), what: "its init does not end".into() }),
    }
}

/// One request, one reply; refusals are errors.
pub(in crate::backend::local) async fn ask(
    link: &mut Link,
    name: &str,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Reply, Vec<OwnedFd>)> {
    link.send(request, fds).await?;
    answer(link, name).await
}

/// The next reply; refusals are errors.
pub(super) async fn answer(link: &mut Link, name: &str) -> Result<(Reply, Vec<OwnedFd>)> {
    match link.receive::<Reply>().await? {
        Some((Reply::Failed(failure), _)) => Err(failure.into()),
        Some((Reply::Refused { code, what, message }, _)) => {
            Err(from_refusal(name, code, what, message))
        }
        Some((reply, fds)) => Ok((reply, fds)),
        None => Err(Error::Transport { message: format!("sandbox '{name}' ended") }),
    }
}
