//! Ports of a sandbox on this host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as Listener};
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Kept;
use super::dial::Door;
use super::thread::Thread;
use crate::backend::local::ports;
use crate::backend::local::protocol::Reply;
use crate::backend::local::record;
use crate::egress::carry;
use crate::sandbox::Published as Open;
use crate::transport::Link;

/// As many connections of one port at once: whoever reaches it must not use up what all sandboxes share.
const CONNECTIONS: usize = 256;

/// A port that is open on this host until this is dropped, or the sandbox ends.
pub struct Published {
    name: String,
    open: Open,
    stop: CancellationToken,
    listening: Option<JoinHandle<()>>,
    #[expect(dead_code, reason = "held for its end")]
    thread: Thread,
}

/// A port that was open when a gate ended, and is open again.
pub struct Reopened {
    pub name: String,
    pub open: Open,
    pub listener: Listener,
}

/// Opens again what a gate before this one had open, as far as nobody else has taken it. A gate has to do
/// it while it still has the powers that it was started with.
pub fn reopen() -> Vec<Reopened> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("boxes").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(Some(record)) = record::load::<Kept>(&entry.path().join("record.json")) else {
            continue;
        };
        for open in record.published {
            if let Ok(listener) = ports::listen(open.at) {
                all.push(Reopened { name: name.clone(), open, listener });
            }
        }
    }
    all
}

impl Published {
    /// Whether the sandbox has ended.
    pub fn ended(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether it is this one of a sandbox's.
    pub fn is(&self, name: &str, open: Open) -> bool {
        self.name == name && self.open == open
    }

    /// Closes it, and cuts its connections.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Some(listening) = self.listening.take() {
            let _ = listening.await;
        }
    }

    /// Carries what comes to `listener` to the guest's port. `control` leads to its process 1.
    pub async fn serve(
        name: &str,
        control: &str,
        open: Open,
        listener: Listener,
    ) -> io::Result<Published> {
        let door = Door::open(name, control).await?;
        let record = record::load::<Kept>(&Path::new("boxes").join(name).join("record.json"));
        let processors = record.ok().flatten().and_then(|record| record.spec.limits.cpu);
        let (thread, port) = (Thread::start(name, processors), open.port);
        // The end of it is the end of the sandbox.
        let mut watching = Link::over(UnixStream::connect(control).await?);
        let listener = {
            let _in_it = thread.handle().enter();
            TcpListener::from_std(listener)?
        };
        let token = CancellationToken::new();
        let stop = token.clone();
        let listening = thread.handle().spawn(async move {
            let serving = async {
                let connections = Arc::new(Semaphore::new(CONNECTIONS));
                loop {
                    let Ok(permit) = connections.clone().acquire_owned().await else { return };
                    let Ok((host, _)) = listener.accept().await else {
                        // Out of descriptors, most likely.
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    };
                    let (door, stop) = (door.clone(), stop.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        tokio::select! {
                            () = stop.cancelled() => {}
                            _ = serve(&door, host, port) => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = serving => {}
                () = async { while let Ok(Some(_)) = watching.receive::<Reply>().await {} } => {}
            }
            stop.cancel();
        });
        let (name, listening) = (name.to_owned(), Some(listening));
        Ok(Published { name, open, stop: token, listening, thread })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(door: &Door, mut host: TcpStream, port: u16) -> io::Result<()> {
    let mut guest = match door.dial((Ipv4Addr::LOCALHOST, port).into(), None).await {
        Ok(guest) => guest,
        Err(_) => door.dial((Ipv6Addr::LOCALHOST, port).into(), None).await?,
    };
    carry(&mut host, &mut guest).await
}
