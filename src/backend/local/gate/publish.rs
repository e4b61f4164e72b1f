//! Ports of a sandbox on this host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as Listener};

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use super::dial::Door;
use crate::backend::local::link::Link;
use crate::backend::local::ports;
use crate::backend::local::protocol::Reply;
use crate::backend::local::record::{self, Record};
use crate::egress::carry;

/// A port that is open on this host until this is dropped, or the sandbox ends.
pub struct Published {
    stop: CancellationToken,
}

/// A port that was open when a gate ended, and is open again.
pub struct Reopened {
    pub name: String,
    pub port: u16,
    pub listener: Listener,
}

/// Opens again what a gate before this one had open, as far as nobody else has taken it. A gate has to do
/// it while it still has the powers that it was started with.
pub fn reopen() -> Vec<Reopened> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("boxes").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(Some(record)) = record::load::<Record>(&entry.path().join("record.json")) else {
            continue;
        };
        for open in record.published {
            if let Ok(listener) = ports::open(open.at) {
                all.push(Reopened { name: name.clone(), port: open.port, listener });
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

    /// Carries what comes to `listener` to the guest's `port`. `control` leads to its process 1.
    pub async fn serve(
        name: &str,
        control: &str,
        port: u16,
        listener: Listener,
    ) -> io::Result<Published> {
        let door = Door::open(name, control).await?;
        // The end of it is the end of the sandbox.
        let mut watching = Link::over(UnixStream::connect(control).await?);
        let listener = TcpListener::from_std(listener)?;
        let published = Published { stop: Default::default() };
        let stop = published.stop.clone();
        tokio::spawn(async move {
            let serving = async {
                loop {
                    let Ok((host, _)) = listener.accept().await else {
                        // Out of descriptors, most likely.
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    };
                    let (door, stop) = (door.clone(), stop.clone());
                    tokio::spawn(async move {
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
        Ok(published)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(door: &Door, mut host: TcpStream, port: u16) -> io::Result<()> {
    let mut guest = match door.dial((Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(guest) => guest,
        Err(_) => door.dial((Ipv6Addr::LOCALHOST, port).into()).await?,
    };
    carry(&mut host, &mut guest).await
}
