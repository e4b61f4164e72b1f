//! A client of the tests' own, thin enough to send anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use nas_sim::Sim;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// What a connection can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Nothing in the tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a simulator.
pub struct Client {
    socket: WebSocketStream<Box<dyn Duplex>>,
    next: i64,
    /// Messages that are no reply to a call.
    pub events: VecDeque<Value>,
}

/// A connection to the port, with TLS that is verified or without.
pub async fn dial(address: &str, certificate: Option<&str>) -> Box<dyn Duplex> {
    let tcp = TcpStream::connect(address).await.expect("the simulator listens");
    let Some(pem) = certificate else { return Box::new(tcp) };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS"))
}

/// Speaks HTTP: gives the status and the body.
pub async fn http(sim: &Sim, request: &[u8]) -> (u16, String) {
    let mut stream = dial(&sim.address.to_string(), Some(&sim.certificate)).await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default();
    (status, body)
}

/// A WebSocket at some path.
pub async fn socket(sim: &Sim, path: &str, tls: bool) -> WebSocketStream<Box<dyn Duplex>> {
    let address = sim.address.to_string();
    let stream = dial(&address, tls.then_some(sim.certificate.as_str())).await;
    client_async(format!("ws://localhost{path}"), stream).await.expect("a handshake").0
}

impl Client {
    /// Connects without logging in.
    pub async fn anonymous(sim: &Sim, path: &str, tls: bool) -> Self {
        Self { socket: socket(sim, path, tls).await, next: 0, events: VecDeque::new() }
    }

    /// Connects in plain text to a simulator of another process, and logs in with root's password.
    pub async fn elsewhere(address: &str) -> Self {
        let stream = dial(address, None).await;
        let (socket, _) =
            client_async("ws://localhost/api/current", stream).await.expect("a handshake");
        let mut client = Self { socket, next: 0, events: VecDeque::new() };
        assert_eq!(client.ok("auth.login", json!(["root", "root"])).await, true);
        client
    }

    /// Connects and logs in with root's key.
    pub async fn root(sim: &Sim) -> Self {
        let mut client = Self::anonymous(sim, "/api/current", true).await;
        client.login("root", &sim.keys[0]).await;
        client
    }

    /// Logs in with a key.
    pub async fn login(&mut self, username: &str, key: &str) {
        let login = json!({"mechanism": "API_KEY_PLAIN", "username": username, "api_key": key});
        assert_eq!(self.ok("auth.login_ex", json!([login])).await["response_type"], "SUCCESS");
    }

    /// Sends a message as it is.
    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection is open");
    }

    /// Sends a call and gives its id.
    pub async fn start(&mut self, method: &str, params: Value) -> i64 {
        self.next += 1;
        let call = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        self.send(Message::text(call.to_string())).await;
        self.next
    }

    /// The next message as JSON; `None` when the connection closes.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match tokio::time::timeout(LIMIT, self.socket.next()).await.expect("a message") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).ok(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next message, if one comes within this time.
    pub async fn within(&mut self, time: Duration) -> Option<Value> {
        tokio::time::timeout(time, self.next()).await.ok().flatten()
    }

    /// The code that the connection is closed with; 1006 when it is just cut.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match tokio::time::timeout(LIMIT, self.socket.next()).await.expect("a close") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(Message::Close(None))) => return 1005,
                Some(Err(Error::ConnectionClosed) | Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    }

    /// The reply to a call.
    pub async fn reply(&mut self, id: i64) -> Result<Value, Value> {
        if let Some(at) = self.events.iter().position(|m| m["id"] == id) {
            return answer(self.events.remove(at).unwrap());
        }
        loop {
            let message = self.next().await.expect("the connection stays open");
            if message["id"] == id {
                return answer(message);
            }
            self.events.push_back(message);
        }
    }

    /// A call and its reply.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.start(method, params).await;
        self.reply(id).await
    }

    /// A call that succeeds.
    pub async fn ok(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params).await {
            Ok(value) => value,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// A call that fails.
    pub async fn fails(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params).await {
            Ok(value) => panic!("{method} answers {value}"),
            Err(error) => error,
        }
    }

    /// A job seen to its end; its row.
    pub async fn job(&mut self, method: &str, params: Value) -> Value {
        let id = self.ok(method, params).await;
        self.wait(&id).await
    }

    /// The end of a job.
    pub async fn wait(&mut self, id: &Value) -> Value {
        self.patient(id, 1).await
    }

    /// The end of a job that may take some minutes.
    pub async fn patient(&mut self, id: &Value, minutes: u32) -> Value {
        assert!(id.is_i64(), "{id} is no job");
        for _ in 0..2400 * minutes {
            let rows = self.ok("core.get_jobs", json!([[["id", "=", id]]])).await;
            if ["SUCCESS", "FAILED", "ABORTED"].iter().any(|s| rows[0]["state"] == *s) {
                return rows[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("job {id} does not end");
    }

    /// A job that succeeds; its result.
    pub async fn done(&mut self, method: &str, params: Value) -> Value {
        let row = self.job(method, params).await;
        assert_eq!(row["state"], "SUCCESS", "{method}: {} {}", row["error"], row["logs_excerpt"]);
        row["result"].clone()
    }

    /// Runs a command on the host by a cron job, as clients do; its row.
    pub async fn host(&mut self, command: &str) -> Value {
        let cron = json!([{"user": "root", "command": command, "enabled": false, "stdout": false}]);
        let id = self.ok("cronjob.create", cron).await["id"].clone();
        let row = self.job("cronjob.run", json!([id, false])).await;
        self.ok("cronjob.delete", json!([id])).await;
        row
    }
}

fn answer(mut message: Value) -> Result<Value, Value> {
    if message.get("error").is_some() {
        Err(message["error"].take())
    } else {
        Ok(message["result"].take())
    }
}
