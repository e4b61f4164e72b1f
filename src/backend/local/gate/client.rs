//! The backend's side of the gate.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;

use super::{ARGV0, Answer, Ask, Config};
use crate::backend::local::store::Store;
use crate::sandbox::{EgressLog, Error, Policy, Published, Result};
use crate::transport::Link;

/// It answers at once, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The gate of a store, whether it runs or not.
pub struct Gate {
    /// The program to start it from; this one when not given.
    pub helper: Option<PathBuf>,
    /// Name servers to ask; the host's when there are none.
    pub servers: Vec<SocketAddr>,
}

impl Gate {
    /// Has a sandbox served that has just started.
    pub async fn attach(&self, store: &Store, name: &str, policy: &Policy) -> Result<()> {
        let ask = Ask::Attach { name: name.into(), policy: policy.clone() };
        match self.ask(store, &ask).await? {
            Answer::Ok => Ok(()),
            answer => Err(unexpected(name, answer)),
        }
    }

    /// Puts a policy in force for a running sandbox.
    pub async fn set(&self, store: &Store, name: &str, policy: &Policy) -> Result<()> {
        let ask = Ask::Set { name: name.into(), policy: policy.clone() };
        match self.ask(store, &ask).await? {
            Answer::Ok => Ok(()),
            Answer::Unknown => self.attach(store, name, policy).await,
            answer => Err(unexpected(name, answer)),
        }
    }

    /// Has what comes to a listening socket carried to a port of a running sandbox's.
    pub async fn publish(
        &self,
        store: &Store,
        name: &str,
        open: Published,
        listener: &TcpListener,
    ) -> Result<()> {
        let ask = Ask::Publish { name: name.into(), open };
        match self.ask_with(store, &ask, &[listener.as_fd()]).await? {
            Answer::Ok => Ok(()),
            Answer::Failed(why) => {
                Err(Error::internal(format!("opening {open} of sandbox '{name}': {why}")))
            }
            answer => Err(unexpected(name, answer)),
        }
    }

    /// Has it closed. When this returns, the place is free.
    pub async fn close(&self, store: &Store, name: &str, open: Published) -> Result<()> {
        match self.ask(store, &Ask::Close { name: name.into(), open }).await? {
            Answer::Ok => Ok(()),
            answer => Err(unexpected(name, answer)),
        }
    }

    /// The log of a sandbox; none when it is not served.
    pub async fn log(&self, store: &Store, name: &str) -> Result<Option<EgressLog>> {
        match self.ask(store, &Ask::Log { name: name.into() }).await? {
            Answer::Log(log) => Ok(Some(log)),
            Answer::Unknown => Ok(None),
            answer => Err(unexpected(name, answer)),
        }
    }

    /// Starts it if it is gone. Then it serves again all that it served.
    pub async fn revive(&self, store: &Store) -> Result<()> {
        self.connect(store).await.map(drop)
    }

    async fn ask(&self, store: &Store, ask: &Ask) -> Result<Answer> {
        self.ask_with(store, ask, &[]).await
    }

    async fn ask_with(&self, store: &Store, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        let mut last = None;
        for _ in 0..3 {
            let mut link = Link::over(self.connect(store).await?);
            let answer = match link.send(ask, fds).await {
                Ok(()) => tokio::time::timeout(PATIENCE, link.receive::<Answer>()).await,
                Err(error) => Ok(Err(error)),
            };
            match answer {
                Ok(Ok(Some((answer, _)))) => return Ok(answer),
                // It was about to end.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let what = "the egress gate".into();
                    return Err(Error::Timeout { what, after: PATIENCE });
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("the egress gate ends as soon as it starts")))
    }

    async fn connect(&self, store: &Store) -> Result<UnixStream> {
        let path = store.gate_socket();
        if let Some(stream) = connect(&path).await? {
            return Ok(stream);
        }
        let _lock = store.gate_lock().await?;
        if let Some(stream) = connect(&path).await? {
            return Ok(stream);
        }
        self.start(store).map_err(failed)?;
        connect(&path).await?.ok_or_else(|| Error::internal("the egress gate does not listen"))
    }

    fn start(&self, store: &Store) -> io::Result<()> {
        let path = store.gate_socket();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        let config = serde_json::to_string(&Config { servers: self.servers.clone() })?;
        let program = self.helper.clone().unwrap_or_else(|| "/proc/self/exe".into());
        let mut child = Command::new(program)
            .arg0(ARGV0)
            .arg(config)
            // For who looks at a list of processes.
            .arg(store.root())
            .env_clear()
            .current_dir(store.root())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // It goes on in a child of its own.
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("it does not start")),
        }
    }
}

async fn connect(path: &std::path::Path) -> Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(None),
            _ => Err(failed(error)),
        },
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("starting the egress gate", error)
}

fn unexpected(name: &str, answer: Answer) -> Error {
    let why = match answer {
        Answer::Failed(why) => why,
        _ => "the egress gate answers nonsense".into(),
    };
    Error::internal(format!("enforcing the egress policy of sandbox '{name}': {why}"))
}
