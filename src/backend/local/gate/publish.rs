//! Ports of a sandbox on this host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backend::local::control;
use crate::backend::local::link::Link;
use crate::backend::local::protocol::{Reply, Request};
use crate::egress::carry;

/// A port that is open on this host until this is dropped, or the sandbox ends.
pub struct Published {
    /// Where.
    pub at: SocketAddr,
    stop: CancellationToken,
}

impl Published {
    /// Whether the sandbox has ended.
    pub fn ended(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Opens `at`, and carries what comes there to the guest's `port`. `control` leads to its process 1.
    pub async fn open(
        name: &str,
        control: &str,
        port: u16,
        at: SocketAddr,
    ) -> io::Result<Published> {
        // One to ask, one to see the end.
        let asking = Arc::new(Mutex::new(Link::over(UnixStream::connect(control).await?)));
        let mut watching = Link::over(UnixStream::connect(control).await?);
        let listener = TcpListener::bind(at).await?;
        let published = Published { at: listener.local_addr()?, stop: Default::default() };
        let (stop, own) = (published.stop.clone(), name.to_owned());
        tokio::spawn(async move {
            let serving = async {
                loop {
                    let Ok((host, _)) = listener.accept().await else { continue };
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
