//! Connections into sandboxes, and whose those are that come out of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::{Mutex, Semaphore};

use crate::backend::local::control;
use crate::backend::local::protocol::{End, Reply, Request};
use crate::egress::{Caller, Programs};
use crate::sandbox::Protocol;
use crate::transport::Link;

/// Leads to the process 1 of one sandbox, of that very start of it.
#[derive(Clone)]
pub struct Door {
    name: Arc<str>,
    link: Arc<Mutex<Link>>,
    /// A guest may have a thousand connections refused at once: they are not to queue up here.
    looking: Arc<Semaphore>,
}

impl Door {
    /// To who listens at `control` now.
    pub async fn open(name: &str, control: &str) -> io::Result<Door> {
        let link = Link::over(UnixStream::connect(control).await?);
        let (link, looking) = (Arc::new(Mutex::new(link)), Arc::new(Semaphore::new(1)));
        Ok(Door { name: name.into(), link, looking })
    }

    /// A connection to an address of the sandbox's own, which sees `from` as the other end.
    pub async fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(self.socket(to, from, Protocol::Tcp).await?.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }

    /// The same for datagrams.
    pub async fn datagrams(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.socket(to, from, Protocol::Udp).await?.into())
    }

    async fn socket(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        protocol: Protocol,
    ) -> io::Result<OwnedFd> {
        let (_, mut fds) = self.ask(Request::Dial { to, from, protocol }).await?;
        fds.pop().ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    async fn ask(&self, request: Request) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let Door { name, link, .. } = self.clone();
        // In a task of its own: an answer that nobody waits for would be taken for the next one's.
        let asked = tokio::spawn(async move {
            let mut link = link.lock().await;
            control::ask(&mut link, &name, &request, &[]).await
        });
        asked.await?.map_err(io::Error::other)
    }
}

#[async_trait]
impl Programs for Door {
    async fn of(&self, Caller { protocol, from, to }: Caller) -> Option<String> {
        let _permit = self.looking.try_acquire().ok()?;
        match self.ask(Request::Owner(End { protocol, from, to })).await {
            Ok((Reply::Owner(name), _)) => name,
            _ => None,
        }
    }
}
