//! Opening connections: TCP, TLS, HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes};

use super::address::Address;
use super::connection::Socket;
use super::error::RpcError;
use crate::transport::http::Duplex;
use crate::transport::tls::{self, Tls, TlsError, Trust};

/// How long opening a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that an answer of HTTP may hold.
const MOST: usize = 1 << 20;

/// Opens connections to one server.
pub(super) struct Dialer {
    pub address: Address,
    tls: Option<Tls>,
    /// Whether its certificate has to be in order by itself.
    ask: bool,
}

impl Dialer {
    pub fn new(address: Address, trust: Trust) -> Result<Dialer, RpcError> {
        let ask = matches!(trust, Trust::System);
        let tls = match address.tls {
            true => Some(
                Tls::new(&address.host, address.port, trust, None)
                    .map_err(|why| RpcError::Unreachable { place: address.to_string(), why })?,
            ),
            false => None,
        };
        Ok(Dialer { address, tls, ask })
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> RpcError {
        RpcError::Unreachable { place: self.address.to_string(), why: why.to_string() }
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done,
            Err(_) => Err(self.unreachable("it does not answer")),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, RpcError> {
        let Some(tls) = &self.tls else {
            let at = (self.address.host.as_str(), self.address.port);
            let stream = TcpStream::connect(at).await.map_err(|error| self.unreachable(error))?;
            let _ = stream.set_nodelay(true);
            return Ok(Box::new(stream));
        };
        match tls.connect().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(TlsError::Unreachable(error)) => Err(self.unreachable(error)),
            Err(TlsError::Untrusted(why)) => {
                let address = &self.address;
                let mut text = format!("{address} is not trusted: {why}");
                if self.ask
                    && let Some(shown) = tls::shown(&address.host, address.port).await
                {
                    text.push_str(&format!("; it shows one with the fingerprint {shown}"));
                }
                Err(RpcError::Untrusted(text))
            }
        }
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, path: &str) -> Result<Socket, RpcError> {
        let work = async {
            let stream = self.connect().await?;
            let uri = format!("ws://{}{path}", self.address);
            // Answers have no limit on the server.
            let config = WebSocketConfig::default()
                .max_message_size(Some(256 << 20))
                .max_frame_size(Some(256 << 20));
            let opened =
                tokio_tungstenite::client_async_with_config(uri, stream, Some(config)).await;
            match opened {
                Ok((socket, _)) => Ok(socket),
                Err(tungstenite::Error::Http(answer)) => Err(self.unreachable(format!(
                    "it answers {}{}",
                    answer.status(),
                    match answer.status().as_u16() {
                        404 => ": is it a TrueNAS of 25.04 or later?",
                        502..=504 => ": its middleware is not up",
                        _ => "",
                    }
                ))),
                Err(error) => Err(self.unreachable(error)),
            }
        };
        self.within(work).await
    }

    /// Gets a page: the status and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, Bytes), RpcError> {
        let work = async {
            let stream = self.connect().await?;
            let wrong = |error: &dyn std::fmt::Display| self.unreachable(error);
            let (mut sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
            tokio::spawn(async move { drop(connection.await) });
            let request = Request::get(path)
                .header(header::HOST, self.address.to_string())
                .header(header::USER_AGENT, concat!("sandscript/", env!("CARGO_PKG_VERSION")))
                .body(Empty::<Bytes>::new())
                .map_err(|error| wrong(&error))?;
            let answer = sender.send_request(request).await.map_err(|error| wrong(&error))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MOST).collect().await;
            Ok((status, body.map_err(|error| wrong(&error))?.to_bytes()))
        };
        self.within(work).await
    }
}
