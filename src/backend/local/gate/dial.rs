//! Connections into sandboxes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::backend::local::control;
use crate::backend::local::link::Link;
use crate::backend::local::protocol::Request;

/// Leads to the process 1 of one sandbox, of that very start of it.
#[derive(Clone)]
pub struct Door {
    name: Arc<str>,
    link: Arc<Mutex<Link>>,
}

impl Door {
    /// To who listens at `control` now.
    pub async fn open(name: &str, control: &str) -> io::Result<Door> {
        let link = Link::over(UnixStream::connect(control).await?);
        Ok(Door { name: name.into(), link: Arc::new(Mutex::new(link)) })
    }

    /// A connection to an address of the sandbox's own.
    pub async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let Door { name, link } = self.clone();
        // In a task of its own: an answer that nobody waits for would be taken for the next one's.
        let asked = tokio::spawn(async move {
            let mut link = link.lock().await;
            control::ask(&mut link, &name, &Request::Dial { to }, &[]).await
        });
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (_, mut fds) = asked.await?.map_err(io::Error::other)?;
        let stream = TcpStream::from_std(fds.pop().ok_or_else(refused)?.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }
}
