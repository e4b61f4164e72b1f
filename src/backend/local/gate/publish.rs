//! Ports of a sandbox on this host.

use std::io;
use std::net::TcpListener as Listener;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backend::local::control;
use crate::backend::local::link::Link;
use crate::backend::local::ports;
use crate::backend::local::protocol::{Reply, Request};
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
        // One to ask, one to see the end.
        let asking = Arc::new(Mutex::new(Link::over(UnixStream::connect(control).await?)));
        let mut watching = Link::over(UnixStream::connect(control).await?);
        let listener = TcpListener::from_std(listener)?;
        let published = Published { stop: Default::default() };
        let (stop, own) = (published.stop.clone(), name.to_owned());
        tokio::spawn(async move {
            let serving = async {
                loop {
                    let Ok((host, _)) = listener.accept().await else {
                        // Out of descriptors, most likely.
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    };
                    let (asking, own, stop) = (asking.clone(), own.clone(), stop.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            _ = serve(&asking, &own, host, port) => {}
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

async fn serve(asking: &Mutex<Link>, name: &str, mut host: TcpStream, port: u16) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for six in [false, true] {
        let mut link = asking.lock().await;
        let asked = control::ask(&mut link, name, &Request::Dial { port, six }, &[]).await;
        drop(link);
        let Ok((_, mut fds)) = asked else { continue };
        let Some(socket) = fds.pop() else { continue };
        let mut guest = TcpStream::from_std(socket.into())?;
        guest.writable().await?;
        match guest.take_error()? {
            None => return carry(&mut host, &mut guest).await,
            Some(error) => last = error,
        }
    }
    Err(last)
}
