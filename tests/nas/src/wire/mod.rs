//! The port: TLS or not, HTTP, WebSocket.

mod files;
mod head;
mod http;
mod shell;
mod socket;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::nas::Nas;
use stream::Stream;

pub use tls::identity;

/// Serves connections until the listener's task is aborted.
pub async fn serve(nas: Arc<Nas>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let Ok((tcp, remote)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (nas, acceptor) = (nas.clone(), acceptor.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            connection(nas, tcp, remote, acceptor).await;
        });
    }
}

/// TLS and plain text come in at the same port: the first byte tells them apart.
async fn connection(nas: Arc<Nas>, tcp: TcpStream, remote: SocketAddr, acceptor: TlsAcceptor) {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) if first[0] == 0x16 => {
            if let Ok(tls) = acceptor.accept(tcp).await {
                http::serve(nas, Stream::new(tls), remote, true).await;
            }
        }
        Ok(1) => http::serve(nas, Stream::new(tcp), remote, false).await,
        _ => {}
    }
}
